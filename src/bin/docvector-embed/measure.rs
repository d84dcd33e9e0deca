//! Measures models in turns: a clock that drifts, or a neighbour that wakes up, then touches all of them alike.

use std::{
    fs,
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use docvector_embed::{
    Batch, EmbedderExt, InputKind, Lane, Truncation,
    provider::{Device, Onnx, OnnxInfo},
};
use tokio::runtime::Runtime;

use crate::{failure::Failure, progress::Progress, report::Report, sample::spread};

/// Weights that may be in memory at a time. More, and the models are loaded one after the other.
const MOST_WEIGHTS: u64 = 2 << 30;

/// Texts in a pass, however fast the model is.
const MOST_TEXTS: usize = 1 << 16;

/// Seconds that everything takes.
const LEAST: f64 = 1e-9;

/// Texts that show about how fast a model is, to begin with.
const FIRST_TEXTS: usize = 16;

/// Texts to be embedded in one call, again and again.
pub(crate) struct Work<'a> {
    pub(crate) kind: InputKind,
    pub(crate) texts: Vec<&'a str>,
}

impl Work<'_> {
    fn batch(&self) -> Batch<'_> {
        Batch::new(self.kind, &self.texts).with_truncation(Truncation::Truncate).with_lane(Lane::Bulk)
    }
}

/// What a model did in all passes that count.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Texts and tokens of a pass, and the seconds that each took.
    texts: usize,
    pub(crate) tokens: u64,
    seconds: Vec<f64>,
    /// Of all passes.
    real_tokens: u64,
    padded_tokens: u64,
    tokenising: Duration,
    inference: Duration,
    delivering: Duration,
    threads: usize,
    /// The longest batch ever, one that did not count included.
    pub(crate) longest_batch: Duration,
}

impl Run {
    fn pass(&mut self, runtime: &Runtime, model: &Onnx, work: &Work<'_>) -> Result<(), Failure> {
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
        self.tokenising += done.tokenizing;
        self.inference += done.inference;
        self.delivering += done.delivering;
        self.longest_batch = done.longest_batch;
        Ok(())
    }

    pub(crate) fn texts_per_second(&self) -> f64 {
        self.texts as f64 / median(&self.seconds)
    }

    pub(crate) fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / median(&self.seconds)
    }

    /// How many times as fast as another run of the same texts each pass was: neighbours in time are compared.
    pub(crate) fn gains<'a>(&'a self, base: &'a Self) -> impl Iterator<Item = f64> + 'a {
        base.seconds.iter().zip(&self.seconds).map(|(base, own)| base.max(LEAST) / own.max(LEAST))
    }

    /// The share of what was computed that no text needed.
    pub(crate) fn padding(&self) -> f64 {
        share(self.padded_tokens.saturating_sub(self.real_tokens) as f64, self.padded_tokens as f64)
    }

    /// The shares of the threads' time: tokenising, inference, delivering, and waiting.
    pub(crate) fn stages(&self) -> [f64; 4] {
        let all = self.threads as f64 * self.seconds.iter().sum::<f64>();
        let [tokenising, inference, delivering] =
            [self.tokenising, self.inference, self.delivering].map(|time| share(time.as_secs_f64(), all));
        [tokenising, inference, delivering, (1.0 - tokenising - inference - delivering).max(0.0)]
    }
}

/// The share of time beyond which what others did is worth a word, and spoils what was found.
pub(crate) const BUSY: f64 = 0.1;

/// How long this process's threads have computed so far, and how long they stood ready while others had the cores. In
/// nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cores {
    ran: u64,
    waited: u64,
}

impl Cores {
    /// `None` where the system does not tell.
    pub(crate) fn now() -> Option<Self> {
        let mut all = Self::default();
        for entry in fs::read_dir("/proc/self/task").ok()?.flatten() {
            // A thread may end in between.
            let Ok(times) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let mut times = times.split_whitespace().map_while(|time| time.parse::<u64>().ok());
            all.ran += times.next()?;
            all.waited += times.next()?;
        }
        Some(all)
    }

    /// The share of the time since then in which others had the cores that this process wanted.
    pub(crate) fn taken(before: Option<Self>) -> Option<f64> {
        let (before, now) = (before?, Self::now()?);
        // Threads that have ended are not counted any more.
        let (ran, waited) = (now.ran.saturating_sub(before.ran), now.waited.saturating_sub(before.waited));
        Some(share(waited as f64, (ran + waited) as f64))
    }
}

fn share(part: f64, all: f64) -> f64 {
    if all > 0.0 { part / all } else { 0.0 }
}

/// The one in the middle; the mean of two there. Never 0, to be divided by.
pub(crate) fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
    f64::midpoint(at(sorted.len() / 2), at(sorted.len().saturating_sub(1) / 2)).max(LEAST)
}

/// All threads of a model: on cards, others do the tokenising, one a core.
fn threads(info: &OnnxInfo) -> usize {
    if info.devices.contains(&Device::Cpu) {
        return info.threads;
    }
    info.threads * info.devices.len() + thread::available_parallelism().map_or(1, usize::from)
}

/// How many texts a model embeds in a time.
pub(crate) fn texts_in(
    runtime: &Runtime,
    model: &Onnx,
    kind: InputKind,
    texts: &[String],
    time: Duration,
) -> Result<usize, Failure> {
    let enough = (time / 4).min(Duration::from_millis(500)).as_secs_f64();
    let mut count = FIRST_TEXTS;
    // The first pass finds everything cold.
    Run::default().pass(runtime, model, &Work { kind, texts: spread(texts, count) })?;
    loop {
        let mut run = Run::default();
        run.pass(runtime, model, &Work { kind, texts: spread(texts, count) })?;
        if median(&run.seconds) >= enough || count >= MOST_TEXTS {
            let texts = run.texts_per_second() * time.as_secs_f64();
            return Ok((texts as usize).clamp(FIRST_TEXTS, MOST_TEXTS));
        }
        count = (count * 4).min(MOST_TEXTS);
    }
}

/// Whether so many models may be in memory together.
pub(crate) fn fit_together(info: &OnnxInfo, models: usize) -> bool {
    // A card's memory is not known here, and what does not fit into it would run in smaller batches than were asked for.
    if !info.devices.contains(&Device::Cpu) {
        return false;
    }
    // Sessions share weights that the graph was built from; of a file, each has its own.
    let copies = if info.built_graph { 1 } else { info.threads };
    weights(&info.model).saturating_mul((models * copies) as u64) <= MOST_WEIGHTS
}

/// The bytes of a model's file and of those beside it that its name begins: `model.onnx_data` say.
fn weights(file: &Path) -> u64 {
    let own = file.file_name().unwrap_or_default().to_string_lossy();
    let entries = file.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&*own));
    // Through links: caches of models are made of them.
    parts.filter_map(|entry| fs::metadata(entry.path()).ok()).map(|about| about.len()).sum()
}

/// Models that take turns.
pub(crate) struct Race<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) works: &'a [Work<'a>],
    pub(crate) rounds: usize,
    /// Whether all are loaded at a time, and take turns; otherwise one is done with before the next is loaded.
    pub(crate) together: bool,
    pub(crate) progress: &'a Progress,
}

impl Race<'_> {
    /// Texts that a model embeds in all, warming up included.
    pub(crate) fn texts(works: &[Work<'_>], rounds: usize) -> usize {
        works.iter().map(|work| (rounds + 1) * work.texts.len()).sum()
    }

    /// What each model did with each work.
    pub(crate) fn run<S>(
        &self,
        settings: &[S],
        load: impl Fn(&S) -> Result<Onnx, Failure>,
        seen: &mut u64,
    ) -> Result<Vec<Vec<Run>>, Failure> {
        let mut runs = Vec::with_capacity(settings.len());
        for group in settings.chunks(if self.together { settings.len().max(1) } else { 1 }) {
            let models = group.iter().map(&load).collect::<Result<Vec<Onnx>, Failure>>()?;
            let mut of_group: Vec<Vec<Run>> =
                models.iter().map(|_| self.works.iter().map(|_| Run::default()).collect()).collect();
            for round in 0..=self.rounds {
                // There and back again: nobody always follows the same one.
                let mut order: Vec<usize> = (0..models.len()).collect();
                if round % 2 == 1 {
                    order.reverse();
                }
                for place in order {
                    for (work, run) in self.works.iter().zip(&mut of_group[place]) {
                        if round == 0 {
                            Run::default().pass(self.runtime, &models[place], work)?;
                        } else {
                            run.pass(self.runtime, &models[place], work)?;
                        }
                        *seen += work.texts.len() as u64;
                        self.progress.advance(work.texts.len() as u64, *seen);
                    }
                }
            }
            runs.append(&mut of_group);
        }
        Ok(runs)
    }
}

/// Says what is measured, and on what.
pub(crate) fn describe(
    report: &mut Report<impl Write>,
    folder: &Path,
    info: &OnnxInfo,
    cores: impl std::fmt::Display,
) -> Result<(), Failure> {
    report.line("model", folder.display())?;
    report.line("  file", info.model.strip_prefix(folder).unwrap_or(&info.model).display())?;
    report.line("ONNX Runtime", &info.library.version)?;
    let cpu = info.cpu.as_deref().map(|cpu| format!(", {}", crate::report::plain(cpu))).unwrap_or_default();
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    report.line("machine", format!("{arch} {os}, {cores} cores{cpu}"))?;
    report.line("device", crate::doctor::devices(info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]) > 0.0 && median(&[0.0]) > 0.0);
    }

    #[test]
    fn shares_come_to_one() {
        let second = Duration::from_secs(1);
        let run = Run {
            texts: 10,
            tokens: 300,
            seconds: vec![1.0, 3.0],
            real_tokens: 600,
            padded_tokens: 800,
            tokenising: second,
            inference: 4 * second,
            delivering: second / 2,
            threads: 2,
            longest_batch: second,
        };
        assert_eq!(run.stages(), [0.125, 0.5, 0.0625, 0.3125]);
        assert_eq!((run.padding(), run.texts_per_second(), run.tokens_per_second()), (0.25, 5.0, 150.0));
        let other = Run { seconds: vec![2.0, 1.5], ..Run::default() };
        assert_eq!(other.gains(&run).collect::<Vec<_>>(), [0.5, 2.0]);
        assert_eq!(Run::default().stages(), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(Run::default().padding(), 0.0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_others_took_is_a_share() {
        let before = Cores::now();
        let sum: u64 = (0..1_000_000_u64).map(std::hint::black_box).sum();
        assert!(sum > 0 && before.is_some());
        let taken = Cores::taken(before).expect("Linux tells");
        assert!((0.0..=1.0).contains(&taken), "{taken}");
        assert_eq!(Cores::taken(None), None);
    }

    #[test]
    fn data_beside_a_file_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in [("model.onnx", 10), ("model.onnx_data", 300), ("other.onnx", 5000)] {
            fs::write(folder.path().join(name), vec![0; bytes]).expect("written");
        }
        assert_eq!(weights(&folder.path().join("model.onnx")), 310);
    }
}
