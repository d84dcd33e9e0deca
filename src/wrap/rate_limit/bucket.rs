//! Fills evenly and is taken from: [`Bucket`], one of requests and one of tokens.

use std::time::Duration;

use tokio::time::Instant;

use crate::RateLimitWindow;

/// What is saved up when nobody calls.
const SAVED: Duration = Duration::from_secs(10);

/// A bucket that takes longer to fill is not one of a minute, whatever the provider calls it.
const LONGER_THAN_A_MINUTE: Duration = Duration::from_secs(90);

/// So much a minute, or no limit.
#[derive(Default)]
pub(super) struct Bucket {
    pub(super) given: Option<u64>,
    learned: Option<u64>,
    /// What the provider adds a second, where its window is longer than a minute.
    slow: Option<f64>,
    /// What is there, and since when; below zero where more was taken.
    level: Option<(f64, Instant)>,
}

impl Bucket {
    /// What is added a second.
    pub(super) fn rate(&self) -> Option<f64> {
        let limit = match (self.given, self.learned) {
            (Some(given), Some(learned)) => given.min(learned),
            (given, learned) => given.or(learned)?,
        };
        let rate = limit as f64 / 60.0;
        Some(self.slow.map_or(rate, |slow| rate.min(slow)).max(f64::MIN_POSITIVE))
    }

    /// The limit that is kept to, per minute.
    pub(super) fn per_minute(&self) -> Option<u64> {
        self.rate().map(|rate| (rate * 60.0).round() as u64)
    }

    /// What is there now and the most that can be; `None` without a limit.
    fn fill(&mut self, now: Instant) -> Option<(&mut f64, f64, f64)> {
        let rate = self.rate()?;
        let most = (rate * SAVED.as_secs_f64()).max(1.0);
        let (level, at) = self.level.get_or_insert((most, now));
        *level = (*level + now.saturating_duration_since(*at).as_secs_f64() * rate).min(most);
        // Clocks are looked at before the lock: a later look may come first, and no moment counts twice.
        *at = now.max(*at);
        Some((level, most, rate))
    }

    /// How long at least until this much can be taken after others have taken so much.
    pub(super) fn wait(&mut self, ahead: f64, cost: f64, now: Instant) -> Duration {
        let Some((level, most, rate)) = self.fill(now) else { return Duration::ZERO };
        let missing = ahead + cost.min(most) - *level;
        // Sums of parts are a little less than the whole.
        if missing <= most * 1e-9 {
            Duration::ZERO
        } else {
            Duration::try_from_secs_f64(missing / rate).unwrap_or(Duration::MAX)
        }
    }

    pub(super) fn take(&mut self, cost: f64, now: Instant) {
        if let Some((level, ..)) = self.fill(now) {
            *level -= cost;
        }
    }

    /// Believes what the provider says.
    pub(super) fn learn(&mut self, quota: Option<RateLimitWindow>, now: Instant) {
        let Some(quota) = quota.filter(|quota| quota.limit > 0) else { return };
        self.fill(now);
        self.learned = Some(quota.limit);
        // From what is left until all is there again: what comes in a second.
        self.slow = match (quota.remaining, quota.reset) {
            (Some(left), Some(reset)) if reset > LONGER_THAN_A_MINUTE && left < quota.limit => {
                Some((quota.limit - left) as f64 / reset.as_secs_f64())
            }
            // Nearly full, a bucket does not show how slow it is: what is known stays.
            _ => self.slow.filter(|_| quota.remaining.is_none_or(|left| left > 0)),
        };
        if let (Some(remaining), Some((level, ..))) = (quota.remaining, self.fill(now)) {
            *level = level.min(remaining as f64);
        }
    }
}
