//! The state that the clones and calls of one [`Coalesce`](super::Coalesce) share: [`Inner`].

use std::{sync::Arc, time::Duration};

use super::{counts::Counts, group::OpenGroups};
use crate::sync::Mutex;

/// The state that clones and calls share.
pub(super) struct Inner<E> {
    pub(super) embedder: E,
    pub(super) window: Duration,
    pub(super) open: Mutex<OpenGroups>,
    pub(super) counts: Arc<Counts>,
}
