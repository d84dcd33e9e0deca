//! Measures models in turns, so that other load on the machine, or a change of its clock rate, affects all alike.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use docvector_embed::{
    InputKind,
    provider::{Device, Onnx, OnnxInfo},
};
use tokio::runtime::Runtime;

use crate::{
    failure::Failure,
    measurement::{Measurement, Workload},
    progress::Progress,
    sample::pick_evenly,
};

/// The most bytes of weights in memory at a time. Beyond it, the models are loaded one after the other.
const MAX_WEIGHT_BYTES: u64 = 2 << 30;

/// The most texts in a pass, however fast the model is.
const MAX_TEXTS: usize = 1 << 16;

/// The number of texts in the first estimate of a model's speed.
const FIRST_TEXTS: usize = 16;

/// The texts of a pass, and the time that it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) texts: usize,
    pub(crate) seconds: f64,
}

/// Says on stderr that a measurement takes longer than it was asked to, if it does: a pass over too few texts tells
/// nothing.
pub(crate) fn say_if_longer(needs: f64, asked: u32) {
    if needs > 1.3 * f64::from(asked) {
        // A closed stderr is no failure.
        let _ = writeln!(
            io::stderr().lock(),
            "this takes about {needs:.0} s, and not {asked}: a pass over fewer than {FIRST_TEXTS} texts tells nothing"
        );
    }
}

/// Returns how many texts a model embeds in about this time, and the time that they take.
pub(crate) fn texts_within(
    runtime: &Runtime,
    model: &Onnx,
    kind: InputKind,
    texts: &[String],
    time: Duration,
) -> Result<Pass, Failure> {
    let enough = (time / 4).min(Duration::from_millis(500)).as_secs_f64();
    let mut count = FIRST_TEXTS;
    // The first pass only warms up.
    Measurement::default().add_pass(runtime, model, &Workload { kind, texts: pick_evenly(texts, count) })?;
    loop {
        let mut run = Measurement::default();
        run.add_pass(runtime, model, &Workload { kind, texts: pick_evenly(texts, count) })?;
        if run.median_seconds() >= enough || count >= MAX_TEXTS {
            let speed = run.texts_per_second();
            let texts = ((speed * time.as_secs_f64()) as usize).clamp(FIRST_TEXTS, MAX_TEXTS);
            return Ok(Pass { texts, seconds: texts as f64 / speed });
        }
        count = (count * 4).min(MAX_TEXTS);
    }
}

/// Returns whether this many models may be in memory together.
pub(crate) fn fit_in_memory_together(info: &OnnxInfo, models: usize) -> bool {
    // The GPU's memory is unknown here. If models did not fit, they would run in smaller batches than asked for.
    if !info.devices.contains(&Device::Cpu) {
        return false;
    }
    // Sessions share the weights if the graph was built from weights. If it is from a file, each session has a copy.
    let copies = if info.built_graph { 1 } else { info.threads };
    weight_bytes(&info.model).saturating_mul((models * copies) as u64) <= MAX_WEIGHT_BYTES
}

/// Says in which order the models of several settings or budgets are measured.
pub(crate) fn order_in_words(together: bool, what: &str) -> String {
    if together {
        format!("all {what}s in turns")
    } else {
        format!("one {what} after the other, as the weights are large")
    }
}

/// Returns the bytes of a model's file and of the files beside it whose names begin with its name, such as
/// `model.onnx_data`.
fn weight_bytes(file: &Path) -> u64 {
    let own = file.file_name().unwrap_or_default().to_string_lossy();
    let entries = file.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&*own));
    // `fs::metadata` follows links: caches of models consist of them.
    parts.filter_map(|entry| fs::metadata(entry.path()).ok()).map(|about| about.len()).sum()
}

/// Models that take turns.
pub(crate) struct Rounds<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) workloads: &'a [Workload<'a>],
    pub(crate) rounds: usize,
    /// Whether all models are loaded and take turns. Otherwise each is finished before the next one is loaded.
    pub(crate) together: bool,
    pub(crate) progress: &'a Progress,
}

impl Rounds<'_> {
    /// Returns the number of texts that a model embeds in all rounds, including the warm-up.
    pub(crate) fn total_texts(workloads: &[Workload<'_>], rounds: usize) -> usize {
        workloads.iter().map(|workload| (rounds + 1) * workload.texts.len()).sum()
    }

    /// Measures each model with each workload.
    pub(crate) fn run<S>(
        &self,
        settings: &[S],
        load: impl Fn(&S) -> Result<Onnx, Failure>,
        seen: &mut u64,
    ) -> Result<Vec<Vec<Measurement>>, Failure> {
        let mut runs = Vec::with_capacity(settings.len());
        for group in settings.chunks(if self.together { settings.len().max(1) } else { 1 }) {
            let models = group.iter().map(&load).collect::<Result<Vec<Onnx>, Failure>>()?;
            let mut group_runs: Vec<Vec<Measurement>> =
                models.iter().map(|_| self.workloads.iter().map(|_| Measurement::default()).collect()).collect();
            for round in 0..=self.rounds {
                // Every second round goes backwards, so that no model always follows the same other one.
                let mut order: Vec<usize> = (0..models.len()).collect();
                if round % 2 == 1 {
                    order.reverse();
                }
                for place in order {
                    for (workload, run) in self.workloads.iter().zip(&mut group_runs[place]) {
                        if round == 0 {
                            Measurement::default().add_pass(self.runtime, &models[place], workload)?;
                        } else {
                            run.add_pass(self.runtime, &models[place], workload)?;
                        }
                        *seen += workload.texts.len() as u64;
                        self.progress.advance(workload.texts.len() as u64, *seen);
                    }
                }
            }
            runs.append(&mut group_runs);
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_beside_a_file_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in [("model.onnx", 10), ("model.onnx_data", 300), ("other.onnx", 5000)] {
            fs::write(folder.path().join(name), vec![0; bytes]).expect("written");
        }
        assert_eq!(weight_bytes(&folder.path().join("model.onnx")), 310);
    }
}
