//! Draws rounds of members that fail, hang and recover behind a `Resilient`.

use std::time::Duration;

use docvector_embed::{Lane, TokenCount};

use super::{
    callers::{Caller, How, Leaves},
    draw::Draw,
    member::{Habits, Trick},
    plan::{Mode, Plan},
    stacks::{Layer, Line},
    takes::Takes,
    texts,
};

/// Failures after which another member is asked.
const FALLS: [Trick; 7] = [
    Trick::FailsForNow,
    Trick::FailsForNow,
    Trick::FailsWithRows,
    Trick::PanicsFirst,
    Trick::PanicsLast,
    Trick::FewerRows,
    Trick::OtherSpace,
];

/// A caller that polls nothing for this time keeps no other waiting for half as long.
pub(super) const RESTS: Duration = Duration::from_secs(1000);

/// A call of a member that hangs takes this long, on any clock.
const HANGS: Duration = Duration::from_secs(1000);

pub(super) fn fails(draw: &mut Draw, plan: &mut Plan) {
    match draw.random.u8(..5) {
        0 => races(draw, plan),
        1 if !draw.is_real() => resting_probes(draw, plan),
        _ => any(draw, plan),
    }
    let is_proved = plan.fallbacks.iter().all(|fallbacks| fallbacks.trusted);
    // Who joins a call of another caller may come after a member has failed it.
    plan.asks_all = is_proved && !plan.layers().any(|layer| matches!(layer, Layer::Cached(_)));
}

/// Interactive calls of which some take long, so that a second member is asked.
fn races(draw: &mut Draw, plan: &mut Plan) {
    let few = |draw: &mut Draw| Habits {
        takes: vec![Takes::NoTime, Takes::This(draw.time(100)), Takes::This(draw.scaled(1000) + draw.time(1000))],
        ..if draw.random.bool() { draw.tricky(&[Trick::FailsWithRows, Trick::FailsForNow]) } else { draw.calm() }
    };
    plan.member = few(draw);
    let limits = draw.other_limits(&plan.member.limits);
    plan.others = vec![Habits { limits, ..few(draw) }];
    let layers = if draw.random.bool() { vec![Layer::Metered] } else { Vec::new() };
    let mut all = draw.fallbacks(vec![Line { layers, member: 1 }]);
    all.hedging = Some(draw.hedging().with_share(1.0));
    plan.fallbacks = vec![all];
    plan.stacks = vec![vec![Layer::Resilient(0)]];
    if draw.random.bool() {
        let observed = draw.observed();
        plan.stacks[0].insert(0, observed);
    }
    let leavers = draw.one_in(3);
    for _ in 0..draw.random.usize(6..=12) {
        let texts = draw.texts(8, 4);
        let leaves = if leavers && draw.one_in(3) { draw.leaves() } else { Leaves::Never };
        let begins = draw.time(6000);
        plan.callers.push(Caller { begins, leaves, lane: Some(Lane::Interactive), ..draw.caller(How::All, texts) });
    }
}

/// All members fail at once, and a caller that is a probe then polls nothing for a long time.
fn resting_probes(draw: &mut Draw, plan: &mut Plan) {
    let second = Duration::from_secs(1);
    let down = |draw: &mut Draw| {
        let first = draw.random.u32(1..=3);
        let tricks = vec![Trick::FailsForNow];
        Habits { tricks, budget: first, first, takes: vec![Takes::This(draw.time(1000))], ..draw.calm() }
    };
    plan.member = down(draw);
    plan.others = vec![Habits { limits: plan.member.limits.clone(), ..down(draw) }];
    let mut all = draw.fallbacks(vec![Line { layers: Vec::new(), member: 1 }]);
    let open_for = 20 * second + draw.time(10_000);
    all.breaker = all.breaker.with_consecutive_failures(1).with_max_open(5 * open_for).with_open_for(open_for);
    plan.fallbacks = vec![all];
    plan.stacks = vec![vec![Layer::Resilient(0)]];
    for number in 0..draw.random.usize(4..=8) {
        let texts = draw.texts(8, 2);
        let rests = (number % 2 == 1).then(|| (draw.random.usize(1..=3), RESTS));
        let patience = rests.is_none().then_some(RESTS / 2);
        let begins = if number == 0 { Duration::ZERO } else { 2 * second + draw.time(8000) };
        plan.callers.push(Caller { begins, rests, patience, ..draw.caller(How::All, texts) });
    }
}

/// Members that fail, hang and recover in any way.
fn any(draw: &mut Draw, plan: &mut Plan) {
    plan.answers = draw.random.bool();
    plan.times_out = draw.one_in(3);
    let limits = draw.limits();
    plan.member = Habits { limits: limits.clone(), ..failing(draw, plan.times_out) };
    let own = line(draw, plan.times_out);
    let mut lines = Vec::new();
    let fallbacks = draw.random.usize(1..=2);
    for number in 1..=fallbacks {
        let is_calm = plan.answers && number == fallbacks;
        let hangs = plan.times_out && !is_calm;
        let mut habits = if is_calm { draw.calm() } else { failing(draw, hangs) };
        habits.limits = draw.other_limits(&limits);
        if matches!(limits.tokens, TokenCount::Exact(_)) && draw.random.bool() {
            // It would truncate texts later, or not at all.
            habits.limits.tokens_per_text = draw.pick(&[Some(texts::LIMIT + 2), None]);
        }
        plan.others.push(habits);
        lines.push(Line { layers: line(draw, hangs), member: number });
    }
    let mut all = draw.fallbacks(lines);
    if plan.answers {
        // A member that always answers is never passed by.
        all.breaker = all.breaker.with_slow_call(Duration::MAX);
    } else if draw.one_in(4) {
        all.trusted = false;
        // The primary can be asked for the proof, and the first proof of another member fails.
        (plan.member.first, plan.member.every, plan.member.budget) = (0, 3, 8);
        plan.others.iter_mut().for_each(|other| other.first = other.budget.min(2));
    }
    let is_proved = !all.trusted;
    plan.fallbacks = vec![all];
    let mut layers = outside(draw, plan.answers);
    layers.push(Layer::Resilient(0));
    layers.extend(own);
    plan.stacks = vec![layers];
    callers(draw, plan);
    if is_proved {
        for number in 0..draw.random.usize(1..=2) {
            let begins = if number == 0 { Duration::ZERO } else { draw.time(3000) };
            let texts = draw.texts(4, 2);
            plan.callers.push(Caller { begins, ..draw.caller(How::Proof, texts) });
        }
    }
}

/// Draws a member whose first calls fail or hang.
fn failing(draw: &mut Draw, hangs: bool) -> Habits {
    let budget = draw.random.u32(1..=8);
    let first = if draw.random.bool() { budget } else { 0 };
    let habits = Habits { budget, first, ..draw.tricky(&FALLS) };
    if !(hangs && draw.random.bool()) {
        return habits;
    }
    let mut takes = vec![Takes::This(HANGS); draw.random.usize(1..=4)];
    takes.push(Takes::This(draw.time(300)));
    Habits { takes, in_turn: true, ..habits }
}

/// Draws the layers around one member. A member that may hang has a time limit.
fn line(draw: &mut Draw, hangs: bool) -> Vec<Layer> {
    let mut layers = Vec::new();
    if draw.one_in(4) {
        layers.push(draw.retry());
    }
    if draw.one_in(4) {
        layers.push(Layer::Concurrency(draw.random.usize(1..=2)));
    }
    if hangs {
        layers.push(Layer::Timeout(draw.scaled(1000) + draw.time(1000)));
    }
    match draw.random.u8(..3) {
        0 => layers.push(Layer::Metered),
        1 => layers.push(draw.observed()),
        _ => {}
    }
    layers
}

/// Draws the layers around all members.
fn outside(draw: &mut Draw, answers: bool) -> Vec<Layer> {
    let mut layers = Vec::new();
    if draw.random.bool() {
        layers.push(Layer::Cached(0));
    }
    if draw.random.bool() {
        layers.push(draw.observed());
    }
    if !answers && draw.one_in(4) {
        layers.push(draw.retry());
    }
    if draw.one_in(4) {
        layers.push(Layer::Concurrency(draw.random.usize(1..=3)));
    }
    layers
}

/// Draws callers that come while members fail. Some leave in the middle, or poll nothing for a long time.
fn callers(draw: &mut Draw, plan: &mut Plan) {
    let (leavers, deadlines, queries) = (draw.random.bool(), draw.one_in(4), draw.random.bool());
    let pool = draw.random.usize(2..=8);
    for _ in 0..draw.random.usize(3..=9) {
        let how = draw.pick(&[How::All, How::All, How::Embed, How::Each]);
        let texts = draw.texts(pool, 3);
        let rests = !draw.is_real() && draw.one_in(10);
        let rests = rests.then(|| (draw.random.usize(1..=3), RESTS));
        let lane = if queries { Some(Lane::Interactive) } else { draw.any_lane() };
        plan.callers.push(Caller {
            begins: draw.time(10_000),
            lane,
            rests,
            deadline: (deadlines && draw.one_in(3)).then(|| draw.time(4000)),
            leaves: if leavers && draw.random.bool() { draw.leaves() } else { Leaves::Never },
            ..draw.caller(how, texts)
        });
    }
    let waits = |layer: &Layer| matches!(layer, Layer::Retry { .. } | Layer::Concurrency(_));
    if !plan.layers().any(waits) && !draw.is_real() {
        let polls = plan.callers.iter_mut().filter(|caller| caller.rests.is_none());
        polls.for_each(|caller| caller.patience = Some(RESTS / 2));
    }
    if plan.mode == Mode::ByHand && leavers && draw.one_in(3) {
        plan.callers.iter_mut().skip(1).step_by(2).for_each(|caller| caller.leaves = Leaves::ByHand);
    }
}
