//! What the clones and calls of one [`Cached`](super::Cached) share: [`Inner`].

use std::sync::{Arc, atomic::AtomicU64};

use super::{counts::Counts, in_flight::InFlightTable, vector_store::VectorStore};
use crate::{Space, sync::Mutex};

/// What clones and calls share.
pub(super) struct Inner<E> {
    pub(super) embedder: E,
    pub(super) vectors: VectorStore,
    pub(super) spaces: [Space; 1],
    pub(super) in_flight: Mutex<InFlightTable>,
    /// How many calls there were.
    pub(super) calls: AtomicU64,
    /// How many of them have stored what they came to.
    pub(super) stored: AtomicU64,
    pub(super) counts: Arc<Counts>,
}
