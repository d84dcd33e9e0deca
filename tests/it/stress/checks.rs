//! Checks a round that has ended against the promises: one [`Check`] per promise.

use std::{fmt, time::Duration};

use docvector_embed::{Truncation, Usage};

use super::{
    api::{self, Bill},
    callers::{Caller, How},
    ears::Ears,
    ledger::{Asked, Ending, Ledger},
    round::{Ended, Round},
    texts,
};

/// The most calls that end at other callers' deadlines for which a caller waits.
const SEVERAL: usize = 3;

/// The time whose worth a limiter saves up while nobody calls.
const SAVED: Duration = Duration::from_secs(10);

/// A promise that is checked. Each can be selected alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Check {
    /// Row `i` is the vector of text `i`.
    Rows,
    /// Those texts that were cut are marked as cut.
    Marks,
    /// No text is both named as bad and finished.
    Named,
    /// Indices ascend and are those of the caller's texts.
    Range,
    /// No text is blamed that was not refused.
    Blame,
    /// Every caller that stays has an answer.
    Hang,
    /// No caller waits much longer than its work takes.
    Slow,
    /// When all have gone, the gates are free, and a new call works.
    Stuck,
    /// No panic reaches a caller that a cache keeps from it.
    Panic,
    /// The bills that were told equal the charges.
    Told,
    /// Nothing is told twice.
    Twice,
    /// A call that panicked is told of as unanswered, and takes no other bill with it.
    PanicBill,
    /// Caches and groups count the bills of callers that left.
    LeftBill,
    /// Each text is paid for once.
    Paid,
    /// No more calls at once than the gate has places.
    Most,
    /// No more tokens in a time than the limiter lets through.
    Pace,
    /// No caller fails while some member answers, before each member has failed, or for the texts of another caller.
    Lost,
    /// An observer hears what the wrappers inside count, each event once.
    Heard,
}

impl Check {
    pub(super) const ALL: [Self; 18] = [
        Self::Rows,
        Self::Marks,
        Self::Named,
        Self::Range,
        Self::Blame,
        Self::Hang,
        Self::Slow,
        Self::Stuck,
        Self::Panic,
        Self::Told,
        Self::Twice,
        Self::PanicBill,
        Self::LeftBill,
        Self::Paid,
        Self::Most,
        Self::Pace,
        Self::Lost,
        Self::Heard,
    ];
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) check: Check,
    pub(super) message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.message)
    }
}

/// Returns the work that has not ended although all callers have their answer or have left. An aborted task may be in
/// the middle of a poll on another thread, so a finding counts only if it is still there later.
pub(super) fn left_behind(round: &Round) -> Option<String> {
    let mut gates = round.stacks.iter().flat_map(|stack| &stack.parts.gates);
    if let Some(gate) = gates.find(|gate| gate.running() > 0 || gate.waiting() > 0) {
        return Some(format!("all have gone, and there is {gate:?}"));
    }
    let under_way = round.member.ledger().count(Ending::UnderWay);
    (under_way > 0).then(|| format!("all have gone, and {under_way} calls are under way"))
}

/// Checks that nothing is left when all callers have their answer or have left.
pub(super) fn after_callers(round: &Round) {
    let ledger = round.member.ledger();
    if let Some(places) = round.plan.places()
        && round.member.most() > places
    {
        round.fault(Check::Most, format!("{} calls at once through {places} places", round.member.most()));
    }
    let ended = round.ended();
    let panicked = ended.iter().filter(|ended| **ended == Some(Ended::Panicked)).count() as u64;
    let allowed = round.stores.panics().0 + if round.plan.catches() { 0 } else { ledger.count(Ending::Panicked) };
    if panicked > allowed {
        round.fault(Check::Panic, format!("{panicked} callers panicked, {allowed} might have"));
    }
    for (number, caller) in round.plan.callers.iter().enumerate() {
        let patience = caller.patience.or_else(|| round.plan.ends_by(caller));
        if let Some((patience, took)) = patience.zip(round.took(number))
            && took > patience
        {
            round.fault(Check::Slow, format!("caller {number} had its answer after {took:?}"));
        }
    }
    lost(round, &ended, &ledger);
    paid(round, &ledger);
    pace(round, &ledger);
}

/// Nobody fails who waits long enough for a member that always answers, or whose texts no member refuses. A call fails
/// if each member has failed it, or has failed another call meanwhile.
fn lost(round: &Round, ended: &[Option<Ended>], ledger: &Ledger) {
    let plan = &round.plan;
    for (number, caller) in plan.callers.iter().enumerate() {
        // One call of the embedder has to keep its limits.
        let fits = caller.how != How::Embed || plan.member.limits.bytes.is_none();
        let is_patient = caller.deadline.is_none() && fits && plan.good_texts(caller).len() == caller.texts.len();
        let asks = !matches!(caller.how, How::Proof | How::Shift(_));
        let fails = matches!(ended[number], Some(Ended::Failed(_) | Ended::Panicked));
        let Some((from, to)) = round.span(number).filter(|_| asks && is_patient && fails) else { continue };
        let refused = |text: &String| round.member.has_refused(caller.kind, text, caller.truncation);
        let others_alone = plan.spares && !caller.texts.iter().any(refused);
        let idle = (0..plan.members().count()).find(|&member| !ledger.has_failed(member, from, to));
        if plan.answers || others_alone || plan.asks_all && idle.is_some() {
            let message = format!("caller {number} {:?}, and its texts are good, idle: {idle:?}", ended[number]);
            round.fault(Check::Lost, message);
        }
    }
}

/// The charge in a period is at most the limiter's rate, its savings and the debt of one call.
fn pace(round: &Round, ledger: &Ledger) {
    let Some(tokens) = round.plan.keeps_pace.then_some(round.plan.pace.tokens).flatten() else { return };
    let began = |call: &super::ledger::Call| call.began;
    let (Some(first), Some(last)) = (ledger.calls.iter().map(began).min(), ledger.calls.iter().map(began).max()) else {
        return;
    };
    let of = |call: &super::ledger::Call| call.charged.tokens as f64;
    let charged: f64 = ledger.calls.iter().map(of).sum();
    let most = ledger.calls.iter().map(of).fold(0.0, f64::max);
    let rate = tokens as f64 / 60.0;
    let allowed = rate * (last - first + SAVED).as_secs_f64() + 4.0 * most;
    if charged > allowed {
        round.fault(Check::Pace, format!("{charged} tokens in {:?}, {allowed} are allowed", last - first));
    }
}

/// Each text was paid for once by each stack and in each lane, because lanes do not wait for each other's calls. A
/// caller that meets several calls that end at their own callers' deadlines asks alone.
fn paid(round: &Round, ledger: &Ledger) {
    let plan = &round.plan;
    if !(plan.is_calm() && plan.is_cached() && plan.keeps()) || plan.may_pay_twice() {
        return;
    }
    for ((asked, lane), times) in ledger.paid_by_lane() {
        let askers = askers(round, &asked);
        let impatient = askers.iter().filter(|caller| caller.deadline.is_some()).count();
        // Proofs of members ask for texts that no caller has.
        if !askers.is_empty() && impatient < SEVERAL && times > plan.stacks.len() {
            round.fault(Check::Paid, format!("{asked:?} was paid for {times} times in the lane {lane:?}"));
        }
    }
}

/// Returns the callers that ask for a text in this way.
fn askers<'r>(round: &'r Round, (text, kind, cuts): &Asked) -> Vec<&'r Caller> {
    let limit = round.member.limit();
    let asks = |caller: &&Caller| {
        (caller.kind, caller.truncation == Truncation::Truncate) == (*kind, *cuts)
            && caller.texts.iter().any(|own| texts::cut(own, limit, caller.truncation) == text)
    };
    round.plan.callers.iter().filter(asks).collect()
}

/// Texts that were paid for before the last call are not paid for again.
pub(super) fn after_last(round: &Round, before: &Ledger) {
    let plan = &round.plan;
    if !(plan.is_calm() && plan.is_cached() && plan.keeps() && plan.stores.len() == 1) || plan.may_pay_twice() {
        return;
    }
    let had = before.paid();
    for (asked, times) in round.member.ledger().paid() {
        let before = had.get(&asked).copied().unwrap_or_default();
        if before > 0 && times > before && !askers(round, &asked).is_empty() {
            let message = format!("{asked:?} was paid for {before} times, and again when all had gone");
            round.fault(Check::Paid, message);
        }
    }
}

/// Compares the costs told with those charged, and returns the differences.
///
/// Charged is the cost in the member's answers, rows or errors. Told is the cost that all callers heard, in rows,
/// errors, windows and results for each text. Counted is the cost that the caches and groups could tell no caller. Then:
/// - told and counted are never more than charged;
/// - where everybody stays and nothing panics, told is charged, and nothing is unanswered;
/// - where everybody stays and something panics, told is charged as far as there was an answer, and each call that
///   panicked is told of as unanswered;
/// - where everybody stays and wrappers give up calls that got no answer yet, told is charged, as far as there was an
///   answer, and each call that was given up is told of as unanswered;
/// - where callers leave or are late, nothing fails, and a cache is outermost, told and counted together are charged. A
///   call that was dropped under way had no answer, and is charged to nobody here.
pub(super) fn bills(round: &Round) -> Option<Fault> {
    let ledger = round.member.ledger();
    let plan = &round.plan;
    let told = round.told();
    let parts = || round.stacks.iter().map(|stack| &stack.parts);
    let of_caches: Usage = parts().flat_map(|parts| &parts.caches).map(|cache| cache.unclaimed().usage()).sum();
    let of_groups: Usage = parts().flat_map(|parts| &parts.coalescers).map(|group| group.unclaimed().usage()).sum();
    let of_proofs: Usage = parts().flat_map(|parts| &parts.resilients).map(|all| all.unclaimed().usage()).sum();
    let untold = of_caches + of_groups + of_proofs;
    let (charged, panics) = (api::bill(ledger.charged()), ledger.count(Ending::Panicked));
    let (callers, all) = (api::bill(told), api::bill(told + untold));
    let shown = format!("told {callers:?}, told or counted {all:?}, charged {charged:?}, {panics} panics");

    let panicked = round.ended().contains(&Some(Ended::Panicked));
    let stays = plan.all_stay() && plan.gives_up_none();
    // A look-up that panics takes its caller with it, or the call of a cache further out.
    let (in_get, in_put) = round.stores.panics();
    let broken = if exceeds(all, charged) {
        Some(Check::Twice)
    } else if panicked || in_get > 0 {
        None
    } else if stays && panics + in_put > 0 {
        (!same(all, charged) || callers.unanswered < panics).then_some(Check::PanicBill)
    } else if stays {
        (callers != charged || all != charged).then_some(Check::Told)
    } else if plan.all_stay() && plan.gives_up_one() {
        (!same(all, charged) || all.unanswered < ledger.count(Ending::Dropped)).then_some(Check::Told)
    } else if plan.counts_those_who_left() || plan.merges_all() {
        (!same(all, charged)).then_some(Check::LeftBill)
    } else {
        None
    };
    broken.map(|check| Fault { check, message: shown })
}

/// Returns whether more was told than was charged. A request without an answer counts if it was begun.
fn exceeds(told: Bill, charged: Bill) -> bool {
    told.tokens > charged.tokens || told.requests > charged.requests + told.unanswered
}

/// Returns whether the costs told of answers are those that the answers had. Calls without an answer are not compared.
fn same(told: Bill, charged: Bill) -> bool {
    (told.tokens, told.unreported) == (charged.tokens, charged.unreported)
        && told.requests >= charged.requests
        && told.requests <= charged.requests + told.unanswered
}

/// Compares the events that observers heard with the counts of the wrappers inside, and returns a difference.
pub(super) fn heard(round: &Round) -> Option<Fault> {
    let ears = round.stacks.iter().flat_map(|stack| &stack.parts.ears);
    let message = ears.filter_map(Ears::difference).next()?;
    Some(Fault { check: Check::Heard, message })
}
