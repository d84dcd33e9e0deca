//! Counts what a [`Coalesce`](super::Coalesce) does: [`CoalesceCounts`].

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Charges, Usage, sync::Mutex};

#[derive(Default)]
pub(super) struct Counts {
    pub(super) calls: AtomicU64,
    pub(super) texts: AtomicU64,
    pub(super) merged_calls: AtomicU64,
    pub(super) straight: AtomicU64,
    pub(super) alone: AtomicU64,
    pub(super) unclaimed: Mutex<Charges>,
}

impl Counts {
    /// Reads all counts, each as it is at the moment.
    pub(super) fn snapshot(&self) -> CoalesceCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CoalesceCounts {
            calls: read(&self.calls),
            texts: read(&self.texts),
            merged_calls: read(&self.merged_calls),
            straight: read(&self.straight),
            alone: read(&self.alone),
            unclaimed: self.unclaimed.with(|unclaimed| unclaimed.usage()),
        }
    }

    /// Adds to a count.
    pub(super) fn add(count: &AtomicU64, more: usize) {
        count.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// Adds a cost that no caller is left to be told of.
    pub(super) fn leave_unclaimed(&self, charges: Charges) {
        if !charges.is_none() {
            self.unclaimed.with(|unclaimed| *unclaimed += charges);
        }
    }
}

/// The work of a [`Coalesce`](super::Coalesce) so far.
///
/// ```
/// use std::time::Duration;
/// use docvector_embed::{EmbedderExt, provider::Fake};
/// use futures_util::future::join_all;
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let embedder = Fake::new(8).coalesce(Duration::from_millis(2));
/// join_all(["one", "two", "three"].map(|text| embedder.embed_query(text))).await;
/// let counts = embedder.counts();
/// assert_eq!((counts.calls, counts.texts, counts.merged_calls), (3, 3, 1));
/// # Ok(()) }) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CoalesceCounts {
    /// Calls that were merged with others, or waited for others and went in a group of their own.
    pub calls: u64,
    /// The texts of these calls.
    pub texts: u64,
    /// The calls that were made for these calls, together.
    pub merged_calls: u64,
    /// Calls that went to the inner embedder as they were, without a wait.
    pub straight: u64,
    /// Calls that were made again for a single caller, because a merged call had failed for reasons that may be
    /// another caller's.
    pub alone: u64,
    /// The cost that no caller was told, because its callers had left. This and the usage that callers were told add up
    /// to the usage that the inner embedder told.
    pub unclaimed: Usage,
}
