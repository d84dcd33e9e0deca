//! Decides whether a member gets calls, from how its calls ended: [`Breaker`].

mod call_window;
mod policy;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use self::call_window::CallWindow;
pub use self::policy::BreakerPolicy;
use crate::{BreakerState, Error, ErrorKind};

/// The most probes that are under way at once.
const MOST_PROBES: usize = 16;

/// How a call ended, as far as the member's health goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The member answered.
    Success,
    /// The member failed.
    Failure,
    /// The call says nothing about the member's health.
    Neutral,
}

/// Returns what an error says about the health of the member that it came from.
pub(super) fn outcome_of(error: &Error) -> Outcome {
    match error.kind() {
        // Another member is needed, now and for the next calls. A wrong key or a used-up quota do not pass by
        // themselves, so that asking again each time would only cost time.
        ErrorKind::Auth
        | ErrorKind::Cache
        | ErrorKind::Config
        | ErrorKind::Inference
        | ErrorKind::Protocol
        | ErrorKind::QuotaExhausted
        | ErrorKind::Timeout
        | ErrorKind::Unavailable => Outcome::Failure,
        // A busy member is not a broken one. It is the work of a rate limit to keep calls away from it.
        ErrorKind::Overloaded | ErrorKind::RateLimited => Outcome::Neutral,
        // Many of these are found on this machine, before anything is sent. Counted as successes, they would close the
        // breaker of a server that is down, and hide its failures between them.
        ErrorKind::InvalidInput | ErrorKind::SpaceMismatch => Outcome::Neutral,
        // Whether the member was slow or the caller late, only the caller knows.
        ErrorKind::DeadlinePassed => Outcome::Neutral,
    }
}

/// The answer to a call that wants to go to a member.
#[derive(Debug)]
pub(super) enum Admission {
    /// It may go.
    Yes(Permit),
    /// It may not.
    No {
        /// The end of the open time. `None` while the member is half-open and all places of probes are taken, or if the
        /// clock cannot hold that moment.
        until: Option<Instant>,
    },
}

/// The right of one call to go to a member. It is given back to [`Breaker::end`]. Dropping it instead is the same as
/// [`Outcome::Neutral`], so that a call that is dropped at any moment keeps no place.
#[must_use = "dropping it gives up the place"]
#[derive(Debug)]
pub(super) struct Permit {
    /// How often the breaker had opened when the call went.
    openings: u64,
    /// The place, if the call is a probe.
    probe: Option<ProbePlace>,
}

impl Permit {
    /// Returns whether the call shows if the member is well again.
    pub(super) const fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

/// A probe's hold on its place.
#[derive(Debug)]
struct ProbePlace {
    /// Held for [`TakenPlace::held`] alone.
    _held: Arc<()>,
    /// Whether the open time was not over yet.
    is_early: bool,
}

/// A place of a probe, as the breaker sees it.
#[derive(Debug)]
struct TakenPlace {
    /// Empty as soon as the permit is gone, however it went.
    held: Weak<()>,
    since: Instant,
}

/// A change that a caller may want to tell others of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// The member gets no calls for a while.
    Opened {
        /// The open time.
        open_for: Duration,
        /// The failures that opened it.
        failures: u64,
        /// The calls in which they were counted.
        calls: u64,
    },
    /// The member gets probes.
    HalfOpened,
    /// The member gets calls again.
    Closed,
}

/// Counts how the calls of one member end, and decides which calls go to it. [`BreakerPolicy`] has the rules.
///
/// It has no clock, no lock and no task: the caller says what time it is, and keeps it under a lock.
#[derive(Debug)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// How often it has opened. The end of a call that went before the last opening counts no more.
    openings: u64,
    /// The calls since it closed.
    window: CallWindow,
    /// The failures since it closed or since the last success.
    failures_in_a_row: u32,
    /// The places of probes since it opened; none while it is closed. There are never more than [`MOST_PROBES`].
    probes: Vec<TakenPlace>,
    /// How long it was open last.
    last_open_for: Option<Duration>,
    last_success: Option<Instant>,
    /// For how long the member has been asked since it last answered, and answered nobody.
    silence: Duration,
    /// The moment up to which that is known.
    listened_until: Option<Instant>,
    /// The latest moment that a caller has named.
    latest: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Since the breaker closed, if it ever was open.
    Closed {
        since: Option<Instant>,
    },
    Open {
        since: Instant,
        open_for: Duration,
    },
    /// With the probes that succeeded so far.
    HalfOpen {
        successes: u32,
    },
}

impl Breaker {
    /// Makes a closed breaker. The policy makes sense: its `check` was called.
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self {
            state: State::Closed { since: None },
            openings: 0,
            window: CallWindow::new(policy.window),
            failures_in_a_row: 0,
            probes: Vec::new(),
            last_open_for: None,
            last_success: None,
            silence: Duration::ZERO,
            listened_until: None,
            latest: None,
            policy,
        }
    }

    /// Asks for a call to go to the member now. If the open time is over, the breaker becomes half-open.
    pub(super) fn admit(&mut self, now: Instant) -> (Admission, Option<Transition>) {
        let now = self.advance(now);
        let mut transition = None;
        if let State::Open { since, open_for } = self.state {
            if now.saturating_duration_since(since) < open_for {
                return (Admission::No { until: since.checked_add(open_for) }, None);
            }
            // An early probe that is under way keeps its place: it counts as one of the probes.
            self.state = State::HalfOpen { successes: 0 };
            transition = Some(Transition::HalfOpened);
        }
        let admission = match self.permit(now) {
            Some(permit) => Admission::Yes(permit),
            None => Admission::No { until: None },
        };
        (admission, transition)
    }

    /// Asks for a call to go to the member although it is open, because no other member can take the call. One such
    /// call is under way at a time.
    ///
    /// If it fails, nothing changes. If it succeeds, the breaker becomes half-open with one success. In the other
    /// states, it is a call as any other.
    pub(super) fn early_probe(&mut self, now: Instant) -> Option<Permit> {
        let now = self.advance(now);
        self.permit(now)
    }

    /// Takes a permit back, with how its call ended and how long the call took.
    pub(super) fn end(&mut self, permit: Permit, outcome: Outcome, now: Instant, took: Duration) -> Option<Transition> {
        let now = self.advance(now);
        if outcome == Outcome::Neutral {
            return None;
        }
        let is_answer = outcome == Outcome::Success;
        if is_answer {
            // Late answers too: the member did answer.
            (self.last_success, self.listened_until, self.silence) = (Some(now), Some(now), Duration::ZERO);
        }
        let is_failure = !is_answer || self.policy.slow_call.is_some_and(|limit| took > limit);
        if permit.openings != self.openings {
            return None;
        }
        let is_early = permit.probe.is_some_and(|probe| probe.is_early);
        match (self.state, is_failure) {
            (State::Closed { .. }, false) => {
                self.window.note(false, now);
                self.failures_in_a_row = 0;
                None
            }
            (State::Closed { .. }, true) => self.note_failure(now),
            // A call that went since the breaker opened: an early probe.
            (State::Open { .. }, false) => Some(self.note_success(0, now).unwrap_or(Transition::HalfOpened)),
            (State::HalfOpen { successes }, false) => self.note_success(successes, now),
            (State::HalfOpen { successes }, true) if !is_early => Some(self.open(1, u64::from(successes) + 1, now)),
            (State::Open { .. } | State::HalfOpen { .. }, true) => None,
        }
    }

    /// Notes that a call which began at this moment gets no answer. Returns for how long the member has been asked in all
    /// since it last answered, times without a call left out; `None` if it has answered another call meanwhile.
    pub(super) fn note_silence(&mut self, began: Instant, now: Instant) -> Option<Duration> {
        let now = self.advance(now);
        if self.last_success.is_some_and(|answered| answered >= began) {
            return None;
        }
        // Calls at once are silent for one time, not for one each.
        let from = self.listened_until.map_or(began, |until| until.max(began));
        self.silence = self.silence.saturating_add(now.saturating_duration_since(from));
        self.listened_until = self.listened_until.max(Some(now));
        Some(self.silence)
    }

    /// Returns the state and, if it is open, the time until the member gets a probe. An open breaker whose time is over
    /// counts as half-open: the next call is the probe.
    pub(super) fn state(&self, now: Instant) -> (BreakerState, Option<Duration>) {
        match self.state {
            State::Closed { .. } => (BreakerState::Closed, None),
            State::HalfOpen { .. } => (BreakerState::HalfOpen, None),
            State::Open { since, open_for } => match open_for.saturating_sub(now.saturating_duration_since(since)) {
                Duration::ZERO => (BreakerState::HalfOpen, None),
                remaining => (BreakerState::Open, Some(remaining)),
            },
        }
    }

    /// Returns the latest moment that was named. Callers read the clock before they take the lock, so an earlier `now`
    /// may come later.
    fn advance(&mut self, now: Instant) -> Instant {
        let latest = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(latest);
        latest
    }

    /// Returns a permit if there is a place.
    fn permit(&mut self, now: Instant) -> Option<Permit> {
        let openings = self.openings;
        let places = match self.state {
            State::Closed { .. } => return Some(Permit { openings, probe: None }),
            State::Open { .. } => 1,
            State::HalfOpen { successes } => 1_usize.checked_shl(successes).map_or(MOST_PROBES, |n| n.min(MOST_PROBES)),
        };
        if self.taken_places(now) >= places {
            return None;
        }
        let held = Arc::new(());
        self.probes.push(TakenPlace { held: Arc::downgrade(&held), since: now });
        let is_early = matches!(self.state, State::Open { .. });
        Some(Permit { openings, probe: Some(ProbePlace { _held: held, is_early }) })
    }

    /// Returns how many places of probes are taken. A probe that does not end for too long loses its place: its future
    /// may exist and never be polled again.
    fn taken_places(&mut self, now: Instant) -> usize {
        let limit = self.policy.open_for;
        self.probes.retain(|probe| probe.held.strong_count() > 0 && now.saturating_duration_since(probe.since) < limit);
        self.probes.len()
    }

    /// Counts a failure while closed.
    fn note_failure(&mut self, now: Instant) -> Option<Transition> {
        self.window.note(true, now);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let (failures, calls) = self.window.failures_and_calls(now);
        // The quotient, not a product: only it is exactly 0.07 for 7 of 100.
        let many = calls >= self.policy.min_calls.into() && failures as f64 / calls as f64 >= self.policy.failure_share;
        let in_a_row = self.policy.consecutive_failures.is_some_and(|limit| self.failures_in_a_row >= limit);
        if !many && !in_a_row {
            return None;
        }
        // The failures in a row may have begun before the window.
        let failures = failures.max(self.failures_in_a_row.into());
        Some(self.open(failures, calls.max(failures), now))
    }

    /// Counts a success while not closed.
    fn note_success(&mut self, successes_before: u32, now: Instant) -> Option<Transition> {
        let successes = successes_before.saturating_add(1);
        if successes < self.policy.probes {
            self.state = State::HalfOpen { successes };
            return None;
        }
        self.state = State::Closed { since: Some(now) };
        self.probes.clear();
        Some(Transition::Closed)
    }

    /// Opens it, for longer than last time unless it was well for long enough in between.
    fn open(&mut self, failures: u64, calls: u64, now: Instant) -> Transition {
        let open_for = match (self.last_open_for, self.state) {
            (None, _) => self.policy.open_for,
            (Some(last), State::Closed { since: Some(since) }) if now.saturating_duration_since(since) >= last => {
                self.policy.open_for
            }
            (Some(last), _) => last.saturating_mul(2).min(self.policy.max_open),
        };
        self.state = State::Open { since: now, open_for };
        self.last_open_for = Some(open_for);
        self.openings += 1;
        self.window.clear();
        self.failures_in_a_row = 0;
        self.probes.clear();
        Transition::Opened { open_for, failures, calls }
    }
}

#[cfg(test)]
mod tests;
