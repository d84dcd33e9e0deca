//! Says when a member gets no more calls, for how long, and how it comes back: [`BreakerPolicy`].

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// The rules by which a member that fails gets no more calls, and comes back.
///
/// ```
/// use std::time::Duration;
/// use docvector_embed::wrap::BreakerPolicy;
/// // For a member with little traffic: fewer calls decide, and one that takes half a minute counts as failed.
/// let policy = BreakerPolicy::default()
///     .with_min_calls(5)
///     .with_window(Duration::from_secs(120))
///     .with_slow_call(Duration::from_secs(30));
/// # let _ = policy;
/// ```
///
/// # Default
/// - opens if half of the calls of the last 30 s failed, and there were at least 20 of them;
/// - opens after 5 failures in a row, however few calls there were;
/// - stays open for 30 s, then for twice as long each time, up to 300 s;
/// - closes after 3 successful probes;
/// - no answer is too slow.
///
/// # Semantics
/// A breaker is
/// - **closed** at first: the member gets calls, and the breaker counts how they end. A failure opens it if the share of
///   failures is reached or the failures in a row are too many. A success never opens it.
/// - **open**: the member gets no calls until the time is over. There is one exception, a call that no other member can
///   take. Such calls go to the member one at a time; if one fails, the open time stays as it is.
/// - **half-open** when the time is over and a call comes: the member gets one call, the probe. After the first success
///   it gets 2 at once, after the second 4, and so on up to 16. After the last success that the policy asks for, the
///   breaker closes. Any failure opens it again, for twice as long.
///
/// So a member that recovers does not get all waiting calls at once. A member that keeps failing shortly after it came
/// back gets fewer and fewer probes: the open time goes back to the first one only if the breaker stayed closed for at
/// least as long as it was last open.
///
/// A call that began before the breaker opened, and ends later, changes nothing. Dropped calls do not count, except those
/// that [`Hedging`](crate::wrap::Hedging) counts, and neither do answers that say nothing about the member's health. A probe that is dropped leaves its place to another call. So
/// does a probe that has not ended after the first open time, because nobody may poll it any more.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerPolicy {
    pub(super) window: Duration,
    pub(super) min_calls: u32,
    pub(super) failure_share: f64,
    pub(super) consecutive_failures: Option<u32>,
    pub(super) open_for: Duration,
    pub(super) max_open: Duration,
    pub(super) probes: u32,
    pub(super) slow_call: Option<Duration>,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            min_calls: 20,
            failure_share: 0.5,
            consecutive_failures: Some(5),
            open_for: Duration::from_secs(30),
            max_open: Duration::from_secs(300),
            probes: 3,
            slow_call: None,
        }
    }
}

impl BreakerPolicy {
    /// Sets the time over which calls are counted. Counts leave it in ten steps, so a call counts for at least nine
    /// tenths of it.
    #[must_use]
    pub const fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the number of calls in the window below which the share of failures says nothing.
    #[must_use]
    pub const fn with_min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// Sets the share of failed calls that opens the breaker: above 0, and at most 1.
    #[must_use]
    pub const fn with_failure_share(mut self, share: f64) -> Self {
        self.failure_share = share;
        self
    }

    /// Sets the number of failures in a row that opens the breaker, however few calls there were and however long they
    /// took.
    #[must_use]
    pub const fn with_consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = Some(failures);
        self
    }

    /// Removes the limit on failures in a row, so that only the share of failures opens the breaker.
    #[must_use]
    pub const fn without_ejection(mut self) -> Self {
        self.consecutive_failures = None;
        self
    }

    /// Sets the first open time. It doubles each time that the member fails again.
    #[must_use]
    pub const fn with_open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// Sets the longest open time that doubling can reach.
    #[must_use]
    pub const fn with_max_open(mut self, time: Duration) -> Self {
        self.max_open = time;
        self
    }

    /// Sets the number of successful probes after which the breaker closes.
    #[must_use]
    pub const fn with_probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// Counts an answer that took longer than this as a failure. The caller still gets the answer.
    #[must_use]
    pub const fn with_slow_call(mut self, limit: Duration) -> Self {
        self.slow_call = Some(limit);
        self
    }

    /// Returns the first open time.
    pub(in crate::wrap::resilient) const fn open_for(&self) -> Duration {
        self.open_for
    }

    /// Refuses values that make no sense.
    pub(in crate::wrap::resilient) fn check(&self) -> Result<()> {
        let share = self.failure_share;
        let message = if self.window.is_zero() {
            "a breaker with a window of 0 s counts no call: `with_window` takes a longer time".to_owned()
        } else if self.min_calls == 0 {
            "a breaker that opens after 0 calls: `with_min_calls` takes at least 1".to_owned()
        } else if !(share > 0.0 && share <= 1.0) {
            format!(
                "a breaker that opens at a share of {share} failures: `with_failure_share` takes above 0, at most 1"
            )
        } else if self.consecutive_failures == Some(0) {
            "a breaker that opens after 0 failures in a row: `with_consecutive_failures` takes at least 1, and \
             `without_ejection` removes the limit"
                .to_owned()
        } else if self.open_for.is_zero() {
            "a breaker that is open for 0 s keeps no call away: `with_open_for` takes a longer time".to_owned()
        } else if self.max_open < self.open_for {
            format!(
                "a breaker that is open for {:?} at first and for {:?} at most: raise `with_max_open`, or lower \
                 `with_open_for`",
                self.open_for, self.max_open
            )
        } else if self.probes == 0 {
            "a breaker that closes after 0 probes: `with_probes` takes at least 1".to_owned()
        } else if self.slow_call.is_some_and(|limit| limit.is_zero()) {
            "a breaker to which each answer is too slow, from 0 s on: `with_slow_call` takes a longer time".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        let policy = BreakerPolicy::default;
        let second = Duration::from_secs(1);
        policy().check().expect("the default makes sense");
        policy().with_failure_share(1.0).with_min_calls(1).with_probes(1).check().expect("the edges make sense");
        policy().without_ejection().with_open_for(second).with_max_open(second).check().expect("no doubling");
        policy()
            .with_window(Duration::MAX)
            .with_open_for(Duration::MAX)
            .with_max_open(Duration::MAX)
            .check()
            .expect("ok");

        let shares = [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let bad = [
            (policy().with_window(Duration::ZERO), "with_window"),
            (policy().with_min_calls(0), "with_min_calls"),
            (policy().with_consecutive_failures(0), "with_consecutive_failures"),
            (policy().with_open_for(Duration::ZERO), "with_open_for"),
            (policy().with_open_for(301 * second), "with_max_open"),
            (policy().with_max_open(29 * second), "with_max_open"),
            (policy().with_probes(0), "with_probes"),
            (policy().with_slow_call(Duration::ZERO), "with_slow_call"),
        ];
        let bad_shares = shares.map(|share| (policy().with_failure_share(share), "with_failure_share"));
        for (policy, setter) in bad.into_iter().chain(bad_shares) {
            let error = policy.check().expect_err(setter);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(setter), "{error} does not name {setter}");
        }
    }
}
