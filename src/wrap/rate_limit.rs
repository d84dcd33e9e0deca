//! Keeps to requests and tokens per minute: [`RateLimit`], whose [`RateLimiter`] learns from the provider.

mod bucket;
mod guess;
mod limiter;
mod line;
mod window;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::limiter::RateLimiter;
use crate::{
    Batch, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space,
    explanation::{Explanation, plural},
    observer::{EventKind, Queue},
};

/// Tokens that a request can have for each text beside the text's own: prompt and special tokens.
const BESIDE_A_TEXT: usize = 64;

/// Keeps to a number of requests and tokens per minute.
///
/// ```
/// use docvector_embed::{EmbedderExt, Limits, provider::Fake, wrap::RateLimiter};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// // One limiter for everything that shares an account: its clones share the limits.
/// let limiter = RateLimiter::new().with_requests_per_minute(60);
/// let fake = Fake::builder().with_limits(Limits::none().with_texts(1)).build()?;
/// let embedder = fake.rate_limit(limiter.clone());
/// let began = tokio::time::Instant::now();
/// let texts: Vec<String> = (0..70).map(|i| format!("text {i}")).collect();
/// embedder.embed_documents(&texts).await?;
/// // Ten seconds' worth goes at once, and then one call per second.
/// assert_eq!(began.elapsed().as_secs(), 60);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// A call waits until the limiter has one request and the call's tokens for it. Both refill at an even rate. If they
/// are not used, they are saved, up to ten seconds' worth. A call that needs more tokens than can be saved waits until
/// the savings are full, and leaves a debt.
///
/// The number of tokens is exact if they had to be counted. Otherwise it is estimated at four bytes per token, and
/// corrected when the provider reports the real number. A refused call gives back the tokens that it would have used.
/// If a reply claims more tokens than its texts have bytes (plus 64 for each text's prompt), the limiter does not
/// believe it.
///
/// One call should take no more tokens than arrive in five seconds, so that a query never waits long behind bulk work.
/// If the tokens per minute and the most tokens of a text are known, [`limits`](Embedder::limits) says so, and larger
/// batches are split.
///
/// The limiter learns from the provider's replies ([`RateLimitStatus`](crate::RateLimitStatus), from the headers
/// `x-ratelimit-*`). A limit that was not set is learned. If the provider's limit is lower than the one that was set,
/// the lower one holds. If the provider says that less is left than the limiter has, the limiter lowers its own rest.
/// On a 429 all calls pause for the requested time, at most 2 minutes; longer waits are left to
/// [`Retry`](crate::wrap::Retry). This includes calls that have had their turn and wait for a place in a
/// [`Concurrency`](crate::wrap::Concurrency). A pause of ten seconds or more is logged at the level `info`.
///
/// While neither the user nor the provider has named a limit on requests, few calls go at once: four, then one more
/// with each success, and never more than the inner embedder's [`in_flight`](Limits::in_flight), or 16 if it names
/// none. A refusal sets this back to one. All calls of one limiter count together; if embedders of several numbers share
/// it, the largest counts. If no call ends for ten seconds, one more goes all the same; if that one ends first, the
/// others no longer count. If no limit is named, the limiter guesses it from the requests that were accepted, once half
/// of the last answers are refusals. One refusal is enough if it asks for a wait of five seconds or more, and eight
/// requests were accepted before it or another refusal came shortly before. A guess grows with time, and is forgotten
/// when the provider names a limit.
///
/// [Interactive](crate::Lane::Interactive) calls go before bulk calls. But if a bulk call has been the next of its lane
/// for ten seconds, interactive calls wait for it; while no limit is named, also if eight of them have passed it. Within
/// a lane, the first to come is the first to go.
///
/// # Errors
/// - [`DeadlinePassed`](crate::ErrorKind::DeadlinePassed): the wait would end after the batch's deadline. The error
///   comes at once if that is certain, and at the deadline if it depends on the calls ahead.
/// - [`Overloaded`](crate::ErrorKind::Overloaded): the queue is full, see [`RateLimiter::with_max_waiting`].
/// - [`Config`](crate::ErrorKind::Config): a limit was set to 0.
///
/// All other errors are the inner embedder's.
///
/// # Cancellation
/// If a call is dropped while it waits, it has taken nothing. If it was sent, it counts. A call that is not polled
/// delays no other call; while no limit is named, it may delay them by ten seconds, once.
///
/// # Stacking
/// Inside [`Retry`](crate::wrap::Retry), so that each attempt counts. Outside [`Timeout`](crate::wrap::Timeout), so
/// that the wait for a turn does not count against the time limit.
///
/// # Cost
/// A lock for the time of an addition.
#[derive(Clone, Debug)]
pub struct RateLimit<E> {
    inner: E,
    limiter: RateLimiter,
}

impl<E> RateLimit<E> {
    /// Wraps `inner`, whose calls wait for `limiter`.
    pub const fn new(inner: E, limiter: RateLimiter) -> Self {
        Self { inner, limiter }
    }

    /// Returns the limiter, to share it with other embedders of the same account.
    pub const fn limiter(&self) -> &RateLimiter {
        &self.limiter
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

impl<E: fmt::Display> RateLimit<E> {
    /// Tells the observer that a call has waited, or that there was no room for it to wait.
    fn tell(&self, batch: &Batch<'_>, time: Duration, error: Option<&Error>) {
        let queue = Queue::RateLimit;
        if error.is_some_and(|error| error.kind() == ErrorKind::Overloaded) {
            batch.tell(self, EventKind::QueueFull { queue });
        } else if !time.is_zero() {
            batch.tell(self, EventKind::Waited { queue, time, waiting: self.limiter.waiting() });
        }
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
        // A call that will be refused, or has no texts, need not wait.
        if batch.is_empty() || !batch.bad_texts(&limits).is_empty() {
            return self.inner.embed(batch).await;
        }
        let guessed = batch.guessed_tokens(&limits) as f64;
        let most = batch.texts().iter().map(|text| text.len() + BESIDE_A_TEXT).fold(0, usize::saturating_add) as f64;
        let deadline = batch.deadline().map(Instant::from_std);
        let began = batch.observer().map(|_| Instant::now());
        let turn = self.limiter.acquire(batch.lane(), guessed, limits.in_flight, deadline).await;
        if let Some(began) = began {
            self.tell(&batch, began.elapsed(), turn.as_ref().err());
        }
        let turn = turn.map_err(|error| error.with_embedder(self))?;
        let result = self.inner.embed(batch.with_pause(turn.pause())).await;
        turn.settle(guessed, most.max(guessed), &result);
        result
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    /// Returns the inner embedder's limits. If the tokens per minute are known, a call may hold at most those that
    /// arrive in five seconds; or one text's tokens, or a minute's tokens divided by its requests, if that is more.
    fn limits(&self) -> Limits {
        let mut limits = self.inner.limits();
        // Every call must be able to hold one text. If the most tokens of a text are not known, the share could be too
        // small for one, so the limits stay as they are.
        if let (Some(share), Some(text)) = (self.limiter.share(), limits.tokens_per_text) {
            let text = limits.tokens_of_one_text().unwrap_or(text);
            let share = share.max(text);
            limits.tokens_per_call = Some(limits.tokens_per_call.map_or(share, |call| call.min(share)));
        }
        limits
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        let limit = |limit: Option<u64>, what: &str| match limit {
            Some(limit) => format!("{limit} {what} per minute"),
            None => format!("no limit on {what} known"),
        };
        let (requests, tokens) = (self.limiter.requests_per_minute(), self.limiter.tokens_per_minute());
        Explanation::new("RateLimit")
            .with_fact(format!("{}, {}", limit(requests, "requests"), limit(tokens, "tokens")))
            .with_fact(format!("{} waiting", plural(self.limiter.waiting(), "call")))
            .with_inner(self.inner.explain(batch))
    }
}
