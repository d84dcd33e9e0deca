//! Counts what a [`Cached`](super::Cached) does: [`CacheCounts`].

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Charges, Usage, sync::Mutex};

#[derive(Default)]
pub(super) struct Counts {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) joined: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) stored: AtomicU64,
    pub(super) unclaimed: Mutex<Charges>,
}

impl Counts {
    /// Reads all counts, each as it is at the moment.
    pub(super) fn snapshot(&self) -> CacheCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CacheCounts {
            hits: read(&self.hits),
            misses: read(&self.misses),
            joined: read(&self.joined),
            damaged: read(&self.damaged),
            failures: read(&self.failures),
            stored: read(&self.stored),
            unclaimed: self.unclaimed.with(|unclaimed| unclaimed.usage()),
        }
    }

    /// Takes note of a cost that no caller is left to be told of.
    pub(super) fn leave_unclaimed(&self, charges: impl Into<Charges>) {
        let charges = charges.into();
        if !charges.is_none() {
            self.unclaimed.with(|unclaimed| *unclaimed += charges);
        }
    }
}

/// What a [`Cached`](super::Cached) has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Texts that the store had.
    pub hits: u64,
    /// Distinct texts a call that went to the inner embedder.
    pub misses: u64,
    /// Texts that another call was already asking for.
    pub joined: u64,
    /// Entries that were damaged.
    pub damaged: u64,
    /// Reads and writes of the store that failed.
    pub failures: u64,
    /// Vectors that were stored, or were there already when they came.
    pub stored: u64,
    /// What calls have cost that no caller was told of, because all that waited for them had left. With what callers
    /// were told it adds up to what the inner embedder told.
    pub unclaimed: Usage,
}
