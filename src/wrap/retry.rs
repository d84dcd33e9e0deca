//! Tries again what may pass: [`Retry`], with full jitter, limits, a shared budget, and the server's own wishes.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, Partial, Result, Space, checked::embed_checked,
    gather::RowCollector, telemetry,
};

/// How to retry.
///
/// # Default
/// - 5 attempts in all;
/// - up to 0.5 s before the second, doubling, at most 20 s;
/// - 180 s from the first failure, waits included, after which no attempt begins;
/// - 120 s: a server that asks for more is not waited for;
/// - a budget of its own, of [`RetryBudget::default`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    attempts: u32,
    first_backoff: Duration,
    max_backoff: Duration,
    max_elapsed: Duration,
    max_retry_after: Duration,
    budget: Option<RetryBudget>,
    seed: Option<u64>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(20),
            max_elapsed: Duration::from_secs(180),
            max_retry_after: Duration::from_secs(120),
            budget: Some(RetryBudget::default()),
            seed: None,
        }
    }
}

impl RetryPolicy {
    /// Sets the attempts, the first included. With 0, every call is a [`Config`](ErrorKind::Config) error.
    #[must_use]
    pub const fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the bound of the wait before the second attempt, and how far the doubling goes.
    #[must_use]
    pub const fn with_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first_backoff = first;
        self.max_backoff = longest;
        self
    }

    /// Sets how long after the first failure the last attempt may begin. What the first attempt took, or waited for its
    /// turn, does not count.
    #[must_use]
    pub const fn with_max_elapsed(mut self, limit: Duration) -> Self {
        self.max_elapsed = limit;
        self
    }

    /// Sets the longest wait asked for by a server that is honoured; one that asks for more gets no further attempt.
    #[must_use]
    pub const fn with_max_retry_after(mut self, wait: Duration) -> Self {
        self.max_retry_after = wait;
        self
    }

    /// Takes retries out of this budget, shared with all that have a clone of it.
    #[must_use]
    pub fn with_budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Retries as often as the other limits allow.
    #[must_use]
    pub fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// Refuses values that make no sense.
    fn check(&self) -> Result<()> {
        let message = if self.attempts == 0 {
            "a retry policy of 0 attempts makes no call: `with_attempts` takes at least 1, the first attempt"
        } else if self.budget.as_ref().is_some_and(|budget| !budget.is_valid()) {
            "a retry budget takes finite numbers that are not negative"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, message))
    }

    /// Makes the jitter repeat itself, for tests.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// How many retries there may be, over all calls that share it: a share of the calls, and a few a second in any case.
/// Clones share.
///
/// Each call adds the share, time adds the rest, each retry takes 1, and no more than 500 are ever saved up. When
/// a provider is down and every call fails, retries are then a fifth of the calls and ten a second by default: next to
/// nothing beside hundreds of calls a second, and no hindrance to a program that makes a few.
///
/// # Default
/// 0.2 a call and 10 a second.
#[derive(Clone, Debug)]
pub struct RetryBudget(Arc<Budget>);

/// Budgets are equal if they are one and the same.
impl PartialEq for RetryBudget {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Debug)]
struct Budget {
    share: f64,
    per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl RetryBudget {
    /// The most that is saved up for bad times.
    const MOST: f64 = 500.0;

    /// Allows `share` retries a call (0.2 is one in five calls) and `per_second` a second beside; of the latter, ten
    /// seconds' worth is there from the beginning. With a value that is negative or not finite, every call is a
    /// [`Config`](ErrorKind::Config) error.
    pub fn new(share: f64, per_second: f64) -> Self {
        let state = Mutex::new(((per_second * 10.0).min(Self::MOST), Instant::now()));
        Self(Arc::new(Budget { share, per_second, state }))
    }

    /// Whether both values make sense.
    fn is_valid(&self) -> bool {
        [self.0.share, self.0.per_second].iter().all(|value| value.is_finite() && *value >= 0.0)
    }

    /// Counts a call.
    fn deposit(&self) {
        self.change(|balance| *balance += self.0.share);
    }

    /// Takes a retry, if there is one.
    fn withdraw(&self) -> bool {
        self.change(|balance| {
            let enough = *balance >= 1.0;
            *balance -= if enough { 1.0 } else { 0.0 };
            enough
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut f64) -> T) -> T {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (balance, at) = &mut *state;
        // What time adds ends at ten seconds' worth; what calls have added stays.
        let saved = (self.0.per_second * 10.0).min(Self::MOST);
        let grown = *balance + now.saturating_duration_since(*at).as_secs_f64() * self.0.per_second;
        *balance = balance.max(grown.min(saved));
        *at = now;
        let result = change(balance);
        *balance = balance.min(Self::MOST);
        result
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(0.2, 10.0)
    }
}

/// Tries again what may pass.
///
/// ```
/// use docvector_embed::{EmbedderExt, Error, ErrorKind, provider::Fake, wrap::RetryPolicy};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let fake = Fake::new(8);
/// fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
/// let vector = fake.clone().retry(RetryPolicy::default()).embed_query("hello").await?;
/// assert_eq!(vector.len(), 8);
/// assert_eq!(fake.calls().len(), 2);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// A call that fails in a way that [may pass](crate::Error::is_retryable) is made again after a while: a random time up
/// to a bound that doubles with each attempt ("full jitter": many clients that failed together do not come back
/// together), or, where the server said how long to wait, that long and a little more. Rows that were finished before
/// the failure are kept, and only the rest is asked for again. What all attempts cost is in the result's usage.
///
/// Retrying ends with the number of attempts, the time limit, the batch's deadline, a wait that is longer than one is
/// willing to, or an empty [`RetryBudget`]: the last is shared by all calls, and keeps a failing provider from getting a
/// multiple of its usual load. What comes out then is marked, and a `Retry` further out does not begin anew.
///
/// # Errors
/// Gives back the last attempt's, with what all attempts cost, their number, and why no more were made.
/// Errors that will not pass (a wrong key, used-up quota, bad texts) come back at once.
///
/// # Cancellation
/// Dropping the future ends the attempt or the wait.
///
/// # Stacking
/// Outside everything that belongs to one attempt: `Retry > RateLimit > Concurrency > Timeout > Metered > provider`.
/// Inside a cache or a fall-back. Inside [`Timeout`](crate::wrap::Timeout) it would lose what it still wanted to try.
///
/// # Cost
/// Nothing on success.
#[derive(Clone)]
pub struct Retry<E> {
    inner: E,
    policy: RetryPolicy,
    random: Arc<Mutex<fastrand::Rng>>,
}

impl<E> Retry<E> {
    /// Wraps `inner`.
    pub fn new(inner: E, policy: RetryPolicy) -> Self {
        let random = policy.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self { inner, policy, random: Arc::new(Mutex::new(random)) }
    }

    /// The wrapped embedder.
    pub const fn get_ref(&self) -> &E {
        &self.inner
    }

    /// Takes the wrapped embedder out.
    pub fn into_inner(self) -> E {
        self.inner
    }

    /// How long to wait after attempt number `attempt`, from 1, or why not to try again.
    fn wait(&self, error: &Error, attempt: u32, began: Instant, deadline: Option<Instant>) -> Result<Duration, String> {
        let policy = &self.policy;
        if attempt >= policy.attempts {
            return Err("no more are allowed, see `with_attempts`".into());
        }
        let jitter = |most: Duration| {
            let part = self.random.lock().unwrap_or_else(PoisonError::into_inner).f64();
            most.mul_f64(part)
        };
        let wait = match error.retry_after() {
            Some(asked) if asked > policy.max_retry_after => {
                return Err(format!("the server asks to wait {asked:?}, longer than {:?}", policy.max_retry_after));
            }
            // Never earlier than asked, and not all at the same moment.
            Some(asked) => asked.saturating_add(jitter(policy.first_backoff)),
            None => {
                let doubled = policy.first_backoff.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
                jitter(doubled.min(policy.max_backoff))
            }
        };
        let then = Instant::now().checked_add(wait);
        let late = |end: Option<Instant>| end.is_some_and(|end| then.is_none_or(|then| then >= end));
        if late(began.checked_add(policy.max_elapsed)) {
            return Err(format!("the next would begin later than {:?} after the first failure", policy.max_elapsed));
        }
        if late(deadline) {
            return Err("the next would begin after the batch's deadline".into());
        }
        if policy.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return Err("the retry budget is empty".into());
        }
        Ok(wait)
    }
}

impl<E: fmt::Display> fmt::Display for Retry<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retry({})", self.inner)
    }
}

impl<E: fmt::Debug> fmt::Debug for Retry<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Retry<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        self.policy.check().map_err(|error| error.with_embedder(self))?;
        let mut began = None;
        if let Some(budget) = &self.policy.budget {
            budget.deposit();
        }
        let mut finished = Finished::default();
        let mut spent = Charges::NONE;
        let mut attempt = 1;
        loop {
            let error = match finished.embed_rest(&self.inner, &batch).await {
                Ok(rows) => return Ok(rows.with_charges(&spent)),
                Err(error) => error,
            };
            spent += error.charges();
            let error = error.without_charges().with_charges(&spent);
            if !error.is_retryable() {
                return Err(finished.give_back(error));
            }
            let began = *began.get_or_insert_with(Instant::now);
            let wait = match self.wait(&error, attempt, began, batch.deadline().map(Instant::from_std)) {
                Ok(wait) => wait,
                Err(why) => return Err(finished.give_back(error.gave_up(attempt, why))),
            };
            tracing::debug!(
                { telemetry::EMBEDDER } = %self.inner,
                { telemetry::ERROR_TYPE } = error.provider_code().unwrap_or(error.kind().as_str()),
                { telemetry::RETRY_ATTEMPT } = attempt,
                { telemetry::RETRY_WAIT_MS } = wait.as_millis() as u64,
                "tries again"
            );
            finished.keep(&batch, error);
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

/// The rows that earlier attempts have finished; empty for nearly all calls.
#[derive(Default)]
struct Finished {
    /// Those of one space.
    rows: Option<RowCollector>,
    /// Rows that do not fit with those: of another space, where a router answers. Their texts are asked for again.
    others: Vec<Partial>,
}

impl Finished {
    /// Embeds what is not finished, and gives all rows.
    async fn embed_rest<E: Embedder>(&mut self, inner: &E, batch: &Batch<'_>) -> Result<Embeddings> {
        let Some(rows) = &mut self.rows else { return embed_checked(inner, *batch).await };
        let todo: Vec<usize> = rows.missing().collect();
        let rest = embed_checked(inner, batch.pick(&todo).batch()).await;
        let rest = rest.map_err(|error| error.map_indices(|index| todo.get(index).copied()))?;
        rows.put(&rest, |row| todo[row])?;
        let all = std::mem::replace(rows, RowCollector::new(0)).finish()?;
        Ok(self.others.drain(..).fold(all, |all, other| all.with_charges(other.embeddings().charges())))
    }

    /// Keeps the rows that an attempt has finished before it failed.
    fn keep(&mut self, batch: &Batch<'_>, error: Error) {
        if error.partial().is_some() {
            let rows = self.rows.get_or_insert_with(|| RowCollector::new(batch.len()));
            self.others.extend(rows.take(error).into_partials());
        }
    }

    /// Puts all finished rows into the error that ends the call.
    fn give_back(self, error: Error) -> Error {
        match self.rows {
            Some(rows) => rows.fail(error).with_more_partials(self.others),
            None => error,
        }
    }
}
