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
    /// The cost of a batch besides its padded tokens, in tokens. If a text is shorter than the longest by more than
    /// that, another batch is cheaper than the padding.
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
/// 2 range                [15 ............ 23]              no others are as short as its own, so the batch grows to the
///                                                          others' longest that is at most 8 above the own shortest:
///                                                          120 / 23 = 5 texts are more than 3
/// 3 fill                                  o                texts of others in the range, while there is room: 1 text
/// ```
///
/// Step 2 makes the batch longer than its first text only as far as that fills it: the shortest length with enough texts
/// below it is taken. Step 3 takes the longest first, so that as little as possible is padded. The texts of step 1 stay
/// whatever the range is.
pub(super) fn pack_batch(ready: &mut Turns, packing: &Packing) -> Option<Vec<BatchPart>> {
    while let Some(call) = ready.pop() {
        let Some((own, more)) = take_own(&call, packing) else { continue };
        let others = others_to(ready, shortest_of(&own).saturating_add(packing.overhead));
        let range = length_range(&others, packing, &own);
        let room = packing.texts(*range.end()).saturating_sub(own.len());
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

/// Returns the length of the shortest of a call's own texts, which are sorted from the longest on.
fn shortest_of(own: &[IndexedIds]) -> usize {
    own.last().map_or(0, |(_, ids)| ids.len())
}

/// Returns the other calls that have a text of at most `most` tokens, each with the length of its longest such text. The
/// longest come first, and of equal ones those whose turn is earlier.
fn others_to(ready: &Turns, most: usize) -> Vec<(usize, Arc<EmbedCall>)> {
    let calls = ready.iter().take(MAX_CALLS_SCANNED).filter(|call| !call.is_over());
    let longest = |call: &Arc<EmbedCall>| Some((call.state().longest_to(most)?, Arc::clone(call)));
    let mut others: Vec<_> = calls.filter_map(longest).collect();
    others.sort_by_key(|(length, _)| Reverse(*length));
    others
}

/// Returns the lengths in tokens of the texts that may join the call's own texts, which are sorted from the longest on.
fn length_range(others: &[(usize, Arc<EmbedCall>)], packing: &Packing, own: &[IndexedIds]) -> RangeInclusive<usize> {
    let own_longest = own.first().map_or(0, |(_, ids)| ids.len());
    let down = |longest: usize| longest.saturating_sub(packing.overhead)..=longest;
    if packing.texts(own_longest) <= own.len() {
        return down(own_longest);
    }
    // A longer batch holds fewer texts: it must still hold one more than there are.
    let is_worth = |longest: usize| packing.texts(longest) > own.len();
    let lengths: Vec<usize> = others.iter().map(|(length, _)| *length).collect();
    // From the shortest on; the lengths are sorted from the longest on.
    let longer = lengths.iter().rev().copied().filter(|&length| length > own_longest && is_worth(length));
    let is_filled_by = |longest: usize| {
        let range = down(longest);
        let above = lengths.partition_point(|length| length > range.end());
        let within = lengths.partition_point(|length| length >= range.start());
        own.len() + within.saturating_sub(above) >= packing.texts(longest)
    };
    let mut candidates = iter::once(own_longest).chain(longer.clone());
    let longest =
        candidates.find(|&longest| is_filled_by(longest)).or_else(|| longer.clone().next_back()).unwrap_or(own_longest);
    down(longest)
}

/// Fills a batch with texts of other calls, the longest first.
fn fill(parts: &mut Vec<BatchPart>, others: &[(usize, Arc<EmbedCall>)], range: RangeInclusive<usize>, mut room: usize) {
    let fits = |(length, _): &&(usize, Arc<EmbedCall>)| length >= range.start();
    for (_, other) in others.iter().take_while(fits) {
        if room == 0 {
            return;
        }
        let mut texts = Vec::new();
        other.state().take(range.clone(), room, &mut texts);
        if !texts.is_empty() {
            room -= texts.len();
            parts.push(BatchPart { call: Arc::clone(other), texts });
        }
    }
}
