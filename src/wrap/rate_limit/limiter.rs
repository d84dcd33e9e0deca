//! Decides whose turn it is, and learns from replies: [`RateLimiter`].
//!
//! Two rules keep waiting calls from hanging:
//!
//! 1. No call depends on the polls of another one. Whenever a call is polled, comes or leaves, and whenever a reply
//!    arrives, [`State::advance`] grants all turns that are due, of all calls. A call that nobody polls can be granted
//!    its turn, too: it then keeps its own request and tokens and nobody else's.
//! 2. No task is woken under the lock. Waking a task may drop it, with the waiting calls that it holds. A dropped call
//!    takes the lock to leave its line, and the thread that has the lock already would wait for itself for ever. So
//!    `advance` only lists the calls to wake, and [`RateLimiter::with`] wakes them after the lock.

use std::{
    fmt, mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    bucket::Bucket,
    line::{Line, Waiter},
    window::Window,
};
use crate::{
    Embeddings, Error, ErrorKind, Lane, RateLimitStatus, Result,
    lanes::{BULK_PATIENCE, HeadStart, PerLane},
    pause::Pause,
    sync::Mutex,
    telemetry,
};

/// One call should take no more than the tokens that arrive in this time. A query behind it then waits no longer than
/// this.
const SHARE: Duration = Duration::from_secs(5);

/// The longest time for which one reply can pause all calls.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// A pause of this length is told to the user, who may wonder why nothing happens.
const LONG_PAUSE: Duration = Duration::from_secs(10);

/// The longest sleep of a waiting call. After it, the call checks whether its turn came earlier than expected.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A call whose turn comes earlier than it was told, but by no more than this, is not told again.
const TOLD_BY: Duration = Duration::from_millis(10);

/// The requests and tokens ahead of a call that is the first.
const NOBODY: (f64, f64) = (0.0, 0.0);

/// Hands out requests and tokens at an even rate. Clones share them.
///
/// # Default
/// No limits, until the provider names some. Until then, at most the inner embedder's
/// [`in_flight`](crate::Limits::in_flight) calls go at once, or 16 if it names none. If several embedders share the
/// limiter, the largest of their numbers counts.
///
/// See [`RateLimit`](super::RateLimit) for an example.
#[derive(Clone, Default)]
pub struct RateLimiter(Arc<Mutex<State>>);

/// All that the limiter knows, under one lock that is never held across a wait.
#[derive(Default)]
struct State {
    requests: Bucket,
    tokens: Bucket,
    /// The moment until which the provider wants no calls. Calls that have had their turn look at it too.
    pause: Arc<Pause>,
    /// The calls that have had their turn. It bounds them while nobody has named a limit on requests.
    window: Window,
    /// The turns that the window gave to interactive calls before waiting bulk calls.
    head_start: HeadStart,
    /// The most calls that may wait in each lane; `None` for any number.
    most_waiting: Option<usize>,
    lanes: PerLane<Line>,
    /// The call that was last told that it is the next one, and the moment of its turn as it seemed then.
    told: Option<(Arc<Waiter>, Instant)>,
    /// Calls that have to check their turn again. They are woken after the lock.
    to_tell: Vec<Arc<Waiter>>,
}

impl RateLimiter {
    /// Makes a limiter that learns the limits from the provider.
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

    /// Returns the requests per minute that the limiter keeps to now, set, learned or guessed from refusals; `None` if there
    /// is no limit.
    pub fn requests_per_minute(&self) -> Option<u64> {
        self.0.with(|state| state.requests.per_minute(Instant::now()))
    }

    /// Returns the tokens per minute that the limiter keeps to now, set or learned; `None` if there is no limit.
    pub fn tokens_per_minute(&self) -> Option<u64> {
        self.0.with(|state| state.tokens.per_minute(Instant::now()))
    }

    /// Returns how many calls wait for their turn now.
    pub fn waiting(&self) -> usize {
        self.0.with(|state| state.waiting())
    }

    /// Sets how many calls may wait in each lane, also for the clones. One call more fails with
    /// [`Overloaded`](ErrorKind::Overloaded) at once, and no [`Retry`](crate::wrap::Retry) tries it again. A server
    /// should refuse work at once when it has too much.
    #[must_use]
    pub fn with_max_waiting(self, calls: usize) -> Self {
        self.change(|state| state.most_waiting = Some(calls))
    }

    /// Changes the state under the lock. After the lock, wakes the calls that have to check their turn again (rule 2).
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let (result, to_tell) = self.0.with(|state| (change(state), mem::take(&mut state.to_tell)));
        to_tell.iter().for_each(|waiter| waiter.look.notify_one());
        result
    }

    fn change(self, change: impl FnOnce(&mut State)) -> Self {
        self.with(|state| {
            change(state);
            // No call waits outside a runtime, and only with a runtime is there tokio's clock.
            if state.waiting() > 0 {
                state.advance(Instant::now());
            }
        });
        self
    }

    /// Returns the most tokens that one call should take, so that a query behind it does not wait long.
    pub(super) fn share(&self) -> Option<usize> {
        let (tokens, requests) =
            self.0.with(|state| (state.tokens.rate(Instant::now()), state.requests.rate(Instant::now())));
        // With smaller calls than this, the requests of a minute could not carry all tokens of the minute.
        let carried = tokens? / requests.unwrap_or(f64::INFINITY).max(f64::MIN_POSITIVE);
        Some((tokens? * SHARE.as_secs_f64()).max(carried) as usize)
    }

    /// Waits for one request and this many tokens, and takes them.
    pub(super) async fn acquire(
        &self,
        lane: Lane,
        tokens: f64,
        in_flight: Option<usize>,
        deadline: Option<Instant>,
    ) -> Result<Turn<'_>> {
        let passed = || Error::new(ErrorKind::DeadlinePassed, "the rate limit would delay the call past its deadline");
        let (waiter, pause) = self.with(|state| {
            let waiter = state.admit(lane, tokens, in_flight, Instant::now());
            waiter.map(|waiter| (waiter, state.pause.clone()))
        })?;
        // From here on, a dropped future leaves the line.
        let mut waiting = Waiting { limiter: self, lane, waiter: &waiter, is_over: false };
        loop {
            let now = Instant::now();
            let (event, own, alone, granted) = self.with(|state| {
                let event = state.advance(now);
                let ahead = state.lanes.of(lane).ahead(&waiter);
                let granted = waiter.granted.load(Ordering::Relaxed);
                // A call that has its turn has its tokens, too. Only a pause can delay it.
                let alone = if granted { state.pause.left(now) } else { state.wait(NOBODY, tokens, now) };
                (event, state.wait(ahead, tokens, now), alone, granted)
            });
            // A turn may come long before the call is polled, and a pause meanwhile.
            if granted && alone.is_zero() {
                waiting.is_over = true;
                return Ok(Turn { limiter: self, went: now, number: waiter.number.load(Ordering::Relaxed), pause });
            }
            // The calls ahead may leave, so their part of the wait is not certain. If its own part is too
            // long already, nothing can help.
            let is_late = |deadline| deadline <= now || now.checked_add(alone).is_none_or(|then| then > deadline);
            if deadline.is_some_and(is_late) {
                return Err(passed());
            }
            if granted {
                pause.is_over(deadline).await;
                continue;
            }
            // Sleep until the next turn of any call, but not before this call's own turn can come. The turn may come
            // earlier than it seems now. Only the next call is told so, and it may be one that nobody polls, which
            // tells no other. So each call looks again after a while.
            let wait = event.max(own).min(LOOK_AGAIN);
            let wait = deadline.map_or(wait, |deadline| wait.min(deadline.saturating_duration_since(now)));
            // Woken or not, the call checks its turn again.
            let _ = tokio::time::timeout(wait, waiter.look.notified()).await;
        }
    }
}

/// The turn of a call, until the call ends.
pub(super) struct Turn<'l> {
    limiter: &'l RateLimiter,
    /// The moment at which the call was let through.
    went: Instant,
    /// The window's number of the call.
    number: u64,
    pause: Arc<Pause>,
}

impl Turn<'_> {
    /// Returns the pause that the call must look at again if it waits for something else before it is sent.
    pub(super) fn pause(&self) -> &Pause {
        &self.pause
    }

    /// Corrects the estimated tokens and learns from the reply. A reply that claims more than `most` tokens counts as
    /// `most`.
    pub(super) fn settle(&self, guessed: f64, most: f64, result: &Result<Embeddings>) {
        let now = Instant::now();
        let asked = self.limiter.with(|state| {
            let mut asked = None;
            let (usage, rate_limit_status) = match result {
                Ok(embeddings) => {
                    state.requests.accept(now);
                    state.window.widen();
                    (embeddings.usage(), embeddings.rate_limit_status())
                }
                Err(error) => {
                    let usage = error.total_usage();
                    if usage.requests == 0 && usage.unanswered == 0 && error.status().is_none() {
                        // The call made no request, because its deadline passed in a queue further in: give the request
                        // back.
                        state.requests.take(-1.0, now);
                    }
                    if error.kind() == ErrorKind::RateLimited {
                        asked = Some(state.refuse(error, self.went, now));
                    }
                    (usage, error.rate_limit_status())
                }
            };
            if let Some(tokens) = usage.exact_tokens() {
                let more = (tokens as f64).min(most) - guessed;
                // The provider may have counted the tokens of a call without an answer, so they are not given back. It
                // has not counted those of a refused call.
                state.tokens.take(if usage.unanswered > 0 { more.max(0.0) } else { more }, now);
            }
            let RateLimitStatus { requests, tokens } = rate_limit_status.unwrap_or_default();
            state.requests.learn(requests, now);
            state.tokens.learn(tokens, now);
            state.advance(now);
            asked
        });
        let Some((asked, is_long)) = asked else { return };
        let asked = asked.as_millis() as u64;
        if is_long {
            tracing::info!({ telemetry::RATE_LIMIT_ASKED_MS } = asked, "all calls are held back for long");
        } else {
            tracing::debug!({ telemetry::RATE_LIMIT_ASKED_MS } = asked, "all calls are held back");
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.limiter.with(|state| {
            state.window.came_back(self.number, now);
            state.advance(now);
        });
    }
}

impl State {
    /// Puts a call into its line, unless its limits or the bound of the queue forbid it.
    fn admit(&mut self, lane: Lane, tokens: f64, in_flight: Option<usize>, now: Instant) -> Result<Arc<Waiter>> {
        let given = [(self.requests.given, "requests"), (self.tokens.given, "tokens")];
        if let Some((_, what)) = given.into_iter().find(|(given, _)| *given == Some(0)) {
            let message = format!("a rate limit of 0 {what} per minute lets no call through: set at least 1");
            return Err(Error::new(ErrorKind::Config, message));
        }
        self.window.serves(in_flight);
        if let Some(most) = self.most_waiting {
            // Calls that can go now leave the queue first. This call needs no room in it if it can go at once, too.
            self.advance(now);
            let waiting = self.lanes.of(lane).len();
            let wait = self.wait(NOBODY, tokens, now).max(self.wait_for_window(now));
            let goes = waiting == 0 && wait.is_zero();
            if waiting >= most && !goes {
                let message = format!(
                    "the rate limit's queue is full ({lane} calls that may wait: {most}): try again later, or allow more \
                     (`RateLimiter::with_max_waiting`)"
                );
                // Marked, so that no `Retry` repeats it: the call would wait all the same, only outside the bounded queue.
                return Err(Error::new(ErrorKind::Overloaded, message).mark_exhausted());
            }
        }
        Ok(self.lanes.of(lane).push(tokens, now))
    }

    fn waiting(&self) -> usize {
        self.lanes.both().into_iter().map(Line::len).sum()
    }

    /// Grants all turns that are due, for all calls (rule 1). Returns the time until the next turn may be due.
    fn advance(&mut self, now: Instant) -> Duration {
        loop {
            let (interactive, bulk) = (self.lanes.interactive.first(now), self.lanes.bulk.first(now));
            let since = self.lanes.bulk.since;
            let patience = since.map_or(BULK_PATIENCE, |since| BULK_PATIENCE.saturating_sub(now - since));
            // A place in the window is work and not time, so its turns are counted.
            let passed = !self.requests.is_named() && self.head_start.order()[0] == Lane::Bulk;
            let both = interactive.is_some() && bulk.is_some();
            let (lane, next, until) = match (interactive, bulk) {
                (Some(_), Some(bulk)) if passed || patience.is_zero() => (Lane::Bulk, bulk, Duration::MAX),
                (Some(interactive), Some(_)) => (Lane::Interactive, interactive, patience),
                (Some(interactive), None) => (Lane::Interactive, interactive, Duration::MAX),
                (None, Some(bulk)) => (Lane::Bulk, bulk, Duration::MAX),
                (None, None) => {
                    self.told = None;
                    return Duration::MAX;
                }
            };
            // The tokens are taken here, for the call: it may be polled much later.
            let wait = self.wait(NOBODY, next.tokens, now).max(self.wait_for_window(now));
            if wait.is_zero() {
                next.number.store(self.window.went(now), Ordering::Relaxed);
                match both {
                    true => self.head_start.took(lane),
                    false => self.head_start.passes_nobody(),
                }
                self.requests.take(1.0, now);
                self.tokens.take(next.tokens, now);
                self.lanes.of(lane).pop(now);
                next.granted.store(true, Ordering::Relaxed);
                self.to_tell.push(next);
                continue;
            }
            // At `until`, the bulk lane loses its patience and another call becomes the next one.
            let wait = wait.min(until);
            let turn = now.checked_add(wait).unwrap_or(now + LONGEST_PAUSE);
            // The next call is told when it becomes the next one, and when its turn comes earlier than it was told. If
            // the turn comes later, it finds that out by itself.
            // A guessed rate grows all the time, so the turn comes a little earlier with each look: to tell of that
            // would make the call look again at once.
            let knows = |(told, at): &(Arc<Waiter>, Instant)| Arc::ptr_eq(told, &next) && *at <= turn + TOLD_BY;
            if !self.told.as_ref().is_some_and(knows) {
                self.to_tell.push(next.clone());
                self.told = Some((next, turn));
            }
            return wait;
        }
    }

    /// Returns the least time until a call of this many tokens can go, after calls that take the requests and tokens of
    /// `ahead`.
    fn wait(&mut self, ahead: (f64, f64), tokens: f64, now: Instant) -> Duration {
        self.pause.left(now).max(self.requests.wait(ahead.0, 1.0, now)).max(self.tokens.wait(ahead.1, tokens, now))
    }

    /// Returns the time until the window lets one more call through. A limit that was named makes it needless.
    fn wait_for_window(&self, now: Instant) -> Duration {
        if self.requests.is_named() { Duration::ZERO } else { self.window.wait(now) }
    }

    /// Begins the pause after a refusal, and guesses a rate if no limit is known. Returns the wait that was asked for,
    /// and whether a long pause begins with it.
    fn refuse(&mut self, error: &Error, went: Instant, now: Instant) -> (Duration, bool) {
        let asked = error.asked_wait();
        let wait = asked.unwrap_or_default().min(LONGEST_PAUSE);
        let until = now + wait;
        let is_new = self.pause.left(now) < LONG_PAUSE;
        self.pause.extend(until);
        self.window.close();
        // A server that neither names a wait nor refuses by its status may mean something else.
        if asked.is_some() || error.status() == Some(429) {
            self.requests.refuse(went, until, now);
        }
        (asked.unwrap_or_default(), is_new && wait >= LONG_PAUSE)
    }
}

/// A waiting call's place in its line. Dropping it leaves the line, unless the call has had its turn.
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
                // Its turn was granted, but it does not go: it gives back what was taken for it.
                state.requests.take(-1.0, now);
                state.tokens.take(-self.waiter.tokens, now);
                state.window.came_back(self.waiter.number.load(Ordering::Relaxed), now);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A guessed rate grows all the time. A call that is told of its turn each time looks at once, for ever.
    #[test]
    fn a_turn_that_comes_a_little_earlier_is_not_told_each_time() {
        let (mut state, began) = (State::default(), Instant::now());
        (0..5).for_each(|_| {
            state.requests.accept(began);
            state.requests.refuse(began + Duration::from_secs(100), began, began);
        });
        let second = Duration::from_secs(1);
        for refusal in 1..10 {
            let now = began + refusal * second;
            state.requests.accept(now);
            state.requests.refuse(now, now + second, now);
        }
        let from = began + 100 * second;
        assert!(state.requests.rate(from).is_some_and(|rate| rate < 2.0), "there is no guess");
        state.requests.take(20.0, from);
        let _waiter = state.admit(Lane::Bulk, 1.0, Some(4), from).expect("it may wait");
        let mut told = 0;
        for look in 0..10_000 {
            state.advance(from + look * Duration::from_micros(100));
            told += mem::take(&mut state.to_tell).len();
        }
        assert!((1..100).contains(&told), "told {told} times in a second");
    }
}
