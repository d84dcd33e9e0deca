//! Says how far a server is, from loading to its end: [`ServerState`], and [`Lifecycle`], which probes read.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::watch, time::sleep_until};

use crate::named::named;

/// How far a server is.
///
/// Returned by [`Server::state`](super::Server::state).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerState {
    /// The model is not there yet: requests are refused with 503.
    Loading,
    /// Requests are answered.
    Ready,
    /// The server goes away: what it accepted is finished, and new work is refused with 503.
    Draining,
    /// The model could not be loaded: requests are refused with 503.
    Failed,
}

named! {
    /// Returns the name: `loading`, `ready`, `draining` or `failed`.
    ServerState, "the state of a server",
    Loading = "loading",
    Ready = "ready",
    Draining = "draining",
    Failed = "failed",
}

impl ServerState {
    /// All states.
    pub(super) const KNOWN: [Self; 4] = [Self::Loading, Self::Ready, Self::Draining, Self::Failed];
}

/// How a server goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DrainOptions {
    /// How long new work is still accepted, until load balancers have noticed.
    pub(super) delay: Duration,
    /// When requests under way are ended, from the beginning of the drain.
    pub(super) deadline: Duration,
}

/// The state, in atomics: probes are answered whatever the load.
#[derive(Debug)]
pub(super) struct Lifecycle {
    state: AtomicU8,
    drain: DrainOptions,
    /// The beginning of the drain.
    drains_since: OnceLock<Instant>,
    /// Set when requests under way must end before the deadline.
    ends_now: watch::Sender<bool>,
    /// Told of each change of the state.
    changes: watch::Sender<ServerState>,
    pub(super) started: Instant,
    /// The same moment for people.
    pub(super) started_at: SystemTime,
}

impl Lifecycle {
    pub(super) fn new(drain: DrainOptions) -> Self {
        let state = ServerState::Loading;
        Self {
            state: AtomicU8::new(state as u8),
            drain,
            drains_since: OnceLock::new(),
            ends_now: watch::Sender::new(false),
            changes: watch::Sender::new(state),
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    pub(super) fn state(&self) -> ServerState {
        match self.state.load(Ordering::Acquire) {
            0 => ServerState::Loading,
            1 => ServerState::Ready,
            2 => ServerState::Draining,
            _ => ServerState::Failed,
        }
    }

    /// Moves on to another state, and returns whether it may: nothing follows draining, and a failure ends loading alone.
    pub(super) fn move_to(&self, to: ServerState) -> bool {
        self.changes.send_if_modified(|state| {
            let may = match *state {
                ServerState::Loading => to != ServerState::Loading,
                ServerState::Ready | ServerState::Failed => to == ServerState::Draining,
                ServerState::Draining => false,
            };
            if may {
                if to == ServerState::Draining {
                    self.drains_since.get_or_init(Instant::now);
                }
                *state = to;
                self.state.store(to as u8, Ordering::Release);
            }
            may
        })
    }

    /// Whether new work is refused because the server goes away.
    pub(super) fn refuses(&self) -> bool {
        let is_over = |since: &Instant| since.elapsed() >= self.drain.delay;
        *self.ends_now.borrow() || self.drains_since.get().is_some_and(is_over)
    }

    /// Makes requests under way end at once.
    pub(super) fn end_now(&self) {
        self.ends_now.send_replace(true);
    }

    /// Waits until requests under way have to end.
    pub(super) async fn ended(&self) {
        let mut now = self.ends_now.subscribe();
        tokio::select! {
            () = self.draining_for(self.drain.deadline) => {}
            _ = now.wait_for(|&now| now) => {}
        }
    }

    /// Waits until new work is refused.
    pub(super) async fn refusing(&self) {
        let mut now = self.ends_now.subscribe();
        tokio::select! {
            () = self.draining_for(self.drain.delay) => {}
            _ = now.wait_for(|&now| now) => {}
        }
    }

    /// Waits until the server has drained for so long.
    async fn draining_for(&self, time: Duration) {
        // The sender lives in `self`, so it cannot go away meanwhile.
        let _ = self.changes.subscribe().wait_for(|&state| state == ServerState::Draining).await;
        if let Some(end) = self.drains_since.get().and_then(|since| since.checked_add(time)) {
            sleep_until(end.into()).await;
        }
    }

    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named::check_names;

    #[test]
    fn names_are_read_back() {
        check_names(ServerState::ALL);
    }

    #[test]
    fn nothing_follows_draining() {
        use ServerState::{Draining, Failed, Loading, Ready};
        for (from, to, then) in [
            (&[][..], Ready, Ready),
            (&[], Failed, Failed),
            (&[], Draining, Draining),
            (&[Ready], Draining, Draining),
            (&[Ready], Failed, Ready),
            (&[Ready], Loading, Ready),
            (&[Failed], Ready, Failed),
            (&[Failed], Draining, Draining),
            (&[Ready, Draining], Ready, Draining),
            (&[Draining], Failed, Draining),
        ] {
            let lifecycle = Lifecycle::new(DrainOptions { delay: Duration::ZERO, deadline: Duration::from_secs(1) });
            from.iter().for_each(|&state| assert!(lifecycle.move_to(state)));
            assert_eq!(lifecycle.move_to(to), then == to && from.last() != Some(&to));
            assert_eq!(lifecycle.state(), then, "{from:?}, then {to}");
            assert_eq!(*lifecycle.changes.borrow(), then);
            assert_eq!(lifecycle.refuses(), then == Draining);
        }
    }
}
