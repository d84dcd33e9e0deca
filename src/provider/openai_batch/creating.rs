//! Uploads input files and creates their batches, each once.

use tokio::time::Instant;

use super::{
    api,
    batch_object::{BatchObject, BatchStatus, NO_ROOM},
    course::{Course, trouble_of},
    index_file::ShardIndex,
    record::Record,
    state::{InputFile, Step},
};
use crate::{Error, ErrorKind, Result};

/// Maximum replies to an upload that are none.
const ODD_UPLOADS: u32 = 10;

/// Maximum times that the file of a shard is uploaded because it is gone.
const TRIES: u32 = 3;

impl Course {
    /// Uploads the input file of a shard.
    pub(super) async fn upload(&mut self, shard: u32) -> Result<()> {
        let name = format!("{}-{shard:05}.jsonl", self.state.plan.id);
        match self.context.api.upload(&self.folder.shard(shard), &name).await {
            Ok(file) => {
                self.all_is_well();
                self.context.step("uploaded");
                self.record(Record::Uploaded { shard, file: file.id, created_at: file.created_at })
            }
            // The page of some proxy, which may pass; or the base URL is wrong.
            Err(error) if error.kind() == ErrorKind::Protocol && self.seen_odd(shard) < ODD_UPLOADS => {
                self.wait_with(&error).await
            }
            Err(error) => {
                self.odd.remove(&shard);
                self.wait_after(error).await
            }
        }
    }

    /// Creates the batch of a shard.
    pub(super) async fn create(&mut self, shard: u32) -> Result<()> {
        let Some(file) = self.file_of(shard) else { return Ok(()) };
        let token = format!("{:032x}", fastrand::u128(..));
        self.record(Record::Creating { shard, token: token.clone() })?;
        self.context.step("creating");
        let number = shard.to_string();
        let metadata =
            [("docvector_job", &*self.state.plan.id), ("docvector_shard", &number), ("docvector_token", &token)];
        let error = match self.context.api.create(&file.id, &metadata).await {
            Ok(batch) => {
                self.all_is_well();
                self.context.step("created");
                return self.record(Record::Created { shard, batch: batch.id });
            }
            Err(error) => error,
        };
        if api::may_have_had_effect(&error) {
            // The journal says that it is being created: it is looked for next.
            self.trouble = Some(trouble_of(&error));
            return Ok(());
        }
        // Nothing was made. A refusal may be about the file: after 30 days it is gone.
        let is_of_file = matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Config);
        let file_gone = is_of_file && self.is_gone(&file.id).await;
        let code = error.provider_code().map(str::to_owned);
        self.record(Record::Refused { shard, code, limit: None, file_gone })?;
        // A server that forgets files at once would get them for ever.
        if file_gone && self.seen_odd(shard) < TRIES {
            self.wait_with(&error).await
        } else {
            self.wait_after(error).await
        }
    }

    /// Whether the provider surely has no such file.
    async fn is_gone(&self, file: &str) -> bool {
        let looked = self.context.api.file_bytes(file).await;
        looked.err().is_some_and(|error| error.status() == Some(404))
    }

    /// Makes the error of a text for which the account never has room.
    pub(super) fn never_fits(&self, shard: u32) -> Error {
        let tokens = self.state.open.get(&shard).map_or(0, |open| open.shard.tokens);
        let index = match ShardIndex::read(&self.folder.index(shard)) {
            Ok(index) => index,
            Err(error) => return error,
        };
        let text = index.texts().next().map_or(0, |text| text.index);
        let limit = self.context.room().limit.unwrap_or_default();
        let message = format!(
            "text {text} has {tokens} tokens, as the provider judges them, and the account may have {limit} enqueued: raise the \
             account's limit, build the embedder again and `resume` the job, or `cancel` it",
        );
        Error::new(ErrorKind::Config, message).with_provider_code(NO_ROOM)
    }

    fn file_of(&self, shard: u32) -> Option<InputFile> {
        self.state.open.get(&shard)?.step.file().cloned()
    }

    /// Looks for a batch whose creation got no answer, for as long as the list may lag.
    pub(super) async fn look_for(&mut self, shard: u32) -> Result<()> {
        let began = Instant::now();
        let patience = self.context.settings.list_patience;
        loop {
            // The list is read again after the patience has ended: what came in time is seen.
            let is_last = began.elapsed() >= patience;
            match self.search(shard).await {
                Ok(Some(batch)) => {
                    self.all_is_well();
                    self.context.step("found");
                    return self.record(Record::Created { shard, batch });
                }
                Ok(None) if is_last => {
                    self.context.step("not found");
                    return self.record(Record::Refused { shard, code: None, limit: None, file_gone: false });
                }
                Ok(None) => {
                    let wait = self.pace.shortest().min(patience.saturating_sub(began.elapsed()));
                    self.wait(wait).await;
                }
                // Somebody has to see to it. Nothing is created meanwhile.
                Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::QuotaExhausted) => {
                    return Err(error);
                }
                Err(error) => {
                    // No failure of the list says anything of the batch.
                    self.trouble = Some(trouble_of(&error));
                    let wait = self.pace.after_failure(error.retry_after());
                    self.wait(wait).await;
                }
            }
        }
    }

    /// Searches the list of batches for that of a shard, back to the time of its upload.
    async fn search(&mut self, shard: u32) -> Result<Option<String>> {
        let Some(open) = self.state.open.get(&shard) else { return Ok(None) };
        let Step::Creating { file, token } = &open.step else { return Ok(None) };
        let is_it = |batch: &BatchObject| batch.metadata.get("docvector_token") == Some(token);
        // A server that drops metadata still names the file. A batch of it that failed was noticed before.
        let may_be = |batch: &BatchObject| {
            batch.input_file_id.as_deref() == Some(&file.id) && batch.status != BatchStatus::Failed
        };
        let (mut found, mut after): (Option<BatchObject>, Option<String>) = (None, None);
        loop {
            let mut page = self.context.api.batches(after.as_deref()).await?;
            if let Some(exact) = page.batches.iter().position(is_it) {
                return Ok(Some(page.batches.swap_remove(exact).id));
            }
            // A minute, because the clocks of two servers may differ.
            let is_older = |batch: &BatchObject| matches!((batch.created_at, file.created_at), (Some(batch), Some(file)) if batch + 60 < file);
            let is_newest_first = page.batches.is_sorted_by(|one, next| one.created_at >= next.created_at);
            let is_end = !page.has_more || (is_newest_first && page.batches.last().is_none_or(is_older));
            found = found.or_else(|| page.batches.into_iter().find(may_be));
            match page.last_id {
                Some(last) if !is_end && after.as_ref() != Some(&last) => after = Some(last),
                _ => return Ok(found.map(|batch| batch.id)),
            }
        }
    }
}
