//! Counts what the threads of a local model have done, and how long it took them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The work of an [`Onnx`](crate::provider::Onnx) since it was loaded.
///
/// Times are sums over all threads. The rest of the elapsed time, multiplied by the threads, is waiting: for callers,
/// or for each other.
///
/// ```no_run
/// use docvector_embed::{EmbedderExt, provider::Onnx};
/// # async fn example() -> docvector_embed::Result<()> {
/// let embedder = Onnx::load("all-MiniLM-L6-v2")?;
/// let before = embedder.stats();
/// embedder.embed_documents(&["one", "another"]).await?;
/// let done = embedder.stats().since(&before);
/// println!("{} of {} padded tokens are padding", done.padded_tokens - done.tokens, done.padded_tokens);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OnnxStats {
    /// Batches that were run.
    pub batches: u64,
    /// Texts in them.
    pub texts: u64,
    /// Tokens of these texts, special ones included.
    pub tokens: u64,
    /// Tokens with padding: for each batch, its texts times the tokens of the longest one.
    pub padded_tokens: u64,
    /// Time in the tokenizer.
    pub tokenizing: Duration,
    /// Time in the model, filling its inputs included.
    pub inference: Duration,
    /// Time to write rows into the results.
    pub delivering: Duration,
    /// The longest time that one batch took.
    pub longest_batch: Duration,
}

impl OnnxStats {
    /// Returns what was done since `earlier`, which must be of the same embedder. `longest_batch` stays the longest
    /// since loading.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            batches: self.batches.saturating_sub(earlier.batches),
            texts: self.texts.saturating_sub(earlier.texts),
            tokens: self.tokens.saturating_sub(earlier.tokens),
            padded_tokens: self.padded_tokens.saturating_sub(earlier.padded_tokens),
            tokenizing: self.tokenizing.saturating_sub(earlier.tokenizing),
            inference: self.inference.saturating_sub(earlier.inference),
            delivering: self.delivering.saturating_sub(earlier.delivering),
            longest_batch: self.longest_batch,
        }
    }
}

/// The numbers behind [`OnnxStats`], times in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Counters {
    batches: AtomicU64,
    texts: AtomicU64,
    tokens: AtomicU64,
    padded: AtomicU64,
    tokenizing: AtomicU64,
    inference: AtomicU64,
    delivering: AtomicU64,
    longest: AtomicU64,
}

/// A stage that is not inference.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimedStage {
    Tokenizing,
    Delivering,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Counters {
    pub(super) fn took(&self, stage: TimedStage, time: Duration) {
        let counter = match stage {
            TimedStage::Tokenizing => &self.tokenizing,
            TimedStage::Delivering => &self.delivering,
        };
        counter.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    pub(super) fn batch(&self, texts: usize, tokens: usize, padded: usize, time: Duration) {
        for (counter, number) in
            [(&self.texts, texts), (&self.tokens, tokens), (&self.padded, padded), (&self.batches, 1)]
        {
            counter.fetch_add(number as u64, Ordering::Relaxed);
        }
        self.inference.fetch_add(nanoseconds(time), Ordering::Relaxed);
        self.longest.fetch_max(nanoseconds(time), Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> OnnxStats {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |counter: &AtomicU64| Duration::from_nanos(number(counter));
        OnnxStats {
            batches: number(&self.batches),
            texts: number(&self.texts),
            tokens: number(&self.tokens),
            padded_tokens: number(&self.padded),
            tokenizing: time(&self.tokenizing),
            inference: time(&self.inference),
            delivering: time(&self.delivering),
            longest_batch: time(&self.longest),
        }
    }
}
