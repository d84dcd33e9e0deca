//! Holds the calls that wait in one lane, in the order in which they came: [`Line`].

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};

/// Calls that wait in one lane, the first to come first.
#[derive(Default)]
pub(super) struct Line {
    waiters: VecDeque<Arc<Waiter>>,
    /// Requests and tokens of all that ever came, and of those that are no longer here: the difference tells how much is
    /// ahead of whom.
    came: (f64, f64),
    gone: (f64, f64),
    /// Since when the first one is first.
    pub(super) since: Option<Instant>,
    /// How many in the line have left it.
    left: usize,
}

pub(super) struct Waiter {
    pub(super) tokens: f64,
    /// What had come to its line before it.
    before: (f64, f64),
    pub(super) granted: AtomicBool,
    pub(super) left: AtomicBool,
    /// Told to look again.
    pub(super) look: Notify,
}

impl Line {
    pub(super) fn push(&mut self, tokens: f64, now: Instant) -> Arc<Waiter> {
        let (granted, left) = (AtomicBool::new(false), AtomicBool::new(false));
        let waiter = Arc::new(Waiter { tokens, before: self.came, granted, left, look: Notify::new() });
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

    /// The first that is still here.
    pub(super) fn first(&mut self, now: Instant) -> Option<Arc<Waiter>> {
        while self.waiters.front()?.left.load(Ordering::Relaxed) {
            let since = self.since;
            self.pop(now);
            self.left -= 1;
            // Who comes after one that has left has been waiting for as long.
            self.since = self.since.and(since);
        }
        self.waiters.front().cloned()
    }

    /// Takes out those that have left, when they are most of the line: so that they cost a constant each.
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

    /// The requests and tokens of those ahead of one that waits here.
    pub(super) fn ahead(&self, waiter: &Waiter) -> (f64, f64) {
        ((waiter.before.0 - self.gone.0).max(0.0), (waiter.before.1 - self.gone.1).max(0.0))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiters.len() - self.left
    }
}
