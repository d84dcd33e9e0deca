//! Keeps calls from a server to which no connection can be made, for a short time: [`Gate`].

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, Result, sync::Mutex};

/// How long no connection is tried after the first failure. Each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Counts connections that failed in a row, and closes for a pause after each.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<Closed>>);

#[derive(Debug)]
struct Closed {
    failures: u32,
    since: Instant,
    last: Error,
}

impl Closed {
    fn pause(&self) -> Duration {
        let doublings = (self.failures - 1).min(16);
        FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
    }
}

impl Gate {
    /// Returns the last failure while a pause is not over.
    pub(super) fn check(&self) -> Result<()> {
        self.0.with(|closed| match closed {
            Some(closed) if closed.since.elapsed() < closed.pause() => Err(closed.last.clone()),
            _ => Ok(()),
        })
    }

    /// Returns `true` if the last connection failed, whether or not the pause is over.
    pub(super) fn is_failing(&self) -> bool {
        self.0.with(|closed| closed.is_some())
    }

    pub(super) fn succeeded(&self) {
        // Not dropped under the lock: the source of an error is code of others.
        drop(self.0.with(Option::take));
    }

    /// Counts a failure. Connections that were tried at the same time count as one.
    pub(super) fn failed(&self, began: Instant, error: &Error) {
        let now = Instant::now();
        let old = self.0.with(|closed| {
            let failures = match closed {
                Some(closed) if began < closed.since => closed.failures,
                Some(closed) => closed.failures.saturating_add(1),
                None => 1,
            };
            closed.replace(Closed { failures, since: now, last: error.clone() })
        });
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_limit_and_end_with_a_success() {
        let gate = Gate::default();
        let error = Error::new(ErrorKind::Cache, "refused");
        gate.check().expect("it is open at first");
        for millis in [200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            // Two connections that fail at the same time.
            let began = Instant::now();
            tokio::time::advance(Duration::from_millis(1)).await;
            gate.failed(began, &error);
            gate.failed(began, &error);
            tokio::time::advance(Duration::from_millis(millis - 1)).await;
            assert_eq!(gate.check().expect_err("it is closed").message(), "refused");
            tokio::time::advance(Duration::from_millis(1)).await;
            gate.check().expect("it is open again");
            assert!(gate.is_failing());
        }
        gate.succeeded();
        assert!(!gate.is_failing());
        gate.failed(Instant::now(), &error);
        tokio::time::advance(FIRST_PAUSE).await;
        gate.check().expect("the pauses begin anew");
    }
}
