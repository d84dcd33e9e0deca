//! Says when a slow call gets a second one beside it, and how much that may cost: [`Hedging`].

use std::time::Duration;

use super::latencies::KEPT;
use crate::{
    Error, ErrorKind, Result,
    price::{PicoDollars, Price},
};

/// The rules by which an interactive call that takes long is made a second time elsewhere. The first success wins.
///
/// ```
/// use docvector_embed::{price, wrap::Hedging};
/// let price = price::of("openai", "text-embedding-3-small").expect("a model in the table");
/// let dollar = price::PicoDollars::from_picos(1_000_000_000_000);
/// // At most one call in a hundred is made twice, and all extra calls there will ever be cost at most a dollar.
/// let hedging = Hedging::default().with_share(0.01).with_max_cost(price, dollar);
/// # let _ = hedging;
/// ```
///
/// # Default
/// - an extra call after the time within which 95 % of the last 256 successful calls ended, and never before 5 ms;
/// - no extra calls before 20 calls have succeeded;
/// - extra calls for at most a twentieth of all interactive calls, and of their tokens, with at most 5 saved up;
/// - no limit in money.
///
/// # Semantics
/// Each interactive call adds its share to what is saved up, in calls and in tokens, and each extra call takes 1 call
/// and its tokens. So the limits hold at each moment, not only on average: among the first `n` calls, at most `share *
/// n` are made twice, and these have at most the same share of all tokens. What is saved up ends at
/// [`with_burst`](Self::with_burst) calls, and at as many times the tokens of the largest call so far. If many calls
/// become slow at once, no more than that are made twice.
///
/// The call that is dropped because the second member was first counts as a failure for the
/// [breaker](crate::wrap::BreakerPolicy) if its member answered nobody meanwhile, and has been asked for twice the delay since it
/// last answered. So a member that hangs gets no more calls, even if the second one always answers in its place.
///
/// # Cost
/// Both calls are paid. Tokens are estimates, because a call that is dropped reports none.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hedging {
    pub(super) quantile: f64,
    pub(super) min_samples: usize,
    pub(super) min_delay: Duration,
    pub(super) share: f64,
    pub(super) burst: u32,
    pub(super) max_cost: Option<(Price, PicoDollars)>,
}

impl Default for Hedging {
    fn default() -> Self {
        Self {
            quantile: 0.95,
            min_samples: 20,
            min_delay: Duration::from_millis(5),
            share: 0.05,
            burst: 5,
            max_cost: None,
        }
    }
}

impl Hedging {
    /// The parts of one call in which shares are kept, so that sums are exact. A share has nine digits after the point.
    pub(super) const PARTS: u64 = 1_000_000_000;

    /// Sets the quantile of the latencies after which an extra call is made: 0.95 is the time within which 95 % of the
    /// calls ended.
    #[must_use]
    pub const fn with_quantile(mut self, quantile: f64) -> Self {
        self.quantile = quantile;
        self
    }

    /// Sets the number of successful calls before which there are no extra calls: from 1 to 256.
    #[must_use]
    pub const fn with_min_samples(mut self, calls: usize) -> Self {
        self.min_samples = calls;
        self
    }

    /// Sets the time before which no extra call is made, however fast the calls are.
    #[must_use]
    pub const fn with_min_delay(mut self, delay: Duration) -> Self {
        self.min_delay = delay;
        self
    }

    /// Sets the largest share of the interactive calls, and of their tokens, that may be extra. It is kept to nine
    /// digits after the point.
    #[must_use]
    pub const fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets the number of extra calls that can be saved up.
    #[must_use]
    pub const fn with_burst(mut self, calls: u32) -> Self {
        self.burst = calls;
        self
    }

    /// Sets the most that all extra calls together may cost. Each is booked with its estimated tokens at the standard
    /// price, whether or not it is answered.
    #[must_use]
    pub fn with_max_cost(mut self, price: Price, total: PicoDollars) -> Self {
        self.max_cost = Some((price, total));
        self
    }

    /// Returns the share in [`PARTS`](Self::PARTS) of a call.
    pub(super) fn share_in_parts(&self) -> u64 {
        // Whole digits are exact: a `f64` has more of them than this. Never above 1, so that the sums stay in range.
        ((self.share * Self::PARTS as f64).round() as u64).min(Self::PARTS)
    }

    /// Refuses values that make no sense.
    pub(in crate::wrap::resilient) fn check(&self) -> Result<()> {
        let is_share = |value: f64| value > 0.0 && value <= 1.0;
        let message = if !is_share(self.quantile) {
            format!("hedging after the quantile {}: `with_quantile` takes above 0, at most 1", self.quantile)
        } else if !(1..=KEPT).contains(&self.min_samples) {
            format!(
                "hedging after {} successful calls: `with_min_samples` takes from 1 to {KEPT}, the calls that are kept",
                self.min_samples
            )
        } else if !is_share(self.share) || self.share_in_parts() == 0 {
            format!(
                "hedging for a share of {} of the calls: `with_share` takes from 0.000000001 to 1; to make no extra \
                 calls, leave hedging off",
                self.share
            )
        } else if self.burst == 0 {
            "hedging with 0 extra calls saved up makes none: `with_burst` takes at least 1".to_owned()
        } else if self.max_cost.as_ref().is_some_and(|(_, total)| *total == PicoDollars::ZERO) {
            "hedging for $0.00 in all makes no extra calls: `with_max_cost` takes more, or leave hedging off".to_owned()
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
        let policy = Hedging::default;
        let price = Price::new("a-host", "a-model", PicoDollars::from_picos(1));
        policy().check().expect("the default makes sense");
        policy().with_quantile(1.0).with_share(1.0).with_min_samples(1).with_burst(1).check().expect("the edges");
        policy().with_share(1e-9).with_min_samples(KEPT).with_min_delay(Duration::ZERO).check().expect("the edges");
        policy().with_max_cost(price.clone(), PicoDollars::from_picos(1)).check().expect("a cost");

        let not_shares = [0.0, -0.1, 1.001, f64::NAN, f64::INFINITY];
        let bad = [
            (policy().with_min_samples(0), "with_min_samples"),
            (policy().with_min_samples(KEPT + 1), "with_min_samples"),
            (policy().with_share(1e-10), "with_share"),
            (policy().with_burst(0), "with_burst"),
            (policy().with_max_cost(price, PicoDollars::ZERO), "with_max_cost"),
        ];
        let quantiles = not_shares.map(|value| (policy().with_quantile(value), "with_quantile"));
        let shares = not_shares.map(|value| (policy().with_share(value), "with_share"));
        for (policy, setter) in bad.into_iter().chain(quantiles).chain(shares) {
            let error = policy.check().expect_err(setter);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(setter), "{error} does not name {setter}");
        }
    }

    #[test]
    fn a_share_is_kept_as_it_is_written() {
        for (share, parts) in [(0.05, 50_000_000), (0.1, 100_000_000), (0.07, 70_000_000), (1.0, Hedging::PARTS)] {
            assert_eq!(Hedging::default().with_share(share).share_in_parts(), parts);
        }
    }
}
