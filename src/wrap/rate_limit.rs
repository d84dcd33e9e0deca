//! Keeps within requests and tokens a minute: [`RateLimit`], whose [`RateLimiter`] learns from the provider.
//!
//! ```
//! use docvector_embed::{EmbedderExt, Limits, provider::Fake, wrap::RateLimiter};
//! # fn main() -> docvector_embed::Result<()> {
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! // One limiter for all that share an account: clones share.
//! let limiter = RateLimiter::new().with_requests(60);
//! let fake = Fake::builder().with_limits(Limits::none().with_texts(1)).build()?;
//! let embedder = fake.rate_limit(limiter.clone());
//! let began = tokio::time::Instant::now();
//! let texts: Vec<String> = (0..70).map(|i| format!("text {i}")).collect();
//! embedder.embed_documents(&texts).await?;
//! // Ten seconds' worth at once, and then one a second.
//! assert_eq!(began.elapsed().as_secs(), 60);
//! # Ok(()) }) }
//! ```
//!
//! # Semantics
//! A call waits until the limiter has a request and the call's tokens for it. Both refill evenly; what is not used is
//! saved up to ten seconds' worth. Tokens are known exactly where they had to be counted, else guessed at four bytes
//! each, and the guess is put right when the provider says what it was. A call larger than what can be saved waits for
//! all of it and leaves a debt. What a refused call would have taken is given back.
//!
//! What the provider tells with its replies ([`Allowance`], from `x-ratelimit-*`) is believed: a limit that was not
//! given is learned, one that is lower than given is kept to, and what is left there is no more than is left here. When a
//! reply says that there were too many, everybody waits as long as it asks, but not longer than two minutes: what asks for
//! more is for [`Retry`](crate::wrap::Retry) and its caller to give up, not for everybody to be silent about.
//!
//! [Interactive](crate::Lane::Interactive) calls go before bulk ones; for a bulk call that has been next in line for ten
//! seconds, they wait too. Within a lane, who comes first goes first.
//!
//! # Errors
//! [`DeadlinePassed`](crate::ErrorKind::DeadlinePassed) where the wait would go beyond the batch's deadline: at once for
//! who is next in line, at the deadline for those behind.
//!
//! # Cancellation
//! A dropped call that waits has taken nothing. One that was sent counts.
//!
//! # Stacking
//! Inside [`Retry`](crate::wrap::Retry), so that retries count; outside [`Timeout`](crate::wrap::Timeout), so that waiting
//! does not.
//!
//! # Cost
//! A lock for the time of an addition.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Mutex as Queue, Notify},
    time::Instant,
};

use crate::{Allowance, Batch, Embedder, Embeddings, Error, ErrorKind, Lane, Limits, Quota, Result, Space};

/// What is saved up when nobody calls.
const SAVED: Duration = Duration::from_secs(10);

/// How long a bulk call that is next in line lets interactive ones pass.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest that a provider can make everybody wait at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// A bucket that takes longer to fill is not one of a minute, whatever the provider calls it.
const LONGER_THAN_A_MINUTE: Duration = Duration::from_secs(90);

/// Hands out requests and tokens at an even pace. Clones share.
///
/// # Default
/// No limits until the provider names some.
#[derive(Clone, Default)]
pub struct RateLimiter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Interactive calls that wait.
    interactive: AtomicUsize,
    /// Bulk calls that have waited too long to let others pass: one at most.
    overdue: AtomicUsize,
    /// One waits for its turn at a time, in each lane.
    interactive_queue: Queue<()>,
    bulk_queue: Queue<()>,
    /// Told when waiting may have become shorter.
    changed: Notify,
}

#[derive(Default)]
struct State {
    requests: Bucket,
    tokens: Bucket,
    /// Until when the provider wants to hear nothing.
    paused: Option<Instant>,
}

/// So much a minute, or no limit.
#[derive(Default)]
struct Bucket {
    given: Option<u64>,
    learned: Option<u64>,
    /// What the provider adds a second, where its window is longer than a minute.
    slow: Option<f64>,
    /// What is there, and since when; below zero where more was taken.
    level: Option<(f64, Instant)>,
}

impl Bucket {
    /// What is added a second.
    fn rate(&self) -> Option<f64> {
        let limit = match (self.given, self.learned) {
            (Some(given), Some(learned)) => given.min(learned),
            (given, learned) => given.or(learned)?,
        };
        let rate = limit as f64 / 60.0;
        Some(self.slow.map_or(rate, |slow| rate.min(slow)).max(f64::MIN_POSITIVE))
    }

    /// What is there now and the most that can be; `None` without a limit.
    fn fill(&mut self, now: Instant) -> Option<(&mut f64, f64, f64)> {
        let rate = self.rate()?;
        let most = (rate * SAVED.as_secs_f64()).max(1.0);
        let (level, at) = self.level.get_or_insert((most, now));
        *level = (*level + now.saturating_duration_since(*at).as_secs_f64() * rate).min(most);
        *at = now;
        Some((level, most, rate))
    }

    /// How long until this much can be taken.
    fn wait(&mut self, cost: f64, now: Instant) -> Duration {
        let Some((level, most, rate)) = self.fill(now) else { return Duration::ZERO };
        let missing = cost.min(most) - *level;
        // Sums of parts are a little less than the whole.
        if missing <= most * 1e-9 {
            Duration::ZERO
        } else {
            Duration::try_from_secs_f64(missing / rate).unwrap_or(Duration::MAX)
        }
    }

    fn take(&mut self, cost: f64, now: Instant) {
        if let Some((level, ..)) = self.fill(now) {
            *level -= cost;
        }
    }

    /// Believes what the provider says.
    fn learn(&mut self, quota: Option<Quota>, now: Instant) {
        let Some(quota) = quota.filter(|quota| quota.limit > 0) else { return };
        self.fill(now);
        self.learned = Some(quota.limit);
        // From what is left until all is there again: what comes in a second.
        self.slow = match (quota.remaining, quota.reset) {
            (Some(left), Some(reset)) if reset > LONGER_THAN_A_MINUTE && left < quota.limit => {
                Some((quota.limit - left) as f64 / reset.as_secs_f64())
            }
            // Nearly full, a bucket does not show how slow it is: what is known stays.
            _ => self.slow.filter(|_| quota.remaining.is_none_or(|left| left > 0)),
        };
        if let (Some(remaining), Some((level, ..))) = (quota.remaining, self.fill(now)) {
            *level = level.min(remaining as f64);
        }
    }
}

impl RateLimiter {
    /// Makes a limiter that lets everything through until the provider names limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the requests a minute (at least 1), also for the clones.
    #[must_use]
    pub fn with_requests(self, a_minute: u64) -> Self {
        self.state().requests.given = Some(a_minute.max(1));
        self.0.changed.notify_waiters();
        self
    }

    /// Sets the tokens a minute (at least 1), also for the clones.
    #[must_use]
    pub fn with_tokens(self, a_minute: u64) -> Self {
        self.state().tokens.given = Some(a_minute.max(1));
        self.0.changed.notify_waiters();
        self
    }

    /// The requests and tokens a minute that are kept to at the moment, given or learned.
    pub fn limits(&self) -> (Option<u64>, Option<u64>) {
        let state = self.state();
        let limit = |bucket: &Bucket| bucket.rate().map(|rate| (rate * 60.0).round() as u64);
        (limit(&state.requests), limit(&state.tokens))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a request of so many tokens and takes it.
    async fn acquire(&self, lane: Lane, tokens: f64, deadline: Option<Instant>) -> Result<()> {
        let shared = &*self.0;
        let _waiting = (lane == Lane::Interactive).then(|| Counted::new(&shared.interactive, shared));
        let mut overdue = None;
        let passed = || Error::new(ErrorKind::DeadlinePassed, "the rate limit would be waited for beyond it");
        let queue = match lane {
            Lane::Interactive => &shared.interactive_queue,
            Lane::Bulk => &shared.bulk_queue,
        };
        let _turn = match deadline {
            None => queue.lock().await,
            Some(deadline) => tokio::time::timeout_at(deadline, queue.lock()).await.map_err(|_| passed())?,
        };
        let since = Instant::now();
        loop {
            // Listened to before looking, so that no change is missed in between.
            let mut changed = std::pin::pin!(shared.changed.notified());
            changed.as_mut().enable();
            let now = Instant::now();
            let patience = PATIENCE.saturating_sub(now - since);
            if lane == Lane::Bulk && patience.is_zero() {
                overdue.get_or_insert_with(|| Counted::new(&shared.overdue, shared));
            }
            let (lets_pass, until) = match lane {
                Lane::Bulk => (!patience.is_zero() && shared.interactive.load(Ordering::SeqCst) > 0, patience),
                // Told when it has gone.
                Lane::Interactive => (shared.overdue.load(Ordering::SeqCst) > 0, PATIENCE),
            };
            let wait = if lets_pass { until } else { self.try_take(tokens, now) };
            if wait.is_zero() {
                return Ok(());
            }
            if !lets_pass && deadline.is_some_and(|deadline| now.checked_add(wait).is_none_or(|then| then > deadline)) {
                return Err(passed());
            }
            let wait = deadline.map_or(wait, |deadline| wait.min(deadline.saturating_duration_since(now)));
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(passed());
            }
            // Either way it is looked at again.
            let _ = tokio::time::timeout(wait, changed).await;
        }
    }

    /// Takes a request and its tokens and gives zero, or says how long to wait.
    fn try_take(&self, tokens: f64, now: Instant) -> Duration {
        let mut state = self.state();
        let pause = state.paused.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let wait = pause.max(state.requests.wait(1.0, now)).max(state.tokens.wait(tokens, now));
        if wait.is_zero() {
            state.requests.take(1.0, now);
            state.tokens.take(tokens, now);
        }
        wait
    }

    /// Puts the guess right and learns from what the reply told.
    fn settle(&self, guessed: f64, result: &Result<Embeddings>) {
        let now = Instant::now();
        let mut state = self.state();
        let allowance = match result {
            Ok(embeddings) => {
                if let Some(tokens) = embeddings.usage().tokens {
                    state.tokens.take(tokens as f64 - guessed, now);
                }
                embeddings.allowance()
            }
            Err(error) => {
                if error.kind() == ErrorKind::RateLimited {
                    let asked = error.retry_after().unwrap_or_default();
                    let until = now.checked_add(asked.min(LONGEST_PAUSE));
                    state.paused = state.paused.max(until);
                    tracing::debug!(embed.rate_limit.asked_ms = asked.as_millis() as u64, "all calls are held back");
                }
                // What got no answer may have been counted there; what was refused was not.
                if let (Some(tokens), 0) = (error.usage().tokens, error.usage().unanswered) {
                    state.tokens.take(tokens as f64 - guessed, now);
                }
                error.allowance()
            }
        };
        let Allowance { requests, tokens } = allowance.unwrap_or_default();
        state.requests.learn(requests, now);
        state.tokens.learn(tokens, now);
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, tokens) = self.limits();
        f.debug_struct("RateLimiter")
            .field("requests_a_minute", &requests)
            .field("tokens_a_minute", &tokens)
            .finish_non_exhaustive()
    }
}

/// Counts a call as long as it waits.
struct Counted<'s> {
    count: &'s AtomicUsize,
    changed: &'s Notify,
}

impl<'s> Counted<'s> {
    fn new(count: &'s AtomicUsize, shared: &'s Shared) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self { count, changed: &shared.changed }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.changed.notify_waiters();
        }
    }
}

/// Keeps within requests and tokens a minute. See the [module](self).
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
        let deadline = batch.deadline().map(Instant::from_std);
        self.limiter.acquire(batch.lane(), guessed, deadline).await.map_err(|error| error.with_embedder(self))?;
        let result = self.inner.embed(batch).await;
        self.limiter.settle(guessed, &result);
        result
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}
