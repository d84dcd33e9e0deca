//! Draws a round of some form: anything at all, or what a fault is known to need.

use std::time::Duration;

use docvector_embed::{InputKind, Lane, Limits, TooLong};
use fastrand::Rng;

use super::{
    callers::{Caller, How, Leaves},
    draw::Draw,
    member::{Habits, Trick},
    plan::{Mode, Plan},
    stacks::{Keeps, Layer, Pace},
    takes::Takes,
    texts,
};

/// What kind of round it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Form {
    /// Anything.
    Any,
    /// Callers that join others' calls under a small gate, and leave, while those wait to try again.
    Gate,
    /// The same in both lanes, with deadlines.
    Lanes,
    /// One text at a time, in many calls, each with a caller that joins it and leaves.
    Many,
    /// `embed_each` over a cache, and a text that is refused once.
    Each,
    /// A member that names texts that nobody has.
    Names,
    /// Streams whose consumers are busy, or embed on the same stack.
    Busy,
    /// A reply that claims an absurd number of tokens.
    Absurd,
    /// A store that panics or fails.
    Store,
    /// Callers that leave while the store is writing.
    Storing,
    /// Callers that share calls, of which some leave, and what they paid.
    Bills,
    /// Failures and panics, and nobody leaves.
    Panics,
    /// Two callers of one text on two threads, of which one leaves.
    Wake,
}

impl Form {
    pub(super) const ALL: [Self; 13] = [
        Self::Any,
        Self::Gate,
        Self::Lanes,
        Self::Many,
        Self::Each,
        Self::Names,
        Self::Busy,
        Self::Absurd,
        Self::Store,
        Self::Storing,
        Self::Bills,
        Self::Panics,
        Self::Wake,
    ];
}

/// Draws the round of a seed.
pub(super) fn draw(seed: u64, mode: Mode) -> Plan {
    let mut draw = Draw { random: Rng::with_seed(seed), mode };
    let draw = &mut draw;
    let form = match draw.random.u8(..24) {
        0..11 => Form::Any,
        11 | 12 => Form::Gate,
        13 => Form::Lanes,
        14 => Form::Many,
        15 => Form::Each,
        16 => Form::Names,
        17 if mode != Mode::FourThreads => Form::Busy,
        18 if mode != Mode::FourThreads => Form::Absurd,
        17 | 18 => Form::Wake,
        19 => Form::Store,
        20 => Form::Storing,
        21 | 22 => Form::Bills,
        _ => Form::Panics,
    };
    let mut plan = Plan {
        seed,
        mode,
        form,
        member: draw.calm(),
        stores: vec![draw.store(false)],
        gate: draw.random.usize(1..=2),
        pace: draw.pace(),
        stacks: Vec::new(),
        callers: Vec::new(),
        patience: None,
        times_out: false,
    };
    match form {
        Form::Any => any(draw, &mut plan),
        Form::Gate => gate(draw, &mut plan, false),
        Form::Lanes => gate(draw, &mut plan, true),
        Form::Many => many(draw, &mut plan),
        Form::Each => each(draw, &mut plan),
        Form::Names => names(draw, &mut plan),
        Form::Busy => busy(draw, &mut plan),
        Form::Absurd => absurd(draw, &mut plan),
        Form::Store => store(draw, &mut plan),
        Form::Storing => storing(draw, &mut plan),
        Form::Bills => bills(draw, &mut plan),
        Form::Panics => panics(draw, &mut plan),
        Form::Wake => wake(draw, &mut plan),
    }
    plan
}

const FAILURES: [Trick; 6] = [
    Trick::FailsForNow,
    Trick::FailsForNow,
    Trick::Fails,
    Trick::FailsWithRows,
    Trick::RefusesOnce,
    Trick::RefusesOnceWithRows,
];
const PANICS: [Trick; 2] = [Trick::PanicsFirst, Trick::PanicsLast];
/// Answers that break a law.
const LIES: [Trick; 7] = [
    Trick::NamesFinished,
    Trick::NamesOther,
    Trick::FinishesOther,
    Trick::FinishesInOtherSpace,
    Trick::FewerRows,
    Trick::MoreRows,
    Trick::OtherSpace,
];

fn any(draw: &mut Draw, plan: &mut Plan) {
    let temper = draw.random.u8(..10);
    let lies = temper == 7 || temper == 9;
    plan.member = match temper {
        0..3 => draw.calm(),
        3..6 => draw.tricky(&FAILURES),
        6 => draw.tricky(&[Trick::RefusesUnnamed, Trick::RefusesOnce, Trick::FailsForNow]),
        7 => draw.tricky(&LIES),
        8 => draw.tricky(&[&FAILURES[..], &PANICS].concat()),
        _ => draw.tricky(&[&FAILURES[..], &PANICS, &LIES, &[Trick::RefusesUnnamed]].concat()),
    };
    let faulty = draw.one_in(6);
    plan.stores = (0..draw.random.usize(1..=2)).map(|_| draw.store(faulty)).collect();
    plan.times_out = draw.one_in(5);
    for _ in 0..if draw.one_in(3) { 2 } else { 1 } {
        let gate = if draw.random.bool() { Layer::SharedGate } else { Layer::Concurrency(draw.random.usize(1..=3)) };
        let layers = match draw.random.u8(..3) {
            0 => draw.advised(gate, plan.times_out),
            _ => draw.any_stack(plan.stores.len(), plan.times_out),
        };
        plan.stacks.push(layers);
    }
    let (leavers, deadlines) = (draw.random.bool(), draw.one_in(4));
    let (pool, most) = (draw.random.usize(2..=12), draw.random.usize(1..=10));
    let bad = draw.one_in(8);
    let too_long = if draw.random.bool() { TooLong::Truncate } else { TooLong::Error };
    for _ in 0..draw.random.usize(1..=10) {
        let how = match draw.how() {
            // Who calls the embedder itself is given what it gives, lies too.
            How::Embed if lies => How::All,
            how => how,
        };
        let mut texts = draw.texts(pool, most);
        if bad && draw.one_in(3) {
            let at = draw.random.usize(..texts.len());
            texts[at].clear();
        }
        let caller = Caller {
            stack: draw.random.usize(..plan.stacks.len()),
            kind: if draw.one_in(4) { InputKind::Query } else { InputKind::Document },
            lane: draw.any_lane(),
            too_long: if draw.one_in(5) { TooLong::Truncate } else { too_long },
            key: draw.one_in(4).then_some("library:stress"),
            deadline: (deadlines && draw.one_in(3)).then(|| draw.time(3000)),
            leaves: if leavers && draw.random.bool() { draw.leaves() } else { Leaves::Never },
            ..draw.caller(how, texts)
        };
        // A stream has no deadline.
        let deadline = caller.deadline.filter(|_| !caller.is_stream());
        plan.callers.push(Caller { deadline, ..caller });
    }
}

/// Limits of so many texts a call, without others.
fn small_calls(texts: usize) -> Limits {
    Limits::none().with_texts(texts)
}

fn gate(draw: &mut Draw, plan: &mut Plan, lanes: bool) {
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

fn many(draw: &mut Draw, plan: &mut Plan) {
    let places = draw.random.usize(2..=8);
    plan.member = Habits {
        limits: small_calls(1),
        tricks: vec![Trick::FailsForNow],
        every: 1,
        budget: draw.random.u32(1..=places as u32),
        takes: vec![Takes::This(draw.time(2000))],
        ..draw.calm()
    };
    plan.stacks = vec![vec![Layer::Cached(0), draw.retry(), Layer::Concurrency(places)]];
    let all: Vec<String> = (0..2 * places).map(texts::text).collect();
    let owner = draw.caller(How::All, all.clone());
    plan.callers.push(Caller { begins: Duration::ZERO, ..owner });
    for text in &all[places..] {
        let leaves = draw.leaves();
        plan.callers.push(Caller { leaves, ..draw.caller(How::All, vec![text.clone()]) });
    }
}

fn each(draw: &mut Draw, plan: &mut Plan) {
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

fn names(draw: &mut Draw, plan: &mut Plan) {
    let tricks = vec![Trick::NamesOther, Trick::FinishesOther];
    plan.member = Habits { tricks, budget: 2, every: 2, ..draw.calm() };
    plan.stacks = vec![draw.any_stack(1, false)];
    for _ in 0..draw.random.usize(1..=4) {
        let how = draw.pick(&[How::All, How::Each]);
        let texts = draw.texts(8, 8);
        plan.callers.push(draw.caller(how, texts));
    }
}

fn busy(draw: &mut Draw, plan: &mut Plan) {
    let takes = vec![Takes::This(draw.time(2000))];
    plan.member = Habits { limits: small_calls(draw.random.usize(1..=3)), takes, ..draw.calm() };
    plan.pace = Pace { requests: Some(60), tokens: draw.pick(&[None, Some(20_000)]) };
    plan.patience = Some(Duration::from_secs(300));
    let limiter = Layer::RateLimit { shared: true, pace: plan.pace };
    for _ in 0..2 {
        let mut layers = Vec::new();
        if draw.random.bool() {
            layers.extend([Layer::Cached(0), draw.retry()]);
        }
        if draw.random.bool() {
            layers.push(limiter);
        }
        layers.push(Layer::SharedGate);
        // Longer than any call takes, shorter than a consumer is busy.
        layers.push(Layer::Timeout(Duration::from_secs(60)));
        plan.stacks.push(layers);
    }
    for number in 0..draw.random.usize(2..=4) {
        let stream = How::Stream {
            window: draw.random.usize(1..=3),
            windows: draw.random.usize(1..=3),
            busy: Duration::from_secs(draw.random.u64(1..=600)),
            embeds: draw.random.bool(),
        };
        let how = if number < 2 && draw.random.bool() || number == 0 { stream } else { How::All };
        let texts = draw.texts(12, 10);
        let stack = draw.random.usize(..2);
        plan.callers.push(Caller { stack, begins: draw.time(20_000), ..draw.caller(how, texts) });
    }
}

fn absurd(draw: &mut Draw, plan: &mut Plan) {
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

fn store(draw: &mut Draw, plan: &mut Plan) {
    let mut moods = draw.moods();
    moods.panics_in_put = draw.pick(&[1, 2, 4]);
    moods.fails = draw.pick(&[0, 0, 3]);
    plan.stores = vec![Keeps::Moody(moods)];
    plan.stacks = vec![vec![Layer::Cached(0)]];
    crowd(draw, plan, 5, 0, 500);
}

fn storing(draw: &mut Draw, plan: &mut Plan) {
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

fn bills(draw: &mut Draw, plan: &mut Plan) {
    plan.stacks = vec![draw.advised(Layer::Concurrency(3), false)];
    let leave = draw.random.usize(1..=4);
    crowd(draw, plan, 3, leave, 300);
}

fn panics(draw: &mut Draw, plan: &mut Plan) {
    plan.member = draw.tricky(&[&FAILURES[..], &PANICS].concat());
    plan.stacks = vec![draw.advised(Layer::Concurrency(3), false)];
    if draw.random.bool() {
        plan.stacks = vec![draw.any_stack(1, false)];
    }
    crowd(draw, plan, 5, 0, 1000);
}

fn wake(draw: &mut Draw, plan: &mut Plan) {
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
