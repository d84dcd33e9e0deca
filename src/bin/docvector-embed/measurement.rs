//! Measures how a model embeds a batch of texts: speed, padding, and the time of each stage.

use std::{
    thread,
    time::{Duration, Instant},
};

use docvector_embed::{
    Batch, EmbedderExt, InputKind, Lane, Truncation,
    provider::{Device, Onnx, OnnxInfo},
};
use tokio::runtime::Runtime;

use crate::{
    failure::Failure,
    statistics::{MIN_SECONDS, median, share},
};

/// Texts that one call embeds, repeatedly.
pub(crate) struct Workload<'a> {
    pub(crate) kind: InputKind,
    pub(crate) texts: Vec<&'a str>,
}

impl Workload<'_> {
    fn batch(&self) -> Batch<'_> {
        Batch::new(self.kind, &self.texts).with_truncation(Truncation::Truncate).with_lane(Lane::Bulk)
    }
}

/// The measurements of a model in all passes that count.
#[derive(Debug, Default)]
pub(crate) struct Measurement {
    /// The texts and tokens of a pass, and the seconds of each pass.
    texts: usize,
    pub(crate) tokens: u64,
    seconds: Vec<f64>,
    /// The sums over all passes.
    real_tokens: u64,
    padded_tokens: u64,
    tokenizing: Duration,
    inference: Duration,
    delivering: Duration,
    threads: usize,
    /// The longest batch so far, including passes that do not count.
    pub(crate) longest_batch: Duration,
}

impl Measurement {
    pub(crate) fn add_pass(&mut self, runtime: &Runtime, model: &Onnx, work: &Workload<'_>) -> Result<(), Failure> {
        let before = model.stats();
        let started = Instant::now();
        let rows = runtime.block_on(model.embed_all(work.batch()))?;
        let time = started.elapsed();
        let done = model.stats().since(&before);
        (self.texts, self.threads) = (work.texts.len(), threads(model.info()));
        self.tokens = rows.usage().exact_tokens().unwrap_or(done.tokens);
        self.seconds.push(time.as_secs_f64());
        self.real_tokens += done.tokens;
        self.padded_tokens += done.padded_tokens;
        self.tokenizing += done.tokenizing;
        self.inference += done.inference;
        self.delivering += done.delivering;
        self.longest_batch = done.longest_batch;
        Ok(())
    }

    /// Returns the median of the seconds of a pass.
    pub(crate) fn median_seconds(&self) -> f64 {
        median(&self.seconds)
    }

    pub(crate) fn texts_per_second(&self) -> f64 {
        self.texts as f64 / median(&self.seconds)
    }

    pub(crate) fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / median(&self.seconds)
    }

    /// Returns how many times as fast as the pass of `base` in the same round each pass was.
    pub(crate) fn speedups<'a>(&'a self, base: &'a Self) -> impl Iterator<Item = f64> + 'a {
        base.seconds.iter().zip(&self.seconds).map(|(base, own)| base.max(MIN_SECONDS) / own.max(MIN_SECONDS))
    }

    /// Returns the share of the computed tokens that are padding.
    pub(crate) fn padding(&self) -> f64 {
        share(self.padded_tokens.saturating_sub(self.real_tokens) as f64, self.padded_tokens as f64)
    }

    /// Returns the shares of the threads' time: tokenizing, inference, delivering, and waiting.
    pub(crate) fn stage_shares(&self) -> [f64; 4] {
        // On a busy machine, a thread may end its work after the caller has its rows, and a long text has other threads:
        // then the stages took more than the threads' time.
        let work = (self.tokenizing + self.inference + self.delivering).as_secs_f64();
        let all = (self.threads as f64 * self.seconds.iter().sum::<f64>()).max(work);
        let [tokenizing, inference, delivering] =
            [self.tokenizing, self.inference, self.delivering].map(|time| share(time.as_secs_f64(), all));
        [tokenizing, inference, delivering, (1.0 - tokenizing - inference - delivering).max(0.0)]
    }
}

/// Returns the number of all threads of a model. On GPUs, one further thread per core tokenizes.
fn threads(info: &OnnxInfo) -> usize {
    if info.devices.contains(&Device::Cpu) {
        return info.threads;
    }
    info.threads * info.devices.len() + thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_to_one() {
        let second = Duration::from_secs(1);
        let run = Measurement {
            texts: 10,
            tokens: 300,
            seconds: vec![1.0, 3.0],
            real_tokens: 600,
            padded_tokens: 800,
            tokenizing: second,
            inference: 4 * second,
            delivering: second / 2,
            threads: 2,
            longest_batch: second,
        };
        assert_eq!(run.stage_shares(), [0.125, 0.5, 0.0625, 0.3125]);
        assert_eq!((run.padding(), run.texts_per_second(), run.tokens_per_second()), (0.25, 5.0, 150.0));
        let other = Measurement { seconds: vec![2.0, 1.5], ..Measurement::default() };
        assert_eq!(other.speedups(&run).collect::<Vec<_>>(), [0.5, 2.0]);
        let busy = Measurement { seconds: vec![1.0], threads: 1, ..run };
        assert!((busy.stage_shares().iter().sum::<f64>() - 1.0).abs() < 1e-9, "{:?}", busy.stage_shares());
        assert_eq!(Measurement::default().stage_shares(), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(Measurement::default().padding(), 0.0);
    }
}
