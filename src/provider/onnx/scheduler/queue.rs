//! Decides what is done next: which lane, which call, and whether to tokenize or to run.
//!
//! Calls of a lane take turns by pieces of work, so that a large call delays no other. The interactive lane goes first,
//! without starving the bulk lane. `packing.rs` then fills a batch from all calls of the lane, so that many small calls
//! cost no more than one large call.

use std::{collections::VecDeque, sync::Arc};

use super::{
    call::EmbedCall,
    packing::{BatchPart, pack_batch},
    pieces::{PIECE_BYTES, TextPiece},
    worker::WorkerRole,
};
use crate::{
    Lane,
    lanes::{HeadStart, PerLane},
};

/// The bytes of a lane's text that are tokenized before its next batch, if there are so many.
const TOKENIZE_FIRST_BYTES: usize = 4 * PIECE_BYTES;

/// The next work of a thread.
#[derive(Debug)]
pub(super) enum WorkItem {
    Tokenize(Arc<EmbedCall>, TextPiece),
    /// A batch, which is never empty.
    Run(Vec<BatchPart>),
}

#[derive(Debug, Default)]
pub(super) struct WorkQueue {
    lanes: PerLane<LaneQueue>,
    /// Giant texts, which have a thread of their own.
    pub(super) giants: VecDeque<(Arc<EmbedCall>, TextPiece)>,
    pub(super) stop: bool,
}

/// The calls of a lane.
#[derive(Debug, Default)]
struct LaneQueue {
    /// The calls with texts to be tokenized.
    raw: VecDeque<Arc<EmbedCall>>,
    /// The calls with texts to be embedded.
    ready: VecDeque<Arc<EmbedCall>>,
    /// The weight of the pieces that were tokenized since the last batch.
    tokenized: usize,
}

impl WorkQueue {
    /// Adds a new call.
    pub(super) fn push_call(&mut self, call: &Arc<EmbedCall>, giants: Vec<TextPiece>) {
        if !call.state().pieces.is_empty() {
            self.lanes.of(call.lane).raw.push_back(Arc::clone(call));
        }
        self.giants.extend(giants.into_iter().map(|giant| (Arc::clone(call), giant)));
    }

    /// Adds a call with texts to be embedded.
    pub(super) fn push_ready(&mut self, call: &Arc<EmbedCall>) {
        self.lanes.of(call.lane).ready.push_back(Arc::clone(call));
    }

    pub(super) fn remove(&mut self, call: &Arc<EmbedCall>) {
        let other = |one: &Arc<EmbedCall>| !Arc::ptr_eq(one, call);
        let turns = self.lanes.of(call.lane);
        turns.raw.retain(other);
        turns.ready.retain(other);
        self.remove_giants(call);
    }

    pub(super) fn remove_giants(&mut self, call: &Arc<EmbedCall>) {
        self.giants.retain(|(one, _)| !Arc::ptr_eq(one, call));
    }

    /// Returns the next work of a thread. `head_start` counts the pieces of interactive work that the thread did since
    /// its last piece of bulk work. Each thread has its own count, because other threads may do another kind of work for
    /// a lane: tokenizing bulk texts does not embed any.
    pub(super) fn next_item(&mut self, role: &WorkerRole, head_start: &mut HeadStart) -> Option<WorkItem> {
        for lane in head_start.order() {
            if let Some(item) = self.lanes.of(lane).next_item(role) {
                match (lane, &item) {
                    // A small piece is little work, and the same thread runs its batch, which is counted.
                    (Lane::Interactive, WorkItem::Tokenize(_, piece))
                        if role.packing.is_some() && piece.weight() < PIECE_BYTES => {}
                    (lane, _) => head_start.took(lane),
                }
                return Some(item);
            }
        }
        None
    }
}

impl LaneQueue {
    fn next_item(&mut self, role: &WorkerRole) -> Option<WorkItem> {
        let Some(packing) = &role.packing else { return self.next_piece() };
        // All small calls are tokenized before the first batch, so that they can share it. A large call takes turns
        // with the batches of others.
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
