//! Bounds the memory of all requests together: [`Memory`], and [`MemoryShare`], what one request holds of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

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
    /// Takes so many bytes more, or none of them if there is no room.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let limit = self.of.limit;
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

    #[cfg(test)]
    const fn bytes(&self) -> usize {
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
        let memory = Arc::new(Memory::new(100));
        let (mut one, mut two) = (memory.clone().share(), memory.clone().share());
        assert!(one.grow(60) && !two.grow(41) && two.grow(40) && !one.grow(1));
        one.shrink(10);
        assert!(two.grow(10) && !two.grow(usize::MAX));
        assert_eq!((memory.used(), one.bytes(), two.bytes()), (100, 50, 50));
        drop(one);
        assert_eq!(memory.used(), 50);
        two.shrink(1000);
        drop(two);
        assert_eq!(memory.used(), 0);
    }
}
