//! Says how far a server is, from loading to its end: [`ServerState`], and [`Lifecycle`], which probes read.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::watch;

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

/// The state, in atomics: probes are answered whatever the load.
#[derive(Debug)]
pub(super) struct Lifecycle {
    state: AtomicU8,
    /// Whether new work is refused: while draining, after the delay.
    refuses: AtomicBool,
    /// Set when requests under way have to end.
    ends: watch::Sender<bool>,
    /// Told of each change of the state.
    changes: watch::Sender<ServerState>,
    pub(super) started: Instant,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        let state = ServerState::Loading;
        Self {
            state: AtomicU8::new(state as u8),
            refuses: AtomicBool::new(false),
            ends: watch::Sender::new(false),
            changes: watch::Sender::new(state),
            started: Instant::now(),
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

    /// Moves on to another state. Nothing follows draining, and a failure ends loading alone.
    pub(super) fn move_to(&self, to: ServerState) {
        self.changes.send_if_modified(|state| {
            let may = match *state {
                ServerState::Loading => to != ServerState::Loading,
                ServerState::Ready | ServerState::Failed => to == ServerState::Draining,
                ServerState::Draining => false,
            };
            if may {
                *state = to;
                self.state.store(to as u8, Ordering::Release);
            }
            may
        });
    }

    /// Whether new work is refused because the server goes away.
    pub(super) fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Acquire)
    }

    /// Refuses new work from now on.
    pub(super) fn refuse(&self) {
        self.refuses.store(true, Ordering::Release);
    }

    /// Makes requests under way end.
    pub(super) fn end(&self) {
        self.ends.send_replace(true);
    }

    /// Waits until requests under way have to end.
    pub(super) async fn ended(&self) {
        // The sender lives in `self`, so it cannot go away meanwhile.
        let _ = self.ends.subscribe().wait_for(|&ends| ends).await;
    }

    /// Waits until the server drains.
    pub(super) async fn draining(&self) {
        let _ = self.changes.subscribe().wait_for(|&state| state == ServerState::Draining).await;
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
            let lifecycle = Lifecycle::new();
            from.iter().for_each(|&state| lifecycle.move_to(state));
            lifecycle.move_to(to);
            assert_eq!(lifecycle.state(), then, "{from:?}, then {to}");
            assert_eq!(*lifecycle.changes.borrow(), then);
        }
    }
}
