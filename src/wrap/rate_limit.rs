//! Keeps within requests and tokens a minute: [`RateLimit`], whose [`RateLimiter`] learns from the provider.

mod bucket;
mod limiter;
mod line;

use std::fmt;

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::limiter::RateLimiter;
use crate::{Batch, Embedder, Embeddings, Limits, Result, Space};

/// Tokens that a text can have beside its own: prompt and special tokens.
const BESIDE_A_TEXT: usize = 64;

/// Keeps within requests and tokens a minute.
///
/// ```
/// use docvector_embed::{EmbedderExt, Limits, provider::Fake, wrap::RateLimiter};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// // One limiter for all that share an account: clones share.
/// let limiter = RateLimiter::new().with_requests_per_minute(60);
/// let fake = Fake::builder().with_limits(Limits::none().with_texts(1)).build()?;
/// let embedder = fake.rate_limit(limiter.clone());
/// let began = tokio::time::Instant::now();
/// let texts: Vec<String> = (0..70).map(|i| format!("text {i}")).collect();
/// embedder.embed_documents(&texts).await?;
/// // Ten seconds' worth at once, and then one a second.
/// assert_eq!(began.elapsed().as_secs(), 60);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// A call waits until the limiter has a request and the call's tokens for it. Both refill evenly; what is not used is
/// saved up to ten seconds' worth. Tokens are known exactly where they had to be counted, else guessed at four bytes
/// each, and the guess is put right when the provider says what it was. A call larger than what can be saved waits for
/// all of it and leaves a debt. What a refused call would have taken is given back. A reply that claims more tokens than
/// its texts have bytes (and 64 for each text's prompt) is not believed.
///
/// A call is to take no more tokens than come in five seconds, so that a query never waits long behind bulk work: where
/// the limit and the most tokens of a text are known, [`limits`](Embedder::limits) says so, and larger batches are split.
///
/// What the provider tells with its replies ([`RateLimitStatus`](crate::RateLimitStatus), from `x-ratelimit-*`) is believed: a limit that was not
/// given is learned, one that is lower than given is kept to, and what is left there is no more than is left here. When a
/// reply says that there were too many, all calls wait as long as it asks, but not longer than two minutes. If the
/// provider asks for a longer wait, only that call fails; the others go on.
///
/// [Interactive](crate::Lane::Interactive) calls go before bulk ones; for a bulk call that has been next in line for ten
/// seconds, they wait too. Within a lane, who comes first goes first.
///
/// # Errors
/// [`DeadlinePassed`](crate::ErrorKind::DeadlinePassed) where the wait would go beyond the batch's deadline: at once where
/// that is sure, at the deadline where it depends on those ahead. [`Overloaded`](crate::ErrorKind::Overloaded) where
/// [so many](RateLimiter::with_max_waiting) wait already.
///
/// # Cancellation
/// A dropped call that waits has taken nothing. One that was sent counts. A call that is not polled holds nobody up.
///
/// # Stacking
/// Inside [`Retry`](crate::wrap::Retry), so that retries count; outside [`Timeout`](crate::wrap::Timeout), so that waiting
/// does not.
///
/// # Cost
/// A lock for the time of an addition.
#[derive(Clone, Debug)]
pub struct RateLimit<E> {
    inner: E,
    limiter: RateLimiter,
}

impl<E> RateLimit<E> {
    /// Wraps `inner`.
    pub const fn new(inner: E, limiter: RateLimiter) -> Self {
        Self { inner, limiter }
    }

    /// The limiter, to be shared with others that use the same account.
    pub const fn limiter(&self) -> &RateLimiter {
        &self.limiter
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

impl<E: fmt::Display> fmt::Display for RateLimit<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RateLimit({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for RateLimit<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check_space(self.spaces()).map_err(|error| error.with_embedder(self))?;
        let limits = self.inner.limits();
        // What will be refused, or is nothing, need not wait.
        if batch.is_empty() || !batch.bad_texts(&limits).is_empty() {
            return self.inner.embed(batch).await;
        }
        let guessed = batch.guessed_tokens(&limits) as f64;
        let most = batch.texts().iter().map(|text| text.len() + BESIDE_A_TEXT).fold(0, usize::saturating_add) as f64;
        let deadline = batch.deadline().map(Instant::from_std);
        self.limiter.acquire(batch.lane(), guessed, deadline).await.map_err(|error| error.with_embedder(self))?;
        let result = self.inner.embed(batch).await;
        self.limiter.settle(guessed, most.max(guessed), &result);
        result
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    /// The inner embedder's, with fewer tokens per call where a minute's limit is known: what comes in five seconds; or one
    /// text's tokens, or a minute's tokens divided by its requests, if that is more.
    fn limits(&self) -> Limits {
        let mut limits = self.inner.limits();
        // What one text may have stays as it is: without that limit there is no telling what a call must hold.
        if let (Some(share), Some(text)) = (self.limiter.share(), limits.tokens_per_text) {
            let text = limits.tokens_of_one_text().unwrap_or(text);
            let share = share.max(text);
            limits.tokens_per_call = Some(limits.tokens_per_call.map_or(share, |call| call.min(share)));
        }
        limits
    }
}
