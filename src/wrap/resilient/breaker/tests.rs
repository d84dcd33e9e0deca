//! The breaker step by step, and beside a naive model of it in random sequences of calls, ends and waits.

mod model;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A breaker and the time.
struct Clocked {
    breaker: Breaker,
    now: Instant,
}

impl Clocked {
    fn new(policy: BreakerPolicy) -> Self {
        policy.check().expect("a policy that makes sense");
        Self { breaker: Breaker::new(policy), now: Instant::now() }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn admit(&mut self) -> Permit {
        match self.breaker.admit(self.now).0 {
            Admission::Yes(permit) => permit,
            no @ Admission::No { .. } => panic!("{no:?} in {:?}", self.breaker),
        }
    }

    /// Asserts that no call goes. Returns the end of the open time.
    fn refuse(&mut self) -> Option<Instant> {
        match self.breaker.admit(self.now).0 {
            Admission::Yes(permit) => panic!("{permit:?} in {:?}", self.breaker),
            Admission::No { until } => until,
        }
    }

    fn end(&mut self, permit: Permit, outcome: Outcome) -> Option<Transition> {
        self.breaker.end(permit, outcome, self.now, Duration::ZERO)
    }

    /// One call after the other, each of which ends so.
    fn calls(&mut self, count: usize, outcome: Outcome) -> Option<Transition> {
        let mut last = None;
        for _ in 0..count {
            let permit = self.admit();
            last = self.end(permit, outcome);
        }
        last
    }

    fn open_for(&mut self) -> Duration {
        match self.breaker.state(self.now) {
            (BreakerState::Open, Some(remaining)) => remaining,
            other => panic!("{other:?}"),
        }
    }
}

/// Opened by five failures in a row.
fn opened() -> Clocked {
    let mut clocked = Clocked::new(BreakerPolicy::default());
    let opened = clocked.calls(5, Outcome::Failure);
    assert_eq!(opened, Some(Transition::Opened { open_for: 30 * SECOND, failures: 5, calls: 5 }));
    clocked
}

#[test]
fn five_failures_in_a_row_open_it_however_few_calls_there_were() {
    let mut clocked = Clocked::new(BreakerPolicy::default());
    assert_eq!(clocked.calls(4, Outcome::Failure), None);
    assert_eq!(clocked.calls(1, Outcome::Success), None);
    for _ in 0..4 {
        assert_eq!(clocked.calls(1, Outcome::Failure), None);
        assert_eq!(clocked.calls(1, Outcome::Neutral), None, "it neither counts nor breaks the row");
        // Long after the window.
        clocked.wait(100 * SECOND);
    }
    let opened = clocked.calls(1, Outcome::Failure);
    assert_eq!(opened, Some(Transition::Opened { open_for: 30 * SECOND, failures: 5, calls: 5 }));
}

#[test]
fn half_of_twenty_calls_open_it_and_only_at_a_failure() {
    let mut clocked = Clocked::new(BreakerPolicy::default());
    for _ in 0..9 {
        assert_eq!(clocked.calls(1, Outcome::Failure), None);
        assert_eq!(clocked.calls(1, Outcome::Success), None);
    }
    assert_eq!(clocked.calls(1, Outcome::Failure), None, "10 of 19");
    assert_eq!(clocked.calls(1, Outcome::Success), None, "10 of 20, but the last call succeeded");
    assert_eq!(clocked.calls(1, Outcome::Success), None, "10 of 21");
    let opened = Some(Transition::Opened { open_for: 30 * SECOND, failures: 11, calls: 22 });
    assert_eq!(clocked.calls(1, Outcome::Failure), opened);
}

#[test]
fn failures_before_the_window_no_longer_count() {
    let mut clocked = Clocked::new(BreakerPolicy::default().without_ejection());
    assert_eq!(clocked.calls(19, Outcome::Failure), None);
    clocked.wait(30 * SECOND);
    assert_eq!(clocked.calls(19, Outcome::Failure), None);
    clocked.wait(26 * SECOND);
    assert!(clocked.calls(1, Outcome::Failure).is_some(), "the window is 30 s");
}

#[test]
fn while_open_no_call_goes_and_the_refusal_says_until_when() {
    let mut clocked = opened();
    let until = clocked.now + 30 * SECOND;
    assert_eq!(clocked.refuse(), Some(until));
    clocked.wait(30 * SECOND - Duration::from_nanos(1));
    assert_eq!(clocked.refuse(), Some(until));
    assert_eq!(clocked.open_for(), Duration::from_nanos(1));
    clocked.wait(Duration::from_nanos(1));
    assert_eq!(clocked.breaker.state(clocked.now).0, BreakerState::HalfOpen);
    let (admission, transition) = clocked.breaker.admit(clocked.now);
    assert!(matches!(admission, Admission::Yes(permit) if permit.is_probe()));
    assert_eq!(transition, Some(Transition::HalfOpened));
}

#[test]
fn recovery_goes_in_steps_of_one_two_and_four() {
    let mut clocked = opened();
    clocked.wait(30 * SECOND);
    for (places, closes) in [(1, false), (2, false), (4, true)] {
        let mut permits: Vec<_> = (0..places).map(|_| clocked.admit()).collect();
        assert_eq!(clocked.refuse(), None, "{places} at once");
        let transition = permits.pop().and_then(|permit| clocked.end(permit, Outcome::Success));
        assert_eq!(transition, closes.then_some(Transition::Closed));
        // The others end without an answer.
    }
    assert_eq!(clocked.breaker.state(clocked.now).0, BreakerState::Closed);
    let _many: Vec<_> = (0..1_000).map(|_| clocked.admit()).collect();
}

#[test]
fn any_failure_of_a_probe_opens_it_for_twice_as_long_up_to_the_most() {
    let mut clocked = opened();
    for expected in [60, 120, 240, 300, 300] {
        let open_for = clocked.open_for();
        clocked.wait(open_for);
        let first = clocked.admit();
        assert_eq!(clocked.end(first, Outcome::Success), None);
        let (good, bad) = (clocked.admit(), clocked.admit());
        let open_for = expected * SECOND;
        let expected = Some(Transition::Opened { open_for, failures: 1, calls: 2 });
        assert_eq!(clocked.end(bad, Outcome::Failure), expected);
        assert_eq!(clocked.end(good, Outcome::Success), None, "it went before");
        assert_eq!(clocked.open_for(), open_for);
    }
}

#[test]
fn open_times_begin_anew_only_after_as_long_a_time_closed() {
    for (closed_for, expected) in [(59, 120), (60, 30), (1_000, 30)] {
        let mut clocked = opened();
        clocked.wait(30 * SECOND);
        assert!(clocked.calls(1, Outcome::Failure).is_some());
        assert_eq!(clocked.open_for(), 60 * SECOND);
        clocked.wait(60 * SECOND);
        assert_eq!(clocked.calls(3, Outcome::Success), Some(Transition::Closed));
        clocked.wait(closed_for * SECOND);
        assert!(clocked.calls(5, Outcome::Failure).is_some());
        assert_eq!(clocked.open_for(), expected * SECOND, "after {closed_for} s closed");
    }
}

#[test]
fn a_probe_that_is_dropped_or_neutral_leaves_its_place_and_nothing_else() {
    let mut clocked = opened();
    clocked.wait(30 * SECOND);
    for _ in 0..100 {
        drop(clocked.admit());
        assert_eq!(clocked.calls(1, Outcome::Neutral), None);
    }
    assert_eq!(clocked.calls(2, Outcome::Success), None);
    drop(clocked.admit());
    assert_eq!(clocked.calls(1, Outcome::Success), Some(Transition::Closed));
}

#[test]
fn a_probe_that_never_ends_keeps_its_place_for_one_open_time_only() {
    let mut clocked = opened();
    clocked.wait(30 * SECOND);
    let lost = clocked.admit();
    clocked.wait(30 * SECOND - Duration::from_nanos(1));
    assert_eq!(clocked.refuse(), None);
    clocked.wait(Duration::from_nanos(1));
    let second = clocked.admit();
    assert_eq!(clocked.refuse(), None);
    // It still counts if it ends after all.
    assert_eq!(clocked.end(lost, Outcome::Success), None);
    assert_eq!(clocked.end(second, Outcome::Success), None);
    assert_eq!(clocked.calls(1, Outcome::Success), Some(Transition::Closed));
}

#[test]
fn calls_that_went_before_it_opened_change_nothing_when_they_end() {
    let mut clocked = Clocked::new(BreakerPolicy::default().with_min_calls(1));
    let mut late: Vec<_> = (0..40).map(|_| clocked.admit()).collect();
    let mut some = |clocked: &mut Clocked| {
        for outcome in [Outcome::Success, Outcome::Failure, Outcome::Failure, Outcome::Neutral] {
            let permit = late.pop().expect("one of 40");
            assert_eq!(clocked.end(permit, outcome), None, "in {:?}", clocked.breaker);
        }
    };
    assert!(clocked.calls(1, Outcome::Failure).is_some());
    some(&mut clocked);
    assert_eq!(clocked.open_for(), 30 * SECOND);
    assert_eq!(clocked.breaker.last_success, Some(clocked.now), "the member did answer");
    clocked.wait(30 * SECOND);
    let probe = clocked.admit();
    some(&mut clocked);
    assert_eq!(clocked.breaker.state(clocked.now).0, BreakerState::HalfOpen);
    assert_eq!(clocked.refuse(), None, "a late end frees no place");
    assert_eq!(clocked.end(probe, Outcome::Success), None);
    assert_eq!(clocked.calls(2, Outcome::Success), Some(Transition::Closed));
    some(&mut clocked);
    assert_eq!(clocked.breaker.state(clocked.now).0, BreakerState::Closed);
}

#[test]
fn an_early_probe_that_fails_changes_nothing_and_is_alone() {
    let mut clocked = opened();
    clocked.wait(10 * SECOND);
    for _ in 0..50 {
        let early = clocked.breaker.early_probe(clocked.now).expect("nobody else tries");
        assert!(clocked.breaker.early_probe(clocked.now).is_none());
        assert_eq!(clocked.refuse(), Some(clocked.now + 20 * SECOND));
        assert_eq!(clocked.end(early, Outcome::Failure), None);
        assert_eq!(clocked.open_for(), 20 * SECOND);
    }
    clocked.wait(20 * SECOND);
    assert_eq!(clocked.calls(3, Outcome::Success), Some(Transition::Closed));
}

#[test]
fn an_early_probe_that_succeeds_is_the_first_success() {
    let mut clocked = opened();
    let early = clocked.breaker.early_probe(clocked.now).expect("nobody else tries");
    assert_eq!(clocked.end(early, Outcome::Success), Some(Transition::HalfOpened));
    let (_one, two) = (clocked.admit(), clocked.admit());
    assert_eq!(clocked.refuse(), None);
    assert_eq!(clocked.end(two, Outcome::Success), None);
    assert_eq!(clocked.calls(1, Outcome::Success), Some(Transition::Closed));

    let mut clocked = Clocked::new(BreakerPolicy::default().with_probes(1).with_consecutive_failures(1));
    assert!(clocked.calls(1, Outcome::Failure).is_some());
    let early = clocked.breaker.early_probe(clocked.now).expect("nobody else tries");
    assert_eq!(clocked.end(early, Outcome::Success), Some(Transition::Closed));
}

#[test]
fn an_early_probe_counts_as_a_probe_when_the_open_time_is_over() {
    for outcome in [Outcome::Success, Outcome::Failure] {
        let mut clocked = opened();
        clocked.wait(29 * SECOND);
        let early = clocked.breaker.early_probe(clocked.now).expect("nobody else tries");
        clocked.wait(SECOND);
        assert_eq!(clocked.refuse(), None, "one probe is under way");
        assert_eq!(clocked.end(early, outcome), None);
        let places = if outcome == Outcome::Success { 2 } else { 1 };
        let _permits: Vec<_> = (0..places).map(|_| clocked.admit()).collect();
        assert_eq!(clocked.refuse(), None);
    }
}

#[test]
fn a_slow_answer_is_a_failure_only_where_asked() {
    let (limit, slow) = (SECOND, SECOND + Duration::from_nanos(1));
    for (policy, opens) in [
        (BreakerPolicy::default(), false),
        (BreakerPolicy::default().with_slow_call(limit), true),
        (BreakerPolicy::default().with_slow_call(slow), false),
    ] {
        let mut clocked = Clocked::new(policy.with_consecutive_failures(1));
        let permit = clocked.admit();
        let transition = clocked.breaker.end(permit, Outcome::Success, clocked.now, slow);
        assert_eq!(transition.is_some(), opens);
        assert_eq!(clocked.breaker.last_success, Some(clocked.now));
    }
}

#[test]
fn silence_is_the_time_with_calls_since_the_last_answer() {
    let mut clocked = Clocked::new(BreakerPolicy::default());
    let silence = |clocked: &mut Clocked, began| clocked.breaker.note_silence(began, clocked.now);
    let began = clocked.now;
    clocked.wait(SECOND);
    assert_eq!(silence(&mut clocked, began), Some(SECOND));
    assert_eq!(silence(&mut clocked, began), Some(SECOND), "calls at once");
    clocked.wait(60 * SECOND);
    let later = clocked.now;
    clocked.wait(SECOND);
    assert_eq!(silence(&mut clocked, later), Some(2 * SECOND), "nobody asked in between");
    assert_eq!(clocked.calls(1, Outcome::Success), None);
    assert_eq!(silence(&mut clocked, later), None, "another call was answered");
    let after = clocked.now + SECOND;
    clocked.wait(3 * SECOND);
    assert_eq!(silence(&mut clocked, after), Some(2 * SECOND));
    // The answer was later than a call whose clock was read earlier.
    assert_eq!(clocked.breaker.note_silence(after, after), Some(2 * SECOND));
}

#[test]
fn a_clock_that_was_read_earlier_does_not_turn_time_back() {
    let mut clocked = opened();
    clocked.wait(30 * SECOND);
    drop(clocked.admit());
    let earlier = clocked.now - 29 * SECOND;
    let (Admission::Yes(probe), None) = clocked.breaker.admit(earlier) else { panic!("it is half-open") };
    let transition = clocked.breaker.end(probe, Outcome::Failure, earlier, Duration::ZERO);
    assert_eq!(transition, Some(Transition::Opened { open_for: 60 * SECOND, failures: 1, calls: 1 }));
    assert_eq!(clocked.open_for(), 60 * SECOND);
}

#[test]
fn times_beyond_the_clock_are_for_ever() {
    let policy = BreakerPolicy::default().with_max_open(Duration::MAX).with_open_for(Duration::MAX);
    let mut clocked = Clocked::new(policy);
    assert!(clocked.calls(5, Outcome::Failure).is_some());
    clocked.wait(1_000_000_000 * SECOND);
    assert_eq!(clocked.refuse(), None);
    let early = clocked.breaker.early_probe(clocked.now).expect("nobody else tries");
    assert_eq!(clocked.end(early, Outcome::Success), Some(Transition::HalfOpened));
    assert!(clocked.calls(1, Outcome::Failure).is_some(), "doubling it is still the longest time");
    assert_eq!(clocked.open_for(), Duration::MAX);
}

#[test]
fn each_kind_of_error_says_what_it_means_for_the_member() {
    for kind in ErrorKind::ALL {
        let expected = match kind.as_str() {
            "auth" | "cache" | "config" | "inference" | "protocol" | "quota" | "timeout" | "unavailable" => {
                Outcome::Failure
            }
            "deadline_passed" | "invalid_input" | "overloaded" | "rate_limited" | "space_mismatch" => Outcome::Neutral,
            other => panic!("{other} is new: decide"),
        };
        assert_eq!(outcome_of(&Error::new(*kind, "as scripted")), expected, "{kind:?}");
    }
}
