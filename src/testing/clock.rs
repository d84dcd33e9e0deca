//! Keeps the simulator's time, which moves only as the test says: [`Clock`].

use std::time::{Duration, Instant, SystemTime};

/// The most that a clock moves at once: a hundred years. Larger sums would overflow.
const MOST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Virtual time. It moves by [`advance`](Self::advance) and, if the speed is not zero, with real time.
#[derive(Debug)]
pub(super) struct Clock {
    /// The unix time, in seconds, at which virtual time is zero.
    began: u64,
    /// The virtual time at `since`.
    base: Duration,
    since: Instant,
    /// Virtual seconds per real second.
    speed: f64,
}

impl Clock {
    pub(super) fn new(speed: f64) -> Self {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { began, base: Duration::ZERO, since: Instant::now(), speed: in_range(speed) }
    }

    /// Returns the virtual time since the start.
    pub(super) fn now(&self) -> Duration {
        let moved = Duration::try_from_secs_f64(self.since.elapsed().as_secs_f64() * self.speed).unwrap_or(MOST);
        self.base.saturating_add(moved.min(MOST)).min(MOST)
    }

    /// Returns a virtual time as unix time in seconds.
    pub(super) fn unix(&self, at: Duration) -> u64 {
        self.began.saturating_add(at.as_secs())
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.base = self.base.saturating_add(by).min(MOST);
    }

    pub(super) fn set_speed(&mut self, speed: f64) {
        self.base = self.now();
        self.since = Instant::now();
        self.speed = in_range(speed);
    }
}

/// Returns a speed that is a number from 0 to 1,000,000,000.
fn in_range(speed: f64) -> f64 {
    if speed.is_nan() { 0.0 } else { speed.clamp(0.0, 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_unless_it_is_moved() {
        let mut clock = Clock::new(0.0);
        assert_eq!(clock.now(), Duration::ZERO);
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.now(), Duration::from_secs(90));
        assert_eq!(clock.unix(clock.now()), clock.began + 90);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), MOST);
    }

    #[test]
    fn a_new_speed_keeps_the_time_so_far() {
        let mut clock = Clock::new(0.0);
        clock.advance(Duration::from_secs(5));
        clock.set_speed(f64::INFINITY);
        clock.set_speed(f64::NAN);
        let stopped = clock.now();
        assert!(stopped >= Duration::from_secs(5));
        assert_eq!(clock.now(), stopped);
    }
}
