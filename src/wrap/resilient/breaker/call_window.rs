//! Counts calls and failures of the last while in bounded memory: [`CallWindow`].

use std::time::Duration;

use tokio::time::Instant;

/// The parts of a window. Calls leave it by whole parts.
const PARTS: u64 = 10;

/// The calls that ended within the last while, and the failed ones among them.
///
/// Time is cut into parts of a tenth of the window. The current part and the nine before it count.
#[derive(Debug)]
pub(super) struct CallWindow {
    /// The length of a part in nanoseconds.
    part: u64,
    /// The moment at which part 0 begins.
    began: Option<Instant>,
    /// A ring: part `n` is at `n % PARTS`, until a later part takes its place.
    counts: [PartCounts; PARTS as usize],
}

/// The calls of one part.
#[derive(Clone, Copy, Debug, Default)]
struct PartCounts {
    /// The number of the part since the window began.
    part: u64,
    calls: u64,
    failures: u64,
}

impl CallWindow {
    pub(super) fn new(window: Duration) -> Self {
        // Rounded up, so that the parts together are not shorter than the window.
        let part = nanoseconds(window).div_ceil(PARTS).max(1);
        Self { part, began: None, counts: <_>::default() }
    }

    /// Counts a call that ended at `now`.
    pub(super) fn note(&mut self, is_failure: bool, now: Instant) {
        let part = self.part_at(now);
        let counts = &mut self.counts[(part % PARTS) as usize];
        if counts.part != part {
            *counts = PartCounts { part, ..PartCounts::default() };
        }
        counts.calls = counts.calls.saturating_add(1);
        counts.failures = counts.failures.saturating_add(is_failure.into());
    }

    /// Returns the failures and the calls of the window that ends at `now`.
    pub(super) fn failures_and_calls(&mut self, now: Instant) -> (u64, u64) {
        let part = self.part_at(now);
        let counted = self.counts.iter().filter(|counts| part - counts.part < PARTS);
        counted.fold((0, 0), |(failures, calls), counts| {
            (failures.saturating_add(counts.failures), calls.saturating_add(counts.calls))
        })
    }

    /// Forgets all calls.
    pub(super) fn clear(&mut self) {
        self.counts = <_>::default();
    }

    /// Returns the number of the part in which `now` lies. `now` never goes back: [`Breaker`](super::Breaker) sees to it.
    fn part_at(&mut self, now: Instant) -> u64 {
        let began = *self.began.get_or_insert(now);
        nanoseconds(now.saturating_duration_since(began)) / self.part
    }
}

/// Returns a duration in nanoseconds, at most 584 years of them.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each call counts for at least nine tenths of the window and at most for all of it.
        #[test]
        fn calls_leave_with_the_window(
            window in 10_u64..5_000,
            calls in prop::collection::vec((0_u64..1_500, any::<bool>()), 1..80),
        ) {
            // A multiple of ten, so that a tenth is exact.
            let window = Duration::from_nanos(window * 10);
            let (mut counted, mut now) = (CallWindow::new(window), Instant::now());
            let mut ended: Vec<(Instant, bool)> = Vec::new();
            for (wait, is_failure) in calls {
                now += Duration::from_nanos(wait * 10);
                counted.note(is_failure, now);
                ended.push((now, is_failure));
                let within = |age: Duration| {
                    let recent = ended.iter().filter(move |(then, _)| now - *then < age);
                    recent.fold((0, 0), |(failures, calls), (_, failed)| (failures + u64::from(*failed), calls + 1))
                };
                let (failures, calls) = counted.failures_and_calls(now);
                let (least, most) = (within(window * 9 / 10), within(window));
                prop_assert!(least.0 <= failures && failures <= most.0, "{failures} failures, {least:?} to {most:?}");
                prop_assert!(least.1 <= calls && calls <= most.1, "{calls} calls, {least:?} to {most:?}");
            }
            prop_assert_eq!(counted.failures_and_calls(now + window), (0, 0));
            counted.clear();
            prop_assert_eq!(counted.failures_and_calls(now), (0, 0));
        }
    }

    #[test]
    fn the_longest_and_the_shortest_windows_count() {
        let now = Instant::now();
        for window in [Duration::MAX, Duration::from_nanos(1)] {
            let mut counted = CallWindow::new(window);
            counted.note(true, now);
            counted.note(false, now);
            assert_eq!(counted.failures_and_calls(now), (1, 2));
        }
    }
}
