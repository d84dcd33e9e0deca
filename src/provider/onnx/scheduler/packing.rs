//! Packs texts of like length into one batch, out of all calls that have texts to be embedded.

use std::{
    cmp::Reverse,
    iter,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    call::{EmbedCall, IndexedIds},
    turns::Turns,
};

/// The most calls that are searched for texts to fill a batch. Each takes a fraction of a microsecond, under a lock.
const MAX_CALLS_SCANNED: usize = 256;

/// How texts are packed into batches for a device. Clones share the budget.
#[derive(Clone, Debug)]
pub(in crate::provider::onnx) struct Packing {
    budget: Arc<AtomicUsize>,
    /// The cost of a batch besides its padded tokens, in tokens. If a text of a call is shorter than its longest by more
    /// than that, another batch is cheaper than the padding.
    overhead: usize,
    most_texts: usize,
}

impl Packing {
    /// Packs batches of at most `budget` padded tokens and `most_texts` texts. A longer text is a batch of its own.
    pub(in crate::provider::onnx) fn new(budget: usize, overhead: usize, most_texts: Option<usize>) -> Self {
        Self { budget: Arc::new(AtomicUsize::new(budget)), overhead, most_texts: most_texts.unwrap_or(usize::MAX) }
    }

    pub(in crate::provider::onnx) fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// Limits all later batches to half of a batch that was too large.
    pub(super) fn halve(&self, padded: usize) {
        self.budget.fetch_min((padded / 2).max(1), Ordering::Relaxed);
    }

    /// Returns how many texts a batch holds if its longest text has `longest` tokens.
    fn texts(&self, longest: usize) -> usize {
        (self.budget() / longest.max(1)).clamp(1, self.most_texts.max(1))
    }
}

/// The part of one call in a batch: the texts' places in the call, and their ids.
#[derive(Debug)]
pub(super) struct BatchPart {
    pub(super) call: Arc<EmbedCall>,
    pub(super) texts: Vec<IndexedIds>,
}

/// Takes the next batch from the calls with texts to be embedded.
///
/// The call whose turn it is begins the batch with its longest text. Its own texts of like length come next, then those
/// of the other calls:
///
/// ```text
/// tokens   8       12      16    19 20    23         28    budget 120 tokens, overhead 8 tokens
/// own                      *     *  *                      the call whose turn it is
/// others   o       o                      o          o
///
/// 1 own            [12 ........... 20]                     from its longest down to 8 shorter: 3 texts
/// 2 longest                               23               up to 8 above the own shortest: with 20 the three texts cost
///                                                          68 for 55 tokens, 1.24 per token; with 23 the four cost 100
///                                                          for 78 tokens, 1.28 per token; so 20 it stays
/// 3 fill                                                   a text of 12 would make it 88 for 67 tokens, 1.31: none joins
/// ```
///
/// A batch costs its padded tokens and the overhead. Step 2 tries the length of the own longest and those of others, and
/// takes the one with which a token costs least. Step 3 takes the longest first, for as long as a token gets cheaper. The
/// texts of step 1 stay whatever the others are.
pub(super) fn pack_batch(ready: &mut Turns, packing: &Packing) -> Option<Vec<BatchPart>> {
    while let Some(call) = ready.pop() {
        let Some((own, more)) = take_own(&call, packing) else { continue };
        // A batch that its own texts fill has no room at any length, so nobody else is looked at.
        let is_full = own.len() >= packing.texts(longest_of(&own));
        let most = shortest_of(&own).saturating_add(packing.overhead);
        let others = if is_full { Vec::new() } else { others_to(ready, packing, most) };
        let (range, room) = cheapest_range(&others, packing, &own);
        let mut parts = vec![BatchPart { call: Arc::clone(&call), texts: own }];
        fill(&mut parts, &others, range, room);
        if more {
            ready.push(&call);
        }
        return Some(parts);
    }
    None
}

/// Takes the first texts of a batch, at least one, and returns them with whether the call has more. Returns `None` if
/// the call cannot begin a batch now: it leaves the queue, and tokenizing its next piece brings it back.
fn take_own(call: &EmbedCall, packing: &Packing) -> Option<(Vec<IndexedIds>, bool)> {
    let mut state = call.state();
    // With less than a batch of tokens, it is better to wait: the texts being tokenized may share the batch.
    let too_few = state.is_tokenizing() && state.waiting_tokens() < packing.budget();
    let (false, true, Some(longest)) = (call.is_over() || too_few, state.has_texts(), state.longest()) else {
        state.ready = false;
        return None;
    };
    let mut own = Vec::new();
    state.take(longest.saturating_sub(packing.overhead)..=longest, packing.texts(longest), &mut own);
    state.ready = state.has_texts();
    Some((own, state.ready))
}

/// Returns the length of the longest of a call's own texts, which are sorted from the longest on.
fn longest_of(own: &[IndexedIds]) -> usize {
    own.first().map_or(0, |(_, ids)| ids.len())
}

/// Returns the length of the shortest of a call's own texts, which are sorted from the longest on.
fn shortest_of(own: &[IndexedIds]) -> usize {
    own.last().map_or(0, |(_, ids)| ids.len())
}

/// Texts of one length that another call has.
struct Others {
    length: usize,
    texts: usize,
    call: Arc<EmbedCall>,
}

/// Returns the texts of other calls of at most `most` tokens, no more of each call than a batch holds. The longest come
/// first, and of equal ones those whose turn is earlier.
fn others_to(ready: &Turns, packing: &Packing, most: usize) -> Vec<Others> {
    let mut others = Vec::new();
    for call in ready.iter().take(MAX_CALLS_SCANNED).filter(|call| !call.is_over()) {
        let mut room = packing.texts(1);
        for (length, texts) in call.state().lengths_to(most) {
            others.push(Others { length, texts: texts.min(room), call: Arc::clone(call) });
            room = room.saturating_sub(texts);
            if room == 0 {
                break;
            }
        }
    }
    others.sort_by_key(|others| Reverse(others.length));
    others
}

/// What a batch holds and costs.
#[derive(Clone, Copy)]
struct Cost {
    texts: usize,
    /// Without padding.
    tokens: usize,
    /// The padded tokens and the overhead.
    cost: usize,
}

impl Cost {
    /// Whether a token of it costs less than one of the other, or as much.
    const fn is_at_most(&self, other: &Self) -> bool {
        self.cost.saturating_mul(other.tokens) <= other.cost.saturating_mul(self.tokens)
    }

    /// Returns the batch with one text more, in a batch whose longest text has `longest` tokens.
    const fn with_text(&self, length: usize, longest: usize) -> Self {
        Self { texts: self.texts + 1, tokens: self.tokens + length, cost: self.cost + longest }
    }
}

/// Returns the lengths in tokens of the texts that join the call's own texts, and how many may: those with which a token
/// costs least. The own texts are sorted from the longest on.
fn cheapest_range(others: &[Others], packing: &Packing, own: &[IndexedIds]) -> (RangeInclusive<usize>, usize) {
    let own_longest = longest_of(own);
    let own_tokens: usize = own.iter().map(|(_, ids)| ids.len()).sum();
    let longer = others.iter().map(|others| others.length).take_while(|&length| length > own_longest);
    let mut best: Option<(Cost, RangeInclusive<usize>)> = None;
    let mut tried = None;
    for longest in longer.chain(iter::once(own_longest)) {
        if tried.replace(longest) == Some(longest) {
            continue;
        }
        let room = packing.texts(longest).saturating_sub(own.len());
        if room == 0 && longest > own_longest {
            continue;
        }
        let mut batch = Cost { texts: own.len(), tokens: own_tokens, cost: own.len() * longest + packing.overhead };
        let mut shortest = longest;
        let from = others.partition_point(|others| others.length > longest);
        let each = others[from..].iter().flat_map(|others| iter::repeat_n(others.length, others.texts));
        for length in each.take(room) {
            let with = batch.with_text(length, longest);
            if !with.is_at_most(&batch) {
                break;
            }
            (batch, shortest) = (with, length);
        }
        if best.as_ref().is_none_or(|(known, _)| batch.is_at_most(known)) {
            best = Some((batch, shortest..=longest));
        }
    }
    // The own longest is always among them.
    best.map_or((own_longest..=own_longest, 0), |(batch, range)| (range, batch.texts - own.len()))
}

/// Fills a batch with texts of other calls, the longest first.
fn fill(parts: &mut Vec<BatchPart>, others: &[Others], range: RangeInclusive<usize>, mut room: usize) {
    for other in others.iter().skip_while(|other| other.length > *range.end()) {
        if room == 0 || other.length < *range.start() {
            return;
        }
        let mut texts = Vec::new();
        other.call.state().take(other.length..=other.length, room, &mut texts);
        room -= texts.len();
        match parts.iter_mut().find(|part| Arc::ptr_eq(&part.call, &other.call)) {
            Some(part) => part.texts.append(&mut texts),
            None if texts.is_empty() => {}
            None => parts.push(BatchPart { call: Arc::clone(&other.call), texts }),
        }
    }
}
