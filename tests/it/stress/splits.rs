//! Draws rounds of arms, in one space or in two, whose shares change.

use super::{
    callers::{Caller, How, Leaves},
    draw::Draw,
    forms::FAILURES,
    member::Habits,
    plan::Plan,
    stacks::{Layer, Line},
};

const KEYS: [&str; 6] = ["library:a", "library:b", "library:c", "library:d", "library:e", "library:f"];

pub(super) fn splits(draw: &mut Draw, plan: &mut Plan) {
    let fails = draw.random.bool();
    let spaces = draw.random.usize(1..=2);
    let member = |draw: &mut Draw| if fails { draw.tricky(&FAILURES) } else { draw.calm() };
    plan.member = member(draw);
    let own = line(draw);
    let mut lines = Vec::new();
    for number in 1..=draw.random.usize(1..=2) {
        let limits = draw.other_limits(&plan.member.limits);
        plan.others.push(Habits { limits, space: number % spaces, ..member(draw) });
        lines.push(Line { layers: line(draw), member: number });
    }
    let arms = draw.arms(lines);
    let needs_key = spaces > 1 && arms.keyless.is_none();
    plan.arms = vec![arms];
    let mut layers = outside(draw);
    layers.push(Layer::AbSplit(0));
    layers.extend(own);
    plan.stacks = vec![layers];
    let leavers = draw.one_in(3);
    let pool = draw.random.usize(2..=10);
    for _ in 0..draw.random.usize(3..=10) {
        let how = draw.how();
        let texts = draw.texts(pool, 6);
        let caller = draw.caller(how, texts);
        let key = (needs_key && !caller.names_space || draw.random.bool()).then(|| draw.pick(&KEYS));
        plan.callers.push(Caller {
            begins: draw.time(6000),
            key,
            lane: draw.any_lane(),
            leaves: if leavers && draw.random.bool() { draw.leaves() } else { Leaves::Never },
            ..caller
        });
    }
    // The last arm's share grows.
    let mut begins = draw.time(2000);
    let shifts = draw.random.usize(..=3);
    // Calls of one caller may get into two spaces.
    plan.answers = !fails && (spaces == 1 || shifts == 0);
    for share in [10, 40, 160].into_iter().take(shifts) {
        let texts = draw.texts(pool, 1);
        plan.callers.push(Caller { begins, ..draw.caller(How::Shift(share), texts) });
        begins += draw.time(2000);
    }
}

/// Draws the layers of one arm.
fn line(draw: &mut Draw) -> Vec<Layer> {
    let mut layers = Vec::new();
    if draw.random.bool() {
        layers.push(Layer::Cached(0));
    }
    if draw.one_in(3) {
        layers.push(draw.retry());
    }
    match draw.random.u8(..4) {
        0 => layers.push(Layer::Metered),
        1 => layers.push(Layer::Concurrency(draw.random.usize(1..=2))),
        2 => layers.push(draw.coalesce()),
        _ => {}
    }
    layers
}

/// Draws the layers around all arms.
fn outside(draw: &mut Draw) -> Vec<Layer> {
    let mut layers = Vec::new();
    if draw.one_in(4) {
        layers.push(draw.retry());
    }
    for _ in 0..draw.random.usize(..=2) {
        layers.push(match draw.random.u8(..6) {
            0 => Layer::Dedup,
            1 => draw.coalesce(),
            2 => Layer::Metered,
            3 => Layer::Concurrency(draw.random.usize(1..=3)),
            _ => draw.observed(),
        });
    }
    layers
}
