//! Bounds the memory of all requests together: [`Memory`], and [`MemoryShare`], what one request holds of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A share of up to so many bytes is small.
const SMALL: usize = 64 << 10;
/// Of so many parts of the limit, one more is there for small shares: large requests cannot keep all others out.
const RESERVE: usize = 16;

/// The bytes that all requests may hold: their bodies, their texts and their rows.
#[derive(Debug)]
pub(super) struct Memory {
    used: AtomicUsize,
    limit: usize,
}

/// The bytes that one request holds. Dropping it gives them back.
#[derive(Debug)]
pub(super) struct MemoryShare {
    of: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(super) const fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Begins a share, of no bytes yet.
    pub(super) const fn share(self: Arc<Self>) -> MemoryShare {
        MemoryShare { of: self, bytes: 0 }
    }
}

impl MemoryShare {
    /// Returns the memory that it is a share of.
    pub(super) fn of(&self) -> Arc<Memory> {
        self.of.clone()
    }

    /// Takes so many bytes more, or none of them if there is no room. Small shares have a reserve.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let whole = self.of.limit;
        let is_small = self.bytes.saturating_add(bytes) <= SMALL;
        let limit = if is_small { whole.saturating_add(whole / RESERVE) } else { whole };
        let taken = self.of.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= limit)
        });
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }

    /// Gives back so many of its bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.of.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns the bytes that it holds.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_and_never_too_much() {
        const MB: usize = 1 << 20;
        let memory = Arc::new(Memory::new(100 * MB));
        let (mut one, mut two) = (memory.clone().share(), memory.clone().share());
        assert!(one.grow(60 * MB) && !two.grow(41 * MB) && two.grow(40 * MB) && !one.grow(1));
        // A small one has room all the same.
        let mut small = memory.clone().share();
        assert!(small.grow(SMALL) && !small.grow(1));
        drop(small);
        one.shrink(10 * MB);
        assert!(two.grow(10 * MB) && !two.grow(usize::MAX));
        assert_eq!((memory.used(), one.bytes(), two.bytes()), (100 * MB, 50 * MB, 50 * MB));
        drop(one);
        assert_eq!(memory.used(), 50 * MB);
        two.shrink(1000 * MB);
        drop(two);
        assert_eq!(memory.used(), 0);
    }
}
