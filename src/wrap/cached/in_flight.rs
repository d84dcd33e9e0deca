//! Keeps the calls under way, each shared by all callers that miss the same texts: [`InFlightTable`].
//!
//! # The life of a call
//! 1. **Entered.** A caller finds texts that no call under way is for, and enters a call for them in the moment in
//!    which it begins to poll it. It enters no call that it does not poll yet: if another caller joined such a call and
//!    left, the call would stand still half-way, perhaps with a place in a gate further in that it never gives back.
//! 2. **Driven.** Each caller that has joined polls the call. The call continues as long as one of them is there, and
//!    is dropped with the last.
//! 3. **Arrived.** The inner embedder has answered. From now on no row is lost: a caller whose time is up takes the
//!    rows. If the store is slow, a task of the runtime joins as one more caller, which never leaves.
//! 4. **Stored**, taken off the table, and handed out.
//!
//! # Who is told the cost
//! One caller: the first that has its whole answer after the call arrived. Until then the bill stays with the call, so
//! a caller that leaves takes none with it. If all leave, the bill goes to [`Counts::unclaimed`].
//!
//! # Lock order
//! The table's lock comes first. Under it, a caller joins calls, which takes the lock of their waiters (see
//! [`shared_call`](crate::shared_call)), and nothing else is locked. No future is polled or dropped under the table's lock,
//! because a call that ends takes itself off the table, under the same lock. The last handle of a call drops the call,
//! so no handle may be dropped under the lock either.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::counts::Counts;
use crate::{
    Embeddings, Lane, Result, Usage,
    cache::{HashOfKey, Key},
    checked::cost_of,
    lanes::PerLane,
    shared_call::{SharedCall, WeakCall},
};

/// The calls under way, by the texts they are for.
///
/// There is one map per lane: an interactive call for a text must not hide the bulk call for it, which may last longer.
#[derive(Default)]
pub(super) struct InFlightTable(PerLane<HashMap<Key, Slot, HashOfKey>>);

impl InFlightTable {
    /// Iterates over the calls for a text that a caller of this lane may wait for, interactive ones first.
    pub(super) fn slots(&self, key: &Key, lane: Lane) -> impl Iterator<Item = &Slot> {
        let bulk = Lane::Bulk.serves(lane).then(|| self.0.bulk.get(key)).flatten();
        self.0.interactive.get(key).into_iter().chain(bulk)
    }

    /// Enters a call for its texts: row `i` is that of the text with key `i`.
    pub(super) fn enter(&mut self, lane: Lane, keys: &[Key], progress: &Arc<Progress>, id: u64) {
        let table = self.0.of(lane);
        for (row, &key) in keys.iter().enumerate() {
            table.insert(key, Slot { progress: progress.clone(), row, id });
        }
    }

    /// Takes the texts of a call off the table, and leaves those of a later call.
    pub(super) fn remove(&mut self, lane: Lane, keys: &[Key], id: u64) {
        let table = self.0.of(lane);
        for key in keys {
            if table.get(key).is_some_and(|slot| slot.id == id) {
                table.remove(key);
            }
        }
    }
}

/// The call and the row that a text is waiting for.
pub(super) struct Slot {
    progress: Arc<Progress>,
    pub(super) row: usize,
    /// The id of the call. When a call ends, it removes only its own slots, not those of a later call for the same
    /// text.
    pub(super) id: u64,
}

impl Slot {
    /// Joins the call, unless all its callers have left.
    pub(super) fn join(&self) -> Option<InFlightCall> {
        Some(InFlightCall { answer: self.progress.join()?, progress: self.progress.clone() })
    }
}

/// How far a call has come.
#[derive(Default)]
pub(super) struct Progress {
    call: OnceLock<WeakCall<Arc<Answer>>>,
    /// Whether the inner embedder was asked.
    asked: AtomicBool,
    /// The answer, set before it is stored.
    arrived: OnceLock<Arc<Answer>>,
    /// Whether the call was dropped before that, so that its unknown cost is [unclaimed](Counts::unclaimed).
    abandoned: AtomicBool,
}

impl Progress {
    /// Joins the call, unless all its callers have left.
    pub(super) fn join(&self) -> Option<SharedCall<Arc<Answer>>> {
        self.call.get()?.upgrade()
    }

    /// Sets the call whose progress this is.
    pub(super) fn begin(&self, call: WeakCall<Arc<Answer>>) {
        let _ = self.call.set(call);
    }

    /// Marks that the inner embedder is asked.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Sets the answer. From now on, a caller whose time is up takes it.
    pub(super) fn arrive(&self, answer: Arc<Answer>) {
        let _ = self.arrived.set(answer);
    }

    /// Marks that the call was dropped. If the inner embedder was asked and has not answered, the cost is unknown and
    /// unclaimed.
    pub(super) fn abandon(&self, counts: &Counts) {
        if self.asked.load(Ordering::Acquire) && self.arrived().is_none() {
            counts.leave_unclaimed(Usage::of_given_up());
            self.abandoned.store(true, Ordering::Release);
        }
    }

    /// Returns the answer if it is there, stored or not.
    pub(super) fn arrived(&self) -> Option<&Arc<Answer>> {
        self.arrived.get()
    }

    /// Takes the cost of a call that was dropped with this caller, to tell it to the caller; `false` if there is none.
    pub(super) fn claim_abandoned(&self, counts: &Counts) -> bool {
        let claimed = self.abandoned.swap(false, Ordering::AcqRel);
        if claimed {
            counts.unclaimed.with(|unclaimed| unclaimed.take_unattributed(Usage::of_given_up()));
        }
        claimed
    }
}

/// The handle that one caller has of a call.
pub(super) struct InFlightCall {
    pub(super) answer: SharedCall<Arc<Answer>>,
    pub(super) progress: Arc<Progress>,
}

/// The answer of a call, for all its callers.
pub(super) struct Answer {
    pub(super) result: Result<Embeddings>,
    pub(super) id: u64,
    /// Whether a caller was told what the call cost.
    billed: AtomicBool,
    counts: Arc<Counts>,
}

impl Answer {
    pub(super) const fn new(result: Result<Embeddings>, id: u64, counts: Arc<Counts>) -> Self {
        Self { result, id, billed: AtomicBool::new(false), counts }
    }

    /// Takes the bill; `false` if another caller has it.
    pub(super) fn take_bill(&self) -> bool {
        !self.billed.swap(true, Ordering::AcqRel)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.take_bill() {
            self.counts.leave_unclaimed(cost_of(&self.result));
        }
    }
}
