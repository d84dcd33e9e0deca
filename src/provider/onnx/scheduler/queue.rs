//! Says what is done next: whose turn it is, and which texts of which calls go into one batch.
//!
//! Calls of a lane take turns, a piece of work at a time, so that a large call holds up no other; the interactive lane
//! goes first, without starving the other. A batch begins with the longest text of the call whose turn it is and is
//! filled with texts of like length, that call's first and then other calls', so that many small calls cost no more
//! than one large one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    PIECE_BYTES,
    call::{Call, Piece},
};
use crate::Lane;

/// Interactive batches after which waiting bulk work gets one.
const HEAD_START: u32 = 8;
/// Text of a lane that is tokenised before its next batch, where there is so much.
const FIRST_BYTES: usize = 4 * PIECE_BYTES;
/// Calls that are looked through for texts to fill a batch: one look is a fraction of a microsecond, under a lock.
const LOOKED_AT: usize = 256;

/// What a thread is there for.
#[derive(Clone, Debug)]
pub(in crate::provider::onnx) struct Role {
    pub(in crate::provider::onnx) tokenises: bool,
    /// How it packs batches, if it runs any.
    pub(in crate::provider::onnx) packing: Option<Packing>,
}

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

/// What is done next.
#[derive(Debug)]
pub(super) enum Job {
    Tokenise(Arc<Call>, Piece),
    /// Never empty.
    Embed(Vec<Part>),
}

/// What one call has in a batch: the texts' places in the call, and their ids.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) call: Arc<Call>,
    pub(super) texts: Vec<(usize, Box<[u32]>)>,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").field("first", &self.first).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    interactive: Turns,
    bulk: Turns,
    /// Giant texts, which have a thread of their own.
    pub(super) giants: VecDeque<(Arc<Call>, Piece)>,
    pub(super) stop: bool,
}

/// The calls of a lane.
#[derive(Debug, Default)]
struct Turns {
    /// Those with texts to be tokenised.
    raw: VecDeque<Arc<Call>>,
    /// Those with texts to be embedded.
    ready: VecDeque<Arc<Call>>,
    /// What was tokenised since the last batch weighs so much.
    tokenised: usize,
}

impl Queue {
    /// Adds a new call.
    pub(super) fn add(&mut self, call: &Arc<Call>, giants: Vec<Piece>) {
        if !call.work().pieces.is_empty() {
            self.turns(call.lane).raw.push_back(Arc::clone(call));
        }
        self.giants.extend(giants.into_iter().map(|giant| (Arc::clone(call), giant)));
    }

    /// Adds a call again that has texts to be embedded.
    pub(super) fn add_ready(&mut self, call: &Arc<Call>) {
        self.turns(call.lane).ready.push_back(Arc::clone(call));
    }

    pub(super) fn remove(&mut self, call: &Arc<Call>) {
        let other = |one: &Arc<Call>| !Arc::ptr_eq(one, call);
        let turns = self.turns(call.lane);
        turns.raw.retain(other);
        turns.ready.retain(other);
        self.remove_giants(call);
    }

    pub(super) fn remove_giants(&mut self, call: &Arc<Call>) {
        self.giants.retain(|(one, _)| !Arc::ptr_eq(one, call));
    }

    /// What a thread does next. `ahead` is how much interactive work the same thread did since its last piece of bulk
    /// work: each keeps its own count, as what others do for a lane may be of another sort.
    pub(super) fn next(&mut self, role: &Role, ahead: &mut u32) -> Option<Job> {
        let lanes = if *ahead < HEAD_START { [Lane::Interactive, Lane::Bulk] } else { [Lane::Bulk, Lane::Interactive] };
        for lane in lanes {
            if let Some(job) = self.turns(lane).next(role) {
                match (lane, &job) {
                    (Lane::Bulk, _) => *ahead = 0,
                    // A small piece is little work, and the same thread has a batch to follow.
                    (Lane::Interactive, Job::Tokenise(_, piece))
                        if role.packing.is_some() && piece.weight() < PIECE_BYTES => {}
                    (Lane::Interactive, _) => *ahead = ahead.saturating_add(1),
                }
                return Some(job);
            }
        }
        None
    }

    fn turns(&mut self, lane: Lane) -> &mut Turns {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

impl Turns {
    fn next(&mut self, role: &Role) -> Option<Job> {
        let Some(packing) = &role.packing else { return self.piece() };
        // Small calls are all tokenised before the first batch, so that they can share it; a large one takes turns with
        // the batches of others.
        let pieces_first = role.tokenises && (self.tokenised < FIRST_BYTES || self.ready.is_empty());
        let piece = if pieces_first { self.piece() } else { None };
        let job = piece.or_else(|| self.batch(packing).map(Job::Embed));
        job.or_else(|| if role.tokenises { self.piece() } else { None })
    }

    fn piece(&mut self) -> Option<Job> {
        while let Some(call) = self.raw.pop_front() {
            let mut work = call.work();
            let piece = work.pieces.pop_front();
            let more = !work.pieces.is_empty();
            drop(work);
            if more {
                self.raw.push_back(Arc::clone(&call));
            }
            if let Some(piece) = piece {
                self.tokenised += piece.weight();
                return Some(Job::Tokenise(call, piece));
            }
        }
        None
    }

    fn batch(&mut self, packing: &Packing) -> Option<Vec<Part>> {
        while let Some(call) = self.ready.pop_front() {
            let mut work = call.work();
            // What is being tokenised may go into one batch with what is.
            let too_few = work.is_tokenising() && work.waiting_tokens() < packing.budget();
            let (false, true, Some(own_longest)) = (call.is_over() || too_few, work.has_texts(), work.longest()) else {
                work.ready = false;
                continue;
            };
            let longest = own_longest;
            let mut room = packing.texts(longest);
            let mut texts = Vec::new();
            work.take(longest.saturating_sub(packing.overhead), longest, room, &mut texts);
            room -= texts.len();
            work.ready = work.has_texts();
            let more = work.ready;
            drop(work);
            // Room is filled with what is a little shorter than the longest, or a little longer than the shortest.
            let (taken, own) = (texts.len(), texts.last().map_or(longest, |(_, ids)| ids.len()));
            let longest =
                if room > 0 { self.longest_to(own.saturating_add(packing.overhead)).max(longest) } else { longest };
            let longest = if packing.texts(longest) > taken { longest } else { own_longest };
            room = packing.texts(longest).saturating_sub(taken);
            let shortest = longest.saturating_sub(packing.overhead);
            let mut parts = vec![Part { call: Arc::clone(&call), texts }];
            for other in self.ready.iter().take(if room > 0 { LOOKED_AT } else { 0 }) {
                let mut work = other.work();
                if other.is_over() || !work.has_texts() {
                    continue;
                }
                let mut texts = Vec::new();
                work.take(shortest, longest, room, &mut texts);
                drop(work);
                if !texts.is_empty() {
                    room -= texts.len();
                    parts.push(Part { call: Arc::clone(other), texts });
                }
                if room == 0 {
                    break;
                }
            }
            if more {
                self.ready.push_back(call);
            }
            self.tokenised = 0;
            return Some(parts);
        }
        None
    }

    /// The length of the longest text that is no longer than this and may share a batch.
    fn longest_to(&self, most: usize) -> usize {
        let calls = self.ready.iter().take(LOOKED_AT).filter(|call| !call.is_over());
        calls.filter_map(|call| call.work().longest_to(most)).max().unwrap_or(0)
    }
}
