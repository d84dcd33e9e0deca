//! Says what is done next: whose turn it is, and which texts of which calls go into one batch.
//!
//! Calls of a lane take turns, a piece of work at a time, so that a large call holds up no other; the interactive lane
//! goes first, without starving the other. A batch begins with the longest text of the call whose turn it is and is
//! filled with texts of like length, that call's first and then other calls', so that many small calls cost no more
//! than one large one.

use std::{collections::VecDeque, sync::Arc};

use super::{
    call::Call,
    packing::{Part, batch},
    pieces::{PIECE_BYTES, Piece},
    worker::Role,
};
use crate::Lane;

/// Interactive batches after which waiting bulk work gets one.
const HEAD_START: u32 = 8;
/// Text of a lane that is tokenised before its next batch, where there is so much.
const FIRST_BYTES: usize = 4 * PIECE_BYTES;

/// What is done next.
#[derive(Debug)]
pub(super) enum Job {
    Tokenise(Arc<Call>, Piece),
    /// Never empty.
    Embed(Vec<Part>),
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
        let job = piece.or_else(|| {
            let batch = batch(&mut self.ready, packing)?;
            self.tokenised = 0;
            Some(Job::Embed(batch))
        });
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
}
