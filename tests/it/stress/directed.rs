//! Draws the rounds that faults are known to need, one function for each form.

use std::{sync::Arc, time::Duration};

use docvector_embed::{Lane, Limits, TokenCount};

use super::{
    callers::{Caller, How, Leaves},
    draw::{AGES, Draw},
    forms::{FAILURES, PANICS},
    member::{Habits, Trick},
    plan::Plan,
    stacks::{Keeps, Layer, Pace},
    takes::{Takes, Waits},
    texts,
};

/// Limits of this many texts per call, and no other limits.
fn small_calls(texts: usize) -> Limits {
    Limits::none().with_texts(texts)
}

pub(super) fn gate(draw: &mut Draw, plan: &mut Plan, lanes: bool) {
    plan.member = Habits {
        limits: small_calls(draw.random.usize(1..=2)),
        tricks: vec![Trick::FailsForNow],
        budget: draw.random.u32(1..=3),
        first: draw.random.u32(..=2),
        takes: vec![Takes::This(draw.time(2000))],
        ..draw.calm()
    };
    let gate = Layer::Concurrency(draw.random.usize(1..=2));
    plan.stacks = vec![vec![Layer::Cached(0), draw.retry(), gate]];
    let pool = draw.random.usize(2..=5);
    for number in 0..draw.random.usize(3..=7) {
        let most = if number < 2 { 5 } else { 2 };
        let texts = draw.texts(pool, most);
        let lane = if lanes { draw.any_lane() } else { None };
        let deadline = (lanes && draw.one_in(3)).then(|| draw.time(2000));
        let leaves = if number < 2 || draw.one_in(4) { Leaves::Never } else { draw.leaves() };
        plan.callers.push(Caller { lane, deadline, leaves, ..draw.caller(How::All, texts) });
    }
}

pub(super) fn many(draw: &mut Draw, plan: &mut Plan) {
    let places = draw.pick(&[2, 4, 8]);
    let takes = draw.scaled(1000);
    // All calls of the first caller that are under way fail, and wait for a retry.
    plan.member = Habits {
        limits: small_calls(1),
        tricks: vec![Trick::FailsForNow],
        budget: places as u32,
        first: places as u32,
        takes: vec![Takes::This(takes)],
        ..draw.calm()
    };
    let longest = draw.scaled(20_000);
    let retry = Layer::Retry { attempts: 6, first: longest, longest, seed: draw.random.u64(..), budget: false };
    plan.stores = vec![Keeps::Memory];
    plan.stacks = vec![vec![Layer::Cached(0), retry, Layer::Concurrency(places)]];
    let all: Vec<String> = (0..2 * places).map(texts::text).collect();
    let owner = draw.caller(How::All, all.clone());
    plan.callers.push(Caller { begins: Duration::ZERO, ..owner });
    for text in &all[places..] {
        // Meanwhile others come for the rest, and leave before they have it.
        let leaves = if draw.random.bool() { Leaves::InPoll(1) } else { Leaves::After(draw.time(900)) };
        let begins = takes + draw.time(300);
        plan.callers.push(Caller { begins, leaves, ..draw.caller(How::All, vec![text.clone()]) });
    }
}

/// Three callers, three times: the first asks for a text that is refused, and for one that the second waits for, too.
/// The second caller's other text is refused once, and embedded for the third caller while the second waits.
fn refused_once(draw: &mut Draw, plan: &mut Plan) {
    const THREES: usize = 3;
    let takes = [1000, 200, 100].map(|millis| Takes::This(draw.scaled(millis)));
    plan.member = Habits {
        limits: small_calls(5),
        tricks: vec![Trick::RefusesOnce],
        budget: 2 * THREES as u32,
        first: 2 * THREES as u32,
        takes: takes.into_iter().flat_map(|takes| [takes; THREES]).collect(),
        in_turn: true,
        ..draw.calm()
    };
    plan.stores = vec![Keeps::Memory];
    plan.stacks = vec![vec![Layer::Cached(0)]];
    let second = draw.pick(&[How::Each, How::Each, How::All]);
    for (begins, how, own) in [(1, How::All, [1, 2].as_slice()), (100, second, &[3, 2, 4]), (400, How::All, &[3])] {
        for three in 0..THREES {
            let texts = own.iter().map(|number| texts::text(three * 7 + number)).collect();
            let begins = draw.scaled(begins) + draw.time(50);
            plan.callers.push(Caller { begins, lane: Some(Lane::Bulk), ..draw.caller(how, texts) });
        }
    }
}

pub(super) fn each(draw: &mut Draw, plan: &mut Plan) {
    if draw.random.bool() {
        return refused_once(draw, plan);
    }
    let tricks = [Trick::RefusesOnce, Trick::RefusesOnceWithRows, Trick::NamesFinished];
    let tricks = if draw.one_in(4) { &tricks[..] } else { &tricks[..2] };
    plan.member = Habits { limits: small_calls(draw.random.usize(2..=5)), ..draw.tricky(tricks) };
    plan.stacks = vec![vec![Layer::Cached(0)]];
    if draw.one_in(3) {
        plan.stacks = vec![draw.advised(Layer::Concurrency(2), false)];
    }
    let pool = draw.random.usize(3..=5);
    for _ in 0..draw.random.usize(2..=6) {
        let how = if draw.random.bool() { How::Each } else { How::All };
        let texts = draw.texts(pool, 5);
        plan.callers.push(draw.caller(how, texts));
    }
}

pub(super) fn names(draw: &mut Draw, plan: &mut Plan) {
    let tricks = vec![Trick::NamesOther, Trick::FinishesOther];
    plan.member = Habits { tricks, budget: 2, every: 2, ..draw.calm() };
    plan.stacks = vec![draw.any_stack(1, false)];
    for _ in 0..draw.random.usize(1..=4) {
        let how = draw.pick(&[How::All, How::Each]);
        let texts = draw.texts(8, 8);
        plan.callers.push(draw.caller(how, texts));
    }
}

/// Callers that wait for a limiter. Some of them do not poll for a long time, and the others do not wait for those.
fn resting(draw: &mut Draw, plan: &mut Plan) {
    let second = Duration::from_secs(1);
    plan.member = Habits { limits: small_calls(1), takes: vec![Takes::This(second)], allows: false, ..draw.calm() };
    // Ten are saved up, and one comes a second.
    plan.pace = Pace { requests: Some(60), tokens: None };
    plan.stacks = vec![vec![Layer::RateLimit { shared: true, pace: plan.pace }]];
    let many = draw.random.u32(14..=20);
    for number in 0..many {
        let rests = draw.one_in(4).then(|| (draw.random.usize(1..=2), 600 * second));
        let patience = rests.is_none().then(|| (many + 20) * second);
        let lane = draw.any_lane();
        let texts = vec![texts::text(number as usize)];
        plan.callers.push(Caller { lane, rests, patience, ..draw.caller(How::All, texts) });
    }
}

pub(super) fn busy(draw: &mut Draw, plan: &mut Plan) {
    if draw.one_in(4) {
        return resting(draw, plan);
    }
    let takes = vec![Takes::This(draw.time(2000)), Takes::This(draw.time(200))];
    // Longer than any call takes, shorter than a consumer is busy.
    let read_within = Some(Duration::from_secs(60));
    plan.member = Habits { limits: small_calls(draw.random.usize(1..=3)), takes, read_within, ..draw.calm() };
    plan.pace = Pace { requests: Some(60), tokens: draw.pick(&[None, Some(20_000)]) };
    let limiter = Layer::RateLimit { shared: true, pace: plan.pace };
    let caches = draw.pick(&[0, 1, 2, 2]);
    for number in 0..2 {
        let mut layers = Vec::new();
        if number < caches {
            layers.extend([Layer::Cached(0), draw.retry()]);
        }
        if draw.random.bool() {
            layers.push(limiter);
        }
        layers.push(Layer::SharedGate);
        layers.push(Layer::Timeout(AGES));
        plan.stacks.push(layers);
    }
    for number in 0..draw.random.usize(2..=4) {
        let stream = How::Stream {
            window: draw.random.usize(1..=3),
            windows: draw.random.usize(2..=3),
            busy: Duration::from_secs(draw.random.u64(1..=600)),
            embeds: draw.random.bool(),
        };
        let how = if number == 0 || number == 1 && draw.random.bool() { stream } else { How::All };
        let patience = (how == How::All).then_some(Duration::from_secs(300));
        let texts = draw.texts(12, 10);
        let stack = draw.random.usize(..2);
        plan.callers.push(Caller { stack, begins: draw.time(20_000), patience, ..draw.caller(how, texts) });
    }
}

pub(super) fn absurd(draw: &mut Draw, plan: &mut Plan) {
    plan.member = Habits { tricks: vec![Trick::Absurd], budget: 1, every: 2, omits: None, ..draw.calm() };
    plan.pace = Pace { requests: None, tokens: draw.pick(&[Some(1000), Some(20_000), Some(1_000_000)]) };
    plan.stacks = vec![vec![draw.retry(), Layer::RateLimit { shared: true, pace: plan.pace }]];
    if draw.random.bool() {
        plan.stacks[0].insert(0, Layer::Cached(0));
    }
    for _ in 0..draw.random.usize(2..=5) {
        let texts = draw.texts(10, 10);
        plan.callers.push(draw.caller(How::All, texts));
    }
}

/// Several callers of the same few texts.
fn crowd(draw: &mut Draw, plan: &mut Plan, stay: usize, leave: usize, begins: u64) {
    let pool = draw.random.usize(1..=5);
    for number in 0..stay + leave {
        let texts = draw.texts(pool, 4);
        let leaves = if number < stay { Leaves::Never } else { draw.leaves() };
        let begins = draw.time(begins);
        plan.callers.push(Caller { begins, leaves, ..draw.caller(How::All, texts) });
    }
}

pub(super) fn store(draw: &mut Draw, plan: &mut Plan) {
    let mut moods = draw.moods();
    moods.panics_in_put = draw.pick(&[1, 2, 4]);
    moods.fails = draw.pick(&[0, 0, 3]);
    plan.stores = vec![Keeps::Moody(moods)];
    plan.stacks = vec![vec![Layer::Cached(0)]];
    crowd(draw, plan, 5, 0, 500);
}

pub(super) fn storing(draw: &mut Draw, plan: &mut Plan) {
    let mut moods = draw.moods();
    moods.put = if draw.random.bool() { Takes::This(draw.time(2000)) } else { Takes::Turns(5) };
    plan.stores = vec![Keeps::Moody(moods)];
    plan.stacks = vec![vec![Layer::Cached(0)]];
    if draw.random.bool() {
        plan.stacks = vec![draw.advised(Layer::Concurrency(2), false)];
    }
    let stay = draw.random.usize(..2);
    crowd(draw, plan, stay, 3, 3000);
}

pub(super) fn bills(draw: &mut Draw, plan: &mut Plan) {
    plan.stacks = vec![draw.advised(Layer::Concurrency(3), false)];
    let leave = draw.random.usize(1..=4);
    crowd(draw, plan, 3, leave, 300);
    if draw.random.bool() {
        // Each lane has its own call for a text. A call whose caller has left must not hide the other lane's call.
        plan.callers.iter_mut().for_each(|caller| caller.lane = draw.any_lane());
    }
}

pub(super) fn panics(draw: &mut Draw, plan: &mut Plan) {
    plan.member = draw.tricky(&[&FAILURES[..], &PANICS].concat());
    plan.stacks = vec![draw.advised(Layer::Concurrency(3), false)];
    if draw.random.bool() {
        plan.stacks = vec![draw.any_stack(1, false)];
    }
    crowd(draw, plan, 5, 0, 1000);
}

pub(super) fn wake(draw: &mut Draw, plan: &mut Plan) {
    let spins = Takes::Spins(Duration::from_micros(draw.random.u64(50..400)));
    plan.member = Habits { limits: small_calls(1), takes: vec![spins], punctual: false, ..draw.calm() };
    plan.stores = vec![Keeps::Memory];
    plan.stacks = vec![vec![Layer::Cached(0)]];
    for pair in 0..10 {
        for leaves in [Leaves::InPoll(1), Leaves::Never] {
            let begins = Duration::from_millis(pair as u64);
            let lane = Some(Lane::Bulk);
            let caller = draw.caller(How::All, vec![texts::text(pair)]);
            plan.callers.push(Caller { begins, lane, leaves, ..caller });
        }
    }
}

/// A query behind bulk calls that have more tokens than come in a minute.
fn small_query(draw: &mut Draw, plan: &mut Plan) {
    let second = Duration::from_secs(1);
    let limits = Limits::none().with_texts(2048).with_tokens_per_text(texts::LIMIT);
    let limits = limits.with_tokens(TokenCount::Exact(Arc::new(texts::Counter)));
    plan.member = Habits { limits, takes: vec![Takes::This(second)], omits: None, allows: false, ..draw.calm() };
    // A hundred are saved up, and ten come a second.
    plan.pace = Pace { requests: None, tokens: Some(600) };
    plan.stacks = vec![vec![Layer::RateLimit { shared: true, pace: plan.pace }]];
    for number in 0..draw.random.usize(1..=3) {
        let texts = (number * 300..(number + 1) * 300).map(texts::text).collect();
        plan.callers.push(draw.caller(How::All, texts));
    }
    // A bulk call that has waited long enough, the query's own tokens, and its call.
    let patience = Some(12 * second);
    let (lane, begins) = (Some(Lane::Interactive), second + draw.time(60_000));
    plan.callers.push(Caller { begins, lane, patience, ..draw.caller(How::All, vec![texts::text(0)]) });
}

pub(super) fn query(draw: &mut Draw, plan: &mut Plan) {
    if draw.random.bool() {
        return small_query(draw, plan);
    }
    let second = Duration::from_secs(1);
    plan.member = Habits { limits: small_calls(1), takes: vec![Takes::This(second)], ..draw.calm() };
    plan.stores = vec![Keeps::Memory];
    plan.stacks = vec![vec![Layer::Cached(0), Layer::Concurrency(1)]];
    let many = draw.random.usize(8..=12);
    for number in 0..many {
        let caller = draw.caller(How::All, vec![texts::text(number)]);
        plan.callers.push(Caller { begins: Duration::from_millis(number as u64), ..caller });
    }
    // The call that is under way, and its own.
    let patience = Some(3 * second);
    let lane = Some(Lane::Interactive);
    let text = texts::text(draw.random.usize(many / 2..many));
    plan.callers.push(Caller { begins: second / 2, lane, patience, ..draw.caller(How::All, vec![text]) });
}

pub(super) fn pace(draw: &mut Draw, plan: &mut Plan) {
    plan.member = Habits {
        limits: small_calls(8).with_in_flight(1),
        tricks: vec![Trick::FailsWithRows],
        every: 2,
        budget: 100,
        takes: vec![Takes::This(draw.time(100))],
        waits: Waits { longest: Duration::ZERO },
        omits: None,
        ..draw.calm()
    };
    plan.pace = Pace { requests: None, tokens: Some(600) };
    plan.keeps_pace = true;
    let soon = Duration::from_millis(1);
    let retry = Layer::Retry { attempts: 10, first: soon, longest: soon, seed: draw.random.u64(..), budget: false };
    plan.stacks = vec![vec![retry, Layer::RateLimit { shared: true, pace: plan.pace }]];
    for _ in 0..2 {
        let texts = (0..300).map(texts::text).collect();
        plan.callers.push(draw.caller(How::All, texts));
    }
}
