//! Says what is done next: whose turn it is, and which texts of which calls go into one batch.
//!
//! Calls of a lane take turns, a piece of work at a time, so that a large call holds up no other; the interactive lane
//! goes first, without starving the other. A batch begins with the longest text of the call whose turn it is and is
//! filled with texts of like length, that call's first and then other calls', so that many small calls cost no more
//! than one large one.

use std::{collections::VecDeque, sync::Arc};

use super::{
    call::EmbedCall,
    packing::{BatchPart, pack_batch},
    pieces::{PIECE_BYTES, TextPiece},
    worker::WorkerRole,
};
use crate::Lane;

/// Interactive batches after which waiting bulk work gets one.
const MAX_INTERACTIVE_RUN: u32 = 8;
/// Text of a lane that is tokenized before its next batch, where there is so much.
const TOKENIZE_FIRST_BYTES: usize = 4 * PIECE_BYTES;

/// What is done next.
#[derive(Debug)]
pub(super) enum WorkItem {
    Tokenize(Arc<EmbedCall>, TextPiece),
    /// Never empty.
    Run(Vec<BatchPart>),
}

#[derive(Debug, Default)]
pub(super) struct WorkQueue {
    interactive: LaneQueue,
    bulk: LaneQueue,
    /// Giant texts, which have a thread of their own.
    pub(super) giants: VecDeque<(Arc<EmbedCall>, TextPiece)>,
    pub(super) stop: bool,
}

/// The calls of a lane.
#[derive(Debug, Default)]
struct LaneQueue {
    /// Those with texts to be tokenized.
    raw: VecDeque<Arc<EmbedCall>>,
    /// Those with texts to be embedded.
    ready: VecDeque<Arc<EmbedCall>>,
    /// What was tokenized since the last batch weighs so much.
    tokenized: usize,
}

impl WorkQueue {
    /// Adds a new call.
    pub(super) fn push_call(&mut self, call: &Arc<EmbedCall>, giants: Vec<TextPiece>) {
        if !call.state().pieces.is_empty() {
            self.turns(call.lane).raw.push_back(Arc::clone(call));
        }
        self.giants.extend(giants.into_iter().map(|giant| (Arc::clone(call), giant)));
    }

    /// Adds a call again that has texts to be embedded.
    pub(super) fn push_ready(&mut self, call: &Arc<EmbedCall>) {
        self.turns(call.lane).ready.push_back(Arc::clone(call));
    }

    pub(super) fn remove(&mut self, call: &Arc<EmbedCall>) {
        let other = |one: &Arc<EmbedCall>| !Arc::ptr_eq(one, call);
        let turns = self.turns(call.lane);
        turns.raw.retain(other);
        turns.ready.retain(other);
        self.remove_giants(call);
    }

    pub(super) fn remove_giants(&mut self, call: &Arc<EmbedCall>) {
        self.giants.retain(|(one, _)| !Arc::ptr_eq(one, call));
    }

    /// What a thread does next. `ahead` is how much interactive work the same thread did since its last piece of bulk
    /// work: each keeps its own count, as what others do for a lane may be of another sort.
    pub(super) fn next_item(&mut self, role: &WorkerRole, ahead: &mut u32) -> Option<WorkItem> {
        let lanes = if *ahead < MAX_INTERACTIVE_RUN {
            [Lane::Interactive, Lane::Bulk]
        } else {
            [Lane::Bulk, Lane::Interactive]
        };
        for lane in lanes {
            if let Some(item) = self.turns(lane).next_item(role) {
                match (lane, &item) {
                    (Lane::Bulk, _) => *ahead = 0,
                    // A small piece is little work, and the same thread has a batch to follow.
                    (Lane::Interactive, WorkItem::Tokenize(_, piece))
                        if role.packing.is_some() && piece.weight() < PIECE_BYTES => {}
                    (Lane::Interactive, _) => *ahead = ahead.saturating_add(1),
                }
                return Some(item);
            }
        }
        None
    }

    fn turns(&mut self, lane: Lane) -> &mut LaneQueue {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

impl LaneQueue {
    fn next_item(&mut self, role: &WorkerRole) -> Option<WorkItem> {
        let Some(packing) = &role.packing else { return self.next_piece() };
        // Small calls are all tokenized before the first batch, so that they can share it; a large one takes turns with
        // the batches of others.
        let pieces_first = role.tokenizes && (self.tokenized < TOKENIZE_FIRST_BYTES || self.ready.is_empty());
        let piece = if pieces_first { self.next_piece() } else { None };
        let item = piece.or_else(|| {
            let batch = pack_batch(&mut self.ready, packing)?;
            self.tokenized = 0;
            Some(WorkItem::Run(batch))
        });
        item.or_else(|| if role.tokenizes { self.next_piece() } else { None })
    }

    fn next_piece(&mut self) -> Option<WorkItem> {
        while let Some(call) = self.raw.pop_front() {
            let mut state = call.state();
            let piece = state.pieces.pop_front();
            let more = !state.pieces.is_empty();
            drop(state);
            if more {
                self.raw.push_back(Arc::clone(&call));
            }
            if let Some(piece) = piece {
                self.tokenized += piece.weight();
                return Some(WorkItem::Tokenize(call, piece));
            }
        }
        None
    }
}
