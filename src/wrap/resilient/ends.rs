//! Lets calls wait for the end of what another call tries on behalf of all: [`Ends`].

use std::time::{Duration, Instant as StdInstant};

use tokio::{sync::watch, time::Instant};

use crate::{Error, deadline::until};

/// Tells the calls that wait how each try ends: with an error, or with anything else.
pub(super) struct Ends(watch::Sender<Option<Error>>);

impl Default for Ends {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Ends {
    /// Tells the end of a try. The error is that of the member, and none of those who wait pays for it.
    pub(super) fn tell(&self, error: Option<&Error>) {
        self.0.send_replace(error.map(|error| error.clone().without_partial().without_charges()));
    }

    /// Waits from now on. What ends before the first [`next`](Waiter::next) is heard, too.
    pub(super) fn wait(&self) -> Waiter {
        Waiter(self.0.subscribe())
    }
}

/// Waits for the end of a try.
pub(super) struct Waiter(watch::Receiver<Option<Error>>);

/// What a wait has brought.
pub(super) enum Waited {
    /// A try has failed.
    Failed(Error),
    /// A try has ended in another way, or it takes so long that it counts no more.
    Ended,
    /// The deadline has passed.
    Late,
}

impl Waiter {
    /// Waits for the next end, but not past the deadline, and at most for so long: the future of a try may exist, and never
    /// be polled again.
    pub(super) async fn next(&mut self, deadline: Option<StdInstant>, at_most: Duration) -> Waited {
        let no_longer = Instant::now().checked_add(at_most).map(Instant::into_std);
        let end = [deadline, no_longer].into_iter().flatten().min();
        match until(end, self.0.changed()).await {
            Some(_) => self.0.borrow_and_update().clone().map_or(Waited::Ended, Waited::Failed),
            None if deadline.is_some() && end == deadline => Waited::Late,
            None => Waited::Ended,
        }
    }
}
