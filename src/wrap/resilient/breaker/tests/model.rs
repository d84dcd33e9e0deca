//! A naive model of the breaker: it remembers all calls, and looks through all of them at each question.

use proptest::prelude::*;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

/// What callers do.
#[derive(Clone, Debug)]
enum Step {
    Admit,
    Early,
    /// A call under way ends so, after so many milliseconds by its own clock.
    End(prop::sample::Index, Outcome, u32),
    /// The future of a call under way is dropped.
    Drop(prop::sample::Index),
    Wait(u32),
    /// A caller that read the clock this much earlier asks now.
    AdmitLate(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![4 => Just(Outcome::Failure), 5 => Just(Outcome::Success), 1 => Just(Outcome::Neutral)];
    prop_oneof![
        8 => Just(Step::Admit),
        2 => Just(Step::Early),
        8 => (any::<prop::sample::Index>(), outcome, 0_u32..80).prop_map(|(at, end, took)| Step::End(at, end, took)),
        1 => any::<prop::sample::Index>().prop_map(Step::Drop),
        4 => prop_oneof![3 => 0_u32..60, 2 => 50_u32..600, 1 => 500_u32..4_000].prop_map(Step::Wait),
        1 => (0_u32..300).prop_map(Step::AdmitLate),
    ]
}

fn policy() -> impl Strategy<Value = BreakerPolicy> {
    let counts = (1_u32..8, prop::sample::select(vec![0.2, 0.5, 0.75, 1.0]), prop::option::of(1_u32..5));
    let times = (1_u32..20, 100_u32..500, 1_u32..12, prop::option::of(60_u32..80));
    (counts, times, 1_u32..8).prop_map(|((calls, share, row), (window, open, most, slow), probes)| {
        let mut policy = BreakerPolicy::default()
            .with_window(window * 100 * MILLISECOND)
            .with_min_calls(calls)
            .with_failure_share(share)
            .with_open_for(open * MILLISECOND)
            .with_max_open(most * open * MILLISECOND)
            .with_probes(probes);
        policy.consecutive_failures = row;
        policy.slow_call = slow.map(|slow| slow * MILLISECOND);
        policy
    })
}

/// A call under way, as the model knows it.
#[derive(Clone, Copy, Debug)]
struct Call {
    /// How often the breaker had opened.
    openings: usize,
    is_probe: bool,
    is_early: bool,
    went: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Closed { since: Option<Instant> },
    Open { since: Instant },
    HalfOpen { successes: u32 },
}

struct Model {
    policy: BreakerPolicy,
    phase: Phase,
    /// All open times so far.
    open_times: Vec<Duration>,
    /// When each call ended that counted since the last opening, and whether it failed.
    ended: Vec<(Instant, bool)>,
    /// When the first call of all ended that counted.
    first: Option<Instant>,
    under_way: Vec<Call>,
    latest: Instant,
}

/// What a refused or accepted call is told.
#[derive(Debug, PartialEq)]
enum Answer {
    Yes { is_probe: bool },
    No { until: Option<Instant> },
}

impl Model {
    fn new(policy: BreakerPolicy, now: Instant) -> Self {
        let phase = Phase::Closed { since: None };
        Self { policy, phase, open_times: vec![], ended: vec![], first: None, under_way: vec![], latest: now }
    }

    fn open_time(&self) -> Duration {
        *self.open_times.last().expect("it was open")
    }

    /// The probes since the last opening that have a place.
    fn probes(&self, now: Instant) -> usize {
        let is_one = |call: &&Call| {
            call.is_probe && call.openings == self.open_times.len() && now - call.went < self.policy.open_for
        };
        self.under_way.iter().filter(is_one).count()
    }

    fn places(&self) -> usize {
        match self.phase {
            Phase::Closed { .. } => usize::MAX,
            Phase::Open { .. } => 1,
            Phase::HalfOpen { successes } => 2_usize.pow(successes).min(16),
        }
    }

    fn admit(&mut self, now: Instant) -> (Answer, Option<Transition>) {
        let mut transition = None;
        if let Phase::Open { since } = self.phase {
            let until = since + self.open_time();
            if now < until {
                return (Answer::No { until: Some(until) }, None);
            }
            self.phase = Phase::HalfOpen { successes: 0 };
            transition = Some(Transition::HalfOpened);
        }
        let answer = match self.go(now) {
            Some(is_probe) => Answer::Yes { is_probe },
            None => Answer::No { until: None },
        };
        (answer, transition)
    }

    /// Sends a call if there is a place. Says whether it is a probe.
    fn go(&mut self, now: Instant) -> Option<bool> {
        let is_probe = !matches!(self.phase, Phase::Closed { .. });
        if is_probe && self.probes(now) >= self.places() {
            return None;
        }
        let is_early = matches!(self.phase, Phase::Open { .. });
        self.under_way.push(Call { openings: self.open_times.len(), is_probe, is_early, went: now });
        Some(is_probe)
    }

    fn end(&mut self, call: Call, outcome: Outcome, now: Instant, took: Duration) -> Option<Transition> {
        let is_slow = self.policy.slow_call.is_some_and(|slow| took > slow);
        let is_failure = match outcome {
            Outcome::Neutral => return None,
            Outcome::Failure => true,
            Outcome::Success => is_slow,
        };
        if call.openings != self.open_times.len() {
            return None;
        }
        match self.phase {
            Phase::Closed { since } => {
                self.first.get_or_insert(now);
                self.ended.push((now, is_failure));
                let (failures, calls) = self.must_open(now).filter(|_| is_failure)?;
                let rested = since.is_some_and(|since| now - since >= self.open_time());
                Some(self.open(!rested, failures, calls, now))
            }
            Phase::HalfOpen { successes } if is_failure => {
                (!call.is_early).then(|| self.open(true, 1, u64::from(successes) + 1, now))
            }
            Phase::Open { .. } if is_failure => None,
            before @ (Phase::Open { .. } | Phase::HalfOpen { .. }) => {
                let successes = if let Phase::HalfOpen { successes } = before { successes + 1 } else { 1 };
                if successes >= self.policy.probes {
                    self.phase = Phase::Closed { since: Some(now) };
                    return Some(Transition::Closed);
                }
                self.phase = Phase::HalfOpen { successes };
                matches!(before, Phase::Open { .. }).then_some(Transition::HalfOpened)
            }
        }
    }

    /// Returns failures and calls if they open a closed breaker.
    fn must_open(&self, now: Instant) -> Option<(u64, u64)> {
        let first = self.first?;
        let tenth = |at: Instant| (at - first).as_nanos() / (self.policy.window / 10).as_nanos();
        let is_recent = |(at, _): &&(Instant, bool)| tenth(now) - tenth(*at) < 10;
        let recent: Vec<bool> = self.ended.iter().filter(is_recent).map(|(_, is_failure)| *is_failure).collect();
        let (calls, failed) = (recent.len(), recent.iter().filter(|is_failure| **is_failure).count());
        let row = self.ended.iter().rev().take_while(|(_, is_failure)| *is_failure).count();
        let share = failed as f64 / calls as f64;
        let is_much = calls >= self.policy.min_calls as usize && share >= self.policy.failure_share;
        let is_long = self.policy.consecutive_failures.is_some_and(|limit| row >= limit as usize);
        let failures = failed.max(row) as u64;
        (is_much || is_long).then_some((failures, failures.max(calls as u64)))
    }

    fn open(&mut self, doubles: bool, failures: u64, calls: u64, now: Instant) -> Transition {
        let open_for = match self.open_times.last() {
            Some(last) if doubles => (*last * 2).min(self.policy.max_open),
            _ => self.policy.open_for,
        };
        self.open_times.push(open_for);
        self.phase = Phase::Open { since: now };
        self.ended.clear();
        Transition::Opened { open_for, failures, calls }
    }

    fn state(&self, now: Instant) -> (BreakerState, Option<Duration>) {
        match self.phase {
            Phase::Closed { .. } => (BreakerState::Closed, None),
            Phase::Open { since } if now < since + self.open_time() => {
                (BreakerState::Open, Some(since + self.open_time() - now))
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => (BreakerState::HalfOpen, None),
        }
    }
}

/// The breaker, its model, and the permits in the order of the model's calls.
struct Pair {
    breaker: Breaker,
    model: Model,
    permits: Vec<Permit>,
    now: Instant,
}

impl Pair {
    /// Asks both. `now` may be earlier than what others have said.
    fn admit(&mut self, now: Instant) -> Result<Option<Transition>, TestCaseError> {
        let was_open = matches!(self.model.state(self.model.latest.max(now)), (BreakerState::Open, _));
        self.model.latest = self.model.latest.max(now);
        let (expected, expected_transition) = self.model.admit(self.model.latest);
        let (admission, transition) = self.breaker.admit(now);
        let answer = match admission {
            Admission::Yes(permit) => {
                let is_probe = permit.is_probe();
                self.permits.push(permit);
                Answer::Yes { is_probe }
            }
            Admission::No { until } => Answer::No { until },
        };
        prop_assert!(!was_open || matches!(answer, Answer::No { .. }), "{:?} while open", answer);
        prop_assert_eq!(answer, expected);
        prop_assert_eq!(transition, expected_transition);
        Ok(transition)
    }

    fn early(&mut self) -> Result<(), TestCaseError> {
        self.model.latest = self.model.latest.max(self.now);
        let expected = self.model.go(self.model.latest);
        let permit = self.breaker.early_probe(self.now);
        prop_assert_eq!(permit.as_ref().map(Permit::is_probe), expected);
        self.permits.extend(permit);
        Ok(())
    }

    fn end(&mut self, at: usize, outcome: Outcome, took: Duration) -> Result<Option<Transition>, TestCaseError> {
        self.model.latest = self.model.latest.max(self.now);
        let (call, permit) = (self.model.under_way.remove(at), self.permits.remove(at));
        let expected = self.model.end(call, outcome, self.model.latest, took);
        let transition = self.breaker.end(permit, outcome, self.now, took);
        prop_assert_eq!(transition, expected);
        Ok(transition)
    }

    /// What holds at each moment.
    fn check(&mut self, transition: Option<Transition>) -> Result<(), TestCaseError> {
        let policy = &self.model.policy;
        if let Some(Transition::Opened { open_for, failures, calls }) = transition {
            prop_assert!(policy.open_for <= open_for && open_for <= policy.max_open);
            prop_assert!(0 < failures && failures <= calls);
        }
        prop_assert_eq!(self.breaker.state(self.now), self.model.state(self.now));
        if !matches!(self.model.phase, Phase::Closed { .. }) {
            prop_assert!(self.model.probes(self.model.latest) <= self.model.places());
        }
        prop_assert!(self.breaker.probes.len() <= MOST_PROBES);
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let transition = match step {
            Step::Admit => self.admit(self.now)?,
            Step::AdmitLate(late) => {
                let then = self.now.checked_sub(late * MILLISECOND).unwrap_or(self.now);
                self.admit(then)?
            }
            Step::Early => {
                self.early()?;
                None
            }
            Step::Wait(time) => {
                self.now += time * MILLISECOND;
                None
            }
            Step::End(..) | Step::Drop(..) if self.permits.is_empty() => None,
            Step::End(at, outcome, took) => self.end(at.index(self.permits.len()), outcome, took * MILLISECOND)?,
            Step::Drop(at) => {
                let at = at.index(self.permits.len());
                self.model.under_way.remove(at);
                drop(self.permits.remove(at));
                None
            }
        };
        self.check(transition)
    }

    /// Whatever happened, a member that is well again gets all calls again.
    fn recover(&mut self) -> Result<(), TestCaseError> {
        self.permits.clear();
        self.model.under_way.clear();
        self.now += self.model.policy.max_open;
        for _ in 0..self.model.policy.probes {
            self.admit(self.now)?;
            prop_assert_eq!(self.permits.len(), 1, "a place was lost");
            let transition = self.end(0, Outcome::Success, Duration::ZERO)?;
            self.check(transition)?;
        }
        prop_assert_eq!(self.breaker.state(self.now), (BreakerState::Closed, None));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn it_does_what_the_model_does(policy in policy(), steps in prop::collection::vec(step(), 0..250)) {
        policy.check().expect("a policy that makes sense");
        let now = Instant::now();
        let model = Model::new(policy.clone(), now);
        let mut pair = Pair { breaker: Breaker::new(policy), model, permits: vec![], now };
        for step in steps {
            pair.step(step)?;
        }
        pair.recover()?;
    }
}
