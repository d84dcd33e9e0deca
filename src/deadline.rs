//! Awaits something, but not past a deadline: [`until`].

use std::time::Instant;

/// Awaits a future until a time; `None` if the time comes first. A deadline needs tokio's clock; without one, any runtime
/// does.
pub(crate) async fn until<T>(end: Option<Instant>, future: impl Future<Output = T> + Send) -> Option<T> {
    match end {
        None => Some(future.await),
        Some(end) => tokio::time::timeout_at(end.into(), future).await.ok(),
    }
}
