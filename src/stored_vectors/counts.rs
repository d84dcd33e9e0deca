//! Counts what happens to the vectors in a store: [`StoreCounts`].

use std::sync::atomic::AtomicU64;

#[derive(Default)]
pub(crate) struct StoreCounts {
    /// Damaged entries.
    pub(crate) damaged: AtomicU64,
    /// Failed reads and writes.
    pub(crate) failures: AtomicU64,
    /// Vectors that the store took.
    pub(crate) stored: AtomicU64,
}
