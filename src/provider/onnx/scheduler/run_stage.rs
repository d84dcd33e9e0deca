//! The run stage: runs a packed batch on a session and places the vectors as rows of their calls.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use super::{
    counters::{Counters, TimedStage},
    packing::{BatchPart, Packing},
};
use crate::{
    Error, ErrorKind,
    provider::onnx::stages::{BatchFailure, RunBatch, TokenRow, Tokenize},
};

/// The state that a thread needs to run batches, besides its session.
pub(super) struct RunStage<'a> {
    pub(super) tokens: &'a dyn Tokenize,
    /// Components of a vector.
    pub(super) width: usize,
    pub(super) counters: &'a Counters,
    pub(super) packing: &'a Packing,
}

/// How one run of a batch ended.
enum RunOutcome {
    /// All calls of the batch have their rows.
    Placed,
    /// No call has a row of it.
    Failed(BatchFailure),
    /// The run failed after rows were placed.
    FailedAfterPlacing(Error),
}

/// How large a batch is.
#[derive(Clone, Copy)]
struct BatchSize {
    texts: usize,
    tokens: usize,
    /// Texts times the longest text's tokens.
    padded: usize,
}

impl BatchSize {
    fn of(rows: &[TokenRow<'_>]) -> Self {
        let lengths = || rows.iter().map(|row| row.ids.len());
        let longest = lengths().max().unwrap_or(0);
        Self { texts: rows.len(), tokens: lengths().sum(), padded: rows.len() * longest }
    }
}

impl RunStage<'_> {
    /// Runs a batch until each of its calls has its rows or an error.
    ///
    /// ```text
    /// batch ─> run ─> rows placed
    ///           ├──> out of memory, several texts: two halves ──────┐
    ///           ├──> failed, several calls: one batch for each call ─┴─> run, first to last
    ///           └──> failed, one call: the call fails
    /// ```
    pub(super) fn run(&self, batch: Vec<BatchPart>, runner: &mut dyn RunBatch) {
        // A stack, not a recursion: its last entry is run next, so the parts of a failed batch go in backwards.
        let mut waiting = vec![batch];
        while let Some(mut parts) = waiting.pop() {
            parts.retain(is_wanted);
            if parts.is_empty() {
                continue;
            }
            let (outcome, size) = self.run_batch(&parts, runner);
            waiting.extend(self.recover(parts, size, outcome).into_iter().rev());
        }
    }

    /// Runs a batch once, and places its rows as soon as the model returns.
    fn run_batch(&self, parts: &[BatchPart], runner: &mut dyn RunBatch) -> (RunOutcome, BatchSize) {
        let rows: Vec<TokenRow<'_>> = parts
            .iter()
            .flat_map(|part| {
                let unpooled = self.tokens.unpooled(part.call.kind);
                part.texts.iter().map(move |(_, ids)| TokenRow { ids, unpooled })
            })
            .collect();
        let size = BatchSize::of(&rows);
        let started = Instant::now();
        let mut placed = false;
        // The vectors are the session's memory: they are read where they are, in this closure, and not copied out.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            runner.run_batch(&rows, &mut |vectors| {
                let ran = Instant::now();
                if vectors.len() != size.texts * self.width {
                    return;
                }
                placed = true;
                // Count first: a caller that has its rows finds them counted.
                self.counters.batch(size.texts, size.tokens, size.padded, ran - started);
                self.place_rows(parts, vectors);
                self.counters.took(TimedStage::Delivering, ran.elapsed());
            })
        }));
        let failure = match ran {
            Ok(Ok(())) if placed => return (RunOutcome::Placed, size),
            Ok(Ok(())) => {
                Error::new(ErrorKind::Inference, "the model returned another number of vectors than it was given texts")
                    .into()
            }
            Ok(Err(failure)) => failure,
            Err(_) => Error::new(ErrorKind::Inference, "the model panicked").into(),
        };
        let outcome = if placed { RunOutcome::FailedAfterPlacing(failure.error) } else { RunOutcome::Failed(failure) };
        (outcome, size)
    }

    /// Gives each call its own of the batch's vectors.
    fn place_rows(&self, parts: &[BatchPart], mut vectors: &[f32]) {
        for part in parts {
            let indices: Vec<usize> = part.texts.iter().map(|&(index, _)| index).collect();
            let (own, rest) = vectors.split_at((indices.len() * self.width).min(vectors.len()));
            part.call.place_rows(&indices, own, self.width);
            vectors = rest;
        }
    }

    /// Decides what becomes of a batch that failed: the batches to run in its place, in order, if there are any.
    fn recover(&self, parts: Vec<BatchPart>, size: BatchSize, outcome: RunOutcome) -> Vec<Vec<BatchPart>> {
        let failure = match outcome {
            RunOutcome::Placed => return Vec::new(),
            RunOutcome::FailedAfterPlacing(error) => {
                // Running again would count the placed rows twice. So the other calls fail, and none waits for ever.
                fail(&parts, &error);
                return Vec::new();
            }
            RunOutcome::Failed(failure) => failure,
        };
        if failure.out_of_memory && size.texts > 1 {
            self.packing.halve(size.padded);
            return halves(parts, size.texts).into();
        }
        if parts.len() > 1 {
            // No call fails for another call's text.
            return parts.into_iter().map(|part| vec![part]).collect();
        }
        fail(&parts, &failure.error);
        Vec::new()
    }
}

/// Returns whether a caller waits for a part. A part whose deadline has passed fails here.
fn is_wanted(part: &BatchPart) -> bool {
    part.call.still_wanted().unwrap_or_else(|error| {
        part.call.finish(Err(error));
        false
    })
}

/// Fails the calls of a batch.
pub(super) fn fail(parts: &[BatchPart], error: &Error) {
    parts.iter().for_each(|part| part.call.finish(Err(error.clone())));
}

/// Splits a batch in two of about as many texts.
pub(super) fn halves(parts: Vec<BatchPart>, texts: usize) -> [Vec<BatchPart>; 2] {
    let mut room = texts / 2;
    let mut halves = [Vec::new(), Vec::new()];
    for mut part in parts {
        let rest = part.texts.split_off(room.min(part.texts.len()));
        room -= part.texts.len();
        for (half, texts) in halves.iter_mut().zip([part.texts, rest]) {
            if !texts.is_empty() {
                half.push(BatchPart { call: Arc::clone(&part.call), texts });
            }
        }
    }
    halves
}
