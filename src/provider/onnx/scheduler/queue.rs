//! Decides what is done next: which lane, which call, and whether to tokenize or to run.
//!
//! Calls of a lane take turns by pieces of work, so that a large call delays no other. The interactive lane goes first,
//! without starving the bulk lane. `packing.rs` then fills a batch from all calls of the lane, so that many small calls
//! cost no more than one large call.

use std::{collections::VecDeque, sync::Arc};

use super::{
    call::{CallState, EmbedCall},
    deadlines::Deadlines,
    packing::{BatchPart, pack_batch},
    pieces::{PIECE_BYTES, PerSize, StretchSize, TextPiece},
    turns::Turns,
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
    /// The calls with stretches that are too long for the threads that embed, which have threads of their own.
    long: PerSize<PerLane<Turns>>,
    pub(super) deadlines: Deadlines,
    pub(super) stop: bool,
}

/// The calls of a lane.
#[derive(Debug, Default)]
struct LaneQueue {
    /// The calls with texts to be tokenized.
    raw: Turns,
    /// The calls with texts to be embedded.
    ready: Turns,
    /// The weight of the pieces that were tokenized since the last batch.
    tokenized: usize,
}

impl WorkQueue {
    /// Adds a new call.
    pub(super) fn push_call(&mut self, call: &Arc<EmbedCall>) {
        if !call.state().pieces.is_empty() {
            self.lanes.of(call.lane).raw.push(call);
        }
        self.deadlines.push(call);
    }

    /// Adds the rest of a long text: to be read by a thread for stretches of a size, or by any thread that tokenizes.
    pub(super) fn give_back(&mut self, call: &Arc<EmbedCall>, piece: TextPiece, size: Option<StretchSize>) {
        let mut state = call.state();
        if let Some(size) = size {
            state.long.of(size).push_back(piece);
            self.long.of(size).of(call.lane).push(call);
        } else {
            // It comes before the call's other pieces, so that few of its texts are half read at a time.
            state.pieces.push_front(piece);
            self.lanes.of(call.lane).raw.push(call);
        }
    }

    /// Adds a call with texts to be embedded.
    pub(super) fn push_ready(&mut self, call: &Arc<EmbedCall>) {
        self.lanes.of(call.lane).ready.push(call);
    }

    pub(super) fn remove(&mut self, call: &Arc<EmbedCall>) {
        let turns = self.lanes.of(call.lane);
        turns.raw.remove(call);
        turns.ready.remove(call);
        self.long.all_mut().for_each(|lanes| lanes.of(call.lane).remove(call));
        self.deadlines.remove(call);
    }

    /// Returns the next text with a stretch of this size. Calls take turns by one stretch.
    pub(super) fn next_long(
        &mut self,
        size: StretchSize,
        head_start: &mut HeadStart,
    ) -> Option<(Arc<EmbedCall>, TextPiece)> {
        head_start.order().into_iter().find_map(|lane| {
            let next = next_of(self.long.of(size).of(lane), |state| state.long.of(size))?;
            head_start.took(lane);
            Some(next)
        })
    }

    /// Returns how many stretches of this size wait.
    #[cfg(test)]
    pub(super) fn waiting(&mut self, size: StretchSize) -> usize {
        let lanes = self.long.of(size).both();
        lanes.into_iter().flat_map(Turns::iter).map(|call| call.state().long.of(size).len()).sum()
    }

    /// Returns how often a call was looked at so far.
    #[cfg(test)]
    pub(super) fn looked_at(&self) -> usize {
        let lanes = self.lanes.both().into_iter().flat_map(|lane| [&lane.raw, &lane.ready]);
        let long = self.long.all().flat_map(PerLane::both);
        lanes.chain(long).map(|turns| turns.looked_at.get()).sum()
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
        let (call, piece) = next_of(&mut self.raw, |state| &mut state.pieces)?;
        self.tokenized += piece.weight();
        Some(WorkItem::Tokenize(call, piece))
    }
}

/// Takes a piece of the call whose turn it is. If the call has more of them, it goes to the end of the line.
fn next_of(
    turns: &mut Turns,
    pieces: impl Fn(&mut CallState) -> &mut VecDeque<TextPiece>,
) -> Option<(Arc<EmbedCall>, TextPiece)> {
    while let Some(call) = turns.pop() {
        let mut state = call.state();
        let pieces = pieces(&mut state);
        let piece = pieces.pop_front();
        if !pieces.is_empty() {
            turns.push(&call);
        }
        drop(state);
        if let Some(piece) = piece {
            return Some((call, piece));
        }
    }
    None
}
