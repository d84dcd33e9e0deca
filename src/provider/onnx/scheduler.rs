//! Schedules the work of all callers on threads of its own: tokenizing ahead of inference, then batches of like length.
//!
//! A call's texts are tokenized in pieces, once. Where the same threads embed, what is bad is known before anything is
//! embedded. Batches are packed by
//! padded tokens out of all calls that wait in a lane, and each thread runs one at a time on a session of its own.
//! Rows go straight into their call's one matrix. Locks: the queue's first, then a call's.

mod call;
mod counters;
mod packing;
mod pieces;
mod queue;
mod worker;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use tokio::sync::oneshot;

pub use self::counters::OnnxStats;
pub(super) use self::{
    call::CallRows,
    packing::Packing,
    worker::{Worker, WorkerRole},
};
use self::{
    call::{AfterTokenizing, EmbedCall},
    counters::{Counters, TimedStage},
    packing::BatchPart,
    pieces::TextPiece,
    queue::{WorkItem, WorkQueue},
};
use super::stages::{RunBatch, TokenRow, Tokenize};
use crate::{BadText, Batch, Error, ErrorKind, Result};

/// The threads and what they share.
#[derive(Debug)]
pub(super) struct Scheduler {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    tokens: Arc<dyn Tokenize>,
    /// Components of a vector.
    width: usize,
    /// Tokens for which inference begins while the rest of a call is tokenized, where other threads do that.
    early: Option<usize>,
    queue: Mutex<WorkQueue>,
    wake: Condvar,
    counters: Counters,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("width", &self.width).field("early", &self.early).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scheduler {
    /// Starts the threads.
    pub(super) fn start(tokens: Arc<dyn Tokenize>, width: usize, workers: Vec<Worker>) -> Result<Self> {
        // Threads that only embed need not wait for a call to be tokenized to its end, and would stand idle.
        let only_embed = workers.iter().filter(|worker| !worker.role.tokenizes);
        let early = only_embed
            .filter_map(|worker| worker.role.packing.as_ref())
            .map(|packing| packing.budget().saturating_mul(2))
            .max();
        let shared = Arc::new(Shared {
            tokens,
            width,
            early,
            queue: Mutex::default(),
            wake: Condvar::new(),
            counters: Counters::default(),
        });
        let mut scheduler = Self { shared: Arc::clone(&shared), threads: Vec::with_capacity(workers.len() + 1) };
        for Worker { name, role, runner } in workers {
            let shared = Arc::clone(&shared);
            scheduler.spawn(name, move || shared.worker_loop(&role, runner))?;
        }
        scheduler.spawn("docvector-giants".to_owned(), move || shared.giant_loop())?;
        Ok(scheduler)
    }

    fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let message = format!("the thread {name} cannot be started");
        let thread = thread::Builder::new().name(name).spawn(work);
        let thread = thread.map_err(|error| Error::new(ErrorKind::Config, message).with_source(error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Embeds the texts of a batch; where some are `bad` already, finds the others that are too long, and fails.
    /// Dropping the future withdraws what has not begun.
    pub(super) async fn submit(&self, batch: &Batch<'_>, bad: Vec<BadText>) -> Result<CallRows> {
        let (reply, answer) = oneshot::channel();
        let (call, giants) = EmbedCall::new(batch, bad, self.shared.width, reply);
        let call = Arc::new(call);
        let waiting = Waiting { shared: &self.shared, call: Arc::clone(&call) };
        lock(&self.shared.queue).push_call(&call, giants);
        self.shared.wake.notify_all();
        drop(call);
        let done = answer.await;
        drop(waiting);
        done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Inference, "the threads have stopped")))
    }

    /// What the threads have done so far.
    pub(super) fn stats(&self) -> OnnxStats {
        self.shared.counters.read()
    }
}

impl Drop for Scheduler {
    /// Waits for the batches being run (milliseconds), not for those queued: nobody can be waiting for them.
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != thread::current().id()) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

/// Withdraws its call when dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    call: Arc<EmbedCall>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.call.is_over() {
            self.call.withdraw();
            lock(&self.shared.queue).remove(&self.call);
        } else if self.call.has_giants {
            lock(&self.shared.queue).remove_giants(&self.call);
        }
    }
}

impl Shared {
    /// What each thread does until it is told to stop.
    fn worker_loop(&self, role: &WorkerRole, mut runner: Option<Box<dyn RunBatch>>) {
        let mut ahead = 0;
        while let Some(item) = self.wait_for_work(role, &mut ahead) {
            match (item, &mut runner) {
                (WorkItem::Tokenize(call, piece), _) => self.tokenize_stage(&call, &piece),
                (WorkItem::Run(parts), Some(runner)) => self.run_stage(parts, role, runner.as_mut()),
                (WorkItem::Run(parts), None) => {
                    fail(&parts, &Error::new(ErrorKind::Inference, "a thread has no session"))
                }
            }
        }
    }

    /// What the thread for giant texts does.
    fn giant_loop(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while !queue.stop && queue.giants.is_empty() {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let Some((call, piece)) = queue.giants.pop_front().filter(|_| !queue.stop) else { return };
            drop(queue);
            self.tokenize_stage(&call, &piece);
        }
    }

    /// Waits for something to do.
    fn wait_for_work(&self, role: &WorkerRole, ahead: &mut u32) -> Option<WorkItem> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop {
                return None;
            }
            if let Some(item) = queue.next_item(role, ahead) {
                return Some(item);
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn tokenize_stage(&self, call: &Arc<EmbedCall>, piece: &TextPiece) {
        match call.still_wanted() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return call.finish(Err(error)),
        }
        let started = Instant::now();
        let encode =
            || piece.texts().map(|(at, text)| (at, self.tokens.tokenize(call.kind, text, call.truncation))).collect();
        let encoded = catch_unwind(AssertUnwindSafe(encode));
        self.counters.took(TimedStage::Tokenizing, started.elapsed());
        let Ok(encoded) = encoded else {
            return call.finish(Err(Error::new(ErrorKind::Inference, "the tokenizer panicked")));
        };
        match call.add_tokens(encoded, self.tokens.limit(), self.early) {
            AfterTokenizing::Nothing => {}
            AfterTokenizing::Ready => {
                let mut queue = lock(&self.queue);
                // Withdrawn in between, it would stay there.
                if !call.is_over() {
                    queue.push_ready(call);
                }
                drop(queue);
                self.wake.notify_all();
            }
            AfterTokenizing::Finished(result) => call.finish(result),
        }
    }

    /// Runs a batch, if it is still wanted. One that fails is run again in parts: in halves where memory was short,
    /// otherwise call by call, so that nobody fails for another's text.
    fn run_stage(&self, mut parts: Vec<BatchPart>, role: &WorkerRole, runner: &mut dyn RunBatch) {
        parts.retain(|part| match part.call.still_wanted() {
            Ok(wanted) => wanted,
            Err(error) => {
                part.call.finish(Err(error));
                false
            }
        });
        if parts.is_empty() {
            return;
        }
        let rows: Vec<TokenRow<'_>> = parts
            .iter()
            .flat_map(|part| {
                let unpooled = self.tokens.unpooled(part.call.kind);
                part.texts.iter().map(move |(_, ids)| TokenRow { ids, unpooled })
            })
            .collect();
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let (texts, tokens) = (rows.len(), rows.iter().map(|row| row.ids.len()).sum());
        let started = Instant::now();
        let mut delivered = false;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            runner.run_batch(&rows, &mut |mut vectors| {
                let ran = Instant::now();
                if vectors.len() != texts * self.width {
                    return;
                }
                delivered = true;
                // Before any caller has its rows, so that it finds them counted.
                self.counters.batch(texts, tokens, texts * longest, ran - started);
                for part in &parts {
                    let indices: Vec<usize> = part.texts.iter().map(|&(index, _)| index).collect();
                    let (own, rest) = vectors.split_at((indices.len() * self.width).min(vectors.len()));
                    part.call.place_rows(&indices, own, self.width);
                    vectors = rest;
                }
                self.counters.took(TimedStage::Delivering, ran.elapsed());
            })
        }));
        let failure = match ran {
            Ok(Ok(())) if delivered => return,
            Ok(Ok(())) => Error::new(ErrorKind::Inference, "the model gave other vectors than asked for").into(),
            Ok(Err(failure)) => failure,
            Err(_) => Error::new(ErrorKind::Inference, "the model panicked").into(),
        };
        if delivered {
            // Some have their rows: they must not be counted twice, and nobody must wait for ever.
            fail(&parts, &failure.error);
        } else if failure.out_of_memory && texts > 1 {
            if let Some(packing) = &role.packing {
                packing.halve(texts * longest);
            }
            for half in halves(parts, texts) {
                self.run_stage(half, role, runner);
            }
        } else if parts.len() > 1 {
            for part in parts {
                self.run_stage(vec![part], role, runner);
            }
        } else {
            fail(&parts, &failure.error);
        }
    }
}

fn fail(parts: &[BatchPart], error: &Error) {
    parts.iter().for_each(|part| part.call.finish(Err(error.clone())));
}

/// SplitPoints a batch in two of about as many texts.
fn halves(parts: Vec<BatchPart>, texts: usize) -> [Vec<BatchPart>; 2] {
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

#[cfg(test)]
mod tests;
