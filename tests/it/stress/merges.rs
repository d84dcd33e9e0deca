//! Draws rounds of concurrent calls that become one.

use super::{
    callers::{Caller, How, Leaves},
    draw::Draw,
    fails::RESTS,
    forms::{FAILURES, PANICS},
    member::Trick,
    plan::Plan,
    stacks::Layer,
};

/// Refusals of single texts, which are no other caller's business.
const REFUSALS: [Trick; 2] = [Trick::RefusesOnce, Trick::RefusesOnceWithRows];

pub(super) fn merges(draw: &mut Draw, plan: &mut Plan) {
    let temper = draw.random.u8(..4);
    plan.member = match temper {
        0 => draw.calm(),
        1 | 2 => draw.tricky(&REFUSALS),
        _ => draw.tricky(&[&FAILURES[..], &PANICS, &[Trick::RefusesUnnamed]].concat()),
    };
    if draw.random.bool() {
        let texts = draw.random.usize(2..=8);
        plan.member.limits = plan.member.limits.clone().with_texts(texts);
    }
    plan.times_out = temper == 3 && draw.one_in(3);
    plan.spares = temper < 3;
    plan.stacks = vec![layers(draw, plan.times_out)];
    let is_one_call = draw.random.bool();
    let (leavers, deadlines, bad) = (draw.random.bool(), draw.one_in(3), draw.one_in(4));
    let (pool, lane, spread) = (draw.random.usize(2..=12), draw.any_lane(), draw.pick(&[10, 300, 2000]));
    for _ in 0..draw.random.usize(4..=14) {
        let how = if is_one_call { How::Embed } else { draw.pick(&[How::Embed, How::All, How::Each]) };
        let mut texts = draw.texts(pool, 2);
        if bad && draw.one_in(5) {
            texts[0].clear();
        }
        plan.callers.push(Caller {
            begins: draw.time(spread),
            lane: if draw.one_in(5) { draw.any_lane() } else { lane },
            key: draw.one_in(6).then_some("library:stress"),
            deadline: (deadlines && draw.one_in(3)).then(|| draw.time(2000)),
            leaves: if leavers && draw.random.bool() { draw.leaves() } else { Leaves::Never },
            names_space: draw.one_in(8),
            ..draw.caller(how, texts)
        });
    }
    // Only the group is shared: a caller at its helm that polls nothing must not keep the others waiting.
    let waits = |layer: &Layer| matches!(layer, Layer::Retry { .. } | Layer::Concurrency(_));
    if !draw.is_real() && !plan.layers().any(waits) {
        for caller in &mut plan.callers {
            let rests = draw.one_in(8).then(|| (draw.random.usize(1..=4), RESTS));
            (caller.rests, caller.patience) = (rests, rests.is_none().then_some(RESTS / 2));
        }
    }
}

/// Draws the layers: often a group around single calls.
fn layers(draw: &mut Draw, times_out: bool) -> Vec<Layer> {
    let mut layers = Vec::new();
    if draw.one_in(4) {
        layers.push(Layer::Cached(0));
    }
    if draw.random.bool() {
        layers.push(draw.observed());
    }
    layers.push(draw.coalesce());
    if draw.one_in(6) {
        layers.push(draw.retry());
    }
    if draw.one_in(3) {
        layers.push(Layer::Concurrency(draw.random.usize(1..=2)));
    }
    if times_out {
        layers.push(draw.timeout(true));
    }
    if draw.random.bool() {
        layers.push(Layer::Metered);
    }
    layers
}
