//! Lets a synchronous embedder answer what batches did not answer in time.

use std::sync::Arc;

use super::{
    course::Course,
    index_file::{IndexedText, ShardIndex},
    record::{Bill, FailedText, Record},
    results::ranges,
    rows_file::RowsFile,
    shard_file,
};
use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Lane, Payee, Result, Tier, Truncation, all::embed_all,
};

/// The texts of a call are those of whole lines, and at least so many if there are.
const CALL_TEXTS: usize = 512;

/// The results of a call to the standby.
#[derive(Default)]
struct Handed {
    answered: Vec<u64>,
    charges: Charges,
    failed: Vec<FailedText>,
    /// Why some texts have neither.
    error: Option<Error>,
}

impl Course {
    /// Lets the standby answer the next texts of a shard in one call, or ends the shard if there are none.
    pub(super) async fn hand_over(&mut self, shard: u32) -> Result<()> {
        let Some(standby) = self.context.standby.as_ref().map(|standby| standby.embedder.clone()) else {
            return Ok(());
        };
        let done = self.state.open.get(&shard).map(|open| open.handed.clone()).unwrap_or_default();
        let index = ShardIndex::read(&self.folder.index(shard))?;
        let is_left = |text: &&IndexedText| !done.contains(&text.index);
        let (mut lines, mut count) = (Vec::new(), 0);
        for (number, line) in (0..).zip(&index.lines) {
            let left = line.texts.iter().filter(is_left).count();
            if left > 0 && count < CALL_TEXTS {
                lines.push(number);
                count += left;
            }
        }
        if count == 0 {
            let delete = self.input_to_delete(shard);
            self.record(Record::ended(shard, Vec::new(), delete))?;
            self.remove_input(shard);
            return Ok(());
        }
        let mut texts: Vec<(String, &IndexedText)> = Vec::with_capacity(count);
        shard_file::read_lines(&self.folder.shard(shard), lines.into_iter(), |line, inputs| {
            let of_line = index.lines.get(line as usize).map_or(&[][..], |line| &line.texts);
            texts.extend(inputs.into_iter().zip(of_line).filter(|(_, text)| is_left(text)));
            Ok(())
        })?;
        self.strip_prompts(&mut texts);
        let Handed { answered, charges, failed, error } = self.ask_standby(&standby, &texts).await?;
        self.rows()?.sync()?;
        self.context.step("standby answered");
        let mut settled: Vec<u64> = answered.iter().copied().chain(failed.iter().map(|text| text.index)).collect();
        settled.sort_unstable();
        let is_any_settled = !settled.is_empty();
        if is_any_settled || !charges.is_none() {
            let (texts, bills) = (ranges(settled.into_iter()), Bill::of(&charges));
            self.record(Record::Handed { shard, texts, answered: answered.len() as u64, bills, failed })?;
            self.shared.present.with(|present| answered.iter().for_each(|&index| present.set(index, true)));
        }
        match error {
            // The other texts are asked for in the next call, which may succeed.
            Some(error) if !is_any_settled || !error.is_retryable() && error.bad_texts().is_empty() => {
                self.wait_after(error).await
            }
            _ => Ok(()),
        }
    }

    /// Takes the prompts off: the standby puts its own before the texts.
    fn strip_prompts(&self, texts: &mut [(String, &IndexedText)]) {
        let prompt = self.context.endpoint.space.prompts().before_by_client(self.state.plan.kind(), "").into_owned();
        for (text, _) in texts {
            if let Some(bare) = text.strip_prefix(&prompt) {
                *text = bare.to_owned();
            }
        }
    }

    /// Makes one call, and keeps the rows that it brings, also if it fails.
    async fn ask_standby(&mut self, standby: &Arc<dyn Embedder>, texts: &[(String, &IndexedText)]) -> Result<Handed> {
        let inputs: Vec<&str> = texts.iter().map(|(text, _)| text.as_str()).collect();
        // They are truncated already, if they were too long.
        let batch =
            Batch::new(self.state.plan.kind(), &inputs).with_truncation(Truncation::Truncate).with_lane(Lane::Bulk);
        let result = embed_all(standby, batch.with_space(self.context.endpoint.space.id())).await;
        // Somebody is owed, whoever it is.
        let payee = Payee::new(standby.to_string(), self.context.endpoint.space.model(), Tier::Standard);
        let mut handed = Handed::default();
        let error = match result {
            Ok(rows) => {
                handed.charges = rows.charges().clone().attributed_to(&payee);
                let places: Vec<usize> = (0..rows.len()).collect();
                self.keep_handed(texts, &places, &rows, &mut handed).await?;
                return Ok(handed);
            }
            Err(error) => error,
        };
        handed.charges = error.total_charges().attributed_to(&payee);
        if let Some(partial) = error.partial() {
            self.keep_handed(texts, partial.indices(), partial.embeddings(), &mut handed).await?;
        }
        for bad in error.bad_texts() {
            if let Some((_, text)) = texts.get(bad.index).filter(|(_, text)| !handed.answered.contains(&text.index)) {
                handed.failed.push(FailedText::of(text.index, &error));
            }
        }
        handed.error = Some(error);
        Ok(handed)
    }

    async fn keep_handed(
        &mut self,
        texts: &[(String, &IndexedText)],
        places: &[usize],
        rows: &Embeddings,
        handed: &mut Handed,
    ) -> Result<()> {
        let (mut keys, mut kept, mut marks) = (Vec::with_capacity(places.len()), Vec::new(), Vec::new());
        for (row, (&place, vector)) in places.iter().zip(rows.rows()).enumerate() {
            let Some((_, text)) = texts.get(place) else { continue };
            if !RowsFile::is_there(vector) {
                let error = Error::new(ErrorKind::Protocol, "a vector of zeros");
                handed.failed.push(FailedText::of(text.index, &error));
                continue;
            }
            self.rows()?.put(text.index, vector)?;
            handed.answered.push(text.index);
            marks.extend(text.truncated.then_some(keys.len()));
            keys.push(text.key);
            kept.push(row);
        }
        if let Some(cache) = &self.context.cache {
            cache.keep(&keys, &rows.select(&kept).with_truncated(marks)).await;
        }
        Ok(())
    }
}
