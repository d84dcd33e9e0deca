//! Schedules the work of all callers on threads of its own: tokenizes ahead of inference, then runs batches of like
//! length.
//!
//! Each stage hands the texts on to the next one. Calls wait between the stages in the queue, by lane:
//!
//! ```text
//! caller    Scheduler::submit          makes an EmbedCall of the batch, and waits for its reply
//!               │ pieces of texts
//!               v
//! queue     WorkQueue::push_call       giant texts go to a thread of their own
//!               │
//!               v
//! tokenize  Shared::tokenize_stage     texts -> ids; each piece of a call on any thread
//!               │ ids: EmbedCall::add_tokens
//!               v
//! queue     WorkQueue::push_ready      when all texts are tokenized, or enough for a device of its own
//!               │
//!               v
//! pack      packing::pack_batch        texts of like length, out of all calls of the lane -> one batch
//!               │ BatchParts
//!               v
//! run       RunStage::run              batch -> vectors; what fails is split and run again
//!               │ vectors
//!               v
//! place     EmbedCall::place_rows      vectors -> rows of the call's one matrix; the last row sends the reply
//! ```
//!
//! On a CPU each thread does all of it: [`WorkQueue::next_item`] chooses between a piece and a batch. Beside a GPU,
//! some threads tokenize and others run.
//!
//! Lock order: the queue's lock first, then a call's. The queue's lock is held while a batch is packed, so packing
//! looks at no more than a few hundred calls. No lock is held while a tokenizer or a model runs, nor while a caller is
//! woken.

mod call;
mod counters;
mod packing;
mod pieces;
mod queue;
mod run_stage;
mod turns;
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
    pieces::TextPiece,
    queue::{WorkItem, WorkQueue},
    run_stage::{RunStage, fail},
};
use super::stages::{RunBatch, Tokenize};
use crate::{BadText, Batch, Error, ErrorKind, Result, lanes::HeadStart};

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
    /// The tokens of a call after which its inference begins while the rest is tokenized, if other threads tokenize.
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
        // Threads that only embed would stand idle while the rest of a call is tokenized.
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

    /// Embeds the texts of a batch. If some are `bad` already, finds the others that are too long, and fails.
    /// Dropping the future withdraws the work that has not begun.
    pub(super) async fn submit(&self, batch: &Batch<'_>, bad: Vec<BadText>) -> Result<CallRows> {
        let (reply, answer) = oneshot::channel();
        let call = Arc::new(EmbedCall::new(batch, bad, self.shared.width, reply));
        let waiting = Waiting { shared: &self.shared, call: Arc::clone(&call) };
        lock(&self.shared.queue).push_call(&call);
        self.shared.wake.notify_all();
        drop(call);
        let done = answer.await;
        drop(waiting);
        done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Inference, "the threads have stopped")))
    }

    /// Returns what the threads have done so far.
    pub(super) fn stats(&self) -> OnnxStats {
        self.shared.counters.read()
    }
}

impl Drop for Scheduler {
    /// Waits for the batches that are running (milliseconds), and not for queued ones: no caller can wait for them.
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != thread::current().id()) {
            // A panic of a thread has been printed already.
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
        self.call.withdraw();
        // A call that has failed may wait in the queue still.
        lock(&self.shared.queue).remove(&self.call);
    }
}

impl Shared {
    /// Runs one thread until it is told to stop.
    fn worker_loop(&self, role: &WorkerRole, runner: Option<Box<dyn RunBatch>>) {
        let (tokens, width, counters) = (&*self.tokens, self.width, &self.counters);
        let packing = role.packing.as_ref();
        let mut run =
            packing.zip(runner).map(|(packing, runner)| (RunStage { tokens, width, counters, packing }, runner));
        let mut head_start = HeadStart::default();
        while let Some(item) = self.wait_for(|queue| queue.next_item(role, &mut head_start)) {
            match (item, &mut run) {
                (WorkItem::Tokenize(call, piece), _) => self.tokenize_stage(&call, &piece),
                (WorkItem::Run(batch), Some((stage, runner))) => stage.run(batch, runner.as_mut()),
                (WorkItem::Run(batch), None) => {
                    fail(&batch, &Error::new(ErrorKind::Inference, "a thread has no session"))
                }
            }
        }
    }

    /// Runs the thread for giant texts.
    fn giant_loop(&self) {
        while let Some((call, piece)) = self.wait_for(WorkQueue::next_giant) {
            self.tokenize_stage(&call, &piece);
        }
    }

    /// Waits for the next work of a thread; `None` if it is to stop.
    fn wait_for<T>(&self, mut next: impl FnMut(&mut WorkQueue) -> Option<T>) -> Option<T> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop {
                return None;
            }
            if let Some(work) = next(&mut queue) {
                return Some(work);
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tokenizes a piece of a call, and hands the call on.
    fn tokenize_stage(&self, call: &Arc<EmbedCall>, piece: &TextPiece) {
        match call.still_wanted() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return call.finish(Err(error)),
        }
        let started = Instant::now();
        let tokenize = |text| self.tokens.tokenize(call.kind, text, call.truncation);
        let all = || piece.texts().map(|(at, text)| (at, tokenize(text))).collect();
        let tokenized = catch_unwind(AssertUnwindSafe(all));
        self.counters.took(TimedStage::Tokenizing, started.elapsed());
        let Ok(tokenized) = tokenized else {
            return call.finish(Err(Error::new(ErrorKind::Inference, "the tokenizer panicked")));
        };
        match call.add_tokens(tokenized, self.tokens.limit(), self.early) {
            AfterTokenizing::Nothing => {}
            AfterTokenizing::Ready => self.hand_to_packing(call),
            AfterTokenizing::Finished(result) => call.finish(result),
        }
    }

    /// Puts a call with texts to be embedded where batches are packed from.
    fn hand_to_packing(&self, call: &Arc<EmbedCall>) {
        let mut queue = lock(&self.queue);
        // A call that was withdrawn meanwhile would stay in the queue: its caller has removed it already.
        if !call.is_over() {
            queue.push_ready(call);
        }
        drop(queue);
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests;
