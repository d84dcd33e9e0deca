//! Works on batch jobs for the commands that do so: opens them, feeds them, follows them, and writes their rows.

pub(crate) mod blamed_texts;
pub(crate) mod finish;
pub(crate) mod follow;
pub(crate) mod hints;
pub(crate) mod job_progress;
pub(crate) mod open;
pub(crate) mod rows;
pub(crate) mod texts;
pub(crate) mod words;
