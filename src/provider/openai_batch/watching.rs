//! Looks at the batches that run, and takes notice of those that have ended.

use super::{
    batch_object::{self, BatchError, BatchObject, BatchStatus},
    course::{Course, trouble_of},
    record::Record,
    state::Step,
};
use crate::{Error, ErrorKind, Result};

/// Maximum times that a batch that fails as a whole is created, unless the account has no room for it.
const TRIES: u32 = 3;

/// Words in the codes of errors that name a line and are about what all lines have in common.
const OF_ALL_LINES: [&str; 5] = ["model", "url", "method", "endpoint", "custom_id"];

/// How often a batch is looked at that is gone, or that lacks its files.
const LOOKS: u32 = 5;

impl Course {
    /// Looks at each batch that runs, after a while.
    pub(super) async fn poll(&mut self) -> Result<()> {
        let wait = self.pace.next_poll();
        self.wait(wait).await;
        let ends_all = self.state.cancelling || self.state.handing_over;
        let running = self.state.open.values().filter_map(|open| match &open.step {
            Step::Running { batch, .. } => Some((open.shard.number, batch.clone())),
            _ => None,
        });
        let running: Vec<_> = running.collect();
        let mut wait = None;
        self.trouble = None;
        for (shard, id) in running {
            let looked = if ends_all && !self.cancelled.contains(&shard) {
                self.cancel_batch(shard, &id).await
            } else {
                self.context.api.batch(&id).await
            };
            match looked {
                Ok(batch) => {
                    self.pace.succeeded();
                    self.see(shard, batch)?;
                }
                // The provider may have forgotten it. Who cancels a job wants an end to it.
                Err(error) if self.state.cancelling && error.status() == Some(404) && self.seen_odd(shard) >= LOOKS => {
                    let (status, bad_lines) = ("cancelled".to_owned(), Vec::new());
                    self.record(Record::Seen { shard, status, output: None, error: None, bad_lines })?;
                }
                // The batch may be fine all the same: only its own words say what became of it.
                Err(error) => {
                    let (id, trouble) = (self.context.api.shown(&id), trouble_of(&error));
                    self.trouble = Some(format!("batch {id} cannot be looked at: {trouble}"));
                    wait = wait.max(Some(self.pace.after_failure(error.retry_after())));
                }
            }
        }
        if let Some(wait) = wait {
            self.wait(wait).await;
        }
        Ok(())
    }

    /// Asks for the end of a batch, and looks at it. It may have ended before.
    async fn cancel_batch(&mut self, shard: u32, id: &str) -> Result<BatchObject> {
        let asked = self.context.api.cancel(id).await;
        self.context.step("cancel asked");
        match asked {
            Ok(batch) => {
                self.cancelled.insert(shard);
                Ok(batch)
            }
            Err(refusal) => {
                let looked = self.context.api.batch(id).await;
                if looked.as_ref().is_ok_and(|batch| !batch.status.is_terminal()) {
                    self.trouble = Some(trouble_of(&refusal));
                }
                looked
            }
        }
    }

    /// Takes notice of a batch.
    fn see(&mut self, shard: u32, batch: BatchObject) -> Result<()> {
        if let BatchStatus::Unknown(status) = &batch.status {
            self.trouble = Some(format!("batch {} is {status:?}, which this program does not know", batch.id));
        }
        if self.pace.saw(shard, batch.completed, batch.total) {
            self.publish(None);
        }
        if !batch.status.is_terminal() {
            return Ok(());
        }
        let has_no_file = batch.output_file_id.is_none() && batch.error_file_id.is_none();
        if batch.status == BatchStatus::Completed && has_no_file && batch.completed > Some(0) && !self.state.cancelling
        {
            return self.lacks_files(shard, &batch);
        }
        self.odd.remove(&shard);
        self.pace.forget(shard);
        let lines = self.state.open.get(&shard).map_or(0, |open| open.shard.lines);
        // A wrong model or URL is no matter of the line's texts.
        let is_of_texts = |error: &&BatchError| !OF_ALL_LINES.iter().any(|word| error.code.contains(word));
        let line_of = |error: &BatchError| error.line.and_then(|line| u32::try_from(line).ok());
        let mut bad_lines: Vec<u32> = batch
            .errors
            .iter()
            .filter(is_of_texts)
            .filter_map(line_of)
            .filter(|line| (1..=lines).contains(line))
            .collect();
        bad_lines.sort_unstable();
        bad_lines.dedup();
        // If all lines are wrong, what they have in common is wrong: the model or the URL, and no text.
        let is_of_lines = !bad_lines.is_empty() && (bad_lines.len() as u32) < lines.max(2);
        if batch.status == BatchStatus::Failed && !is_of_lines && batch.output_file_id.is_none() {
            return self.batch_failed(shard, &batch);
        }
        self.context.step("seen");
        let status = batch.status.as_str().to_owned();
        let (output, error) = (batch.output_file_id, batch.error_file_id);
        self.record(Record::Seen { shard, status, output, error, bad_lines })?;
        self.context.note_ended();
        Ok(())
    }

    /// Waits for the files of a batch that has finished lines. Without them the lines would be paid for again.
    fn lacks_files(&mut self, shard: u32, batch: &BatchObject) -> Result<()> {
        let lines = batch.completed.unwrap_or_default();
        let id = self.context.api.shown(&batch.id);
        let message = format!("batch {id} has finished {lines} lines, and names no file of results");
        if self.seen_odd(shard) < LOOKS {
            self.trouble = Some(message);
            return Ok(());
        }
        self.odd.remove(&shard);
        let advice = "look at it at the provider, and `resume` the job, or `cancel` it";
        Err(Error::new(ErrorKind::Protocol, format!("{message}: {advice}")))
    }

    /// Decides about a batch that failed as a whole and names no line.
    fn batch_failed(&mut self, shard: u32, batch: &BatchObject) -> Result<()> {
        let code = batch.errors.first().map(|error| error.code.clone());
        let is_full = batch.errors.iter().any(|error| error.code == batch_object::NO_ROOM);
        let limit = batch_object::enqueued_limit(&batch.errors);
        self.record(Record::Refused { shard, code: code.clone(), limit, file_gone: false })?;
        if is_full {
            self.context.note_full(limit);
        }
        let failures = self.state.open.get(&shard).map_or(0, |open| open.failures);
        if is_full || failures < TRIES || !self.state.sends_more() {
            return Ok(());
        }
        let code = code.unwrap_or_default();
        let message = format!(
            "batch {} failed before it began, {failures} times, and names no line: look at it at the provider, and \
             `resume` the job or `cancel` it; its results so far are kept",
            batch.id
        );
        Err(Error::new(ErrorKind::Config, message).with_provider_code(&code))
    }
}
