//! Decides whose turn it is, and learns from replies: [`RateLimiter`].

use std::{
    fmt, mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    bucket::Bucket,
    line::{Line, Waiter},
};
use crate::{
    Embeddings, Error, ErrorKind, Lane, RateLimitStatus, Result,
    lanes::{BULK_PATIENCE, PerLane},
    sync::Mutex,
    telemetry,
};

/// How much of a limit one call is to take: what comes in so long. A query that comes behind it waits no longer.
const SHARE: Duration = Duration::from_secs(5);

/// The longest that a provider can make everybody wait at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// How long a call sleeps at most before it looks again whether its turn came earlier than it seemed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The requests and tokens of nobody.
const NOBODY: (f64, f64) = (0.0, 0.0);

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
    lanes: PerLane<Line>,
    /// Who was told last to be the next in line, and when it was to be its turn.
    told: Option<(Arc<Waiter>, Instant)>,
    /// Those that are to look again, once the lock is free.
    to_tell: Vec<Arc<Waiter>>,
}

impl RateLimiter {
    /// Makes a limiter that lets everything through until the provider names limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the requests per minute, also for the clones. With 0, every call is a [`Config`](ErrorKind::Config) error.
    #[must_use]
    pub fn with_requests_per_minute(self, limit: u64) -> Self {
        self.change(|state| state.requests.given = Some(limit))
    }

    /// Sets the tokens per minute, also for the clones. With 0, every call is a [`Config`](ErrorKind::Config) error.
    #[must_use]
    pub fn with_tokens_per_minute(self, limit: u64) -> Self {
        self.change(|state| state.tokens.given = Some(limit))
    }

    /// Returns the requests per minute that the limiter keeps to now: given or learned, `None` where neither.
    pub fn requests_per_minute(&self) -> Option<u64> {
        self.0.with(|state| state.requests.per_minute())
    }

    /// Returns the tokens per minute that the limiter keeps to now: given or learned, `None` where neither.
    pub fn tokens_per_minute(&self) -> Option<u64> {
        self.0.with(|state| state.tokens.per_minute())
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
    pub(super) fn share(&self) -> Option<usize> {
        let (tokens, requests) = self.0.with(|state| (state.tokens.rate(), state.requests.rate()));
        // So much at least that the requests of a minute can carry all of its tokens.
        let carried = tokens? / requests.unwrap_or(f64::INFINITY).max(f64::MIN_POSITIVE);
        Some((tokens? * SHARE.as_secs_f64()).max(carried) as usize)
    }

    /// Refuses a limit with which nothing could ever be sent.
    fn check(&self) -> Result<()> {
        let given = self.0.with(|state| [(state.requests.given, "requests"), (state.tokens.given, "tokens")]);
        match given.into_iter().find(|(given, _)| *given == Some(0)) {
            Some((_, what)) => {
                let message = format!("a rate limit of 0 {what} per minute lets no call through: set at least 1");
                Err(Error::new(ErrorKind::Config, message))
            }
            None => Ok(()),
        }
    }

    /// Waits for a request of so many tokens and takes it.
    pub(super) async fn acquire(&self, lane: Lane, tokens: f64, deadline: Option<Instant>) -> Result<()> {
        self.check()?;
        let passed = || Error::new(ErrorKind::DeadlinePassed, "the rate limit would be waited for beyond it");
        let waiter = self.with(|state| {
            let now = Instant::now();
            if let Some(most) = state.most_waiting {
                // Those that can go at once take nobody's room, and this call needs none if it can.
                state.advance(now);
                let waiting = state.lanes.of(lane).len();
                let goes = waiting == 0 && state.wait(NOBODY, tokens, now).is_zero();
                if waiting >= most && !goes {
                    return Err(most);
                }
            }
            Ok(state.lanes.of(lane).push(tokens, now))
        });
        let waiter = waiter.map_err(|most| {
            let message = format!(
                "the queue of the rate limit is full ({lane} calls that may wait: {most}): come back later, or allow more \
                 (`RateLimiter::with_max_waiting`)"
            );
            // Tried again here, it would wait all the same, only elsewhere.
            Error::new(ErrorKind::Overloaded, message).mark_exhausted()
        })?;
        // Whatever becomes of this future, it does not stay in the line.
        let mut waiting = Waiting { limiter: self, lane, waiter: &waiter, is_over: false };
        loop {
            let now = Instant::now();
            let (event, own, alone) = self.with(|state| {
                let event = state.advance(now);
                let ahead = state.lanes.of(lane).ahead(&waiter);
                (event, state.wait(ahead, tokens, now), state.wait(NOBODY, tokens, now))
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
    pub(super) fn settle(&self, guessed: f64, most: f64, result: &Result<Embeddings>) {
        let now = Instant::now();
        self.with(|state| {
            let (usage, rate_limit_status) = match result {
                Ok(embeddings) => (embeddings.usage(), embeddings.rate_limit_status()),
                Err(error) => {
                    if error.kind() == ErrorKind::RateLimited {
                        let asked = error.retry_after().unwrap_or_default();
                        let until = now.checked_add(asked.min(LONGEST_PAUSE));
                        state.paused = state.paused.max(until);
                        let asked = asked.as_millis() as u64;
                        tracing::debug!({ telemetry::RATE_LIMIT_ASKED_MS } = asked, "all calls are held back");
                    }
                    let usage = error.total_usage();
                    if usage.requests == 0 && usage.unanswered == 0 && error.status().is_none() {
                        // It never came to a request: its deadline passed in a queue further in.
                        state.requests.take(-1.0, now);
                    }
                    (usage, error.rate_limit_status())
                }
            };
            if let Some(tokens) = usage.exact_tokens() {
                let more = (tokens as f64).min(most) - guessed;
                // What got no answer may have been counted there; what was refused was not.
                state.tokens.take(if usage.unanswered > 0 { more.max(0.0) } else { more }, now);
            }
            let RateLimitStatus { requests, tokens } = rate_limit_status.unwrap_or_default();
            state.requests.learn(requests, now);
            state.tokens.learn(tokens, now);
            state.advance(now);
        });
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.lanes.both().into_iter().map(Line::len).sum()
    }

    /// Lets everybody go whose turn it is. Says how long until that may be the case for another one.
    fn advance(&mut self, now: Instant) -> Duration {
        loop {
            let (interactive, bulk) = (self.lanes.interactive.first(now), self.lanes.bulk.first(now));
            let since = self.lanes.bulk.since;
            let patience = since.map_or(BULK_PATIENCE, |since| BULK_PATIENCE.saturating_sub(now - since));
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
            let wait = self.wait(NOBODY, next.tokens, now);
            if wait.is_zero() {
                self.requests.take(1.0, now);
                self.tokens.take(next.tokens, now);
                self.lanes.of(lane).pop(now);
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

    /// How long at least until a call of so many tokens can go, after calls of so many requests and tokens.
    fn wait(&mut self, ahead: (f64, f64), tokens: f64, now: Instant) -> Duration {
        let pause = self.paused.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        pause.max(self.requests.wait(ahead.0, 1.0, now)).max(self.tokens.wait(ahead.1, tokens, now))
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
                state.lanes.of(self.lane).sweep();
            }
            state.advance(now);
        });
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, tokens) = (self.requests_per_minute(), self.tokens_per_minute());
        f.debug_struct("RateLimiter")
            .field("requests_per_minute", &requests)
            .field("tokens_per_minute", &tokens)
            .finish_non_exhaustive()
    }
}
