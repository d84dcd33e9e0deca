//! Hears what wrappers tell, and compares it with what they count: [`Ears`].

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use docvector_embed::{
    BreakerState, Usage,
    observer::{Event, EventKind, Observer},
    wrap::{AbSplit, Cached, Coalesce, Gate, Resilient, Totals},
};

use super::stacks::AnyEmbedder;

/// The parts of a stack that the checks look at.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) gates: Vec<Gate>,
    pub(super) caches: Vec<Cached<AnyEmbedder>>,
    pub(super) resilients: Vec<Resilient>,
    pub(super) splits: Vec<AbSplit>,
    pub(super) coalescers: Vec<Coalesce<AnyEmbedder>>,
    pub(super) meters: Vec<Totals>,
    pub(super) ears: Vec<Ears>,
    /// Whether all calls of these parts come through the stack, and each with the observers of its layers.
    pub(super) is_whole: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            gates: Vec::new(),
            caches: Vec::new(),
            resilients: Vec::new(),
            splits: Vec::new(),
            coalescers: Vec::new(),
            meters: Vec::new(),
            ears: Vec::new(),
            is_whole: true,
        }
    }
}

impl Parts {
    /// Adds the parts of another member's stack.
    pub(super) fn add(&mut self, other: Self) {
        self.gates.extend(other.gates);
        self.caches.extend(other.caches);
        self.resilients.extend(other.resilients);
        self.splits.extend(other.splits);
        self.coalescers.extend(other.coalescers);
        self.meters.extend(other.meters);
        self.ears.extend(other.ears);
        self.is_whole &= other.is_whole;
    }
}

/// An observer, and the parts of the stack that it hears. Clones hear together.
#[derive(Clone)]
pub(super) struct Ears {
    heard: Arc<Mutex<Heard>>,
    inside: Arc<Parts>,
    /// It panics at one event in so many; 0 means never.
    panics: u8,
    /// Whether the changes of the breakers come in their order.
    follows_breakers: bool,
    /// The one split inside, if events tell how its shares are at the moment.
    split: Option<AbSplit>,
}

/// The events so far.
#[derive(Clone, Debug, Default)]
struct Heard {
    events: u64,
    /// The number of events of each kind.
    kinds: BTreeMap<String, u64>,
    calls: u64,
    usage: Usage,
    hits: u64,
    damaged: u64,
    answers: u64,
    routed: u64,
    merged_calls: u64,
    breakers: BTreeMap<String, BreakerState>,
    /// The first event that cannot be.
    odd: Option<String>,
}

impl Ears {
    pub(super) fn new(inside: Parts, panics: u8, in_order: bool) -> Self {
        // Members of two wrappers may have one label.
        let follows_breakers = in_order && inside.is_whole && inside.resilients.len() == 1;
        let split = match &inside.splits[..] {
            [split] if in_order && inside.is_whole => Some(split.clone()),
            _ => None,
        };
        Self { heard: Arc::default(), inside: Arc::new(inside), panics, follows_breakers, split }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of events of each kind so far.
    pub(super) fn kinds(&self) -> BTreeMap<String, u64> {
        self.heard().kinds.clone()
    }

    /// Returns the difference between what was heard and what the wrappers have counted, once nothing is under way.
    pub(super) fn difference(&self) -> Option<String> {
        let heard = self.heard().clone();
        if heard.odd.is_some() || !self.inside.is_whole {
            return heard.odd;
        }
        let Parts { meters, caches, resilients, splits, coalescers, .. } = &*self.inside;
        let arms: Vec<_> = splits.iter().flat_map(|split| split.stats().arms).map(|arm| arm.totals).collect();
        let routed = arms.iter().map(|totals| totals.calls).sum();
        let meters: Vec<_> = meters.iter().map(Totals::snapshot).chain(arms).collect();
        let caches: Vec<_> = caches.iter().map(Cached::counts).collect();
        let members = || resilients.iter().flat_map(Resilient::members);
        let usage: Usage = meters.iter().map(|totals| totals.usage).sum();
        let pairs = [
            ("calls", heard.calls, meters.iter().map(|totals| totals.calls).sum()),
            ("tokens", heard.usage.tokens, usage.tokens),
            ("requests", heard.usage.requests, usage.requests),
            ("unanswered", heard.usage.unanswered, usage.unanswered),
            ("damaged", heard.damaged, caches.iter().map(|counts| counts.damaged).sum()),
            ("calls of arms", heard.routed, routed),
        ];
        // A call looks once more for what others have stored meanwhile, which it counts and does not tell.
        let hits = ("hits", heard.hits, caches.iter().map(|counts| counts.hits).sum());
        // A caller that is alone in its group is merged with nobody.
        let merged = coalescers.iter().map(|coalesce| coalesce.counts().merged_calls).sum();
        let merged = ("merged calls", heard.merged_calls, merged);
        let differs = |&(_, told, counted): &(&str, u64, u64)| told != counted;
        // Members that have failed may have finished all rows between them.
        let answers = ("answers", members().map(|member| member.answered).sum(), heard.answers);
        let more = [hits, merged, answers].into_iter().find(|(_, less, more)| less > more);
        let (what, told, counted) = pairs.into_iter().find(differs).or(more)?;
        Some(format!("{what}: {told} and {counted}"))
    }
}

impl Heard {
    fn note(&mut self, event: &Event<'_>, ears: &Ears) -> Result<(), String> {
        self.events += 1;
        let shown = format!("{:?}", event.kind);
        let kind = shown.split([' ', '(', '{']).next().unwrap_or_default();
        *self.kinds.entry(kind.to_owned()).or_default() += 1;
        match event.kind {
            EventKind::Call(call) => {
                self.calls += 1;
                self.usage += call.usage;
                let same = call.texts == event.texts && call.charges.usage() == call.usage;
                same.then_some(()).ok_or_else(|| format!("{call:?} of {} texts", event.texts))
            }
            EventKind::CacheLookUp { hits, misses, damaged, .. } => {
                self.hits += hits;
                self.damaged += damaged;
                let same = hits + misses == event.texts as u64;
                same.then_some(()).ok_or_else(|| format!("{hits} hits and {misses} misses of {} texts", event.texts))
            }
            EventKind::Answered { .. } => {
                self.answers += 1;
                Ok(())
            }
            EventKind::FellBack { from, to, .. } if from == to => Err(format!("{from} falls back to itself")),
            EventKind::Routed { arm, .. } => {
                self.routed += 1;
                let (Some(split), Some(key), None) = (&ears.split, event.options.key, event.options.space) else {
                    return Ok(());
                };
                let wanted = split.arm_of(key);
                (arm == wanted).then_some(()).ok_or_else(|| format!("{key} goes to {arm}, and its arm is {wanted}"))
            }
            EventKind::Coalesced { calls, texts, .. } => {
                self.merged_calls += 1;
                let fits = calls > 1 && texts >= calls;
                fits.then_some(()).ok_or_else(|| format!("{calls} calls of {texts} texts are merged"))
            }
            EventKind::Breaker { member, state, .. } if ears.follows_breakers => {
                use BreakerState::{Closed, HalfOpen, Open};
                let before = self.breakers.insert(member.to_owned(), state).unwrap_or(Closed);
                let follows = matches!((before, state), (Closed | HalfOpen, Open) | (Open, HalfOpen | Closed))
                    || (before, state) == (HalfOpen, Closed);
                follows.then_some(()).ok_or_else(|| format!("the breaker of {member} is {before}, and then {state}"))
            }
            _ => Ok(()),
        }
    }
}

impl Observer for Ears {
    fn observe(&self, event: &Event<'_>) {
        let mut heard = self.heard();
        if let Err(odd) = heard.note(event, self) {
            heard.odd.get_or_insert_with(|| format!("{}: {odd}", event.embedder));
        }
        let panics = self.panics > 0 && heard.events.is_multiple_of(u64::from(self.panics));
        drop(heard);
        if panics {
            // No message on the screen: the panic is part of the play.
            resume_unwind(Box::new("as scripted"));
        }
    }
}
