//! Lets an endpoint that failed rest for a while: [`Rest`].

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, ErrorKind, error::LONGEST_RESET, sync::Mutex};

/// The first rest; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(1);

/// The longest rest that the server did not ask for.
const LONGEST: Duration = Duration::from_secs(30);

/// Until when an endpoint gets no calls if there are others.
#[derive(Debug, Default)]
pub(super) struct Rest(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    /// Failures since the last success.
    failures: u32,
}

impl Rest {
    /// Returns the end of the rest, if it is not over.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.0.with(|state| state.until).filter(|until| *until > now)
    }

    /// Ends the rest.
    pub(super) fn end(&self) {
        self.0.with(|state| *state = State::default());
    }

    /// Begins a rest after a failure: as long as the server asked, else longer with each failure.
    pub(super) fn begin(&self, error: &Error) {
        let now = Instant::now();
        self.0.with(|state| {
            let doubled = FIRST.saturating_mul(1 << state.failures.min(16)).min(LONGEST);
            let time = error.retry_after().map_or(doubled, |asked| asked.min(LONGEST_RESET));
            // Calls that were under way at once fail at once: together, they are one failure.
            if state.until.is_none_or(|until| until <= now) {
                state.failures = state.failures.saturating_add(1);
            }
            let until = now.checked_add(time);
            state.until = state.until.max(until);
        });
    }
}

/// Whether an endpoint that failed so gets a rest.
pub(super) fn is_for(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::SpaceMismatch => true,
        ErrorKind::Overloaded | ErrorKind::RateLimited => error.retry_after().is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> Error {
        Error::new(ErrorKind::Unavailable, "down")
    }

    #[tokio::test(start_paused = true)]
    async fn rests_double_up_to_the_longest_and_end_with_a_success() {
        let (rest, mut times) = (Rest::default(), Vec::new());
        for _ in 0..7 {
            rest.begin(&down());
            let until = rest.until(Instant::now()).expect("it rests");
            times.push(until.saturating_duration_since(Instant::now()).as_secs());
            tokio::time::advance(until - Instant::now()).await;
            assert!(rest.until(Instant::now()).is_none());
        }
        assert_eq!(times, [1, 2, 4, 8, 16, 30, 30]);
        rest.end();
        rest.begin(&down());
        assert_eq!(rest.until(Instant::now()), Some(Instant::now() + FIRST));
        // The failures of calls at the same time are one.
        rest.begin(&down());
        assert!(rest.until(Instant::now()) <= Some(Instant::now() + 2 * FIRST));
        rest.end();
        assert!(rest.until(Instant::now()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_is_as_long_as_the_server_asks_and_no_longer_than_sensible() {
        for (asked, rested) in [(5, 5), (1_000_000, LONGEST_RESET.as_secs())] {
            let rest = Rest::default();
            rest.begin(&down().with_retry_after(Duration::from_secs(asked)));
            assert_eq!(rest.until(Instant::now()), Some(Instant::now() + Duration::from_secs(rested)));
        }
    }
}
