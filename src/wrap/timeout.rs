//! Ends calls that take too long: [`Timeout`].

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{
    Batch, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space, Usage, explanation::Explanation,
    observer::EventKind,
};

/// Ends calls that take too long.
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
/// // The provider may have done the work all the same, and may bill it.
/// assert_eq!(error.usage().unanswered, 1);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Rows, space, usage and limits are the inner embedder's. The batch is passed on unchanged, with its deadline. Each
/// call has the whole limit to itself, counted from the moment when the inner call begins. So an
/// [`embed_all`](crate::EmbedderExt::embed_all) of many calls may take many times as long. Time is tokio's: a runtime
/// with its clock is needed, and a test can pause it.
///
/// # Errors
/// - [`Timeout`](ErrorKind::Timeout): no answer came within the limit. The message names the limit.
/// - [`DeadlinePassed`](ErrorKind::DeadlinePassed): the same, and by then the batch's own [deadline](Batch::deadline)
///   has passed as well, so a retry would be of no use.
///
/// Both count one [`unanswered`](crate::Usage::unanswered) call. All other errors are the inner embedder's. If the
/// deadline comes before the limit, an inner embedder that observes deadlines returns its own error.
///
/// # Cancellation
/// Holds nothing between calls. Dropping the future drops the inner one, and so does the end of the time.
///
/// # Stacking
/// Inside [`Retry`](super::Retry), so that each attempt has the whole limit. Inside [`RateLimit`](super::RateLimit) and
/// [`Concurrency`](super::Concurrency), so that the wait for a turn does not count. It belongs around one call to one
/// provider: around a wrapper that makes several calls of one, the finished calls would be dropped with the others.
/// Providers that speak HTTP have a time limit of their own. This wrapper is for a tighter limit, and for providers
/// that have none.
///
/// # Cost
/// One timer per call.
#[derive(Clone, Debug)]
pub struct Timeout<E> {
    inner: E,
    limit: Duration,
}

impl<E> Timeout<E> {
    /// Wraps `inner`, and gives each of its calls this much time.
    pub const fn new(inner: E, limit: Duration) -> Self {
        Self { inner, limit }
    }

    /// Returns how long a call may take.
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// Returns the wrapped embedder.
    pub const fn get_ref(&self) -> &E {
        &self.inner
    }

    /// Takes the wrapped embedder out.
    pub fn into_inner(self) -> E {
        self.inner
    }
}

impl<E: fmt::Display> Timeout<E> {
    /// Returns the error of a call whose time is up.
    fn given_up(&self, batch: &Batch<'_>) -> Error {
        let error = if batch.is_late() {
            Error::new(ErrorKind::DeadlinePassed, "while the call was under way")
        } else {
            Error::new(ErrorKind::Timeout, format!("no answer within {:?}", self.limit))
        };
        // The number of requests that the call made is not known here, only that it got no answer.
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
        answer.unwrap_or_else(|_| {
            batch.tell(self, EventKind::TimedOut { limit: self.limit });
            Err(self.given_up(&batch))
        })
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        Explanation::new("Timeout")
            .with_fact(format!("ends a call after {:?}", self.limit))
            .with_inner(self.inner.explain(batch))
    }
}
