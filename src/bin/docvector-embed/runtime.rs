//! Starts the asynchronous runtime of a command.

use crate::failure::Failure;

/// Starts the runtime for the embedder's futures. The embedder's own threads do the work itself.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::with_cause("no asynchronous runtime can be started", error))
}
