//! Measures models in turns: a clock that drifts, or a neighbour that wakes up, then touches all of them alike.

use std::{fs, path::Path, time::Duration};

use docvector_embed::{
    InputKind,
    provider::{Device, Onnx, OnnxInfo},
};
use tokio::runtime::Runtime;

use crate::{
    failure::Failure,
    measurement::{Run, Work},
    progress::Progress,
    sample::spread,
};

/// Weights that may be in memory at a time. More, and the models are loaded one after the other.
const MOST_WEIGHTS: u64 = 2 << 30;

/// Texts in a pass, however fast the model is.
const MOST_TEXTS: usize = 1 << 16;

/// Texts that show about how fast a model is, to begin with.
const FIRST_TEXTS: usize = 16;

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
        if run.median_seconds() >= enough || count >= MOST_TEXTS {
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

/// Says in which order the models of so many settings or budgets are measured.
pub(crate) fn turns(together: bool, what: &str) -> String {
    if together {
        format!("all {what}s in turns")
    } else {
        format!("one {what} after the other, as the weights are large")
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_beside_a_file_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in [("model.onnx", 10), ("model.onnx_data", 300), ("other.onnx", 5000)] {
            fs::write(folder.path().join(name), vec![0; bytes]).expect("written");
        }
        assert_eq!(weights(&folder.path().join("model.onnx")), 310);
    }
}
