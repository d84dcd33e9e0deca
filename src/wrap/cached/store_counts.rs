//! Counts what happens to the vectors in a store: [`StoreCounts`].

use std::sync::atomic::AtomicU64;

#[derive(Default)]
pub(super) struct StoreCounts {
    /// Damaged entries.
    pub(super) damaged: AtomicU64,
    /// Failed reads and writes.
    pub(super) failures: AtomicU64,
    /// Vectors that the store took.
    pub(super) stored: AtomicU64,
}
