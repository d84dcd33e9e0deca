//! Keeps the latencies of the last calls in order: [`Latencies`].

use std::time::Duration;

/// The latencies that are kept.
pub(super) const KEPT: usize = 256;

/// The latencies of the last [`KEPT`] calls.
///
/// They are kept sorted, because quantiles are asked for before each call. Adding one moves at most 2 KiB.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    /// In nanoseconds, at most 584 years of them; in the order of arrival from `next` on, once all places are taken.
    arrived: Vec<u64>,
    /// The same ones, ascending.
    sorted: Vec<u64>,
    /// The place of the oldest one, once all places are taken.
    next: usize,
}

impl Latencies {
    /// Adds one. The oldest one goes if all places are taken.
    pub(super) fn note(&mut self, latency: Duration) {
        let latency = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        if self.arrived.len() < KEPT {
            self.arrived.push(latency);
        } else {
            let oldest = std::mem::replace(&mut self.arrived[self.next], latency);
            self.next = (self.next + 1) % KEPT;
            // It is there: both lists hold the same latencies.
            if let Ok(at) = self.sorted.binary_search(&oldest) {
                self.sorted.remove(at);
            }
        }
        let at = self.sorted.partition_point(|other| *other <= latency);
        self.sorted.insert(at, latency);
    }

    /// Returns how many are kept.
    pub(super) const fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Returns the least latency that at least this share of the calls did not exceed; `None` if there are none.
    pub(super) fn quantile(&self, quantile: f64) -> Option<Duration> {
        // A product may be a little above the whole number that is meant: 0.07 of 100 is 7, not 8.
        let rank = (quantile * self.len() as f64 - 1e-9).ceil() as usize;
        let latency = self.sorted.get(rank.saturating_sub(1))?;
        Some(Duration::from_nanos(*latency))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Quantiles are those of the last latencies, sorted, by whole percents, so that ranks are exact.
        #[test]
        fn quantiles_are_those_of_the_last_ones_sorted(
            all in prop::collection::vec(prop_oneof![0_u64..20, any::<u64>()], 1..3 * KEPT),
            percent in 1_usize..=100,
        ) {
            let mut latencies = Latencies::default();
            for (at, latency) in all.iter().enumerate() {
                latencies.note(Duration::from_nanos(*latency));
                let mut last = all[(at + 1).saturating_sub(KEPT)..=at].to_vec();
                last.sort_unstable();
                let rank = (percent * last.len()).div_ceil(100);
                let expected = Some(Duration::from_nanos(last[rank - 1]));
                prop_assert_eq!(latencies.len(), last.len());
                prop_assert_eq!(latencies.quantile(percent as f64 / 100.0), expected);
            }
        }
    }

    #[test]
    fn no_latencies_have_no_quantile_and_the_longest_is_kept() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(1.0), None);
        latencies.note(Duration::MAX);
        assert_eq!(latencies.quantile(0.5), Some(Duration::from_nanos(u64::MAX)));
    }
}
