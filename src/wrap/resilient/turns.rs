//! Lets one call at a time try something, and the others wait for its end: [`Turns`].

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::ends::Ends;
use crate::{Error, sync::Mutex};

/// Lets one call at a time try something.
#[derive(Default)]
pub(super) struct Turns {
    /// The turn that is taken: empty as soon as its call is gone, and since when.
    taken: Mutex<Option<(Weak<()>, Instant)>>,
    pub(super) ends: Ends,
}

impl Turns {
    /// Takes the turn, unless another call has had it for less than this time.
    pub(super) fn take(&self, at_most: Duration) -> Option<Turn<'_>> {
        let (held, now) = (Arc::new(()), Instant::now());
        let is_mine = self.taken.with(|taken| {
            let is_taken = |(held, since): &(Weak<()>, Instant)| {
                held.strong_count() > 0 && now.saturating_duration_since(*since) < at_most
            };
            let is_free = !taken.as_ref().is_some_and(is_taken);
            if is_free {
                *taken = Some((Arc::downgrade(&held), now));
            }
            is_free
        });
        is_mine.then(|| Turn { held: Some(held), turns: self, error: None })
    }
}

/// The turn of one call. Dropping it ends the try, and leaves the turn to another call.
#[must_use = "dropping it ends the turn"]
pub(super) struct Turn<'t> {
    held: Option<Arc<()>>,
    turns: &'t Turns,
    error: Option<Error>,
}

impl Turn<'_> {
    /// Ends the try with an error, which the calls that wait take for theirs.
    pub(super) fn fail(mut self, error: &Error) {
        self.error = Some(error.clone());
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // First, so that a call that hears of the end finds the turn free.
        drop(self.held.take());
        self.turns.ends.tell(self.error.as_ref());
    }
}
