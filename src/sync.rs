//! Provides the lock for shared state: a mutex that a panic elsewhere does not close.
//!
//! `tests/loom` has a module of this name with the same items, which lets loom decide the order of the threads. So the
//! code that loom tests must take its locks, its channels and the reference counts on which its end depends from this
//! module.

use std::sync::PoisonError;
pub(crate) use std::sync::{Arc, Weak};

pub(crate) use tokio::sync::oneshot;

/// A mutex whose lock is held for the time of one closure. Between closures the state under it is always whole, so the
/// panic of another thread is no reason to refuse the lock.
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
