//! Fills at an even rate, and calls take from it: [`Bucket`]. A limiter has one for requests and one for tokens.

use std::time::Duration;

use tokio::time::Instant;

use super::guess::Guess;
use crate::RateLimitWindow;

/// A full bucket holds the amount that arrives in this time. It fills while no call takes anything.
const SAVED: Duration = Duration::from_secs(10);

/// If a provider's window takes longer to fill, its limit is not one per minute, whatever the provider calls it.
const LONGER_THAN_A_MINUTE: Duration = Duration::from_secs(90);

/// A limit per minute and the amount that is there now, or no limit.
#[derive(Default)]
pub(super) struct Bucket {
    /// The limit that the user set.
    pub(super) given: Option<u64>,
    /// The limit that the provider named.
    learned: Option<u64>,
    /// The rate that refusals let suppose.
    guess: Guess,
    /// The provider's rate per second, if its window is longer than a minute.
    slow: Option<f64>,
    /// The amount at a moment, and that moment. It is below zero if more was taken than was there.
    level: Option<(f64, Instant)>,
}

impl Bucket {
    /// Returns the amount that arrives per second; `None` without a limit.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        let named = lower(self.given, self.learned).map(|limit| limit as f64 / 60.0);
        let named = named.map(|rate| self.slow.map_or(rate, |slow| rate.min(slow)));
        let guess = self.guess.rate(now).filter(|_| self.learned.is_none());
        lower(named, guess).map(|rate| rate.max(f64::MIN_POSITIVE))
    }

    /// Returns whether the user or the provider has named a limit.
    pub(super) const fn is_named(&self) -> bool {
        self.given.is_some() || self.learned.is_some()
    }

    /// Counts an accepted request.
    pub(super) fn accept(&mut self, now: Instant) {
        self.guess.accept(now);
    }

    /// Learns from a refusal of a call that was let through at `went`. The provider wants no calls until `until`.
    pub(super) fn refuse(&mut self, went: Instant, until: Instant, now: Instant) {
        if self.learned.is_some() || !self.guess.refuse(went, until, now) {
            return;
        }
        if let Some((level, ..)) = self.fill(now) {
            // The provider had nothing left. After the wait, it has something for one call.
            let left = level.min(1.0);
            self.level = Some((left, until));
        }
    }

    /// Returns the limit per minute that holds now.
    pub(super) fn per_minute(&self, now: Instant) -> Option<u64> {
        self.rate(now).map(|rate| (rate * 60.0).round() as u64)
    }

    /// Adds what has arrived until `now`. Returns the amount, the most that the bucket can hold, and the rate; `None`
    /// without a limit.
    fn fill(&mut self, now: Instant) -> Option<(&mut f64, f64, f64)> {
        let rate = self.rate(now)?;
        let most = (rate * SAVED.as_secs_f64()).max(1.0);
        let (level, at) = self.level.get_or_insert((most, now));
        *level = (*level + now.saturating_duration_since(*at).as_secs_f64() * rate).min(most);
        // Callers read the clock before they take the lock, so an earlier `now` may come later. The moment never goes
        // back, or the time in between would count twice.
        *at = now.max(*at);
        Some((level, most, rate))
    }

    /// Returns the least time until `cost` can be taken, after others have taken `ahead`.
    ///
    /// A cost above the most that the bucket can hold waits for a full bucket: it would otherwise wait for ever.
    pub(super) fn wait(&mut self, ahead: f64, cost: f64, now: Instant) -> Duration {
        let Some((level, most, rate)) = self.fill(now) else { return Duration::ZERO };
        let missing = ahead + cost.min(most) - *level;
        // A sum of floating-point parts may be a little less than the whole. Nobody waits for that difference.
        if missing <= most * 1e-9 {
            Duration::ZERO
        } else {
            Duration::try_from_secs_f64(missing / rate).unwrap_or(Duration::MAX)
        }
    }

    /// Takes `cost`, whether or not it is there; a negative cost is given back.
    pub(super) fn take(&mut self, cost: f64, now: Instant) {
        if let Some((level, ..)) = self.fill(now) {
            *level -= cost;
        }
    }

    /// Learns the limit and the rest that the provider named. A limit of 0 is ignored.
    pub(super) fn learn(&mut self, window: Option<RateLimitWindow>, now: Instant) {
        let Some(window) = window.filter(|window| window.limit > 0) else { return };
        self.fill(now);
        self.learned = Some(window.limit);
        // The missing part is there again at the reset. This gives the rate per second.
        self.slow = match (window.remaining, window.reset) {
            (Some(left), Some(reset)) if reset > LONGER_THAN_A_MINUTE && left < window.limit => {
                Some((window.limit - left) as f64 / reset.as_secs_f64())
            }
            // A bucket that is nearly full does not show how slow it is, so the known rate stays. Only an empty one
            // that names no long reset shows that it is not slow.
            _ => self.slow.filter(|_| window.remaining.is_none_or(|left| left > 0)),
        };
        if let (Some(remaining), Some((level, ..))) = (window.remaining, self.fill(now)) {
            *level = level.min(remaining as f64);
        }
    }
}

/// Returns the lower one of those that are there.
fn lower<T: PartialOrd>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if one < other { one } else { other }),
        (one, other) => one.or(other),
    }
}
