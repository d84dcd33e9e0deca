//! Keeps the groups that callers can still join: [`OpenGroups`].
//!
//! # The life of a group
//! 1. **Open.** A caller that finds no group for its options opens one. Others join it, with copies of their texts. One
//!    that leaves takes its texts out; with the last caller, the group is gone.
//! 2. **Departed.** The group is full, the next call does not fit, or the window of one of its callers ends. It is taken
//!    off the table, and its callers go to the merged call, which waits for them.
//! 3. **Answered.** Each caller gets its part of the answer through a channel of its own.
//!
//! Each caller has a timer for the window, on its own runtime. So it does not matter who leaves, or whose runtime ends.
//!
//! # Lock order
//! The table's lock comes first. Under it, a caller joins the call that all will drive, which takes the lock of that
//! call's waiters, and nothing else is locked. No handle of a call and no end of a channel is dropped under it, and
//! none is sent to: both may run code of an executor.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use super::{bill::Bill, caller::Caller, size::Size};
use crate::{
    OwnedOptions,
    shared_call::{SharedCall, WeakCall},
    sync::oneshot,
};

/// Has one permit: the caller that holds it drives the call of its group.
pub(super) type Helm = Arc<Semaphore>;

/// The groups that callers can still join, by the options that all callers of a group have in common.
#[derive(Default)]
pub(super) struct OpenGroups {
    groups: HashMap<OwnedOptions, OpenGroup>,
    /// The next number of a group or a caller.
    next: u64,
}

/// A group that callers can still join.
struct OpenGroup {
    number: u64,
    /// The end of the window; `None` if it never ends.
    departs_at: Option<Instant>,
    size: Size,
    /// By number, and so in the order in which they came.
    callers: BTreeMap<u64, Caller>,
    call: WeakCall<()>,
    bill: Arc<Bill>,
    helm: Helm,
    begin: oneshot::Sender<Vec<Caller>>,
}

impl OpenGroup {
    /// Opens a group without callers. Returns the first handle of its call, too.
    fn new(number: u64, window: Duration, call: NewCall) -> (Self, SharedCall<()>) {
        let NewCall { call, bill, begin } = call;
        let group = Self {
            number,
            departs_at: Instant::now().checked_add(window),
            size: Size::NONE,
            callers: BTreeMap::new(),
            call: call.downgrade(),
            bill,
            helm: Arc::new(Semaphore::new(1)),
            begin,
        };
        (group, call)
    }

    fn depart(self) -> Departure {
        Departure { callers: self.callers.into_values().collect(), begin: self.begin }
    }
}

/// The call that waits for the callers of a new group, with its first handle.
pub(super) struct NewCall {
    pub(super) call: SharedCall<()>,
    pub(super) bill: Arc<Bill>,
    pub(super) begin: oneshot::Sender<Vec<Caller>>,
}

/// The place of a caller that has joined a group.
pub(super) struct Place {
    pub(super) group: u64,
    pub(super) caller: u64,
    pub(super) departs_at: Option<Instant>,
    pub(super) call: SharedCall<()>,
    pub(super) bill: Arc<Bill>,
    pub(super) helm: Helm,
}

/// A group that departs. Nothing happens before [`go`](Self::go).
#[must_use]
pub(super) struct Departure {
    callers: Vec<Caller>,
    begin: oneshot::Sender<Vec<Caller>>,
}

impl Departure {
    /// Hands the callers to their call. Not to be called under the table's lock.
    pub(super) fn go(self) {
        // If all callers have left meanwhile, the call is gone, and nobody waits for it.
        drop(self.begin.send(self.callers));
    }
}

impl OpenGroups {
    /// Puts a caller into the group for its options, or into a new one. Returns its place, and the group that departs:
    /// the caller's own if it is full now, or the one that the caller did not fit into.
    pub(super) fn enter(
        &mut self,
        options: &OwnedOptions,
        caller: Caller,
        most: Size,
        window: Duration,
        open: impl FnOnce() -> NewCall,
    ) -> (Place, Option<Departure>) {
        let [number, new_number] = [self.number(), self.number()];
        let new = || OpenGroup::new(new_number, window, open());
        let (group, call, displaced) = match self.groups.entry(options.clone()) {
            Entry::Vacant(vacant) => {
                let (group, call) = new();
                (vacant.insert(group), call, None)
            }
            Entry::Occupied(occupied) => {
                let group = occupied.into_mut();
                let fits = group.size.plus(caller.size).fits(most);
                // The call is there as long as a caller is in its group.
                match fits.then(|| group.call.upgrade()).flatten() {
                    Some(call) => (group, call, None),
                    None => {
                        let (new, call) = new();
                        let displaced = mem::replace(group, new).depart();
                        (group, call, Some(displaced))
                    }
                }
            }
        };
        group.size = group.size.plus(caller.size);
        group.callers.insert(number, caller);
        let (departs_at, bill, helm) = (group.departs_at, group.bill.clone(), group.helm.clone());
        let place = Place { group: group.number, caller: number, departs_at, call, bill, helm };
        let is_full = group.size.fills(most);
        // A new group is not full: a call of the size of a whole group joins none. So one group at most departs.
        let departs = displaced.or_else(|| is_full.then(|| self.take(options)).flatten());
        (place, departs)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes the group for these options, if it is still open, for its departure.
    fn take(&mut self, options: &OwnedOptions) -> Option<Departure> {
        self.groups.remove(options).map(OpenGroup::depart)
    }

    /// Takes the group of this number, if it is still open, for its departure.
    pub(super) fn depart(&mut self, options: &OwnedOptions, number: u64) -> Option<Departure> {
        let is_open = self.groups.get(options).is_some_and(|group| group.number == number);
        is_open.then(|| self.take(options)).flatten()
    }

    /// Takes a caller out of a group that is still open. What is returned is to be dropped after the lock.
    pub(super) fn leave(&mut self, options: &OwnedOptions, group: u64, caller: u64) -> Option<impl Sized + use<>> {
        let open = self.groups.get_mut(options).filter(|open| open.number == group)?;
        let caller = open.callers.remove(&caller)?;
        open.size = open.size.minus(caller.size);
        let empty = open.callers.is_empty().then(|| self.groups.remove(options));
        Some((caller, empty))
    }

    /// Returns how many groups are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }
}
