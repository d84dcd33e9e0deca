//! Embeds through OpenAI's Batch API, at half the price: [`OpenAiBatch`], its [`Job`]s, and what they do on the disk.

mod action;
mod api;
mod batch_object;
mod builder;
mod context;
mod course;
mod creating;
mod disk;
mod drive;
mod embedder;
mod folder;
mod handing_over;
mod handle;
mod index_file;
mod ingestion;
mod inner;
mod job;
mod job_file;
mod job_id;
mod journal;
mod line_id;
mod locked_file;
mod outcome;
mod pace;
mod planning;
mod present;
mod record;
mod report;
mod result_line;
mod results;
mod rows_file;
mod shard_file;
mod shard_set;
mod state;
mod status;
#[cfg(test)]
mod test_process;
mod texts_hasher;
mod verdict;
mod watching;
mod worker;

pub use self::{
    builder::OpenAiBatchBuilder,
    embedder::OpenAiBatch,
    job::Job,
    report::{FailedText, JobReport},
    status::{JobState, JobStatus},
};

/// Opens the reading of lines to `benches/peers` and `tests/fuzz`. Not part of the API.
#[cfg(any(feature = "__bench", fuzzing))]
#[allow(missing_docs, unnameable_types)]
pub mod lines {
    use super::result_line::{self, Outcome};
    use crate::{Embeddings, Result, provider::OpenAi};

    /// Reads a line: its id, and its rows or why it has none. `None` if it is blank or its id is not known.
    ///
    /// # Errors
    /// Those of a line that is not readable at all.
    pub fn read(
        line: &[u8],
        texts_of: impl Fn(&str) -> Option<usize>,
        embedder: &OpenAi,
    ) -> Result<Option<(String, Result<Embeddings>)>> {
        let line = result_line::read(line, texts_of, &embedder.0)?;
        Ok(line.map(|line| match line.outcome {
            Outcome::Rows(rows) => (line.custom_id, Ok(rows)),
            Outcome::Failed(error) => (line.custom_id, Err(error)),
        }))
    }
}
