//! Decodes the body of a reply where it holds up nobody: [`decode`].

use crate::{Error, ErrorKind, Result, Usage};

/// Bodies of at least this size are decoded off the async executor: they take a millisecond or more.
const LARGE_BODY: usize = 1 << 20;

/// Decodes a body of this size by `read`.
pub(super) async fn decode<T: Send + 'static>(
    bytes: usize,
    read: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes < LARGE_BODY {
        return read();
    }
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
        // `Protocol` is not retried: the request was billed, and another one would be billed again.
        let message = match error.is_panic() {
            true => "decoding the reply panicked, which is a bug in this crate",
            false => "the runtime is shutting down, so the reply was not decoded",
        };
        Err(Error::new(ErrorKind::Protocol, message).with_usage(Usage::of_request(None)))
    })
}
