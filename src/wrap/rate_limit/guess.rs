//! Guesses the rate of a provider that refuses calls and names no limit: [`Guess`].

use std::time::Duration;

use tokio::time::Instant;

/// The part of the accepted rate that is used, so that a provider that counts in another way refuses nothing.
const HEADROOM: f64 = 0.9;

/// If nothing was accepted since the last refusal, this part of the guess stays.
const CUT: f64 = 0.5;

/// The lowest guess, per second.
const LEAST: f64 = 1.0 / 60.0;

/// How many of the last eight answers must be refusals before the first guess: a server that refuses now and then by
/// chance has no rate that could be kept to.
const REFUSALS: u32 = 4;

/// A refusal that asks for so many seconds is that of a limit, also if it is the only one.
const LONG_WAIT: u64 = 5;

/// A single refusal tells a rate only if so many requests were accepted before it: fewer may be those of a program that
/// has just begun. The refusal after it tells one from fewer, if it comes no later than `SOON` after the wait.
const ENOUGH: u32 = 8;

const SOON: Duration = Duration::from_secs(60);

/// The guess and what it is made of.
///
/// After a refusal and its wait, a provider has nothing saved. So the requests that it accepts until the next refusal,
/// with the wait that this one asks for, tell its rate. They are counted for a minute at most, since a program may have
/// asked for less than it was allowed before. The first guess may be too high, because it contains what the provider
/// had saved. A guess grows with time: hardly in the first minute, and faster and faster after it.
#[derive(Default)]
pub(super) struct Guess {
    accepted: Accepted,
    /// The last answers, the latest one in the lowest bit: 1 for a refusal.
    answers: u8,
    /// The end of the wait that the last refusal asked for.
    until: Option<Instant>,
    /// The rate per second, and the moment from which it grows.
    rate: Option<(f64, Instant)>,
}

impl Guess {
    /// Returns the rate per second; `None` while too little was refused.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        let (rate, from) = self.rate?;
        let minutes = now.saturating_duration_since(from).as_secs_f64() / 60.0;
        // By 5 % in the first minute, by half in two, fourfold in three.
        Some(rate * (0.05 * minutes.powi(3)).min(20.0).exp())
    }

    /// Counts an accepted request.
    pub(super) fn accept(&mut self, now: Instant) {
        self.answers <<= 1;
        self.accepted.add(now);
    }

    /// Learns from a refusal of a call that was let through at `went`. The provider wants no calls until `until`.
    /// Returns whether the guess is new.
    pub(super) fn refuse(&mut self, went: Instant, until: Instant, now: Instant) -> bool {
        // Calls that were under way together are refused together: this is one refusal.
        if self.until.is_some_and(|until| went < until) {
            return false;
        }
        let is_next = self.until.is_some_and(|until| now.saturating_duration_since(until) <= SOON);
        self.until = Some(until);
        self.answers = self.answers << 1 | 1;
        let asked = until.saturating_duration_since(now);
        let (count, since) = self.accepted.last_minute(now);
        let accepted = f64::from(count) / (since + asked).as_secs_f64().max(1.0) * HEADROOM;
        // After the wait that it asks for, a provider takes one request at least: else it would have asked for more.
        let after_wait = if asked.is_zero() { 0.0 } else { HEADROOM / asked.as_secs_f64() };
        let rate = match self.rate(now) {
            None if count == 0 || !self.is_of_a_limit(asked, is_next || count >= ENOUGH) => None,
            None => Some(accepted.max(after_wait)),
            Some(rate) if count > 0 => Some(rate.min(accepted).max(after_wait)),
            // But if it has refused again and taken none, it does not keep to what it asks for.
            Some(rate) => Some(rate * CUT),
        };
        self.accepted = Accepted::default();
        self.rate = rate.map(|rate| (rate.max(LEAST), until)).or(self.rate);
        rate.is_some()
    }

    /// Returns whether the refusals are those of a limit. One that asks for a long wait is, if what was accepted is
    /// enough to tell a rate.
    const fn is_of_a_limit(&self, asked: Duration, is_enough: bool) -> bool {
        self.answers.count_ones() >= REFUSALS || (asked.as_secs() >= LONG_WAIT && is_enough)
    }
}

/// Counts the requests that were accepted since the last refusal, in the last minute, by seconds.
struct Accepted {
    /// The moment of the first one.
    began: Option<Instant>,
    /// The second of the last one, counted from `began`.
    last: u64,
    counts: [u32; 60],
}

impl Default for Accepted {
    fn default() -> Self {
        Self { began: None, last: 0, counts: [0; 60] }
    }
}

impl Accepted {
    /// Forgets what is older than a minute. Returns the slot of this second.
    fn turn(&mut self, now: Instant) -> usize {
        let began = *self.began.get_or_insert(now);
        let second = now.saturating_duration_since(began).as_secs().max(self.last);
        for old in (self.last + 1..=second).take(60) {
            self.counts[(old % 60) as usize] = 0;
        }
        self.last = second;
        (second % 60) as usize
    }

    fn add(&mut self, now: Instant) {
        let slot = self.turn(now);
        self.counts[slot] = self.counts[slot].saturating_add(1);
    }

    /// Returns how many there were in the last minute, and the time since the first of these.
    fn last_minute(&mut self, now: Instant) -> (u32, Duration) {
        self.turn(now);
        let count = self.counts.iter().fold(0, |sum: u32, count| sum.saturating_add(*count));
        let began = self.began.unwrap_or(now);
        let first = (self.last.saturating_sub(59)..=self.last).find(|second| self.counts[(second % 60) as usize] > 0);
        let since = first.map(|first| now.saturating_duration_since(began + Duration::from_secs(first)));
        (count, since.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn accepted(guess: &mut Guess, count: usize, at: Instant) {
        (0..count).for_each(|_| guess.accept(at));
    }

    /// Requests that were accepted, and as many refusals as a first guess needs, but for one.
    fn nearly_limited(guess: &mut Guess, count: usize, at: Instant) {
        accepted(guess, count, at);
        guess.answers = 0b111;
    }

    fn per_minute(guess: &Guess, at: Instant) -> f64 {
        guess.rate(at).expect("a guess") * 60.0
    }

    fn near(have: f64, want: f64) -> bool {
        (have / want - 1.0).abs() < 0.001
    }

    #[test]
    fn the_end_of_a_window_tells_the_rate() {
        let (mut guess, began) = (Guess::default(), Instant::now());
        accepted(&mut guess, 60, began);
        assert_eq!(guess.rate(began), None);
        // 60 requests within a second, and the rest of the minute to wait.
        assert!(guess.refuse(began, began + 60 * SECOND, began));
        assert!(near(per_minute(&guess, began), 54.0), "{}", per_minute(&guess, began));
        // Ten within a second, and a second to wait: that window is no minute.
        let mut guess = Guess::default();
        nearly_limited(&mut guess, 10, began);
        guess.refuse(began, began + SECOND, began);
        assert!(near(per_minute(&guess, began), 540.0), "{}", per_minute(&guess, began));
    }

    #[test]
    fn the_next_refusal_tells_what_arrives_and_not_what_was_saved() {
        let (mut guess, began) = (Guess::default(), Instant::now());
        nearly_limited(&mut guess, 60, began);
        guess.refuse(began, began + SECOND, began);
        // Calls that had been under way together are refused together, and change nothing.
        assert!(!guess.refuse(began, began + 2 * SECOND, began + SECOND));
        assert!(near(per_minute(&guess, began), 60.0 * 54.0), "{}", per_minute(&guess, began));
        // One arrives in each second.
        (1..10).for_each(|second| accepted(&mut guess, 1, began + second * SECOND));
        assert!(guess.refuse(began + 9 * SECOND, began + 10 * SECOND, began + 9 * SECOND));
        assert!(near(per_minute(&guess, began), 54.0), "{}", per_minute(&guess, began));
        // Nothing at all arrives.
        assert!(guess.refuse(began + 10 * SECOND, began + 11 * SECOND, began + 10 * SECOND));
        assert!(near(per_minute(&guess, began), 27.0), "{}", per_minute(&guess, began));
        for second in 11..30 {
            let now = began + second * SECOND;
            assert!(guess.refuse(now, now + SECOND, now));
        }
        assert!(near(per_minute(&guess, began), 1.0), "{}", per_minute(&guess, began));
    }

    #[test]
    fn refusals_by_chance_tell_no_rate() {
        let (mut guess, began) = (Guess::default(), Instant::now());
        for second in 0..100 {
            let now = began + 2 * second * SECOND;
            accepted(&mut guess, 2, now);
            assert!(!guess.refuse(now, now + SECOND, now));
        }
        assert_eq!(guess.rate(began), None);
        // Half of all answers.
        let later = began + 300 * SECOND;
        let told = (0..4).map(|second| {
            let now = later + 2 * second * SECOND;
            accepted(&mut guess, 1, now);
            guess.refuse(now, now + SECOND, now)
        });
        assert_eq!(told.collect::<Vec<_>>(), [false, true, true, true]);
    }

    #[test]
    fn only_the_last_minute_counts() {
        let (mut guess, began) = (Guess::default(), Instant::now());
        accepted(&mut guess, 1, began);
        let later = began + 3600 * SECOND;
        accepted(&mut guess, 30, later);
        accepted(&mut guess, 30, later + 20 * SECOND);
        guess.refuse(later, later + 60 * SECOND, later + 20 * SECOND);
        assert!(near(per_minute(&guess, later), 54.0), "{}", per_minute(&guess, later));
    }

    /// What was accepted in the first moments says nothing of a rate. What is accepted after the wait does.
    #[test]
    fn a_long_wait_after_the_first_requests_tells_no_rate() {
        let (mut guess, began) = (Guess::default(), Instant::now());
        accepted(&mut guess, 7, began);
        assert!(!guess.refuse(began, began + 40 * SECOND, began));
        assert_eq!(guess.rate(began), None);
        let later = began + 40 * SECOND;
        accepted(&mut guess, 7, later);
        assert!(guess.refuse(later, later + 42 * SECOND, later));
        assert!(near(per_minute(&guess, later), 9.0), "{}", per_minute(&guess, later));
        // Eight are enough, and a refusal of long ago is none before this one.
        let mut guess = Guess::default();
        accepted(&mut guess, 8, began);
        assert!(guess.refuse(began, began + 40 * SECOND, began));
        let mut guess = Guess::default();
        accepted(&mut guess, 1, began);
        assert!(!guess.refuse(began, began + 40 * SECOND, began));
        let later = began + 101 * SECOND;
        accepted(&mut guess, 7, later);
        assert!(!guess.refuse(later, later + 40 * SECOND, later));
    }

    #[test]
    fn it_grows_slowly_and_then_fast() {
        let (mut guess, began) = (Guess::default(), Instant::now());
        accepted(&mut guess, 60, began);
        guess.refuse(began, began + 60 * SECOND, began);
        let after = |minutes: u32| per_minute(&guess, began + (minutes + 1) * 60 * SECOND) / 54.0;
        assert!(near(after(0), 1.0) && (1.05..1.06).contains(&after(1)) && (1.4..1.6).contains(&after(2)));
        assert!((20.0..30.0).contains(&after(4)) && after(1000).is_finite());
    }

    #[test]
    fn nothing_is_guessed_from_nothing() {
        let (mut guess, began) = (Guess::default(), Instant::now());
        assert!(!guess.refuse(began, began + SECOND, began));
        assert_eq!(guess.rate(began), None);
        // What is older than a minute is forgotten.
        accepted(&mut guess, 60, began);
        assert!(!guess.refuse(began + 61 * SECOND, began + 62 * SECOND, began + 61 * SECOND));
    }

    #[test]
    fn an_exact_wait_is_believed() {
        let (mut guess, began) = (Guess::default(), Instant::now());
        nearly_limited(&mut guess, 3, began);
        let wait = Duration::from_millis(20);
        guess.refuse(began, began + wait, began);
        assert!(near(per_minute(&guess, began), 54.0 * 50.0), "{}", per_minute(&guess, began));
    }
}
