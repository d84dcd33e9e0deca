//! Writes texts into as many shards as the limits of a batch ask for: [`ShardSet`].

use std::sync::Arc;

use super::{
    disk,
    folder::JobFolder,
    index_file::{IndexWriter, IndexedText, ShardIndex},
    record::Shard,
    shard_file::{self, ShardWriter},
};
use crate::{
    InputKind, Limits, Result,
    provider::openai::{endpoint::Endpoint, request::RequestForm},
};

/// Lines per file. Source: the API reference of OpenAI's Batch API.
const LINES: u32 = 50_000;

/// Texts per file, all its lines together. Source: the same.
pub(super) const TEXTS: u64 = 50_000;

/// Bytes per file: OpenAI's limit of 200 MB less a tenth, because a line that is divided takes more bytes.
const BYTES: u64 = 180_000_000;

/// OpenAI judges the tokens of a request as a quarter of the bytes of its texts.
const BYTES_PER_TOKEN: usize = 4;

/// The limits of shards and lines.
#[derive(Clone, Debug)]
pub(super) struct ShardLimits {
    pub(super) texts: u64,
    /// Tokens, as the provider judges them; the most that the account may have enqueued.
    pub(super) tokens: Option<u64>,
    pub(super) line_texts: usize,
    pub(super) line_bytes: usize,
}

impl ShardLimits {
    /// Makes the limits of lines out of those of a request.
    pub(super) fn new(request: &Limits, line_texts: usize, shard_texts: u64, tokens: Option<u64>) -> Self {
        let texts = shard_texts.clamp(1, TEXTS);
        // The first line of a batch is written whatever it holds, so it may not hold more than a batch.
        let line_texts = line_texts.min(request.texts.unwrap_or(usize::MAX)).min(texts as usize).max(1);
        let of_tokens = request.tokens_per_call.map(|tokens| tokens.saturating_mul(BYTES_PER_TOKEN));
        let line_bytes = request.bytes.into_iter().chain(of_tokens).min().unwrap_or(usize::MAX);
        Self { texts, tokens, line_texts, line_bytes }
    }

    /// Returns the limits for an account that may have fewer tokens enqueued than one line has.
    pub(super) fn with_small_lines(mut self) -> Self {
        let of_account = self.tokens.and_then(|tokens| usize::try_from(tokens).ok()?.checked_mul(BYTES_PER_TOKEN));
        self.line_bytes = self.line_bytes.min(of_account.unwrap_or(usize::MAX));
        self
    }
}

/// Shards that are being written.
pub(super) struct ShardSet {
    folder: JobFolder,
    endpoint: Arc<Endpoint>,
    kind: InputKind,
    limits: ShardLimits,
    round: u32,
    next_number: u32,
    /// The line that is being filled.
    inputs: Vec<String>,
    texts: Vec<IndexedText>,
    bytes: usize,
    writing: Option<(ShardWriter, IndexWriter)>,
    shards: Vec<Shard>,
}

impl ShardSet {
    pub(super) fn new(
        folder: &JobFolder,
        endpoint: &Arc<Endpoint>,
        kind: InputKind,
        limits: ShardLimits,
        round: u32,
        next_number: u32,
    ) -> Self {
        Self {
            folder: folder.clone(),
            endpoint: endpoint.clone(),
            kind,
            limits,
            round,
            next_number,
            inputs: Vec::new(),
            texts: Vec::new(),
            bytes: 0,
            writing: None,
            shards: Vec::new(),
        }
    }

    /// Adds a text with its prompt.
    pub(super) fn push(&mut self, input: String, text: IndexedText) -> Result<()> {
        if self.inputs.len() >= self.limits.line_texts
            || (!self.inputs.is_empty() && self.bytes + input.len() > self.limits.line_bytes)
        {
            self.end_line()?;
        }
        self.bytes += input.len();
        self.inputs.push(input);
        self.texts.push(text);
        Ok(())
    }

    /// Ends the line, so that the next text begins another one.
    pub(super) fn end_line(&mut self) -> Result<()> {
        if self.inputs.is_empty() {
            return Ok(());
        }
        if let Some((shard, _)) = &self.writing {
            let limits = &self.limits;
            let tokens = shard.tokens() + self.bytes.div_ceil(BYTES_PER_TOKEN) as u64;
            let is_full = shard.lines() >= LINES
                || shard.texts() + self.texts.len() as u64 > limits.texts
                || shard.bytes() + shard.bytes_of(&self.inputs) > BYTES
                || limits.tokens.is_some_and(|limit| tokens > limit);
            if is_full {
                self.end_shard()?;
            }
        }
        let (mut shard, mut index) = match self.writing.take() {
            Some(writing) => writing,
            None => {
                let number = self.next_number;
                let form = RequestForm::of(&self.endpoint, self.kind);
                (
                    ShardWriter::create(&self.folder.shard(number), form)?,
                    IndexWriter::create(&self.folder.index(number))?,
                )
            }
        };
        let id = shard.push(&self.inputs)?;
        index.push(id, &self.texts)?;
        self.writing = Some((shard, index));
        self.inputs.clear();
        self.texts.clear();
        self.bytes = 0;
        Ok(())
    }

    fn end_shard(&mut self) -> Result<()> {
        let Some((shard, index)) = self.writing.take() else { return Ok(()) };
        self.shards.push(Shard {
            number: self.next_number,
            round: self.round,
            lines: shard.lines(),
            texts: shard.texts(),
            tokens: shard.tokens(),
        });
        self.next_number += 1;
        shard.finish()?;
        index.finish()
    }

    /// Ends the last shard. All files are on the disk afterwards.
    pub(super) fn finish(mut self) -> Result<Vec<Shard>> {
        self.end_line()?;
        self.end_shard()?;
        if let Some(folder) = self.folder.journal().parent() {
            disk::sync_folder(folder).map_err(|error| disk::failed(folder, "synced", error))?;
        }
        Ok(self.shards)
    }

    /// Adds lines of another shard, by number in ascending order, each whole or with a line per text.
    pub(super) fn push_lines(&mut self, from: u32, index: &ShardIndex, lines: &[(u32, bool)]) -> Result<()> {
        let mut wanted = lines.iter();
        shard_file::read_lines(&self.folder.shard(from), lines.iter().map(|(line, _)| *line), |line, inputs| {
            let is_apart = wanted.next().is_some_and(|(_, is_apart)| *is_apart);
            let texts = index.lines.get(line as usize).map_or(&[][..], |line| &line.texts);
            self.end_line()?;
            for (input, text) in inputs.into_iter().zip(texts) {
                self.push(input, *text)?;
                if is_apart {
                    self.end_line()?;
                }
            }
            self.end_line()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::Key,
        provider::{OpenAi, openai_batch::folder::Jobs},
    };

    #[test]
    fn lines_fit_the_request_the_batch_and_the_account() {
        let mut request = Limits::none().with_texts(32);
        (request.bytes, request.tokens_per_call) = (Some(1_000), Some(200));
        let limits = ShardLimits::new(&request, 64, 90_000, Some(100));
        assert_eq!((limits.line_texts, limits.line_bytes, limits.texts), (32, 800, TEXTS));
        assert_eq!(limits.with_small_lines().line_bytes, 400);
        assert_eq!(ShardLimits::new(&request, 64, 10, None).line_texts, 10);
        assert_eq!(ShardLimits::new(&Limits::none(), 100_000, 100_000, None).line_texts, TEXTS as usize);
    }

    #[test]
    fn texts_fill_lines_and_batches_up_to_their_limits() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = Jobs::open(folder.path()).expect("opened");
        let job = jobs.begin().expect("begun");
        let openai = OpenAi::builder("text-embedding-3-small").with_api_key("sk-none").build().expect("valid");
        let text = |index| IndexedText { index, key: Key::from_bytes([0; 32]), truncated: false };
        let fill = |limits: ShardLimits, sizes: &[usize], first: u32| {
            let mut set = ShardSet::new(job.folder(), &openai.0, InputKind::Document, limits, 0, first);
            for (index, &size) in sizes.iter().enumerate() {
                set.push("x".repeat(size), text(index as u64)).expect("written");
            }
            let shards = set.finish().expect("synced");
            shards.iter().map(|shard| (shard.number, shard.lines, shard.texts, shard.tokens)).collect::<Vec<_>>()
        };
        let limits = ShardLimits { texts: 6, tokens: None, line_texts: 2, line_bytes: 100 };
        // By texts: three lines of two; the rest.
        assert_eq!(fill(limits.clone(), &[4; 7], 1), [(1, 3, 6, 6), (2, 1, 1, 1)]);
        // A line ends before it is too large, and a text that is too large alone has a line of its own.
        assert_eq!(fill(limits.clone(), &[60, 60, 10, 400], 3), [(3, 3, 4, 15 + 18 + 100)]);
        // By tokens of the account.
        let limits = ShardLimits { tokens: Some(3), ..limits };
        assert_eq!(fill(limits, &[4, 4, 4, 4], 4), [(4, 1, 2, 2), (5, 1, 2, 2)]);
        let index = ShardIndex::read(&job.folder().index(3)).expect("there");
        let lines: Vec<usize> = index.lines.iter().map(|line| line.texts.len()).collect();
        assert_eq!(lines, [1, 2, 1]);
        // Lines are taken over whole, or each text by itself.
        let limits = ShardLimits { texts: 50, tokens: None, line_texts: 9, line_bytes: 1_000 };
        let mut set = ShardSet::new(job.folder(), &openai.0, InputKind::Document, limits, 1, 6);
        set.push_lines(3, &index, &[(1, true), (2, false)]).expect("written");
        assert_eq!(
            set.finish().expect("synced"),
            [Shard { number: 6, round: 1, lines: 3, texts: 3, tokens: 15 + 3 + 100 }]
        );
    }
}
