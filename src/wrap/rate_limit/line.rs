//! Holds the waiting calls of one lane, in the order in which they came: [`Line`].

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};

/// The waiting calls of one lane, in the order in which they came.
#[derive(Default)]
pub(super) struct Line {
    waiters: VecDeque<Arc<Waiter>>,
    /// Requests and tokens of all calls that ever came. With `gone`, this says how much is ahead of a call without a
    /// walk along the line.
    came: (f64, f64),
    /// Requests and tokens of the calls that are no longer in the line.
    gone: (f64, f64),
    /// The moment since when the first call is the first.
    pub(super) since: Option<Instant>,
    /// The number of calls that have left, but were not removed from `waiters` yet.
    left: usize,
}

/// A waiting call.
pub(super) struct Waiter {
    pub(super) tokens: f64,
    /// The line's `came` when the call came.
    before: (f64, f64),
    /// Set when the call has its turn.
    pub(super) granted: AtomicBool,
    /// The window's number of the call that has its turn.
    pub(super) number: AtomicU64,
    /// Set when the call leaves without its turn.
    pub(super) left: AtomicBool,
    /// Wakes the call, to check its turn again.
    pub(super) look: Notify,
}

impl Line {
    pub(super) fn push(&mut self, tokens: f64, now: Instant) -> Arc<Waiter> {
        let (granted, number, left) = (AtomicBool::new(false), AtomicU64::new(0), AtomicBool::new(false));
        let waiter = Arc::new(Waiter { tokens, before: self.came, granted, number, left, look: Notify::new() });
        self.came = (self.came.0 + 1.0, self.came.1 + tokens);
        self.since = self.since.or(Some(now));
        self.waiters.push_back(waiter.clone());
        waiter
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<Arc<Waiter>> {
        let waiter = self.waiters.pop_front()?;
        self.gone = (self.gone.0 + 1.0, self.gone.1 + waiter.tokens);
        self.since = (!self.waiters.is_empty()).then_some(now);
        Some(waiter)
    }

    /// Returns the first call that has not left. Removes those before it.
    pub(super) fn first(&mut self, now: Instant) -> Option<Arc<Waiter>> {
        while self.waiters.front()?.left.load(Ordering::Relaxed) {
            let since = self.since;
            self.pop(now);
            self.left -= 1;
            // `pop` counts a turn and starts the patience of the next call at `now`. A call that left had no turn, so
            // the next one keeps the earlier moment.
            self.since = self.since.and(since);
        }
        self.waiters.front().cloned()
    }

    /// Notes that one more call has left. Removes such calls when they are most of the line: then removing costs
    /// constant time per call.
    pub(super) fn sweep(&mut self) {
        self.left += 1;
        if self.left > 16 && self.left * 2 > self.waiters.len() {
            let gone = &mut self.gone;
            self.waiters.retain(|waiter| {
                let stays = !waiter.left.load(Ordering::Relaxed);
                if !stays {
                    *gone = (gone.0 + 1.0, gone.1 + waiter.tokens);
                }
                stays
            });
            self.left = 0;
            if self.waiters.is_empty() {
                self.since = None;
            }
        }
    }

    /// Returns the requests and tokens ahead of a waiting call. This is a lower bound: `gone` may contain calls behind
    /// it that have left. The call then only checks its turn too early.
    pub(super) fn ahead(&self, waiter: &Waiter) -> (f64, f64) {
        ((waiter.before.0 - self.gone.0).max(0.0), (waiter.before.1 - self.gone.1).max(0.0))
    }

    /// Returns how many calls wait.
    pub(super) fn len(&self) -> usize {
        self.waiters.len() - self.left
    }
}
