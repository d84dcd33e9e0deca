//! Shares the state of a store whose puts are written in the background: [`Shared`].

use std::{sync::atomic::AtomicU64, time::Duration};

use tokio::sync::{Semaphore, watch};

use super::pending::Pending;
use crate::sync::Mutex;

/// A store, and what waits for it.
pub(super) struct Shared<S> {
    pub(super) store: S,
    /// How long a batch is tried.
    pub(super) patience: Duration,
    pub(super) pending: Mutex<Pending>,
    /// Room in pieces.
    pub(super) room: Semaphore,
    pub(super) pieces: u32,
    /// How many of the accepted things are written or lost.
    pub(super) finished: watch::Sender<u64>,
    pub(super) written: AtomicU64,
    pub(super) lost: AtomicU64,
    /// How many of the lost ones a `flush` has told.
    pub(super) told: AtomicU64,
}
