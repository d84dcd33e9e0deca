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
//! all of it and leaves a debt. What a refused call would have taken is given back. A reply that claims more tokens than
//! its texts have bytes (and 64 for each text's prompt) is not believed.
//!
//! A call is to take no more tokens than come in five seconds, so that a query never waits long behind bulk work: where
//! the limit and the most tokens of a text are known, [`limits`](Embedder::limits) says so, and larger batches are split.
//!
//! What the provider tells with its replies ([`Allowance`], from `x-ratelimit-*`) is believed: a limit that was not
//! given is learned, one that is lower than given is kept to, and what is left there is no more than is left here. When a
//! reply says that there were too many, all calls wait as long as it asks, but not longer than two minutes. If the
//! provider asks for a longer wait, only that call fails; the others go on.
//!
//! [Interactive](crate::Lane::Interactive) calls go before bulk ones; for a bulk call that has been next in line for ten
//! seconds, they wait too. Within a lane, who comes first goes first.
//!
//! # Errors
//! [`DeadlinePassed`](crate::ErrorKind::DeadlinePassed) where the wait would go beyond the batch's deadline: at once where
//! that is sure, at the deadline where it depends on those ahead. [`Overloaded`](crate::ErrorKind::Overloaded) where
//! [so many](RateLimiter::with_max_waiting) wait already.
//!
//! # Cancellation
//! A dropped call that waits has taken nothing. One that was sent counts. A call that is not polled holds nobody up.
//!
//! # Stacking
//! Inside [`Retry`](crate::wrap::Retry), so that retries count; outside [`Timeout`](crate::wrap::Timeout), so that waiting
//! does not.
//!
//! # Cost
//! A lock for the time of an addition.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::Instant};

use crate::{
    Allowance, Batch, Embedder, Embeddings, Error, ErrorKind, Lane, Limits, Quota, Result, Space, sync::Mutex,
};

/// What is saved up when nobody calls.
const SAVED: Duration = Duration::from_secs(10);

/// How much of a limit one call is to take: what comes in so long. A query that comes behind it waits no longer.
const SHARE: Duration = Duration::from_secs(5);

/// How long a bulk call that is next in line lets interactive ones pass.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest that a provider can make everybody wait at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// A bucket that takes longer to fill is not one of a minute, whatever the provider calls it.
const LONGER_THAN_A_MINUTE: Duration = Duration::from_secs(90);

/// How long a call sleeps at most before it looks again whether its turn came earlier than it seemed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Tokens that a text can have beside its own: prompt and special tokens.
const BESIDE_A_TEXT: usize = 64;

/// Hands out requests and tokens at an even pace. Clones share.
///
/// # Default
/// No limits until the provider names some.
#[derive(Clone, Default)]
pub struct RateLimiter(Arc<Mutex<State>>);

/// All that the limiter knows, under one lock that is never held across a wait. Whoever is polled [advances](Self::advance)
/// it for everybody, so that no call depends on another one being polled: one that has its turn and does nothing with it
/// keeps its own tokens and nobody else's.
#[derive(Default)]
struct State {
    requests: Bucket,
    tokens: Bucket,
    /// Until when the provider wants to hear nothing.
    paused: Option<Instant>,
    /// How many calls may wait.
    most_waiting: Option<usize>,
    interactive: Line,
    bulk: Line,
    /// Who was told last to be the next in line, and when it was to be its turn.
    told: Option<(Arc<Waiter>, Instant)>,
    /// Those that are to look again, once the lock is free.
    to_tell: Vec<Arc<Waiter>>,
}

/// Calls that wait in one lane, the first to come first.
#[derive(Default)]
struct Line {
    waiters: VecDeque<Arc<Waiter>>,
    /// Requests and tokens of all that ever came, and of those that are no longer here: the difference tells how much is
    /// ahead of whom.
    came: (f64, f64),
    gone: (f64, f64),
    /// Since when the first one is first.
    since: Option<Instant>,
    /// How many in the line have left it.
    left: usize,
}

struct Waiter {
    tokens: f64,
    /// What had come to its line before it.
    before: (f64, f64),
    granted: AtomicBool,
    left: AtomicBool,
    /// Told to look again.
    look: Notify,
}

impl Line {
    fn push(&mut self, tokens: f64, now: Instant) -> Arc<Waiter> {
        let (granted, left) = (AtomicBool::new(false), AtomicBool::new(false));
        let waiter = Arc::new(Waiter { tokens, before: self.came, granted, left, look: Notify::new() });
        self.came = (self.came.0 + 1.0, self.came.1 + tokens);
        self.since = self.since.or(Some(now));
        self.waiters.push_back(waiter.clone());
        waiter
    }

    fn pop(&mut self, now: Instant) -> Option<Arc<Waiter>> {
        let waiter = self.waiters.pop_front()?;
        self.gone = (self.gone.0 + 1.0, self.gone.1 + waiter.tokens);
        self.since = (!self.waiters.is_empty()).then_some(now);
        Some(waiter)
    }

    /// The first that is still here.
    fn first(&mut self, now: Instant) -> Option<Arc<Waiter>> {
        while self.waiters.front()?.left.load(Ordering::Relaxed) {
            let since = self.since;
            self.pop(now);
            self.left -= 1;
            // Who comes after one that has left has been waiting for as long.
            self.since = self.since.and(since);
        }
        self.waiters.front().cloned()
    }

    /// Takes out those that have left, when they are most of the line: so that they cost a constant each.
    fn sweep(&mut self) {
        self.left += 1;
        if self.left > 16 && self.left * 2 > self.waiters.len() {
            let gone = &mut self.gone;
            self.waiters.retain(|waiter| {
                let stays = !waiter.left.load(Ordering::Relaxed);
                if !stays {
                    *gone = (gone.0 + 1.0, gone.1 + waiter.tokens);
                }
                stays
            });
            self.left = 0;
            if self.waiters.is_empty() {
                self.since = None;
            }
        }
    }

    /// How many wait.
    fn len(&self) -> usize {
        self.waiters.len() - self.left
    }
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
        // Clocks are looked at before the lock: a later look may come first, and no moment counts twice.
        *at = now.max(*at);
        Some((level, most, rate))
    }

    /// How long until this much can be taken.
    fn wait(&mut self, cost: f64, now: Instant) -> Duration {
        self.wait_behind(0.0, cost, now)
    }

    /// How long at least until this much can be taken after others have taken so much.
    fn wait_behind(&mut self, ahead: f64, cost: f64, now: Instant) -> Duration {
        let Some((level, most, rate)) = self.fill(now) else { return Duration::ZERO };
        let missing = ahead + cost.min(most) - *level;
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
        self.change(|state| state.requests.given = Some(a_minute.max(1)))
    }

    /// Sets the tokens a minute (at least 1), also for the clones.
    #[must_use]
    pub fn with_tokens(self, a_minute: u64) -> Self {
        self.change(|state| state.tokens.given = Some(a_minute.max(1)))
    }

    /// The requests and tokens a minute that are kept to at the moment, given or learned.
    pub fn limits(&self) -> (Option<u64>, Option<u64>) {
        let limit = |bucket: &Bucket| bucket.rate().map(|rate| (rate * 60.0).round() as u64);
        self.0.with(|state| (limit(&state.requests), limit(&state.tokens)))
    }

    /// How many calls wait for their turn now.
    pub fn waiting(&self) -> usize {
        self.0.with(|state| state.waiting())
    }

    /// Bounds how many calls may wait in each lane, also for the clones: one more is
    /// [`Overloaded`](ErrorKind::Overloaded) at once, and no [`Retry`](crate::wrap::Retry) tries it again. A server should
    /// refuse work at once when it has too much.
    #[must_use]
    pub fn with_max_waiting(self, calls: usize) -> Self {
        self.change(|state| state.most_waiting = Some(calls))
    }

    /// Changes the state, and tells those that are to look again. Not under the lock: whoever is woken may be dropped
    /// thereby, with its place in the line.
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let (result, to_tell) = self.0.with(|state| (change(state), mem::take(&mut state.to_tell)));
        to_tell.iter().for_each(|waiter| waiter.look.notify_one());
        result
    }

    fn change(self, change: impl FnOnce(&mut State)) -> Self {
        self.with(|state| {
            change(state);
            // Outside a runtime nobody waits.
            if state.waiting() > 0 {
                state.advance(Instant::now());
            }
        });
        self
    }

    /// The tokens that one call is to take at most, so that a query behind it does not wait long.
    fn share(&self) -> Option<usize> {
        let (tokens, requests) = self.0.with(|state| (state.tokens.rate(), state.requests.rate()));
        // So much at least that the requests of a minute can carry all of its tokens.
        let carried = tokens? / requests.unwrap_or(f64::INFINITY).max(f64::MIN_POSITIVE);
        Some((tokens? * SHARE.as_secs_f64()).max(carried) as usize)
    }

    /// Waits for a request of so many tokens and takes it.
    async fn acquire(&self, lane: Lane, tokens: f64, deadline: Option<Instant>) -> Result<()> {
        let passed = || Error::new(ErrorKind::DeadlinePassed, "the rate limit would be waited for beyond it");
        let waiter = self.with(|state| {
            let now = Instant::now();
            let most = state.most_waiting;
            let is_full = |state: &mut State| most.filter(|&most| state.line(lane).len() >= most);
            if is_full(state).is_some() {
                // Those that can go at once wait for nobody.
                state.advance(now);
            }
            if let Some(most) = is_full(state).filter(|&most| most > 0 || !state.wait((1.0, tokens), now).is_zero()) {
                return Err(most);
            }
            Ok(state.line(lane).push(tokens, now))
        });
        let waiter = waiter.map_err(|most| {
            let message = format!(
                "the queue of the rate limit is full ({lane} calls that may wait: {most}): come back later, or allow more \
                 (`RateLimiter::with_max_waiting`)"
            );
            // Tried again here, it would wait all the same, only elsewhere.
            Error::new(ErrorKind::Overloaded, message).exhausted()
        })?;
        // Whatever becomes of this future, it does not stay in the line.
        let mut waiting = Waiting { limiter: self, lane, waiter: &waiter, is_over: false };
        loop {
            let now = Instant::now();
            let (event, own, alone) = self.with(|state| {
                let event = state.advance(now);
                (event, state.own_wait(lane, &waiter, now), state.wait((1.0, tokens), now))
            });
            if waiter.granted.load(Ordering::Relaxed) {
                waiting.is_over = true;
                return Ok(());
            }
            // Those ahead of it may leave; if even that would not help, it is known now.
            if deadline.is_some_and(|deadline| now.checked_add(alone).is_none_or(|then| then > deadline)) {
                return Err(passed());
            }
            // Who is told that its turn comes earlier may be one that nobody polls: it tells no other.
            let wait = event.max(own).min(LOOK_AGAIN);
            let wait = deadline.map_or(wait, |deadline| wait.min(deadline.saturating_duration_since(now)));
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(passed());
            }
            // Either way it is looked at again.
            let _ = tokio::time::timeout(wait, waiter.look.notified()).await;
        }
    }

    /// Puts the guess right and learns from what the reply told. No reply can have counted more than `most`.
    fn settle(&self, guessed: f64, most: f64, result: &Result<Embeddings>) {
        let now = Instant::now();
        self.with(|state| {
            let (usage, allowance) = match result {
                Ok(embeddings) => (embeddings.usage(), embeddings.allowance()),
                Err(error) => {
                    if error.kind() == ErrorKind::RateLimited {
                        let asked = error.retry_after().unwrap_or_default();
                        let until = now.checked_add(asked.min(LONGEST_PAUSE));
                        state.paused = state.paused.max(until);
                        let asked = asked.as_millis() as u64;
                        tracing::debug!(embed.rate_limit.asked_ms = asked, "all calls are held back");
                    }
                    let usage = error.total_usage();
                    if usage.requests == 0 && usage.unanswered == 0 && error.status().is_none() {
                        // It never came to a request: its deadline passed in a queue further in.
                        state.requests.take(-1.0, now);
                    }
                    (usage, error.allowance())
                }
            };
            if let Some(tokens) = usage.exact_tokens() {
                let more = (tokens as f64).min(most) - guessed;
                // What got no answer may have been counted there; what was refused was not.
                state.tokens.take(if usage.unanswered > 0 { more.max(0.0) } else { more }, now);
            }
            let Allowance { requests, tokens } = allowance.unwrap_or_default();
            state.requests.learn(requests, now);
            state.tokens.learn(tokens, now);
            state.advance(now);
        });
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }

    const fn line(&mut self, lane: Lane) -> &mut Line {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// Lets everybody go whose turn it is. Says how long until that may be the case for another one.
    fn advance(&mut self, now: Instant) -> Duration {
        loop {
            let (interactive, bulk) = (self.interactive.first(now), self.bulk.first(now));
            let patience = self.bulk.since.map_or(PATIENCE, |since| PATIENCE.saturating_sub(now - since));
            let (lane, next, until) = match (interactive, bulk) {
                (Some(_), Some(bulk)) if patience.is_zero() => (Lane::Bulk, bulk, Duration::MAX),
                (Some(interactive), Some(_)) => (Lane::Interactive, interactive, patience),
                (Some(interactive), None) => (Lane::Interactive, interactive, Duration::MAX),
                (None, Some(bulk)) => (Lane::Bulk, bulk, Duration::MAX),
                (None, None) => {
                    self.told = None;
                    return Duration::MAX;
                }
            };
            let wait = self.wait((1.0, next.tokens), now);
            if wait.is_zero() {
                self.requests.take(1.0, now);
                self.tokens.take(next.tokens, now);
                self.line(lane).pop(now);
                next.granted.store(true, Ordering::Relaxed);
                self.to_tell.push(next);
                continue;
            }
            let wait = wait.min(until);
            let turn = now.checked_add(wait).unwrap_or(now + LONGEST_PAUSE);
            let knows = |(told, at): &(Arc<Waiter>, Instant)| Arc::ptr_eq(told, &next) && *at <= turn;
            if !self.told.as_ref().is_some_and(knows) {
                self.to_tell.push(next.clone());
                self.told = Some((next, turn));
            }
            return wait;
        }
    }

    /// How long until there are so many requests and tokens.
    fn wait(&mut self, (requests, tokens): (f64, f64), now: Instant) -> Duration {
        let pause = self.paused.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        pause.max(self.requests.wait(requests, now)).max(self.tokens.wait(tokens, now))
    }

    /// How long this call has to wait at least, those ahead of it in its line counted in.
    fn own_wait(&mut self, lane: Lane, waiter: &Waiter, now: Instant) -> Duration {
        let gone = self.line(lane).gone;
        let ahead = ((waiter.before.0 - gone.0).max(0.0), (waiter.before.1 - gone.1).max(0.0));
        let pause = self.paused.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let requests = self.requests.wait_behind(ahead.0, 1.0, now);
        pause.max(requests).max(self.tokens.wait_behind(ahead.1, waiter.tokens, now))
    }
}

/// A call's place in a line, until it has its turn or leaves.
struct Waiting<'l> {
    limiter: &'l RateLimiter,
    lane: Lane,
    waiter: &'l Arc<Waiter>,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let now = Instant::now();
        self.limiter.with(|state| {
            if self.waiter.granted.load(Ordering::Relaxed) {
                // It had its turn and does not go: it gives back what it took.
                state.requests.take(-1.0, now);
                state.tokens.take(-self.waiter.tokens, now);
            } else {
                self.waiter.left.store(true, Ordering::Relaxed);
                state.line(self.lane).sweep();
            }
            state.advance(now);
        });
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
