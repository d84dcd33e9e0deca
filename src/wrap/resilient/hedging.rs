//! Decides when a slow call is made a second time, and whether there is a budget for it: [`Hedger`].

mod budget;
mod latencies;
mod policy;

use std::time::Duration;

pub use self::policy::Hedging;
use self::{budget::ExtraCalls, latencies::Latencies};

/// The latencies of the last calls, and the budget of extra ones. [`Hedging`] has the rules.
///
/// It has no clock, no lock and no task: the caller keeps it under a lock.
#[derive(Debug)]
pub(super) struct Hedger {
    policy: Hedging,
    latencies: Latencies,
    extra: ExtraCalls,
}

impl Hedger {
    /// Makes one without latencies or savings. The policy makes sense: its `check` was called.
    pub(super) fn new(policy: Hedging) -> Self {
        Self { policy, latencies: Latencies::default(), extra: ExtraCalls::default() }
    }

    /// Adds the latency of an interactive call that succeeded.
    pub(super) fn note(&mut self, latency: Duration) {
        self.latencies.note(latency);
    }

    /// Returns the time after which a call that has not ended may be made a second time; `None` while too few calls have
    /// succeeded.
    pub(super) fn delay(&self) -> Option<Duration> {
        let quantile = self.latencies.quantile(self.policy.quantile)?;
        (self.latencies.len() >= self.policy.min_samples).then(|| quantile.max(self.policy.min_delay))
    }

    /// Adds the share of an interactive call of about this many tokens. To be called once for each call, before
    /// [`withdraw`](Self::withdraw).
    pub(super) fn deposit(&mut self, tokens: u64) {
        self.extra.deposit(&self.policy, tokens);
    }

    /// Takes an extra call of about this many tokens from the budget. Returns false, and takes nothing, if there is too
    /// little left in calls, in tokens or in money.
    pub(super) fn withdraw(&mut self, tokens: u64) -> bool {
        self.extra.withdraw(&self.policy, tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_needs_enough_calls_and_is_never_too_short() {
        let milliseconds = Duration::from_millis;
        let mut hedger = Hedger::new(Hedging::default());
        for latency in 1..20 {
            hedger.note(milliseconds(latency * 10));
            assert_eq!(hedger.delay(), None);
        }
        hedger.note(milliseconds(200));
        // 19 of 20 calls ended within this.
        assert_eq!(hedger.delay(), Some(milliseconds(190)));
        (0..256).for_each(|_| hedger.note(milliseconds(1)));
        assert_eq!(hedger.delay(), Some(milliseconds(5)));
    }

    #[test]
    fn calls_pay_for_extra_calls() {
        let mut hedger = Hedger::new(Hedging::default());
        (0..19).for_each(|_| hedger.deposit(100));
        assert!(!hedger.withdraw(100));
        hedger.deposit(100);
        assert!(!hedger.withdraw(101));
        assert!(hedger.withdraw(100));
        assert!(!hedger.withdraw(0));
        // After a long time without slow calls, five are saved up.
        (0..10_000).for_each(|_| hedger.deposit(100));
        assert_eq!((0..10).filter(|_| hedger.withdraw(100)).count(), 5);
    }
}
