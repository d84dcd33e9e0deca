//! Measures how fast a queue drains: [`DrainRate`].

use std::time::Instant;

/// After so many seconds of work, a measurement counts half.
const HALF_LIFE: f64 = 10.0;

/// The tokens per second that a queue drains at while it has work. Idle time does not count.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    /// Tokens and seconds of work; older ones count less.
    tokens: f64,
    seconds: f64,
    /// The moment up to which the work is counted, if there is work.
    busy_since: Option<Instant>,
}

impl DrainRate {
    /// Notes that the queue got work, if it had none.
    pub(super) fn begin(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
    }

    /// Notes that so many tokens are done, and whether the queue has none left.
    pub(super) fn done(&mut self, tokens: usize, now: Instant, is_empty: bool) {
        if let Some(since) = self.busy_since {
            let seconds = now.saturating_duration_since(since).as_secs_f64();
            let keeps = (-seconds / HALF_LIFE).exp2();
            self.tokens = self.tokens * keeps + tokens as f64;
            self.seconds = self.seconds * keeps + seconds;
        }
        self.busy_since = (!is_empty).then_some(now);
    }

    /// Returns the tokens per second; `None` before any are done.
    pub(super) fn per_second(&self) -> Option<f64> {
        (self.tokens > 0.0 && self.seconds > 0.0).then(|| self.tokens / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn idle_time_does_not_count_and_a_new_rate_is_learned() {
        let mut rate = DrainRate::default();
        let mut now = Instant::now();
        assert_eq!(rate.per_second(), None);
        let mut work = |rate: &mut DrainRate, tokens: usize, seconds: f64| {
            rate.begin(now);
            now += Duration::from_secs_f64(seconds);
            rate.done(tokens, now, true);
            // Idle.
            now += Duration::from_secs(1000);
        };
        (0..20).for_each(|_| work(&mut rate, 500, 0.5));
        let first = rate.per_second().expect("measured");
        assert!((first - 1000.0).abs() < 1.0, "{first}");
        (0..200).for_each(|_| work(&mut rate, 500, 0.25));
        let second = rate.per_second().expect("measured");
        assert!((1900.0..2001.0).contains(&second), "{second}");
    }
}
