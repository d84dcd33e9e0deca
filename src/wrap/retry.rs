//! Repeats failed calls that may succeed later: [`Retry`]. It has full jitter, limits and a shared budget, and it waits
//! as long as the server asks.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space, checked::embed_checked,
    explanation::Explanation, finished::Finished, observer::EventKind, sync::Mutex, telemetry,
};

/// A refusal that names a wait of at least this takes nothing from the budget. A shorter one bounds no load.
const BOUNDS_THE_LOAD: Duration = Duration::from_secs(1);

/// The rules for retries.
///
/// # Default
/// - 5 attempts in all;
/// - a random wait, below 0.5 s before the second attempt; this bound doubles with each attempt, up to 20 s;
/// - no attempt that begins later than 180 s after the first failure, waits included;
/// - no further attempt if a server asks for a wait of more than 120 s;
/// - a budget of its own, [`RetryBudget::default`].
#[derive(Clone, Debug)]
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
    /// Sets the number of attempts, including the first one. With 0, every call is a [`Config`](ErrorKind::Config)
    /// error.
    #[must_use]
    pub const fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the bound of the wait before the second attempt, and the longest bound that doubling can reach.
    #[must_use]
    pub const fn with_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first_backoff = first;
        self.max_backoff = longest;
        self
    }

    /// Sets how long after the first failure the last attempt may begin. The time that the first attempt took,
    /// including its wait for a turn, does not count.
    #[must_use]
    pub const fn with_max_elapsed(mut self, limit: Duration) -> Self {
        self.max_elapsed = limit;
        self
    }

    /// Sets the longest wait that a server can ask for. If a server asks for more, there is no further attempt.
    #[must_use]
    pub const fn with_max_retry_after(mut self, wait: Duration) -> Self {
        self.max_retry_after = wait;
        self
    }

    /// Sets the budget from which retries are taken. It is shared with all policies that have a clone of it.
    #[must_use]
    pub fn with_budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Removes the budget, so that only the other limits hold.
    #[must_use]
    pub fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// Refuses values that make no sense.
    fn check(&self) -> Result<()> {
        let message = if self.attempts == 0 {
            "a retry policy of 0 attempts makes no call: `with_attempts` takes at least 1, the first attempt".to_owned()
        } else if let Some(RetryBudget(budget)) = self.budget.as_ref().filter(|budget| !budget.is_valid()) {
            let Budget { share, per_second, .. } = **budget;
            format!(
                "a retry budget of {share} per call and {per_second} per second: both must be finite numbers, 0 or more"
            )
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, message))
    }

    /// Sets the seed of the random waits, so that a test can repeat them.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// A bound on the retries of all calls that share it: a share of the calls, and some per second in any case. Clones
/// share the budget.
///
/// Each call adds the share, time adds the rest, and each retry takes 1. No more than 500 retries are ever saved up. If
/// a provider is down and every call fails, the default allows retries for a fifth of the calls, and ten per second.
/// This is little beside hundreds of calls per second, and enough for a program that makes only a few.
///
/// # Default
/// 0.2 per call and 10 per second.
///
/// A refusal for too many requests that names a wait of a second or more takes nothing: the wait itself bounds the
/// load.
///
/// Given to [`RetryPolicy::with_budget`].
#[derive(Clone, Debug)]
pub struct RetryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    share: f64,
    per_second: f64,
    /// The retries that are there, and the moment at which time was last added to them.
    state: Mutex<(f64, Instant)>,
}

impl RetryBudget {
    /// The most retries that are ever saved up.
    const MOST: f64 = 500.0;

    /// Makes a budget of `share` retries per call (0.2 is one in five calls) and `per_second` more per second. Of the
    /// latter, ten seconds' worth is there from the beginning. With a value that is negative or not finite, every call
    /// is a [`Config`](ErrorKind::Config) error.
    pub fn new(share: f64, per_second: f64) -> Self {
        let state = Mutex::new(((per_second * 10.0).min(Self::MOST), Instant::now()));
        Self(Arc::new(Budget { share, per_second, state }))
    }

    /// Returns whether both values make sense.
    fn is_valid(&self) -> bool {
        [self.0.share, self.0.per_second].iter().all(|value| value.is_finite() && *value >= 0.0)
    }

    /// Adds the share of one call.
    fn deposit(&self) {
        self.change(|balance| *balance += self.0.share);
    }

    /// Takes one retry. Returns false if there is none.
    fn withdraw(&self) -> bool {
        self.change(|balance| {
            let enough = *balance >= 1.0;
            *balance -= if enough { 1.0 } else { 0.0 };
            enough
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut f64) -> T) -> T {
        self.0.state.with(|(balance, at)| {
            let now = Instant::now();
            // Time adds no more than ten seconds' worth. If calls have added more than that, time adds nothing and takes
            // nothing.
            let saved = (self.0.per_second * 10.0).min(Self::MOST);
            let grown = *balance + now.saturating_duration_since(*at).as_secs_f64() * self.0.per_second;
            *balance = balance.max(grown.min(saved));
            *at = now;
            let result = change(balance);
            *balance = balance.min(Self::MOST);
            result
        })
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(0.2, 10.0)
    }
}

/// Repeats failed calls that may succeed later.
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
/// If a call fails with an error that [may pass](crate::Error::is_retryable), it is made again after a wait. The wait
/// is random, below a bound that doubles with each attempt. (This is "full jitter": many clients that failed together
/// do not come back together.) If the server named a wait, the call waits that long and a little more, and never less
/// than without it. Rows that were finished before the failure are kept, and only the rest is asked for again. The
/// result's usage includes the cost of all attempts.
///
/// Retrying ends with the number of attempts, the time limit, the batch's deadline, a wait that is longer than the
/// policy allows, or an empty [`RetryBudget`]. All calls share the budget, so a failing provider does not get a
/// multiple of its usual load. The final error is marked so that an outer `Retry` does not retry it.
///
/// # Errors
/// The error of the last attempt, with the cost of all attempts, their number, and the reason why no more were made.
/// Errors that will not pass (a wrong key, a used-up quota, bad texts) come back at once.
///
/// # Cancellation
/// Dropping the future ends the attempt or the wait.
///
/// # Stacking
/// Outside everything that belongs to one attempt: `Retry > RateLimit > Concurrency > Timeout > Metered > provider`.
/// Inside a cache or a fall-back. Inside a [`Timeout`](crate::wrap::Timeout), one limit would end all attempts and
/// waits.
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

    /// Returns the wrapped embedder.
    pub const fn get_ref(&self) -> &E {
        &self.inner
    }

    /// Takes the wrapped embedder out.
    pub fn into_inner(self) -> E {
        self.inner
    }

    /// Returns the wait after attempt number `attempt`, counted from 1, or the reason why there is no further attempt.
    fn wait(&self, error: &Error, attempt: u32, began: Instant, deadline: Option<Instant>) -> Result<Duration, String> {
        let policy = &self.policy;
        if attempt >= policy.attempts {
            return Err("no more are allowed, see `with_attempts`".into());
        }
        let part = self.random.with(fastrand::Rng::f64);
        let doubled = policy.first_backoff.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
        let backoff = doubled.min(policy.max_backoff).mul_f64(part);
        let asked = error.asked_wait();
        let wait = match asked {
            Some(asked) if asked > policy.max_retry_after => {
                return Err(format!(
                    "the server asks for a wait of {asked:?}, and `with_max_retry_after` allows {:?}",
                    policy.max_retry_after
                ));
            }
            // Never earlier than the server asked, and with jitter, so that not all calls come back at the same moment.
            // A server that names no time worth waiting, such as 0, gets no faster retries than one that names none.
            Some(asked) => asked.saturating_add(policy.first_backoff.mul_f64(part)).max(backoff),
            None => backoff,
        };
        let then = Instant::now().checked_add(wait);
        let late = |end: Option<Instant>| end.is_some_and(|end| then.is_none_or(|then| then >= end));
        if late(began.checked_add(policy.max_elapsed)) {
            let limit = policy.max_elapsed;
            return Err(format!(
                "the next would begin later than {limit:?} after the first failure, see `with_max_elapsed`"
            ));
        }
        if late(deadline) {
            return Err("the next would begin after the batch's deadline".into());
        }
        // A refusal that names a wait is no outage: the wait itself bounds the load, if it is not too short, and the
        // number and the time of the attempts still hold.
        if error.kind() == ErrorKind::RateLimited && asked >= Some(BOUNDS_THE_LOAD) {
            return Ok(wait);
        }
        // Last, so that a call that ends for another reason takes no retry out of the budget.
        if policy.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return Err("the retry budget is empty, see `with_budget`".into());
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
            let rest = finished.rest(&batch);
            let result = embed_checked(&self.inner, rest.batch(&batch)).await;
            let error = match rest.end(&mut finished, result) {
                Ok(rows) => return Ok(rows.with_charges(&spent)),
                Err(error) => error,
            };
            // The cost of all attempts moves into one sum. It replaces the error's own, so that nothing counts twice.
            spent += error.charges();
            let error = error.without_charges().with_charges(&spent);
            if !error.is_retryable() {
                return Err(finished.give_back(error));
            }
            // The time limit begins with the first failure: a long first attempt does not use it up.
            let began = *began.get_or_insert_with(Instant::now);
            let wait = match self.wait(&error, attempt, began, batch.deadline().map(Instant::from_std)) {
                Ok(wait) => wait,
                Err(why) => {
                    let error = error.gave_up(attempt, why);
                    batch.tell(self, EventKind::GaveUp { attempts: attempt, error: &error });
                    return Err(finished.give_back(error));
                }
            };
            tracing::debug!(
                { telemetry::EMBEDDER } = %self.inner,
                { telemetry::ERROR_TYPE } = error.provider_code().unwrap_or(error.kind().as_str()),
                { telemetry::RETRY_ATTEMPT } = attempt,
                { telemetry::RETRY_WAIT_MS } = wait.as_millis() as u64,
                "tries again"
            );
            batch.tell(self, EventKind::Retry { attempt, wait, error: &error });
            finished.keep(batch.len(), error);
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

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        let RetryPolicy { attempts, first_backoff, max_backoff, max_elapsed, .. } = self.policy;
        Explanation::new("Retry")
            .with_fact(format!("makes up to {attempts} attempts"))
            .with_fact(format!("a wait before each: up to {first_backoff:?}, doubled up to {max_backoff:?}"))
            .with_fact(format!("none later than {max_elapsed:?} after the first failure"))
            .with_inner(self.inner.explain(batch))
    }
}
