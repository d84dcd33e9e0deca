//! Schedules the work of all callers on threads of its own: tokenizes ahead of inference, then runs batches of like
//! length.
//!
//! Each stage hands the texts on to the next one. Calls wait between the stages in the queue, by lane:
//!
//! ```text
//! caller    Scheduler::submit          makes an EmbedCall of the batch, and waits for its reply
//!               │ pieces of texts
//!               v
//! queue     WorkQueue::push_call
//!               │
//!               v
//! tokenize  Shared::tokenize_stage     texts -> ids; each piece of a call on any thread, a long text in several turns;
//!               │                      what cannot be split goes to a thread for long stretches
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
//! No turn takes more than some tens of milliseconds, but for stretches of text that cannot be split, and those have
//! threads of their own: for long ones, and one for giant ones, because of their memory. Between two turns a thread looks
//! whether the call's deadline has passed or its caller has gone. Each thread also looks for deadlines of all calls when
//! it looks for work, and while it waits for it. So a caller has its error in time while a stretch of its text is still
//! read; nobody uses that stretch's tokens.
//!
//! On a CPU each thread does all of it: [`WorkQueue::next_item`] chooses between a piece and a batch. Beside a GPU,
//! some threads tokenize and others run.
//!
//! Lock order: the queue's lock first, then a call's. The queue's lock is held while a batch is packed, so packing
//! looks at no more than a few hundred calls. No lock is held while a tokenizer or a model runs, nor while a caller is
//! woken.

mod call;
mod counters;
mod deadlines;
mod packing;
mod pieces;
mod queue;
mod run_stage;
mod tokenize_stage;
mod turns;
mod worker;

use std::{
    process,
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
    call::EmbedCall,
    counters::Counters,
    pieces::{StretchSize, TextPiece},
    queue::{WorkItem, WorkQueue},
    run_stage::{RunStage, fail},
    tokenize_stage::{AfterTurn, TokenizeStage, Turn},
};
use super::stages::{RunBatch, Tokenize};
use crate::{BadText, Batch, Error, ErrorKind, Result, lanes::HeadStart};

/// The most threads for long stretches of text that cannot be split.
const MOST_LONG_THREADS: usize = 4;

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
    /// The process that the threads run in. A fork of it has everything but the threads.
    process: u32,
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
            process: process::id(),
        });
        // As many as keep up with the threads that embed. Each may need the memory for a stretch of almost a giant's size.
        let long = (workers.iter().filter(|worker| worker.role.tokenizes).count() / 2).clamp(1, MOST_LONG_THREADS);
        let mut scheduler = Self { shared: Arc::clone(&shared), threads: Vec::with_capacity(workers.len() + long + 1) };
        for Worker { name, role, runner } in workers {
            let shared = Arc::clone(&shared);
            scheduler.spawn(name, move || shared.worker_loop(&role, runner))?;
        }
        for number in 0..long {
            let shared = Arc::clone(&shared);
            scheduler.spawn(format!("docvector-long-{number}"), move || shared.long_loop(StretchSize::Long))?;
        }
        scheduler.spawn("docvector-giants".to_owned(), move || shared.long_loop(StretchSize::Giant))?;
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
        self.shared.check_process()?;
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
        if self.shared.check_process().is_err() {
            // There is nobody to wait for. Another thread may have held the lock when the process was forked.
            self.threads.drain(..).for_each(std::mem::forget);
            return;
        }
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
        if self.shared.check_process().is_err() {
            return;
        }
        self.call.withdraw();
        // A call that has failed may wait in the queue still.
        lock(&self.shared.queue).remove(&self.call);
    }
}

impl Shared {
    /// Fails in a fork of the process that loaded the model: a call would wait there for threads that do not exist.
    fn check_process(&self) -> Result<()> {
        let (loaded, here) = (self.process, process::id());
        if loaded == here {
            return Ok(());
        }
        let message = format!(
            "the model was loaded in process {loaded}, and process {here} is a fork of it without the model's threads: \
             load the model in this process"
        );
        Err(Error::new(ErrorKind::Config, message))
    }

    /// Runs one thread until it is told to stop.
    fn worker_loop(&self, role: &WorkerRole, runner: Option<Box<dyn RunBatch>>) {
        let (tokens, width, counters) = (&*self.tokens, self.width, &self.counters);
        let packing = role.packing.as_ref();
        let mut run =
            packing.zip(runner).map(|(packing, runner)| (RunStage { tokens, width, counters, packing }, runner));
        let mut head_start = HeadStart::default();
        while let Some(item) = self.wait_for(|queue| queue.next_item(role, &mut head_start)) {
            match (item, &mut run) {
                (WorkItem::Tokenize(call, piece), _) => self.tokenize_stage(&call, piece, Turn::Slice),
                (WorkItem::Run(batch), Some((stage, runner))) => stage.run(batch, runner.as_mut()),
                (WorkItem::Run(batch), None) => {
                    fail(&batch, &Error::new(ErrorKind::Inference, "a thread has no session"))
                }
            }
        }
    }

    /// Runs a thread for stretches of this size.
    fn long_loop(&self, size: StretchSize) {
        let mut head_start = HeadStart::default();
        while let Some((call, piece)) = self.wait_for(|queue| queue.next_long(size, &mut head_start)) {
            self.tokenize_stage(&call, piece, Turn::LongStretch);
        }
    }

    /// Waits for the next work of a thread; `None` if it is to stop. Fails the calls whose deadline passes before.
    fn wait_for<T>(&self, mut next: impl FnMut(&mut WorkQueue) -> Option<T>) -> Option<T> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop {
                return None;
            }
            if let Some(late) = queue.deadlines.pop_passed() {
                // The caller that is woken may run any code.
                drop(queue);
                late.pass_deadline();
                drop(late);
                queue = lock(&self.queue);
                continue;
            }
            if let Some(work) = next(&mut queue) {
                return Some(work);
            }
            queue = match queue.deadlines.next() {
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let time = deadline.saturating_duration_since(Instant::now());
                    self.wake.wait_timeout(queue, time).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Tokenizes a piece of a call, as much of it as one turn allows, and hands the call on.
    fn tokenize_stage(&self, call: &Arc<EmbedCall>, piece: TextPiece, turn: Turn) {
        let stage = TokenizeStage { tokens: &*self.tokens, counters: &self.counters, early: self.early };
        let next = stage.run(call, piece, turn);
        if matches!(next, AfterTurn::Nothing) {
            return;
        }
        let mut queue = lock(&self.queue);
        match next {
            // A call that was withdrawn meanwhile would stay in the queue: its caller has removed it already.
            _ if call.is_over() => {}
            AfterTurn::Nothing => {}
            AfterTurn::Ready => queue.push_ready(call),
            AfterTurn::Rest(piece, size) => queue.give_back(call, piece, size),
        }
        drop(queue);
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests;
