//! Keeps the moment until which a provider wants no calls: [`Pause`].

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

/// The moment until which a provider wants no calls. A [`RateLimiter`](crate::wrap::RateLimiter) sets it. A batch takes
/// it along, so that a call that waits further in for something else looks at it again before it is sent.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// Returns the rest of the pause.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.0.with(|until| until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)))
    }

    /// Makes the pause last until this moment at least.
    pub(crate) fn extend(&self, to: Instant) {
        self.0.with(|until| *until = (*until).max(Some(to)));
    }

    /// Waits until the pause is over, but not past the deadline.
    pub(crate) async fn is_over(&self, deadline: Option<Instant>) {
        loop {
            let now = Instant::now();
            let end = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
            let wait = self.left(now).min(end);
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }
}
