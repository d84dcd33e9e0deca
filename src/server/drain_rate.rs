//! Measures how fast a queue drains: [`DrainRate`].

use std::time::{Duration, Instant};

/// After so many seconds of work, a measurement counts half.
const HALF_LIFE: f64 = 10.0;

/// The tokens per second that a queue drains at while it has enough work. Other time does not count.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    /// Tokens and seconds of work; older ones count less.
    tokens: f64,
    seconds: f64,
    /// The moment up to which the work is counted, if there is work.
    busy_since: Option<Instant>,
}

impl DrainRate {
    /// Notes that the queue has enough work from now on, if it had not before.
    pub(super) fn begin(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
    }

    /// Notes that so many tokens are done, which were in the queue for `time`, and whether it has too little work now.
    pub(super) fn done(&mut self, tokens: usize, time: Duration, now: Instant, is_idle: bool) {
        if let Some(since) = self.busy_since {
            let seconds = now.saturating_duration_since(since).as_secs_f64();
            let keeps = (-seconds / HALF_LIFE).exp2();
            self.tokens = self.tokens * keeps + tokens as f64 * spread(time.as_secs_f64());
            self.seconds = self.seconds * keeps + seconds * spread(seconds);
        }
        self.busy_since = (!is_idle).then_some(now);
    }

    /// Returns the tokens per second; `None` before any are done.
    pub(super) fn per_second(&self) -> Option<f64> {
        (self.tokens > 0.0 && self.seconds > 0.0).then(|| self.tokens / self.seconds)
    }
}

/// Returns what is left of work that was done evenly over so many seconds: its older parts count less already. Without
/// this, a large request that ends would look like a burst of speed.
fn spread(seconds: f64) -> f64 {
    let lives = seconds / HALF_LIFE * std::f64::consts::LN_2;
    if lives < 1e-9 { 1.0 } else { (1.0 - (-lives).exp()) / lives }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_does_not_count_and_a_new_rate_is_learned() {
        let mut rate = DrainRate::default();
        let mut now = Instant::now();
        assert_eq!(rate.per_second(), None);
        let mut work = |rate: &mut DrainRate, tokens: usize, seconds: f64| {
            rate.begin(now);
            let time = Duration::from_secs_f64(seconds);
            now += time;
            rate.done(tokens, time, now, true);
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

    /// A large request beside small ones, at 10,000 tokens per second in all.
    #[test]
    fn a_large_request_that_ends_is_no_burst() {
        let (mut rate, start) = (DrainRate::default(), Instant::now());
        rate.begin(start);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        for tenth in 1..1000 {
            let end = at(f64::from(tenth) / 10.0);
            rate.done(500, Duration::from_millis(100), end, false);
        }
        rate.done(500_000, Duration::from_secs(100), at(100.0), false);
        let measured = rate.per_second().expect("measured");
        assert!((9_000.0..11_000.0).contains(&measured), "{measured}");
    }
}
