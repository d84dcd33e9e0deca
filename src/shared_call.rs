//! Lets any number of callers wait for one future, which continues as long as one of them waits: [`SharedCall`].
//!
//! No waiter owns the future: each waiter that is polled polls it. Three things must hold, whatever the threads do, and
//! `tests/loom` tries all their orders:
//!
//! - **No lost wake-up.** A waiter registers its waker before it looks at the future. If another waiter is polling the
//!   future at the time, that one sees the waker when it puts the future back. If the future was woken while it was
//!   polled, that poll may have come too early: the waiter that puts it back wakes all waiters. It does not rely on
//!   being polled again itself, because it may be dropped instead.
//! - **No waiter is needed.** Each wake-up wakes all waiters. If one of them leaves, another one polls.
//! - **The last waiter ends it.** The future is dropped with the last waiter, at once and under no lock.
//!
//! # Lock order
//! There are two locks, of the stage and of the wakers, and no thread holds both. The future, wakers and values are
//! code of others: none is polled, woken, cloned or dropped under a lock, except that a finished value is cloned under
//! that of the stage (here an `Arc`).

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use crate::sync::{self, Mutex, Weak};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct State<T> {
    stage: Mutex<Stage<T>>,
    waiting: Arc<Waiting>,
    /// Wakes all waiters. The future is polled with it.
    waker: Waker,
}

enum Stage<T> {
    /// The future waits, or has not begun.
    Idle(BoxFuture<T>),
    /// A waiter is polling the future.
    Polled,
    Done(T),
    /// The future panicked while a waiter polled it.
    Broken,
}

/// Those that wait.
#[derive(Default)]
struct Waiting(Mutex<Wakers>);

#[derive(Default)]
struct Wakers {
    /// One place per waiter.
    places: Vec<Option<Waker>>,
    /// The places whose waiter has left.
    free: Vec<usize>,
    /// Whether the future was woken since its last poll began.
    woken: bool,
    /// The number of polls so far.
    polls: u64,
}

impl Waiting {
    fn enter(&self) -> usize {
        self.0.with(|wakers| {
            wakers.free.pop().unwrap_or_else(|| {
                wakers.places.push(None);
                wakers.places.len() - 1
            })
        })
    }

    fn leave(&self, place: usize) {
        // A waker may be the last handle of a task, which may have waiters of its own: it must not be dropped under the
        // lock.
        drop(self.0.with(|wakers| {
            wakers.free.push(place);
            wakers.places[place].take()
        }));
    }

    fn register(&self, place: usize, waker: &Waker) {
        let is_there = |wakers: &mut Wakers| wakers.places[place].as_ref().is_some_and(|same| same.will_wake(waker));
        if !self.0.with(is_there) {
            // Cloned and dropped under no lock, because both run code of an executor.
            let waker = waker.clone();
            drop(self.0.with(|wakers| wakers.places[place].replace(waker)));
        }
    }

    fn wake_all(&self) {
        let wakers: Vec<Waker> = self.0.with(|wakers| wakers.places.iter_mut().filter_map(Option::take).collect());
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.with(|wakers| wakers.woken = true);
        self.wake_all();
    }
}

/// One waiter for a shared future. Its output is `None` if the future panicked while another waiter polled it.
pub(crate) struct SharedCall<T> {
    state: sync::Arc<State<T>>,
    place: usize,
}

/// A handle of a shared future that does not keep it alive.
pub(crate) struct WeakCall<T>(Weak<State<T>>);

impl<T: Clone> SharedCall<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let waiting = Arc::<Waiting>::default();
        let waker = Waker::from(waiting.clone());
        let state = State { stage: Mutex::new(Stage::Idle(Box::pin(future))), waiting, waker };
        Self::join(sync::Arc::new(state))
    }

    fn join(state: sync::Arc<State<T>>) -> Self {
        let place = state.waiting.enter();
        Self { state, place }
    }

    pub(crate) fn downgrade(&self) -> WeakCall<T> {
        WeakCall(sync::Arc::downgrade(&self.state))
    }

    /// Returns the number of the poll that the future waits for, if it was woken and nobody has polled it since. If the
    /// number stays the same, the waiters that poll it are stuck, and another one should.
    pub(crate) fn poll_due(&self) -> Option<u64> {
        self.state.waiting.0.with(|wakers| wakers.woken.then_some(wakers.polls))
    }

    /// Polls the future, which this waiter has taken out of the stage.
    fn poll_in_hand(&self, mut future: BoxFuture<T>) -> Poll<Option<T>> {
        let hand = Hand(&self.state);
        self.state.waiting.0.with(|wakers| {
            wakers.woken = false;
            wakers.polls += 1;
        });
        let polled = future.as_mut().poll(&mut Context::from_waker(&self.state.waker));
        mem::forget(hand);
        match polled {
            Poll::Ready(value) => {
                self.state.stage.with(|stage| *stage = Stage::Done(value.clone()));
                self.state.waiting.wake_all();
                Poll::Ready(Some(value))
            }
            Poll::Pending => {
                self.state.stage.with(|stage| *stage = Stage::Idle(future));
                if self.state.waiting.0.with(|wakers| wakers.woken) {
                    self.state.waiting.wake_all();
                }
                Poll::Pending
            }
        }
    }
}

impl<T> WeakCall<T> {
    /// Returns a new waiter, unless all have left.
    pub(crate) fn upgrade(&self) -> Option<SharedCall<T>>
    where
        T: Clone,
    {
        self.0.upgrade().map(SharedCall::join)
    }
}

impl<T: Clone> Future for SharedCall<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state.waiting.register(self.place, context.waker());
        let taken = self.state.stage.with(|stage| match stage {
            Stage::Done(value) => Err(Poll::Ready(Some(value.clone()))),
            Stage::Broken => Err(Poll::Ready(None)),
            Stage::Polled => Err(Poll::Pending),
            Stage::Idle(_) => match mem::replace(stage, Stage::Polled) {
                Stage::Idle(future) => Ok(future),
                // Cannot be: it was idle when it was matched, under the same lock.
                _ => Err(Poll::Pending),
            },
        });
        match taken {
            Ok(future) => self.poll_in_hand(future),
            Err(poll) => poll,
        }
    }
}

impl<T> Drop for SharedCall<T> {
    fn drop(&mut self) {
        self.state.waiting.leave(self.place);
    }
}

/// Held while a waiter polls the future. It is dropped only if the future panics, and then wakes the other waiters,
/// which would wait for ever.
struct Hand<'a, T>(&'a State<T>);

impl<T> Drop for Hand<'_, T> {
    fn drop(&mut self) {
        self.0.stage.with(|stage| *stage = Stage::Broken);
        self.0.waiting.wake_all();
    }
}
