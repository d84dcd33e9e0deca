//! Says how far a job is: [`JobStatus`], [`JobState`].

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::{InputKind, named::named};

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// Its batches are uploaded, created and looked at, while a process has the job open. A job that nobody has open shows
    /// this too: [`resume`](super::OpenAiBatch::resume) it.
    Running,
    /// It waits until the account has room for more enqueued tokens.
    Waiting,
    /// It waits for a person: the account has no credit, a disk is full or a setting is wrong.
    /// [`JobStatus::trouble`] says why, and [`Job::resume`](super::Job::resume) goes on.
    Paused,
    /// It is being cancelled. Finished rows are kept.
    Cancelling,
    /// Another process works on it.
    Elsewhere,
    /// It has ended: each text has a row or an error.
    Completed,
    /// It has ended because it was cancelled. Some texts may have neither a row nor an error.
    Cancelled,
}

named! {
    /// Returns the name, such as `running`.
    JobState, "a state of a job",
    Running = "running",
    Waiting = "waiting",
    Paused = "paused",
    Cancelling = "cancelling",
    Elsewhere = "elsewhere",
    Completed = "completed",
    Cancelled = "cancelled",
}

impl JobState {
    /// Whether the job has ended.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

/// How far a job is, as last known: see [`Job::progress`](super::Job::progress).
///
/// `Display` is one line for people.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobStatus {
    /// The job's id, which is the name of its folder.
    pub id: String,
    /// The state of the job.
    pub state: JobState,
    /// The model's name.
    pub model: String,
    /// The dimensions of its vectors.
    pub dimensions: usize,
    /// The kind of its texts.
    pub kind: InputKind,
    /// All texts of the job.
    pub texts: u64,
    /// The texts whose rows are on the disk.
    pub answered: u64,
    /// The texts among them that the cache answered.
    pub cached: u64,
    /// The texts that got no row and are not sent again.
    pub failed: u64,
    /// Estimated finished texts: answered, failed, and those that the provider reports as done.
    pub processed: u64,
    /// The tokens that were billed so far.
    pub tokens: u64,
    /// The batches so far, and those that are planned.
    pub batches: u32,
    /// The batches that the provider has been given.
    pub batches_sent: u32,
    /// The batches that have ended and whose results are kept.
    pub batches_ended: u32,
    /// When the job was submitted.
    pub created: SystemTime,
    /// Estimated time until the end, at the average pace since the job was submitted, pauses included; `None` before the
    /// first result.
    pub remaining: Option<Duration>,
    /// The present trouble, in words: a provider that does not answer, an account without money.
    pub trouble: Option<String>,
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, state, texts, answered, failed, batches, batches_ended, .. } = self;
        write!(f, "{id}: {state}, {answered} of {texts} texts, {batches_ended} of {batches} batches")?;
        if *failed > 0 {
            write!(f, ", {failed} failed")?;
        }
        match &self.trouble {
            Some(trouble) => write!(f, " ({trouble})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_for_people() {
        let status = JobStatus {
            id: "b".into(),
            state: JobState::Running,
            model: "m".into(),
            dimensions: 8,
            kind: InputKind::Document,
            texts: 10,
            answered: 4,
            cached: 0,
            failed: 2,
            processed: 6,
            tokens: 9,
            batches: 3,
            batches_sent: 2,
            batches_ended: 1,
            created: SystemTime::UNIX_EPOCH,
            remaining: None,
            trouble: Some("no answer".into()),
        };
        assert_eq!(status.to_string(), "b: running, 4 of 10 texts, 1 of 3 batches, 2 failed (no answer)");
    }

    #[test]
    fn states_have_names_both_ways() {
        crate::named::check_names(JobState::ALL);
    }
}
