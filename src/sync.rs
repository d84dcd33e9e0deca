//! Gives the lock that shared state stands under: one that a panic elsewhere does not close.
//!
//! `tests/loom` has a module of this name with the same items, which lets loom decide who goes when. What it tests takes
//! its locks, channels, and the counts by which it ends, from here.

use std::sync::PoisonError;
pub(crate) use std::sync::{Arc, Weak};

pub(crate) use tokio::sync::oneshot;

/// A mutex whose lock is held for the time of one closure. The state under it is whole between closures, so that a
/// panic of some other thread says nothing about it.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Runs `change` under the lock.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
