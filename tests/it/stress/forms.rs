//! Draws a round of some form: a form allows anything, or the conditions that a fault is known to need.

use docvector_embed::{InputKind, Truncation};
use fastrand::Rng;

use super::{
    callers::{Caller, How, Leaves},
    directed,
    draw::Draw,
    fails,
    member::{Habits, Trick},
    merges,
    plan::{Mode, Plan},
    splits,
    stacks::Layer,
};

/// The kind of a round.
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
    /// A caller that waits for a text for which bulk calls wait, too.
    Query,
    /// Calls that fail with finished rows, behind a limiter.
    Pace,
    /// Members of a `Resilient` that fail, hang and recover, and callers that leave while they wait for a probe.
    Fails,
    /// Callers whose calls become one, of which some leave or have texts that are refused.
    Merges,
    /// Arms in one space or in two, whose shares change.
    Splits,
}

impl Form {
    pub(super) const ALL: [Self; 18] = [
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
        Self::Query,
        Self::Pace,
        Self::Fails,
        Self::Merges,
        Self::Splits,
    ];
}

/// Draws the round of a seed.
pub(super) fn draw(seed: u64, mode: Mode) -> Plan {
    let mut draw = Draw { random: Rng::with_seed(seed), mode };
    let draw = &mut draw;
    let form = match draw.random.u8(..30) {
        0..10 => Form::Any,
        10 if mode != Mode::FourThreads => draw.pick(&[Form::Query, Form::Pace]),
        10 => Form::Wake,
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
        23 => Form::Panics,
        24 | 25 => Form::Fails,
        26 | 27 => Form::Merges,
        _ => Form::Splits,
    };
    let mut plan = Plan {
        seed,
        mode,
        form,
        member: draw.calm(),
        others: Vec::new(),
        fallbacks: Vec::new(),
        arms: Vec::new(),
        stores: vec![draw.store(false)],
        gate: draw.random.usize(1..=2),
        pace: draw.pace(),
        stacks: Vec::new(),
        callers: Vec::new(),
        keeps_pace: false,
        times_out: false,
        answers: false,
        asks_all: false,
        spares: false,
    };
    match form {
        Form::Any => any(draw, &mut plan),
        Form::Gate => directed::gate(draw, &mut plan, false),
        Form::Lanes => directed::gate(draw, &mut plan, true),
        Form::Many => directed::many(draw, &mut plan),
        Form::Each => directed::each(draw, &mut plan),
        Form::Names => directed::names(draw, &mut plan),
        Form::Busy => directed::busy(draw, &mut plan),
        Form::Absurd => directed::absurd(draw, &mut plan),
        Form::Store => directed::store(draw, &mut plan),
        Form::Storing => directed::storing(draw, &mut plan),
        Form::Bills => directed::bills(draw, &mut plan),
        Form::Panics => directed::panics(draw, &mut plan),
        Form::Wake => directed::wake(draw, &mut plan),
        Form::Query => directed::query(draw, &mut plan),
        Form::Pace => directed::pace(draw, &mut plan),
        Form::Fails => fails::fails(draw, &mut plan),
        Form::Merges => merges::merges(draw, &mut plan),
        Form::Splits => splits::splits(draw, &mut plan),
    }
    let spices = matches!(form, Form::Bills | Form::Each | Form::Names | Form::Panics | Form::Store | Form::Storing);
    if spices && draw.one_in(3) {
        let tricks = plan.member.tricks.clone();
        draw.spice(&mut plan, |draw| if tricks.is_empty() { draw.calm() } else { draw.tricky(&tricks) });
    }
    plan
}

pub(super) const FAILURES: [Trick; 6] = [
    Trick::FailsForNow,
    Trick::FailsForNow,
    Trick::Fails,
    Trick::FailsWithRows,
    Trick::RefusesOnce,
    Trick::RefusesOnceWithRows,
];
pub(super) const PANICS: [Trick; 2] = [Trick::PanicsFirst, Trick::PanicsLast];
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

/// Draws a member of a temper from 0 to 9.
fn habits(draw: &mut Draw, temper: u8) -> Habits {
    match temper {
        0..3 => draw.calm(),
        3..6 => draw.tricky(&FAILURES),
        6 => draw.tricky(&[Trick::RefusesUnnamed, Trick::RefusesOnce, Trick::FailsForNow]),
        7 => draw.tricky(&LIES),
        8 => draw.tricky(&[&FAILURES[..], &PANICS].concat()),
        _ => draw.tricky(&[&FAILURES[..], &PANICS, &LIES, &[Trick::RefusesUnnamed]].concat()),
    }
}

fn any(draw: &mut Draw, plan: &mut Plan) {
    let temper = draw.random.u8(..10);
    let lies = temper == 7 || temper == 9;
    plan.member = habits(draw, temper);
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
    if plan.stacks.len() > 1 && draw.one_in(3) {
        // Other wrappers around the same stack. No call waits for a gate of which it has a place.
        plan.stacks[1].retain(|layer| !matches!(layer, Layer::SharedGate));
        plan.stacks[1].push(Layer::First);
    }
    draw.spice(plan, |draw| {
        let calm = draw.one_in(4);
        habits(draw, if calm { 0 } else { temper })
    });
    let (leavers, deadlines) = (draw.random.bool(), draw.one_in(4));
    let (pool, most) = (draw.random.usize(2..=12), draw.random.usize(1..=10));
    let bad = draw.one_in(8);
    let truncation = if draw.random.bool() { Truncation::Truncate } else { Truncation::Error };
    for _ in 0..draw.random.usize(1..=10) {
        let how = match draw.how() {
            // A caller of the embedder itself gets its replies unchecked, including lies.
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
            truncation: if draw.one_in(5) { Truncation::Truncate } else { truncation },
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
