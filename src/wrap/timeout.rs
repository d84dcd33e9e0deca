//! Gives up calls that take too long: [`Timeout`].

use std::{fmt, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{Batch, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space, Usage};

/// Gives up calls that take too long.
///
/// ```
/// use std::time::Duration;
/// use docvector_embed::{EmbedderExt, ErrorKind, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let slow = Fake::builder().with_dimensions(8).with_latency(Duration::from_secs(60)).build()?;
/// let error = slow.timeout(Duration::from_secs(5)).embed_query("hello").await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Timeout);
/// assert!(error.is_retryable());
/// // The provider may have done the work, and bill it, all the same.
/// assert_eq!(error.usage().unanswered, 1);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Rows, space, usage and limits are the inner embedder's, and so is the batch: its deadline stays what it was. Each
/// call has the whole limit to itself, counted from when the inner call begins:
/// [`embed_all`](crate::EmbedderExt::embed_all) of many calls may take many times as long. Time is tokio's, so a
/// runtime with its clock is needed, and a test can pause it.
///
/// # Errors
/// - [`Timeout`](ErrorKind::Timeout): no answer within the limit, which the message names.
/// - [`DeadlinePassed`](ErrorKind::DeadlinePassed) in its place where by then the batch's own
///   [deadline](Batch::deadline) has passed as well: to try again would be no use.
///
/// Both count one [`unanswered`](crate::Usage::unanswered) call. All other errors are the inner embedder's, and one
/// that heeds the deadline says so itself when that comes first.
///
/// # Cancellation
/// Holds nothing between calls; dropping the future drops the inner one, and so does running out of time.
///
/// # Stacking
/// Inside [`Retry`](super::Retry), so that each attempt has the limit; inside [`RateLimit`](super::RateLimit) and
/// [`Concurrency`](super::Concurrency), so that waiting for one's turn does not count. Around one call to one provider:
/// around a wrapper that makes several calls of one, what those had finished is dropped with the rest. Providers that
/// speak HTTP have a limit of their own; this one is for a tighter one, and for those that have none.
///
/// # Cost
/// One timer a call.
#[derive(Clone, Debug)]
pub struct Timeout<E> {
    inner: E,
    limit: Duration,
}

impl<E> Timeout<E> {
    /// Wraps `inner`, and gives each of its calls `limit`.
    pub const fn new(inner: E, limit: Duration) -> Self {
        Self { inner, limit }
    }

    /// How long a call may take.
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// The wrapped embedder.
    pub const fn get_ref(&self) -> &E {
        &self.inner
    }

    /// Takes the wrapped embedder out.
    pub fn into_inner(self) -> E {
        self.inner
    }
}

impl<E: fmt::Display> Timeout<E> {
    /// Why there is no answer, when the time is up.
    fn given_up(&self, batch: &Batch<'_>) -> Error {
        let too_late = batch.deadline().is_some_and(|deadline| Instant::now() >= Instant::from_std(deadline));
        let error = if too_late {
            Error::new(ErrorKind::DeadlinePassed, "while the call was under way")
        } else {
            Error::new(ErrorKind::Timeout, format!("no answer within {:?}", self.limit))
        };
        // How many requests the call came to is not known here, only that its answer was not waited for.
        error.with_embedder(self).with_usage(Usage::of_given_up())
    }
}

impl<E: fmt::Display> fmt::Display for Timeout<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timeout({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Timeout<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let answer = tokio::time::timeout(self.limit, self.inner.embed(batch)).await;
        answer.unwrap_or_else(|_| Err(self.given_up(&batch)))
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}
