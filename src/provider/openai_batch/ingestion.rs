//! Takes the results of a batch out of its files, line by line: [`Ingestion`].

use super::{
    index_file::ShardIndex,
    record::FailedText,
    result_line::{self, Outcome, ResultLine},
    rows_file::RowsFile,
    verdict::Verdict,
};
use crate::{
    Charges, Embeddings, Error, ErrorKind, Partial, Result, Usage,
    cache::Key,
    provider::openai::{endpoint::Endpoint, reply},
};

/// How many texts wait at most until their rows are put into the cache together.
const CACHE_TEXTS: usize = 1024;

/// The results of one shard, as far as they were read. Rows are on the disk as soon as their line was read.
pub(super) struct Ingestion<'a> {
    endpoint: &'a Endpoint,
    index: &'a ShardIndex,
    rows: &'a mut RowsFile,
    /// A verdict per line, once there is one.
    verdicts: Vec<Option<Verdict>>,
    /// The beginning of a line whose end has not come.
    pending: Vec<u8>,
    longest_line: usize,
    /// Whether the rest of the line is left out, because it is too long.
    is_skipping: bool,
    /// The lines that cannot be read.
    unreadable: u64,
    /// The indices of the texts whose rows are kept.
    answered: Vec<u64>,
    charges: Charges,
    failed: Vec<FailedText>,
    /// The rows for the cache, and their keys.
    keys: Vec<Key>,
    kept: Embeddings,
}

/// The results of a shard.
pub(super) struct Ingested {
    pub(super) verdicts: Vec<Verdict>,
    /// The indices of the texts whose rows are kept.
    pub(super) answered: Vec<u64>,
    pub(super) charges: Charges,
    pub(super) failed: Vec<FailedText>,
}

impl<'a> Ingestion<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, index: &'a ShardIndex, rows: &'a mut RowsFile) -> Self {
        let largest = index.lines.iter().map(|line| line.texts.len()).max().unwrap_or_default();
        Self {
            endpoint,
            index,
            rows,
            verdicts: vec![None; index.lines.len()],
            pending: Vec::new(),
            longest_line: reply::max_bytes(largest, endpoint.space.dimensions()),
            is_skipping: false,
            unreadable: 0,
            answered: Vec::new(),
            charges: Charges::NONE,
            failed: Vec::new(),
            keys: Vec::new(),
            kept: Embeddings::empty(&endpoint.space),
        }
    }

    /// Notes lines, by number from 1, that made the batch fail before it began.
    pub(super) fn refuse_lines(&mut self, bad_lines: &[u32]) {
        for line in bad_lines.iter().filter_map(|&line| line.checked_sub(1)) {
            if (line as usize) < self.verdicts.len() {
                self.settle(line as usize, Verdict::Invalid);
            }
        }
    }

    /// Begins a file: what is left of another one does not belong to it.
    pub(super) fn begin_file(&mut self) {
        self.pending.clear();
        self.is_skipping = false;
        self.unreadable = 0;
    }

    /// Reads the next bytes of a file.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if self.pending.is_empty() && !self.is_skipping {
                self.read_line(line)?;
            } else {
                self.hold(line);
                self.end_line()?;
            }
        }
        self.hold(bytes);
        Ok(())
    }

    /// Ends a file, whose last line may have no line break. Returns the number of lines that cannot be read.
    pub(super) fn end_file(&mut self) -> Result<u64> {
        self.end_line()?;
        Ok(self.unreadable)
    }

    /// Keeps a part of a line.
    fn hold(&mut self, part: &[u8]) {
        if self.pending.len() + part.len() > self.longest_line {
            self.is_skipping = true;
            self.pending.clear();
        }
        if !self.is_skipping {
            self.pending.extend_from_slice(part);
        }
    }

    fn end_line(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_skipping) {
            self.unreadable += 1;
            tracing::warn!(limit = self.longest_line, "a line of results is longer than its texts can make it");
        }
        let line = std::mem::take(&mut self.pending);
        let read = self.read_line(&line);
        self.pending = line;
        self.pending.clear();
        read
    }

    fn read_line(&mut self, line: &[u8]) -> Result<()> {
        let index = self.index;
        let texts_of = |id: &str| Some(index.lines.get(index.line_of(id)? as usize)?.texts.len());
        let ResultLine { custom_id, outcome } = match result_line::read(line, texts_of, self.endpoint) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.unreadable += 1;
                tracing::warn!(error = %error, "a line of results cannot be read");
                return Ok(());
            }
        };
        let Some(line) = index.line_of(&custom_id).map(|line| line as usize) else { return Ok(()) };
        // A line that comes twice: the first one counts, unless it brought nothing.
        let is_settled = matches!(&self.verdicts[line], Some(Verdict::Settled | Verdict::Failed(_)));
        match outcome {
            _ if is_settled => Ok(()),
            Outcome::Rows(rows) => {
                self.charges += rows.charges();
                self.keep(line, &(0..rows.len()).collect::<Vec<_>>(), &rows)?;
                self.settle(line, Verdict::Settled);
                Ok(())
            }
            Outcome::Failed(error) => self.fail(line, error),
        }
    }

    /// Keeps the rows of some texts of a line.
    fn keep(&mut self, line: usize, places: &[usize], rows: &Embeddings) -> Result<()> {
        let texts = &self.index.lines[line].texts;
        let texts = || places.iter().filter_map(|&place| texts.get(place));
        for (text, row) in texts().zip(rows.rows()) {
            self.rows.put(text.index, row)?;
            self.answered.push(text.index);
        }
        let marks = texts().enumerate().filter(|(_, text)| text.truncated).map(|(row, _)| row).collect();
        self.keys.extend(texts().map(|text| text.key));
        self.kept.append(&rows.clone().with_truncated(marks))
    }

    /// Judges a line with an error, which may have rows of some of its texts.
    fn fail(&mut self, line: usize, error: Error) -> Result<()> {
        let texts = self.index.lines[line].texts.len();
        let mut has_row = vec![false; texts];
        let (charges, partial) = (error.total_charges(), error.partial().cloned());
        let verdict = Verdict::of(error, texts);
        // A line that surely cost nothing is no request that anybody asks about.
        let usage = charges.usage();
        if usage.tokens + usage.unreported + usage.unanswered > 0 {
            self.charges += &charges;
        }
        if let Some((places, rows)) = partial.map(Partial::into_parts) {
            self.keep(line, &places, &rows)?;
            places.iter().for_each(|&place| has_row[place] = true);
        }
        if let Verdict::Failed(error) = &verdict {
            for (text, _) in self.index.lines[line].texts.iter().zip(&has_row).filter(|(_, has_row)| !**has_row) {
                self.failed.push(FailedText::of(text.index, error));
            }
        }
        self.settle(line, verdict);
        Ok(())
    }

    fn settle(&mut self, line: usize, verdict: Verdict) {
        self.verdicts[line] = Some(verdict);
    }

    /// Whether so many rows wait for the cache that they should go there.
    pub(super) fn has_much_for_cache(&self) -> bool {
        self.keys.len() >= CACHE_TEXTS
    }

    /// Takes the rows that wait for the cache, with their keys.
    pub(super) fn take_for_cache(&mut self) -> (Vec<Key>, Embeddings) {
        (std::mem::take(&mut self.keys), std::mem::replace(&mut self.kept, Embeddings::empty(&self.endpoint.space)))
    }

    /// Ends the ingestion. `silent` is the verdict on a line of which no file says anything. But such a line may be one of
    /// those that cannot be read, and may have been billed: then its texts fail. If more lines are silent than cannot be
    /// read, most of them were not billed, and they are sent again; the others may cost a second time.
    pub(super) fn finish(mut self, silent: &Verdict, unreadable: u64) -> Result<Ingested> {
        let lines: Vec<usize> = (0..self.verdicts.len()).filter(|&line| self.verdicts[line].is_none()).collect();
        if unreadable > 0 && lines.len() as u64 > unreadable {
            tracing::warn!(
                unreadable,
                silent = lines.len(),
                "lines of results cannot be read; all silent ones are sent again"
            );
            self.charges += (0..unreadable).map(|_| Usage::of_request(None)).sum::<Usage>();
        } else if unreadable > 0 {
            for line in lines {
                let error = Error::new(ErrorKind::Protocol, "the results have lines that cannot be read");
                self.fail(line, error.with_usage(Usage::of_request(None)))?;
            }
        }
        let verdicts = self.verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|| silent.clone())).collect();
        Ok(Ingested { verdicts, answered: self.answered, charges: self.charges, failed: self.failed })
    }
}
