//! Packs texts of like length into one batch, out of all calls that have texts to be embedded.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::call::EmbedCall;

/// Calls that are looked through for texts to fill a batch: one look is a fraction of a microsecond, under a lock.
const MAX_CALLS_SCANNED: usize = 256;

/// How texts are packed into batches for a device. Clones share the budget.
#[derive(Clone, Debug)]
pub(in crate::provider::onnx) struct Packing {
    budget: Arc<AtomicUsize>,
    /// What a batch costs besides its padded tokens, in tokens: a text that is shorter than the longest by more is
    /// better off in another batch.
    overhead: usize,
    most_texts: usize,
}

impl Packing {
    /// Packs batches of at most so many padded tokens (a longer text is a batch of its own) and texts.
    pub(in crate::provider::onnx) fn new(budget: usize, overhead: usize, most_texts: Option<usize>) -> Self {
        Self { budget: Arc::new(AtomicUsize::new(budget)), overhead, most_texts: most_texts.unwrap_or(usize::MAX) }
    }

    pub(in crate::provider::onnx) fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// From now on, no batch is so large: half of this was the most.
    pub(super) fn halve(&self, padded: usize) {
        self.budget.fetch_min((padded / 2).max(1), Ordering::Relaxed);
    }

    /// Texts that a batch holds whose longest has so many tokens.
    fn texts(&self, longest: usize) -> usize {
        (self.budget() / longest.max(1)).clamp(1, self.most_texts.max(1))
    }
}

/// What one call has in a batch: the texts' places in the call, and their ids.
#[derive(Debug)]
pub(super) struct BatchPart {
    pub(super) call: Arc<EmbedCall>,
    pub(super) texts: Vec<(usize, Box<[u32]>)>,
}

/// Takes the next batch from the calls with texts to be embedded.
pub(super) fn pack_batch(ready: &mut VecDeque<Arc<EmbedCall>>, packing: &Packing) -> Option<Vec<BatchPart>> {
    while let Some(call) = ready.pop_front() {
        let mut state = call.state();
        // What is being tokenized may go into one batch with what is.
        let too_few = state.is_tokenizing() && state.waiting_tokens() < packing.budget();
        let (false, true, Some(own_longest)) = (call.is_over() || too_few, state.has_texts(), state.longest()) else {
            state.ready = false;
            continue;
        };
        let longest = own_longest;
        let mut room = packing.texts(longest);
        let mut texts = Vec::new();
        state.take(longest.saturating_sub(packing.overhead), longest, room, &mut texts);
        room -= texts.len();
        state.ready = state.has_texts();
        let more = state.ready;
        drop(state);
        // Room is filled with what is a little shorter than the longest, or a little longer than the shortest.
        let (taken, own) = (texts.len(), texts.last().map_or(longest, |(_, ids)| ids.len()));
        let longest =
            if room > 0 { longest_to(ready, own.saturating_add(packing.overhead)).max(longest) } else { longest };
        let longest = if packing.texts(longest) > taken { longest } else { own_longest };
        room = packing.texts(longest).saturating_sub(taken);
        let shortest = longest.saturating_sub(packing.overhead);
        let mut parts = vec![BatchPart { call: Arc::clone(&call), texts }];
        for other in ready.iter().take(if room > 0 { MAX_CALLS_SCANNED } else { 0 }) {
            let mut state = other.state();
            if other.is_over() || !state.has_texts() {
                continue;
            }
            let mut texts = Vec::new();
            state.take(shortest, longest, room, &mut texts);
            drop(state);
            if !texts.is_empty() {
                room -= texts.len();
                parts.push(BatchPart { call: Arc::clone(other), texts });
            }
            if room == 0 {
                break;
            }
        }
        if more {
            ready.push_back(call);
        }
        return Some(parts);
    }
    None
}

/// The length of the longest text that is no longer than this and may share a batch.
fn longest_to(ready: &VecDeque<Arc<EmbedCall>>, most: usize) -> usize {
    let calls = ready.iter().take(MAX_CALLS_SCANNED).filter(|call| !call.is_over());
    calls.filter_map(|call| call.state().longest_to(most)).max().unwrap_or(0)
}
