//! Schedules the work of all callers on threads of its own: tokenising first, then batches of like length.
//!
//! Calls of one lane take turns, a piece of work at a time, so that a large call holds up no other; the interactive
//! lane goes first, without starving the other. A call's texts are tokenised in pieces, sorted by length, and packed
//! by padded tokens; each thread runs one batch at a time on a session of its own.

use std::{
    collections::VecDeque,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use ort::{environment::Environment, session::Session};
use tokio::sync::oneshot;

use super::{
    session::{Model, Rows},
    tokens::{Encoded, Over, Tokens},
};
use crate::{BadText, BadTextReason, Batch, Error, ErrorKind, InputKind, Lane, Result, TooLong};

/// A text that is tokenised on a thread of its own, one at a time: it can take seconds, and a hundred times its size in
/// memory, where it has no place to be cut at.
const GIANT_BYTES: usize = 1 << 20;
/// Text that is tokenised as one piece of work: so much takes a core about 20 milliseconds.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces of interactive work after which waiting bulk work gets one.
const HEAD_START: u32 = 8;

/// The threads and what they share.
#[derive(Debug)]
pub(super) struct Scheduler {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    tokens: Arc<Tokens>,
    model: Model,
    /// Padded tokens of a batch.
    budget: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    interactive: VecDeque<Arc<Call>>,
    bulk: VecDeque<Arc<Call>>,
    /// Giant texts of calls that wait for them.
    giants: VecDeque<(Arc<Call>, usize)>,
    /// Pieces of interactive work since the last of bulk work.
    ahead: u32,
    stop: bool,
}

/// One caller's texts on their way.
struct Call {
    texts: Vec<Box<str>>,
    kind: InputKind,
    too_long: TooLong,
    lane: Lane,
    deadline: Option<Instant>,
    /// Nobody waits for the rest: it was withdrawn, or it failed.
    over: AtomicBool,
    work: Mutex<Work>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("texts", &self.texts.len()).finish_non_exhaustive()
    }
}

struct Work {
    todo: VecDeque<Piece>,
    /// Pieces that are being worked on.
    running: usize,
    tokenised: bool,
    encoded: Vec<Encoded>,
    bad: Vec<BadText>,
    tokens: u64,
    components: Vec<f32>,
    reply: Option<oneshot::Sender<Result<Done>>>,
}

enum Piece {
    Tokenise(Range<usize>),
    /// Indices of texts.
    Infer(Vec<usize>),
}

/// What a call comes to.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) components: Vec<f32>,
    pub(super) truncated: Vec<usize>,
    pub(super) tokens: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scheduler {
    /// Starts the threads, each with a session.
    pub(super) fn start(
        tokens: Arc<Tokens>,
        model: Model,
        environment: &Environment,
        threads: usize,
        budget: usize,
    ) -> Result<Self> {
        let shared = Arc::new(Shared { tokens, model, budget, queue: Mutex::default(), wake: Condvar::new() });
        let mut scheduler = Self { shared: Arc::clone(&shared), threads: Vec::with_capacity(threads) };
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            // Made here, one after the other: each thread making its own would leave its scraps in its own heap.
            let session = shared.model.session(environment)?;
            let thread = thread::Builder::new().name(format!("docvector-onnx-{number}"));
            let thread = thread.spawn(move || shared.work(session)).map_err(|error| {
                let message = format!("thread {number} of {threads} cannot be started");
                Error::new(ErrorKind::Config, message).with_source(error)
            })?;
            scheduler.threads.push(thread);
        }
        let thread = thread::Builder::new().name("docvector-giants".to_owned());
        let thread = thread.spawn(move || shared.work_on_giants()).map_err(|error| {
            Error::new(ErrorKind::Config, "the thread for giant texts cannot be started").with_source(error)
        })?;
        scheduler.threads.push(thread);
        Ok(scheduler)
    }

    /// Embeds the texts of a batch; where some are `bad` already, finds the others that are too long, and fails.
    /// Dropping the future withdraws what has not begun.
    pub(super) async fn embed(&self, batch: &Batch<'_>, bad: Vec<BadText>) -> Result<Done> {
        let (reply, answer) = oneshot::channel();
        let call = Arc::new(Call::new(batch, bad, self.shared.model.dimensions, reply));
        let waiting = Waiting { shared: &self.shared, call: Arc::clone(&call) };
        self.shared.enqueue_giants(&call);
        self.shared.enqueue(call);
        let done = answer.await;
        drop(waiting);
        done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Inference, "the threads have stopped")))
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
    call: Arc<Call>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.call.over.store(true, Ordering::Relaxed);
        let mut queue = lock(&self.shared.queue);
        queue.lane(self.call.lane).retain(|call| !Arc::ptr_eq(call, &self.call));
        queue.giants.retain(|(call, _)| !Arc::ptr_eq(call, &self.call));
    }
}

impl Queue {
    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Arc<Call>> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// The call whose turn it is.
    fn next(&mut self) -> Option<Arc<Call>> {
        let bulk_turn = self.interactive.is_empty() || (self.ahead >= HEAD_START && !self.bulk.is_empty());
        if bulk_turn {
            self.ahead = 0;
            return self.bulk.pop_front();
        }
        self.ahead = self.ahead.saturating_add(1);
        self.interactive.pop_front()
    }
}

impl Call {
    fn new(batch: &Batch<'_>, bad: Vec<BadText>, dimensions: usize, reply: oneshot::Sender<Result<Done>>) -> Self {
        let texts: Vec<Box<str>> = batch.texts().iter().map(|&text| text.into()).collect();
        let mut todo = VecDeque::new();
        let (mut start, mut bytes, mut giants) = (0, 0, 0);
        for (index, text) in texts.iter().enumerate() {
            if text.len() >= GIANT_BYTES {
                todo.extend((start < index).then_some(Piece::Tokenise(start..index)));
                (start, bytes) = (index + 1, 0);
                giants += 1;
                continue;
            }
            bytes += text.len();
            if bytes >= PIECE_BYTES {
                todo.push_back(Piece::Tokenise(start..index + 1));
                (start, bytes) = (index + 1, 0);
            }
        }
        if start < texts.len() {
            todo.push_back(Piece::Tokenise(start..texts.len()));
        }
        let work = Work {
            todo,
            // Those are under way from the beginning: the other thread sees to them.
            running: giants,
            tokenised: false,
            encoded: vec![Encoded { ids: Vec::new(), truncated: false }; texts.len()],
            components: if bad.is_empty() { vec![0.0; texts.len() * dimensions] } else { Vec::new() },
            bad,
            tokens: 0,
            reply: Some(reply),
        };
        Self {
            kind: batch.kind(),
            too_long: batch.too_long(),
            lane: batch.lane(),
            deadline: batch.deadline(),
            over: AtomicBool::new(false),
            work: Mutex::new(work),
            texts,
        }
    }

    /// Whether somebody waits for the result, and it can still be in time.
    fn still_wanted(&self) -> Result<bool> {
        if self.over.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::new(ErrorKind::DeadlinePassed, "the batch's work had not all begun"));
        }
        Ok(true)
    }

    fn finish(&self, result: Result<Done>) {
        self.over.store(true, Ordering::Relaxed);
        let mut work = lock(&self.work);
        work.todo.clear();
        let reply = work.reply.take();
        // Whoever is woken may do anything at all, and must not do it under the lock.
        drop(work);
        if let Some(reply) = reply {
            // The caller may have gone.
            let _ = reply.send(result);
        }
    }
}

impl Shared {
    fn enqueue(&self, call: Arc<Call>) {
        lock(&self.queue).lane(call.lane).push_back(call);
        self.wake.notify_all();
    }

    fn enqueue_giants(&self, call: &Arc<Call>) {
        let giants = (0..call.texts.len()).filter(|&index| call.texts[index].len() >= GIANT_BYTES);
        lock(&self.queue).giants.extend(giants.map(|index| (Arc::clone(call), index)));
    }

    /// What each thread does until it is told to stop.
    fn work(self: Arc<Self>, mut session: Session) {
        while let Some((call, piece)) = self.take() {
            self.settle(&call, || match piece {
                Piece::Tokenise(range) => self.tokenise(&call, range),
                Piece::Infer(indices) => self.infer(&call, &indices, &mut session),
            });
        }
    }

    /// What the thread for giant texts does.
    fn work_on_giants(self: Arc<Self>) {
        loop {
            let mut queue = lock(&self.queue);
            while !queue.stop && queue.giants.is_empty() {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let Some((call, index)) = queue.giants.pop_front().filter(|_| !queue.stop) else { return };
            drop(queue);
            self.settle(&call, || self.tokenise(&call, index..index + 1));
        }
    }

    /// Does a piece of work, if it is still wanted, and what follows from it.
    fn settle(&self, call: &Arc<Call>, work: impl FnOnce() -> Result<()>) {
        let panicked = |_| Err(Error::new(ErrorKind::Inference, "the model or the tokenizer panicked"));
        let done = match call.still_wanted() {
            Ok(true) => catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.advance(call),
            Err(error) => call.finish(Err(error)),
        }
    }

    /// Waits for a piece of work.
    fn take(&self) -> Option<(Arc<Call>, Piece)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop {
                return None;
            }
            let Some(call) = queue.next() else {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let mut work = lock(&call.work);
            if call.over.load(Ordering::Relaxed) {
                work.todo.clear();
            }
            let piece = work.todo.pop_front();
            work.running += usize::from(piece.is_some());
            let more = !work.todo.is_empty();
            drop(work);
            if more {
                queue.lane(call.lane).push_back(Arc::clone(&call));
            }
            if let Some(piece) = piece {
                return Some((call, piece));
            }
        }
    }

    fn tokenise(&self, call: &Call, range: Range<usize>) -> Result<()> {
        let mut encoded = Vec::with_capacity(range.len());
        for index in range {
            encoded.push((index, self.tokens.encode(call.kind, &call.texts[index], call.too_long)));
        }
        let mut work = lock(&call.work);
        for (index, encoded) in encoded {
            match encoded {
                Ok(Ok(encoded)) => work.encoded[index] = encoded,
                // One text that the tokenizer cannot make anything of does not sink the others.
                Err(_) => work.bad.push(BadText::new(index, BadTextReason::Rejected)),
                Ok(Err(Over(tokens))) => {
                    let reason = BadTextReason::TooLong { tokens, limit: self.tokens.max };
                    work.bad.push(BadText::new(index, reason));
                }
            }
        }
        Ok(())
    }

    fn infer(&self, call: &Call, indices: &[usize], session: &mut Session) -> Result<()> {
        // Taken out, not copied: this piece is the only one that needs them.
        let ids: Vec<Vec<u32>> = {
            let mut work = lock(&call.work);
            indices.iter().map(|&index| std::mem::take(&mut work.encoded[index].ids)).collect()
        };
        let rows: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let unpooled = self.tokens.prompt_tokens(call.kind);
        let vectors = self.model.run(session, &Rows { ids: &rows, unpooled })?;
        let width = self.model.dimensions;
        let mut work = lock(&call.work);
        for (&index, vector) in indices.iter().zip(vectors.chunks_exact(width)) {
            work.components[index * width..(index + 1) * width].copy_from_slice(vector);
        }
        Ok(())
    }

    /// Takes note that a piece is done; the last one of a stage begins the next.
    fn advance(&self, call: &Arc<Call>) {
        let mut work = lock(&call.work);
        work.running -= 1;
        if work.running > 0 || !work.todo.is_empty() || call.over.load(Ordering::Relaxed) {
            return;
        }
        if work.tokenised {
            let truncated = (0..work.encoded.len()).filter(|&index| work.encoded[index].truncated).collect();
            let tokens = work.tokens;
            let done = Done { components: std::mem::take(&mut work.components), truncated, tokens };
            drop(work);
            call.finish(Ok(done));
            return;
        }
        if !work.bad.is_empty() {
            let bad = std::mem::take(&mut work.bad);
            drop(work);
            call.finish(Err(Error::invalid_texts(bad)));
            return;
        }
        work.tokenised = true;
        let lengths: Vec<usize> = work.encoded.iter().map(|encoded| encoded.ids.len()).collect();
        work.tokens = lengths.iter().map(|&length| length as u64).sum();
        let most_texts = if self.model.alone { Some(1) } else { self.model.fixed_texts };
        work.todo = pack(&lengths, self.budget, most_texts).map(Piece::Infer).collect();
        drop(work);
        self.enqueue(Arc::clone(call));
    }
}

/// Packs texts of like length into batches of at most `budget` padded tokens, the longest first, so that no thread ends
/// with a long batch while the others are idle. A longer text is a batch of its own.
fn pack(lengths: &[usize], budget: usize, most_texts: Option<usize>) -> impl Iterator<Item = Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let sorted: Vec<usize> = order.iter().map(|&index| lengths[index]).collect();
    let mut start = 0;
    std::iter::from_fn(move || {
        let &longest = sorted.get(start)?;
        let texts = (budget / longest.max(1)).max(1).min(most_texts.unwrap_or(usize::MAX)).min(order.len() - start);
        start += texts;
        Some(order[start - texts..start].to_vec())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packs_every_text_once_within_the_budget(
            lengths in prop::collection::vec(0_usize..600, 0..200),
            budget in 1_usize..2000,
            most in prop::option::of(1_usize..9),
        ) {
            let packs: Vec<Vec<usize>> = pack(&lengths, budget, most).collect();
            let mut all: Vec<usize> = packs.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for pack in packs {
                let longest = pack.iter().map(|&index| lengths[index]).max().unwrap_or(0);
                prop_assert!(pack.len() == 1 || longest * pack.len() <= budget);
                prop_assert!(pack.len() <= most.unwrap_or(usize::MAX));
            }
        }
    }
}
