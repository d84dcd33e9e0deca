//! Starts what the embedder's futures run on.

use crate::failure::Failure;

/// What the embedder's futures run on. The work itself is done on the embedder's own threads.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::with_cause("no asynchronous runtime can be started", error))
}
