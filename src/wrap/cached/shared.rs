//! Lets any number of callers wait for one future, which goes on as long as one of them does: [`SharedCall`].
//!
//! The future belongs to nobody: whoever is polled polls it. Three things must hold, whatever the threads do, and
//! `tests/loom` tries all their orders:
//!
//! - **No lost wake-up.** A waiter registers its waker before it looks at the future. So if it finds the future in
//!   somebody's hands, that one sees the waker when it puts the future back. If the future was woken while it was in
//!   somebody's hands, that poll may have come too early: who puts it back wakes all waiters, and does not rely on being
//!   polled again itself, because it may be dropped instead.
//! - **Nobody is needed.** Each wake-up wakes all waiters. Whichever of them leaves, another one polls.
//! - **The last one out ends it.** The future is dropped with the last waiter, at once and under no lock.

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
    /// Wakes all waiters; what the future is polled with.
    waker: Waker,
}

enum Stage<T> {
    /// It waits, or has not begun.
    Idle(BoxFuture<T>),
    /// A waiter has it in its hands.
    Polled,
    Done(T),
    /// It panicked in a waiter's hands.
    Broken,
}

/// Who waits.
#[derive(Default)]
struct Waiting(Mutex<Wakers>);

#[derive(Default)]
struct Wakers {
    /// One place for each waiter.
    places: Vec<Option<Waker>>,
    /// Places whose waiter has left.
    free: Vec<usize>,
    /// The future was woken since this was last set to `false`.
    woken: bool,
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
        // A waker may be the last hold on a whole task, with waiters of its own: never dropped under the lock.
        drop(self.0.with(|wakers| {
            wakers.free.push(place);
            wakers.places[place].take()
        }));
    }

    fn register(&self, place: usize, waker: &Waker) {
        let is_there = |wakers: &mut Wakers| wakers.places[place].as_ref().is_some_and(|same| same.will_wake(waker));
        if !self.0.with(is_there) {
            // Cloned and dropped under no lock: both are code of an executor.
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

/// One waiter for a shared future. Gives `None` where the future panicked in another waiter's hands.
pub(super) struct SharedCall<T> {
    state: sync::Arc<State<T>>,
    place: usize,
}

/// A way to a shared future that does not keep it going.
pub(super) struct WeakCall<T>(Weak<State<T>>);

impl<T> Clone for WeakCall<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone> SharedCall<T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let waiting = Arc::<Waiting>::default();
        let waker = Waker::from(waiting.clone());
        let state = State { stage: Mutex::new(Stage::Idle(Box::pin(future))), waiting, waker };
        Self::join(sync::Arc::new(state))
    }

    fn join(state: sync::Arc<State<T>>) -> Self {
        let place = state.waiting.enter();
        Self { state, place }
    }

    pub(super) fn downgrade(&self) -> WeakCall<T> {
        WeakCall(sync::Arc::downgrade(&self.state))
    }

    /// Polls the future, which this waiter has in its hands.
    fn poll_in_hand(&self, mut future: BoxFuture<T>) -> Poll<Option<T>> {
        let hand = Hand(&self.state);
        self.state.waiting.0.with(|wakers| wakers.woken = false);
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
    /// A waiter, unless all of them have left.
    pub(super) fn upgrade(&self) -> Option<SharedCall<T>>
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
                // It was idle a moment ago, under this lock.
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

/// Held while a waiter has the future in its hands. Dropped only where the future panics: the others must not wait.
struct Hand<'a, T>(&'a State<T>);

impl<T> Drop for Hand<'_, T> {
    fn drop(&mut self) {
        self.0.stage.with(|stage| *stage = Stage::Broken);
        self.0.waiting.wake_all();
    }
}
