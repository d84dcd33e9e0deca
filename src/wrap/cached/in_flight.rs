//! Makes one call of the inner embedder for all callers that miss the same texts: [`InFlightCall`], in the [`InFlightTable`].
//!
//! # The life of a call
//! 1. **Entered.** A caller finds texts in nobody's hands and enters a call for them, in the moment in which it begins to
//!    poll it. A caller never enters what it does not poll yet: another one that joined and left would leave the call
//!    half-way, with a place in a gate below that nobody gives back.
//! 2. **Driven.** Every caller that has joined polls it. It goes on as long as one of them is there, and is dropped with
//!    the last.
//! 3. **Arrived.** The inner embedder has answered. From here on the rows are safe: who runs out of time has them, and
//!    where the store takes its time, a task of the runtime joins as one more caller, which never leaves.
//! 4. **Stored**, taken off the table, and handed out.
//!
//! # Who is told what it cost
//! The first caller that has its whole answer after the call arrived, and no other. Until then the bill lies with the
//! call, so that a caller which leaves takes none with it. Where all leave, it goes to [`Counts::unclaimed`].

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    counts::Counts,
    shared::{SharedCall, WeakCall},
};
use crate::{
    Embeddings, Lane, Result, Usage,
    cache::{HashOfKey, Key},
    checked::cost_of,
};

/// The calls under way, by the texts they are for: one table per lane, so that a bulk call for a text is found again when
/// an interactive one has come and gone.
#[derive(Default)]
pub(super) struct InFlightTable {
    interactive: HashMap<Key, Slot, HashOfKey>,
    bulk: HashMap<Key, Slot, HashOfKey>,
}

impl InFlightTable {
    /// The calls for a text that are as quick as one of this lane, the quickest first.
    pub(super) fn slots(&self, key: &Key, lane: Lane) -> impl Iterator<Item = &Slot> {
        let bulk = Lane::Bulk.serves(lane).then(|| self.bulk.get(key)).flatten();
        self.interactive.get(key).into_iter().chain(bulk)
    }

    /// Enters a call for its texts: row `i` is that of the text with key `i`.
    pub(super) fn enter(&mut self, lane: Lane, keys: &[Key], progress: &Arc<Progress>, id: u64) {
        let table = self.of(lane);
        for (row, &key) in keys.iter().enumerate() {
            table.insert(key, Slot { progress: progress.clone(), row, id });
        }
    }

    /// Takes the texts of a call off the table, and leaves those of a later call.
    pub(super) fn remove(&mut self, lane: Lane, keys: &[Key], id: u64) {
        let table = self.of(lane);
        for key in keys {
            if table.get(key).is_some_and(|slot| slot.id == id) {
                table.remove(key);
            }
        }
    }

    const fn of(&mut self, lane: Lane) -> &mut HashMap<Key, Slot, HashOfKey> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

/// Where a text's row will be.
pub(super) struct Slot {
    progress: Arc<Progress>,
    pub(super) row: usize,
    /// Whose slot it is: a later call for the same text is not to be forgotten by an earlier one.
    pub(super) id: u64,
}

impl Slot {
    /// The call, unless all who waited for it have gone.
    pub(super) fn join(&self) -> Option<InFlightCall> {
        Some(InFlightCall { answer: self.progress.join()?, progress: self.progress.clone() })
    }
}

/// How far a call is.
#[derive(Default)]
pub(super) struct Progress {
    call: OnceLock<WeakCall<Arc<Answer>>>,
    /// The inner embedder was asked.
    asked: AtomicBool,
    /// What it came to, before that was stored.
    arrived: OnceLock<Arc<Answer>>,
    /// It was dropped before that, and its cost is unknown and [unclaimed](Counts::unclaimed).
    abandoned: AtomicBool,
}

impl Progress {
    pub(super) fn join(&self) -> Option<SharedCall<Arc<Answer>>> {
        self.call.get()?.upgrade()
    }

    /// Says which call this is the progress of.
    pub(super) fn begin(&self, call: WeakCall<Arc<Answer>>) {
        let _ = self.call.set(call);
    }

    /// The inner embedder is asked from now on.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// The answer is there. From now on, who runs out of time has it all the same.
    pub(super) fn arrive(&self, answer: Arc<Answer>) {
        let _ = self.arrived.set(answer);
    }

    /// The call was dropped. If the inner embedder was asked and has not answered, its cost is unknown and unclaimed.
    pub(super) fn abandon(&self, counts: &Counts) {
        if self.asked.load(Ordering::Acquire) && self.arrived().is_none() {
            counts.leave_unclaimed(Usage::of_given_up());
            self.abandoned.store(true, Ordering::Release);
        }
    }

    /// What the call came to, stored or not.
    pub(super) fn arrived(&self) -> Option<&Arc<Answer>> {
        self.arrived.get()
    }

    /// Takes the account of a call that was dropped with this caller, to tell it; `false` where there is none.
    pub(super) fn claim_abandoned(&self, counts: &Counts) -> bool {
        let claimed = self.abandoned.swap(false, Ordering::AcqRel);
        if claimed {
            counts.unclaimed.with(|unclaimed| unclaimed.take_unattributed(Usage::of_given_up()));
        }
        claimed
    }
}

/// One caller's part in a call that any number of callers wait for.
pub(super) struct InFlightCall {
    pub(super) answer: SharedCall<Arc<Answer>>,
    pub(super) progress: Arc<Progress>,
}

/// What a call came to.
pub(super) struct Answer {
    pub(super) result: Result<Embeddings>,
    pub(super) id: u64,
    /// Whether somebody was told what it cost.
    billed: AtomicBool,
    counts: Arc<Counts>,
}

impl Answer {
    pub(super) const fn new(result: Result<Embeddings>, id: u64, counts: Arc<Counts>) -> Self {
        Self { result, id, billed: AtomicBool::new(false), counts }
    }

    /// Takes the bill; `false` where another caller has it.
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
