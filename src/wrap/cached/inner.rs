//! The state that the clones and calls of one [`Cached`](super::Cached) share: [`Inner`].

use std::sync::{Arc, atomic::AtomicU64};

use super::{counts::Counts, in_flight::InFlightTable};
use crate::{Space, stored_vectors::VectorStore, sync::Mutex};

/// The state that clones and calls share.
pub(super) struct Inner<E> {
    pub(super) embedder: E,
    pub(super) vectors: VectorStore,
    pub(super) spaces: [Space; 1],
    pub(super) stores_queries: bool,
    pub(super) in_flight: Mutex<InFlightTable>,
    /// The number of shared calls so far, which gives each its id.
    pub(super) calls: AtomicU64,
    /// The number of shared calls that have ended, their rows stored if they are to be. If it changed since a caller looked into the store, rows
    /// that the caller missed may be there now.
    pub(super) stored: AtomicU64,
    pub(super) counts: Arc<Counts>,
}
