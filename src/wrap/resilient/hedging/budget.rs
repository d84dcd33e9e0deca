//! Bounds extra calls by number, tokens and cost at once: [`ExtraCalls`].

use super::policy::Hedging;
use crate::price::PicoDollars;

/// The extra calls that are saved up, and what was booked for those that were made.
///
/// All sums are whole: calls and tokens are kept in [`Hedging::PARTS`].
#[derive(Debug, Default)]
pub(super) struct ExtraCalls {
    calls: u128,
    tokens: u128,
    /// The tokens of the largest call so far, for the most that can be saved up.
    largest: u64,
    booked: PicoDollars,
}

impl ExtraCalls {
    /// Adds the share of one call.
    pub(super) fn deposit(&mut self, policy: &Hedging, tokens: u64) {
        let share = u128::from(policy.share_in_parts());
        self.largest = self.largest.max(tokens);
        let most_calls = in_parts(policy.burst.into());
        let most_tokens = in_parts(self.largest).saturating_mul(policy.burst.into());
        self.calls = (self.calls + share).min(most_calls);
        self.tokens = (self.tokens + share * u128::from(tokens)).min(most_tokens);
    }

    /// Takes one call, its tokens and their cost. Takes nothing and returns false if one of the three is too much.
    pub(super) fn withdraw(&mut self, policy: &Hedging, tokens: u64) -> bool {
        let calls = self.calls.checked_sub(in_parts(1));
        let left = self.tokens.checked_sub(in_parts(tokens));
        let booked = match &policy.max_cost {
            None => Some(self.booked),
            Some((price, total)) => self.booked.checked_add(price.cost(tokens)).filter(|booked| booked <= total),
        };
        let (Some(calls), Some(left), Some(booked)) = (calls, left, booked) else { return false };
        (self.calls, self.tokens, self.booked) = (calls, left, booked);
        true
    }
}

/// Returns calls or tokens in parts of one.
fn in_parts(whole: u64) -> u128 {
    u128::from(whole) * u128::from(Hedging::PARTS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::price::Price;

    /// Whether each call asks for an extra one, and the tokens of the call.
    fn calls() -> impl Strategy<Value = Vec<(bool, u64)>> {
        prop::collection::vec((any::<bool>(), prop_oneof![0_u64..50, 0_u64..5_000]), 0..300)
    }

    proptest! {
        /// At each moment, extra calls and their tokens are within the share of all calls and tokens so far. A refusal has
        /// a reason: one more would be too much, or savings ended at the burst.
        #[test]
        fn no_limit_is_ever_exceeded(
            calls in calls(), thousandths in 1_u64..=1_000, burst in 1_u32..6, total in prop::option::of(1_u128..20_000),
        ) {
            let mut policy = Hedging::default().with_share(thousandths as f64 / 1_000.0).with_burst(burst);
            if let Some(total) = total {
                let price = Price::new("a-host", "a-model", PicoDollars::from_picos(3));
                policy = policy.with_max_cost(price, PicoDollars::from_picos(total));
            }
            let mut extra = ExtraCalls::default();
            let (mut all, mut made, mut run) = ((0_u64, 0_u64), (0_u64, 0_u64), 0_u32);
            // What can be left at most, so that a refusal can be judged: nothing was lost while it never was reached.
            let mut lost = false;
            for (is_slow, tokens) in calls {
                extra.deposit(&policy, tokens);
                all = (all.0 + 1, all.1 + tokens);
                lost |= extra.calls == in_parts(burst.into()) || extra.tokens == in_parts(extra.largest) * u128::from(burst);
                if !is_slow {
                    continue;
                }
                let fits = (made.0 + 1) * 1_000 <= thousandths * all.0 && (made.1 + tokens) * 1_000 <= thousandths * all.1;
                let is_cheap = total.is_none_or(|total| u128::from(made.1 + tokens) * 3 <= total);
                let before = (extra.calls, extra.tokens, extra.booked);
                if extra.withdraw(&policy, tokens) {
                    made = (made.0 + 1, made.1 + tokens);
                    prop_assert!(fits && is_cheap, "{made:?} of {all:?}");
                } else {
                    prop_assert_eq!((extra.calls, extra.tokens, extra.booked), before);
                    prop_assert!(lost || !fits || !is_cheap, "refused {tokens} with {made:?} of {all:?}");
                }
            }
            // However much was saved up, no more than the burst goes at once.
            while extra.withdraw(&policy, 0) {
                run += 1;
            }
            prop_assert!(run <= burst);
        }
    }

    #[test]
    fn a_twentieth_is_one_call_in_twenty_exactly() {
        let policy = Hedging::default();
        let mut extra = ExtraCalls::default();
        for round in 0..100 {
            for call in 0..20 {
                assert!(!extra.withdraw(&policy, 7), "call {call} of round {round} was too early");
                extra.deposit(&policy, 7);
            }
            assert!(extra.withdraw(&policy, 7), "round {round}");
        }
    }

    #[test]
    fn the_whole_cost_can_be_spent_and_nothing_more() {
        let price = Price::new("a-host", "a-model", PicoDollars::from_picos(10));
        let policy = Hedging::default().with_share(1.0).with_max_cost(price, PicoDollars::from_picos(100));
        let mut extra = ExtraCalls::default();
        for tokens in [4, 6, 1] {
            extra.deposit(&policy, tokens);
        }
        assert!(extra.withdraw(&policy, 4));
        assert!(!extra.withdraw(&policy, 7));
        assert!(extra.withdraw(&policy, 6));
        assert!(!extra.withdraw(&policy, 1));
        assert!(extra.withdraw(&policy, 0));
    }

    #[test]
    fn the_largest_numbers_are_kept_in_range() {
        let policy = Hedging::default().with_share(1.0).with_burst(u32::MAX);
        let mut extra = ExtraCalls::default();
        (0..10).for_each(|_| extra.deposit(&policy, u64::MAX));
        assert!(extra.withdraw(&policy, u64::MAX));
    }
}
