//! Plays one round: builds what is drawn, lets all callers go, and checks the result.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use docvector_embed::{ErrorKind, Usage, wrap::Gate};
use fastrand::Rng;
use futures_util::FutureExt;
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

use super::{
    callers,
    checks::{self, Check, Fault},
    ears::Ears,
    hand,
    member::Member,
    plan::{Mode, Plan},
    stacks::{Commons, Stack, Stores},
};

/// A caller without an answer after this time on a clock that jumps hangs.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// A round on a clock that jumps takes less.
const LONG: Duration = Duration::from_secs(20_000);

/// The end of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With all rows.
    Whole,
    Failed(ErrorKind),
    Left,
    Panicked,
}

/// A round under way.
pub(super) struct Round {
    pub(super) plan: Plan,
    /// The first member, for the books of all.
    pub(super) member: Member,
    pub(super) stores: Stores,
    pub(super) stacks: Vec<Stack>,
    pub(super) rows: AtomicU64,
    pub(super) calls: AtomicU64,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    faults: Vec<Fault>,
    told: Usage,
    /// For each caller: how it ended, how long it took, and when that was.
    ended: Vec<Option<(Ended, Duration, Instant)>>,
}

/// The result of a round.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) faults: Vec<Fault>,
    pub(super) rows: u64,
    pub(super) calls: u64,
    /// Calls of the member.
    pub(super) paid: u64,
    /// How the callers ended: whole, failed, left, panicked.
    pub(super) ends: [u64; 4],
    pub(super) stacks: Vec<String>,
    /// The number of events of each kind, for each observer.
    pub(super) events: Vec<BTreeMap<String, u64>>,
}

impl Round {
    fn new(plan: Plan) -> Self {
        let members = Member::all(plan.seed, plan.members());
        let stores = Stores::new(plan.seed, &plan.stores);
        let commons = Commons {
            members: &members,
            stores: &stores,
            fallbacks: &plan.fallbacks,
            arms: &plan.arms,
            gate: Gate::new(plan.gate),
            limiter: plan.pace.limiter(),
            in_order: plan.mode != Mode::FourThreads,
        };
        let stacks = Stack::build_all(&plan.stacks, &commons);
        let member = members[0].clone();
        let notes = Notes { ended: vec![None; plan.callers.len()], ..Notes::default() };
        let (rows, calls, notes) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(notes));
        Self { plan, member, stores, stacks, rows, calls, notes }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fault(&self, check: Check, message: String) {
        self.notes().faults.push(Fault { check, message });
    }

    /// Notes what a caller was told that its call cost.
    pub(super) fn tell(&self, usage: Usage) {
        let told = &mut self.notes().told;
        *told += usage;
    }

    pub(super) fn told(&self) -> Usage {
        self.notes().told
    }

    pub(super) fn end(&self, number: usize, ended: Ended, took: Duration) {
        self.notes().ended[number] = Some((ended, took, Instant::now()));
    }

    pub(super) fn ended(&self) -> Vec<Option<Ended>> {
        self.notes().ended.iter().map(|ended| ended.map(|(ended, ..)| ended)).collect()
    }

    /// Returns how long a caller waited, if it waited to the end.
    pub(super) fn took(&self, number: usize) -> Option<Duration> {
        self.notes().ended[number].filter(|(ended, ..)| *ended != Ended::Left).map(|(_, took, _)| took)
    }

    /// Returns when a caller came and when it ended.
    pub(super) fn span(&self, number: usize) -> Option<(Instant, Instant)> {
        self.notes().ended[number].and_then(|(_, took, end)| Some((end.checked_sub(took)?, end)))
    }

    fn played(&self) -> Played {
        let mut ends = [0; 4];
        for ended in self.ended().into_iter().flatten() {
            let at = match ended {
                Ended::Whole => 0,
                Ended::Failed(_) => 1,
                Ended::Left => 2,
                Ended::Panicked => 3,
            };
            ends[at] += 1;
        }
        Played {
            faults: self.notes().faults.clone(),
            rows: self.rows.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            paid: self.member.ledger().calls.len() as u64,
            ends,
            stacks: self.stacks.iter().map(|stack| stack.embedder.to_string()).collect(),
            events: self.stacks.iter().flat_map(|stack| &stack.parts.ears).map(Ears::kinds).collect(),
        }
    }
}

/// Plays the round that is drawn. On a real clock, a caller that waits this long counts as waiting for ever.
pub(super) fn play(plan: Plan, for_ever: Duration) -> Played {
    let runtime = runtime(plan.mode);
    let round = Arc::new(Round::new(plan));
    runtime.block_on(perform(&round, for_ever));
    // Do not wait for callers that hang.
    runtime.shutdown_background();
    round.played()
}

fn runtime(mode: Mode) -> Runtime {
    let mut builder = match mode {
        Mode::FourThreads => Builder::new_multi_thread(),
        Mode::OneThread | Mode::ByHand => Builder::new_current_thread(),
    };
    match mode {
        Mode::FourThreads => builder.worker_threads(4),
        Mode::OneThread | Mode::ByHand => builder.start_paused(true),
    };
    builder.enable_time().build().expect("a runtime")
}

async fn perform(round: &Arc<Round>, real_for_ever: Duration) {
    let began = Instant::now();
    let is_real = round.plan.mode == Mode::FourThreads;
    let for_ever = if is_real { real_for_ever } else { FOR_EVER };
    // Kept beyond the time limit, so that a call that hangs can be examined before it is dropped.
    let mut callers = Box::pin(all_callers(round));
    if tokio::time::timeout(for_ever, &mut callers).await.is_err() {
        let ended = round.ended();
        let waiting: Vec<usize> = (0..ended.len()).filter(|&number| ended[number].is_none()).collect();
        let gates: Vec<_> = round.stacks.iter().flat_map(|stack| &stack.parts.gates).collect();
        return round.fault(Check::Hang, format!("callers {waiting:?} wait for ever, {gates:?}"));
    }
    drop(callers);
    if !is_real && began.elapsed() > LONG {
        round.fault(Check::Slow, format!("the callers took {:?}", began.elapsed()));
    }
    round.member.behave();
    round.stores.moody.iter().for_each(|store| store.behave());
    settle(round, is_real).await;
    let mut left = checks::left_behind(round);
    for _ in 0..if is_real { 100 } else { 0 } {
        if left.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        left = checks::left_behind(round);
    }
    if let Some(left) = left {
        round.fault(Check::Stuck, left);
    }
    checks::after_callers(round);
    let before = round.member.ledger();
    for number in 0..round.stacks.len() {
        if tokio::time::timeout(for_ever, last_call(round, number)).await.is_err() {
            return round.fault(Check::Stuck, format!("a new call of stack {number} waits for ever"));
        }
    }
    checks::after_last(round, &before);
    let broken = || checks::bills(round).or_else(|| checks::heard(round));
    let mut found = broken();
    for _ in 0..if is_real { 100 } else { 0 } {
        if found.is_none() {
            break;
        }
        // Nothing tells when a write has ended: poll.
        tokio::time::sleep(Duration::from_millis(10)).await;
        found = broken();
    }
    round.notes().faults.extend(found);
}

/// Lets all callers go, and waits until none is left.
async fn all_callers(round: &Arc<Round>) {
    let callers = (0..round.plan.callers.len()).map(|number| callers::run(round.clone(), number));
    match round.plan.mode {
        Mode::ByHand => {
            let may_drop = |number: usize| round.plan.callers[number].is_dropped_by_hand();
            let left = |number| round.end(number, Ended::Left, Duration::ZERO);
            let random = Rng::with_seed(round.plan.seed);
            hand::drive(callers.map(|caller| Box::pin(caller) as _).collect(), may_drop, left, random).await;
        }
        Mode::OneThread | Mode::FourThreads => {
            let tasks: Vec<_> = callers.map(tokio::spawn).collect();
            for task in tasks {
                task.await.expect("a caller catches its panics");
            }
        }
    }
}

/// Gives work that goes on without a caller the time to end.
async fn settle(round: &Round, is_real: bool) {
    if !is_real {
        return tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    let gates = || round.stacks.iter().flat_map(|stack| &stack.parts.gates);
    let under_way = || round.member.ledger().count(super::ledger::Ending::UnderWay);
    for _ in 0..3000 {
        if under_way() == 0 && gates().all(|gate| gate.running() + gate.waiting() == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Makes one more call, with nothing in its way.
async fn last_call(round: &Round, number: usize) {
    let is_real = round.plan.mode == Mode::FourThreads;
    for attempt in 1.. {
        let Ok(result) = AssertUnwindSafe(callers::last(round, number)).catch_unwind().await else {
            return round.fault(Check::Stuck, format!("a new call of stack {number} panics"));
        };
        let Err(error) = result else { return };
        // A short time limit outside a gate or a pace may pass, whatever the member does.
        let times_out = error.kind() == ErrorKind::Timeout && round.plan.may_time_out();
        // On the real clock it may have joined a call that had failed and was being stored.
        if attempt >= if times_out { 10 } else { 3 } || !(times_out || is_real) {
            if !times_out {
                round.fault(Check::Stuck, format!("a new call of stack {number} fails: {error}"));
            }
            return;
        }
        tokio::time::sleep(if is_real { Duration::from_millis(20) } else { Duration::from_secs(60) }).await;
    }
}
