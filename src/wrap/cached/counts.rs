//! Counts what a [`Cached`](super::Cached) does: [`CacheCounts`].

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Charges, Usage, stored_vectors::StoreCounts, sync::Mutex};

#[derive(Default)]
pub(super) struct Counts {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) joined: AtomicU64,
    pub(super) unclaimed: Mutex<Charges>,
}

impl Counts {
    /// Reads all counts and those of the store, each as it is at the moment.
    pub(super) fn snapshot(&self, store: &StoreCounts) -> CacheCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CacheCounts {
            hits: read(&self.hits),
            misses: read(&self.misses),
            joined: read(&self.joined),
            damaged: read(&store.damaged),
            failures: read(&store.failures),
            stored: read(&store.stored),
            unclaimed: self.unclaimed.with(|unclaimed| unclaimed.usage()),
        }
    }

    /// Adds a cost that no caller is left to be told of.
    pub(super) fn leave_unclaimed(&self, charges: impl Into<Charges>) {
        let charges = charges.into();
        if !charges.is_none() {
            self.unclaimed.with(|unclaimed| *unclaimed += charges);
        }
    }
}

/// The work of a [`Cached`](super::Cached) so far.
///
/// ```
/// use docvector_embed::{EmbedderExt, cache::Memory, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let embedder = Fake::new(8).cached(Memory::new(64 << 20))?;
/// embedder.embed_documents(&["one", "two"]).await?;
/// embedder.embed_documents(&["two", "three"]).await?;
/// let counts = embedder.counts();
/// assert_eq!((counts.hits, counts.misses, counts.stored), (1, 3, 3));
/// # Ok(()) }) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Texts whose vector came from the store.
    pub hits: u64,
    /// Texts that went to the inner embedder, each distinct text once per call.
    pub misses: u64,
    /// Texts whose row came from a call that another caller had under way.
    pub joined: u64,
    /// Damaged entries.
    pub damaged: u64,
    /// Failed reads and writes of the store.
    pub failures: u64,
    /// Vectors that the store took, or had already. A store that cannot write, such as a read-only file, takes them and
    /// keeps none.
    pub stored: u64,
    /// The cost of calls whose callers had all left, so that none was told. This and the usage that callers were told
    /// add up to the usage that the inner embedder told.
    pub unclaimed: Usage,
}
