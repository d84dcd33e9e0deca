//! Keeps the results of a batch that has ended, and plans what it left over.

use std::fs;

use super::{
    context::Context,
    course::Course,
    index_file::ShardIndex,
    ingestion::{Ingested, Ingestion},
    record::{Bill, FailedText, Record, Shard},
    shard_set::ShardSet,
    state::Step,
    verdict::Verdict,
};
use crate::{Error, ErrorKind, Result};

/// Maximum times that a text is sent while the provider has no answer for it. Then it fails.
const ROUNDS: u32 = 5;

/// Maximum times that files are read which are not what the provider says they are.
const READS: u32 = 10;

/// How often a file is tried to be deleted.
const DELETE_TRIES: u32 = 3;

/// From this round on, each text has a line of its own, so that none fails for another.
const APART_FROM: u32 = 2;

impl Course {
    /// Keeps what a batch that has ended brought. It can be done any number of times, until the journal says that it is
    /// done: the provider's files and the rows stay the same.
    pub(super) async fn ingest(&mut self, shard: u32) -> Result<()> {
        let Some(open) = self.state.open.get(&shard).cloned() else { return Ok(()) };
        let Step::Ended { file, status, output, error, bad_lines } = open.step else { return Ok(()) };
        let index = ShardIndex::read(&self.folder.index(shard))?;
        let files: Vec<&String> = [&output, &error].into_iter().flatten().collect();
        let silent = if status == "completed" { Verdict::Again } else { Verdict::NotBegun };
        let context = self.context.clone();
        let (mut reads, mut is_second) = (0, false);
        let Ingested { verdicts, answered, charges, failed } = loop {
            let is_cancelling = self.state.cancelling;
            let mut ingestion = Ingestion::new(&context.endpoint, &index, self.rows()?);
            ingestion.refuse_lines(&bad_lines);
            let error = match read_files(&context, &mut ingestion, &files, is_cancelling).await {
                Ok(unreadable) if unreadable == 0 || is_second => break ingestion.finish(&silent, unreadable)?,
                // The transfer may be at fault: read the files once more.
                Ok(_) => {
                    is_second = true;
                    let wait = self.pace.shortest();
                    self.wait(wait).await;
                    continue;
                }
                Err(error) => error,
            };
            reads += 1;
            if reads >= READS && error.kind() == ErrorKind::Protocol {
                return Err(error);
            }
            self.wait_for_free_call(error).await?;
        };
        if answered.is_empty() && !self.state.cancelling {
            self.check_results(&verdicts)?;
        }
        self.rows()?.sync()?;
        self.context.step("rows kept");
        let mut failed = failed;
        let is_told = |verdict: &Verdict| !matches!(verdict, Verdict::NotBegun);
        let has_progress = verdicts.iter().any(is_told);
        let next = self.write_leftover(&open.shard, &index, &verdicts, has_progress, &mut failed)?;
        self.context.step("leftovers written");
        let left = if self.state.cancelling { left_by(&index, &verdicts) } else { Vec::new() };
        let bills = Bill::of(&charges.attributed_to(&self.context.payee));
        let files = [Some(file.id), output, error].into_iter().flatten();
        let delete = if self.context.settings.deletes_files { files.collect() } else { Vec::new() };
        let count = answered.len() as u64;
        self.record(Record::Ingested { shard, answered: count, bills, failed, next, left, delete })?;
        self.shared.present.with(|present| answered.iter().for_each(|&index| present.set(index, true)));
        self.context.step("ingested");
        self.remove_input(shard);
        // All else is kept. These texts wait for somebody to see to the account, unless nobody sends them any more.
        let account = |verdict| if let Verdict::Account(error) = verdict { Some(error) } else { None };
        verdicts.into_iter().find_map(account).filter(|_| self.state.sends_more()).map_or(Ok(()), Err)
    }

    /// Refuses results of which no row is usable: then a setting is wrong, and the next batches would be paid for in vain.
    fn check_results(&self, verdicts: &[Verdict]) -> Result<()> {
        let unusable = |verdict: &Verdict| match verdict {
            Verdict::Failed(error) if error.kind() == ErrorKind::Protocol => Some(error.clone()),
            _ => None,
        };
        let errors: Vec<_> = verdicts.iter().filter_map(unusable).collect();
        match errors.first() {
            Some(error) if errors.len() > 1 && errors.len() == verdicts.len() => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Writes the texts that are sent again into new shards. Those for which the provider had no answer are apart,
    /// because their rounds are counted.
    fn write_leftover(
        &self,
        from: &Shard,
        index: &ShardIndex,
        verdicts: &[Verdict],
        has_progress: bool,
        failed: &mut Vec<FailedText>,
    ) -> Result<Vec<Shard>> {
        if self.state.cancelling {
            return Ok(Vec::new());
        }
        let (mut again, mut uncounted) = (Vec::new(), Vec::new());
        for (line, verdict) in (0..).zip(verdicts) {
            match verdict {
                Verdict::Settled | Verdict::Failed(_) => {}
                Verdict::Account(_) => uncounted.push((line, false)),
                Verdict::NotBegun if has_progress => uncounted.push((line, false)),
                Verdict::Apart => uncounted.push((line, true)),
                Verdict::Again if from.round + 1 < ROUNDS => again.push((line, from.round + 1 >= APART_FROM)),
                // A batch that did not come to any line, again and again, never will.
                Verdict::NotBegun if from.round + 1 < ROUNDS => again.push((line, false)),
                Verdict::Invalid if from.round + 1 < ROUNDS => again.push((line, true)),
                Verdict::Again | Verdict::NotBegun | Verdict::Invalid => {
                    let is_invalid = matches!(verdict, Verdict::Invalid);
                    let kind = if is_invalid { ErrorKind::InvalidInput } else { ErrorKind::Unavailable };
                    let error = Error::new(kind, "after the last round");
                    failed
                        .extend(index.lines[line as usize].texts.iter().map(|text| FailedText::of(text.index, &error)));
                }
            }
        }
        let mut next = Vec::new();
        for (lines, round) in [(uncounted, from.round), (again, from.round + 1)] {
            let number = self.state.next_number() + next.len() as u32;
            let limits = self.context.shard_limits();
            let mut set =
                ShardSet::new(&self.folder, &self.context.endpoint, self.state.plan.kind(), limits, round, number);
            set.push_lines(from.number, index, &lines)?;
            next.extend(set.finish()?);
        }
        Ok(next)
    }

    /// Removes the input file of a shard from this disk. Nothing needs it any more, so a failure is only noted.
    pub(super) fn remove_input(&self, shard: u32) {
        for path in [self.folder.shard(shard), self.folder.index(shard)] {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(error = %error, path = %path.display(), "a file that is not needed any more stays");
            }
        }
    }

    /// Deletes a file at the provider. Nothing needs it any more, so after some failures it stays.
    pub(super) async fn delete_file(&mut self) -> Result<()> {
        let Some(file) = self.state.to_delete.first().cloned() else { return Ok(()) };
        let deleted = self.context.api.delete(&file).await;
        self.context.step("deleted");
        match deleted {
            Err(error) if error.status() != Some(404) => {
                self.delete_tries += 1;
                if self.delete_tries < DELETE_TRIES {
                    return self.wait_with(&error).await;
                }
                tracing::warn!(error = %error, file, "a file that is not needed any more stays at the provider");
            }
            _ => {}
        }
        self.delete_tries = 0;
        self.record(Record::Deleted { file })
    }

    /// Gives up a shard that was not begun.
    pub(super) fn give_up(&mut self, shard: u32) -> Result<()> {
        let index = ShardIndex::read(&self.folder.index(shard))?;
        let handed = self.state.open.get(&shard).map(|open| open.handed.clone()).unwrap_or_default();
        let texts = index.texts().map(|text| text.index);
        let left = ranges(texts.filter(|index| !handed.contains(index)));
        let delete = self.input_to_delete(shard);
        self.record(Record::ended(shard, left, delete))?;
        self.remove_input(shard);
        Ok(())
    }

    /// Returns the input file at the provider, if it is to be deleted.
    pub(super) fn input_to_delete(&self, shard: u32) -> Vec<String> {
        let file = self.state.open.get(&shard).and_then(|open| open.step.file()).map(|file| file.id.clone());
        file.into_iter().filter(|_| self.context.settings.deletes_files).collect()
    }

    /// Divides a shard that has more tokens than the account may have enqueued.
    pub(super) fn divide(&mut self, shard: u32) -> Result<()> {
        let index = ShardIndex::read(&self.folder.index(shard))?;
        let round = self.state.open.get(&shard).map_or(0, |open| open.shard.round);
        let number = self.state.next_number();
        let limits = self.context.shard_limits().with_small_lines();
        let mut set =
            ShardSet::new(&self.folder, &self.context.endpoint, self.state.plan.kind(), limits, round, number);
        let lines: Vec<(u32, bool)> = (0..index.lines.len() as u32).map(|line| (line, false)).collect();
        set.push_lines(shard, &index, &lines)?;
        let next = set.finish()?;
        self.context.step("divided");
        self.record(Record::Divided { shard, next })?;
        self.remove_input(shard);
        Ok(())
    }
}

/// Reads the files of a batch. Returns the number of lines that cannot be read.
async fn read_files(
    context: &Context,
    ingestion: &mut Ingestion<'_>,
    files: &[&String],
    is_cancelling: bool,
) -> Result<u64> {
    let mut unreadable = 0;
    for file in files {
        ingestion.begin_file();
        let (bytes, is_gone) = match context.api.file_bytes(file).await {
            Ok(bytes) => (bytes, false),
            Err(error) if error.status() == Some(404) => (None, true),
            // The server does not tell it.
            Err(error) if matches!(error.status(), Some(405 | 501)) => (None, false),
            Err(error) => return Err(error),
        };
        let mut content = match context.api.content(file).await {
            Ok(content) => content,
            // A job that is cancelled has to end, even if the provider has removed the results. It says so itself, and not
            // a proxy on the way.
            Err(error)
                if is_cancelling && error.status() == Some(404) && (is_gone || error.provider_code().is_some()) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut read = 0;
        while let Some(chunk) = content.next().await? {
            read += chunk.as_ref().len() as u64;
            ingestion.read(chunk.as_ref())?;
            if ingestion.has_much_for_cache() {
                keep_in_cache(context, ingestion).await;
            }
        }
        // Some proxy's page, or nothing, is not the file: its lines would count as not answered, and be paid for again.
        if read == 0 || bytes.is_some_and(|bytes| bytes != read) {
            let has = bytes.map_or("more".to_owned(), |bytes| bytes.to_string());
            let message = format!("the file {} came with {read} bytes and has {has}", context.api.shown(file));
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        unreadable += ingestion.end_file()?;
    }
    keep_in_cache(context, ingestion).await;
    Ok(unreadable)
}

/// Puts the rows that wait into the cache. If that fails, they are kept in the job all the same.
async fn keep_in_cache(context: &Context, ingestion: &mut Ingestion<'_>) {
    let (keys, rows) = ingestion.take_for_cache();
    if let Some(cache) = context.cache.as_ref().filter(|_| !keys.is_empty()) {
        cache.keep(&keys, &rows).await;
        context.step("cached");
    }
}

/// Returns the ranges of texts of the lines that nobody sends again.
fn left_by(index: &ShardIndex, verdicts: &[Verdict]) -> Vec<(u64, u64)> {
    let is_left = |verdict: &Verdict| !matches!(verdict, Verdict::Settled | Verdict::Failed(_));
    let lines = index.lines.iter().zip(verdicts).filter(|(_, verdict)| is_left(verdict));
    ranges(lines.flat_map(|(line, _)| &line.texts).map(|text| text.index))
}

/// Returns indices as ranges (start, end).
pub(super) fn ranges(indices: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for index in indices {
        match ranges.last_mut() {
            Some((_, end)) if *end == index => *end += 1,
            _ => ranges.push((index, index + 1)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_in_a_row_are_one_range() {
        assert_eq!(ranges([0, 1, 2, 5, 7, 8].into_iter()), [(0, 3), (5, 6), (7, 9)]);
        assert_eq!(ranges(std::iter::empty()), []);
    }
}
