//! Gives a store a time limit and a circuit breaker: [`Guarded`].

use std::{
    fmt,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::{CacheStore, Entry, Key, Sink};
use crate::{BreakerState, Error, ErrorKind, Result, SpaceId, telemetry};

/// A time limit and a circuit breaker around any store, so that a slow or broken one does not slow everything down. It
/// is a store itself: put it around a server, or around the slow store of [`Tiered`](super::Tiered).
///
/// ```
/// use std::time::Duration;
/// use docvector_embed::{BreakerState, cache::{CacheStore, Entry, Guarded, Key, Memory}};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// // Memory stands in for a store on a server.
/// let store = Guarded::new(Memory::new(64 << 20))
///     .with_read_limit(Duration::from_millis(200))
///     .with_failures(3)
///     .with_pause(Duration::from_secs(30));
/// assert_eq!(store.to_string(), "Guarded(memory)");
///
/// let key = Key::from_bytes([7; 32]);
/// store.put(&[Entry::new(key, b"bytes")]).await?;
/// store.get(&[key], &mut |_, value| assert_eq!(value, b"bytes")).await?;
/// assert_eq!((store.state(), store.failures()), (BreakerState::Closed, 0));
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Each call goes to the inner store and has a time limit: [`with_read_limit`](Self::with_read_limit) for `get`,
/// [`with_write_limit`](Self::with_write_limit) for all others. Without a limit, a store that hangs stalls each miss of
/// [`Cached`](crate::wrap::Cached) twice: once when it is read, once when it is written.
///
/// A call fails if the store returns an error, takes longer than its limit, or panics. The breaker counts consecutive
/// failures; a call that succeeds sets the count to 0. Concurrent calls count one each. The breaker is
/// - **closed** at first: all calls go to the store;
/// - **open** after as many failures as [`with_failures`](Self::with_failures) says: no call goes to the store, each
///   fails at once;
/// - **half-open** when the pause of [`with_pause`](Self::with_pause) is over and a call comes: this call is the probe
///   and goes to the store, all others fail at once. A probe that succeeds closes the breaker; a probe that fails opens
///   it for another pause.
///
/// A call that began before the breaker changed its state no longer counts. A call without keys or entries is `Ok` in
/// every state, and the store does not see it.
///
/// The breaker logs a warning when it opens, and a line of the level `info` when it closes. Clones share the breaker;
/// each has its own settings.
///
/// # Errors
/// [`Cache`](ErrorKind::Cache) if the time is up, the store panics, or the breaker is not closed. In the last case, the
/// [source](std::error::Error::source) is the last failure. Errors of the inner store pass as they are.
///
/// A `get` that fails has handed over the values that the store gave before. After it has returned, nothing more is
/// handed over. A `put` that ran out of time, or whose store panicked, may or may not have stored some or all of its
/// entries; it can be repeated. A panic of the sink is the caller's own and passes through.
///
/// # Cancellation
/// Dropping a call drops the inner one, and so does its time limit. A dropped call says nothing about the store and
/// does not count, so set a read limit that is shorter than the [deadlines](crate::Batch::with_deadline) of your
/// callers. If a probe is dropped, the next call is the probe.
///
/// # Cost
/// One timer and two short locks per call, and one flag per value. Time is tokio's: a runtime with its clock is needed,
/// and a test can pause it. A limit ends a call while the store waits; a store that blocks its thread cannot be
/// interrupted.
#[derive(Clone)]
pub struct Guarded<S> {
    store: S,
    read_limit: Duration,
    write_limit: Duration,
    most_failures: u32,
    pause: Duration,
    breaker: Arc<Mutex<Breaker>>,
}

struct Breaker {
    phase: Phase,
    /// How often the phase has changed. A call that began in an earlier phase does not count.
    changes: u64,
    /// Consecutive failures.
    failures: u32,
    last: Option<Error>,
}

#[derive(Clone, Copy)]
enum Phase {
    Closed,
    Open { since: Instant },
    HalfOpen { since: Instant },
}

impl Breaker {
    const fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.changes += 1;
    }
}

impl<S> Guarded<S> {
    /// Guards a store.
    ///
    /// # Default
    /// 1 s to read, 10 s to write; 5 failures open the breaker for 10 s.
    pub fn new(store: S) -> Self {
        let breaker = Breaker { phase: Phase::Closed, changes: 0, failures: 0, last: None };
        Self {
            store,
            read_limit: Duration::from_secs(1),
            write_limit: Duration::from_secs(10),
            most_failures: 5,
            pause: Duration::from_secs(10),
            breaker: Arc::new(Mutex::new(breaker)),
        }
    }

    /// Sets how long a `get` may take. With 0, only a store that never waits is in time.
    #[must_use]
    pub const fn with_read_limit(mut self, limit: Duration) -> Self {
        self.read_limit = limit;
        self
    }

    /// Sets how long a `put`, `discard`, `note` or `flush` may take. With 0, only a store that never waits is in time.
    #[must_use]
    pub const fn with_write_limit(mut self, limit: Duration) -> Self {
        self.write_limit = limit;
        self
    }

    /// Sets how many consecutive failures open the breaker: errors, calls out of time, panics. 0 means the same as 1:
    /// the first failure opens it.
    #[must_use]
    pub const fn with_failures(mut self, failures: u32) -> Self {
        self.most_failures = if failures == 0 { 1 } else { failures };
        self
    }

    /// Sets how long the breaker stays open before a call is let through. With 0, the next call is the probe.
    #[must_use]
    pub const fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Returns how long a `get` may take.
    pub const fn read_limit(&self) -> Duration {
        self.read_limit
    }

    /// Returns how long any other call may take.
    pub const fn write_limit(&self) -> Duration {
        self.write_limit
    }

    /// Returns the state of the breaker.
    pub fn state(&self) -> BreakerState {
        match self.breaker().phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Returns the number of consecutive failures, probes included; 0 after a call that succeeded.
    pub fn failures(&self) -> u32 {
        self.breaker().failures
    }

    /// Returns the guarded store.
    pub const fn get_ref(&self) -> &S {
        &self.store
    }

    /// Returns the guarded store, without the guard.
    pub fn into_inner(self) -> S {
        self.store
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        lock(&self.breaker)
    }
}

fn lock(breaker: &Mutex<Breaker>) -> MutexGuard<'_, Breaker> {
    breaker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A method of the store, with the words for its errors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Put,
    Discard,
    Note,
    Flush,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Discard => "discard",
            Self::Note => "note",
            Self::Flush => "flush",
        }
    }

    /// Says what state the store is in if it did not answer.
    const fn aftermath(self) -> &'static str {
        match self {
            Self::Get => "the values that it gave before are handed over",
            Self::Put => "its entries may or may not be stored, and can be put again",
            Self::Discard => "its entries may or may not be removed",
            Self::Note => "the note may or may not be kept",
            Self::Flush => "accepted entries may not be durable",
        }
    }
}

/// The permission to ask the store once. It is dropped with the call.
struct Pass<'a> {
    breaker: &'a Mutex<Breaker>,
    changes: u64,
}

impl Pass<'_> {
    /// Returns the breaker, unless the call no longer counts.
    fn settle(&self) -> Option<MutexGuard<'_, Breaker>> {
        let breaker = lock(self.breaker);
        (breaker.changes == self.changes).then_some(breaker)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // Only a dropped probe is still in this phase: a probe that ended has left it, and other calls did not begin in
        // it.
        if let Some(mut breaker) = self.settle()
            && let Phase::HalfOpen { since } = breaker.phase
        {
            breaker.enter(Phase::Open { since });
        }
    }
}

impl<S: fmt::Display> Guarded<S> {
    /// Lets a call through, or returns why not.
    fn admit(&self) -> Result<Pass<'_>> {
        let mut breaker = self.breaker();
        let now = Instant::now();
        let state = match breaker.phase {
            Phase::Closed => None,
            Phase::Open { since } => match self.pause.checked_sub(now.duration_since(since)) {
                None | Some(Duration::ZERO) => {
                    breaker.enter(Phase::HalfOpen { since });
                    None
                }
                Some(left) => Some(format!(
                    "no call goes to it for {:?}, {left:?} of which are left; then one call tries it",
                    self.pause
                )),
            },
            Phase::HalfOpen { .. } => Some("one call tries it now, and no other is let through".to_owned()),
        };
        let Some(state) = state else {
            return Ok(Pass { breaker: &self.breaker, changes: breaker.changes });
        };
        let (failures, last) = (breaker.failures, breaker.last.clone());
        // Not under the lock: the name of a store is code of others, and may ask this breaker.
        drop(breaker);
        let message = format!(
            "the breaker of {} is open: the store failed {failures} times in a row, and {} or more open it; {state}; \
             check the store, or set `Guarded::with_failures` and `with_pause`",
            self.store, self.most_failures
        );
        let error = Error::new(ErrorKind::Cache, message);
        Err(match last {
            Some(last) => error.with_source(last),
            None => error,
        })
    }

    fn succeeded(&self, pass: &Pass<'_>) {
        let Some(mut breaker) = pass.settle() else { return };
        let failures = std::mem::take(&mut breaker.failures);
        let last = breaker.last.take();
        let was_closed = matches!(breaker.phase, Phase::Closed);
        if !was_closed {
            breaker.enter(Phase::Closed);
        }
        // Not dropped under the lock: the source of an error is code of others.
        drop(breaker);
        drop(last);
        if was_closed {
            return;
        }
        tracing::info!(
            { telemetry::STORE } = %self.store,
            { telemetry::FAILURES } = failures,
            "the cache store is back: calls go to it again"
        );
    }

    fn failed(&self, pass: &Pass<'_>, error: &Error) {
        let Some(mut breaker) = pass.settle() else { return };
        breaker.failures = breaker.failures.saturating_add(1);
        let last = breaker.last.replace(error.clone());
        let failures = breaker.failures;
        let was_closed = matches!(breaker.phase, Phase::Closed);
        if was_closed && failures < self.most_failures {
            drop(breaker);
            drop(last);
            return;
        }
        breaker.enter(Phase::Open { since: Instant::now() });
        drop(breaker);
        let pause = self.pause;
        if was_closed {
            tracing::warn!(
                { telemetry::STORE } = %self.store,
                { telemetry::ERROR } = %error,
                { telemetry::FAILURES } = failures,
                { telemetry::PAUSE } = ?pause,
                "the cache store failed too often: no call goes to it until the pause is over"
            );
        } else {
            tracing::debug!(
                { telemetry::STORE } = %self.store,
                { telemetry::ERROR } = %error,
                { telemetry::FAILURES } = failures,
                { telemetry::PAUSE } = ?pause,
                "the cache store still fails"
            );
        }
    }
}

impl<S: CacheStore> Guarded<S> {
    /// Makes a call within its time limit, if the breaker lets it through. `in_sink` says whether the sink, code of the
    /// caller, is running.
    async fn call(
        &self,
        method: Method,
        in_sink: &AtomicBool,
        call: impl Future<Output = Result<()>> + Send,
    ) -> Result<()> {
        let pass = self.admit()?;
        let (limit, setter) = match method {
            Method::Get => (self.read_limit, "with_read_limit"),
            _ => (self.write_limit, "with_write_limit"),
        };
        let error = match tokio::time::timeout(limit, AssertUnwindSafe(call).catch_unwind()).await {
            Ok(Ok(Ok(()))) => {
                self.succeeded(&pass);
                return Ok(());
            }
            Ok(Ok(Err(error))) => error,
            Ok(Err(panic)) if in_sink.load(Ordering::Relaxed) => {
                drop(pass);
                resume_unwind(panic)
            }
            Ok(Err(_)) => {
                let message = format!("{} panicked in `{}`: {}", self.store, method.name(), method.aftermath());
                Error::new(ErrorKind::Cache, message)
            }
            Err(_) => {
                let message = format!(
                    "{} did not end `{}` within {limit:?}: {}; check the store, or set `Guarded::{setter}`",
                    self.store,
                    method.name(),
                    method.aftermath()
                );
                Error::new(ErrorKind::Cache, message)
            }
        };
        self.failed(&pass, &error);
        Err(error)
    }

    async fn write(&self, method: Method, call: impl Future<Output = Result<()>> + Send) -> Result<()> {
        self.call(method, &AtomicBool::new(false), call).await
    }
}

impl<S: fmt::Display> fmt::Display for Guarded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guarded({})", self.store)
    }
}

impl<S: fmt::Debug> fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("store", &self.store)
            .field("read_limit", &self.read_limit)
            .field("write_limit", &self.write_limit)
            .field("most_failures", &self.most_failures)
            .field("pause", &self.pause)
            .field("state", &self.state())
            .field("failures", &self.failures())
            .finish()
    }
}

// Calls are made in async blocks, so that a store that panics before it returns a future is caught, too.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CacheStore> CacheStore for Guarded<S> {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let in_sink = AtomicBool::new(false);
        let mut watched = |place: usize, value: &[u8]| {
            in_sink.store(true, Ordering::Relaxed);
            sink(place, value);
            in_sink.store(false, Ordering::Relaxed);
        };
        self.call(Method::Get, &in_sink, async { self.store.get(keys, &mut watched).await }).await
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.write(Method::Put, async { self.store.put(entries).await }).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        if damaged.is_empty() {
            return Ok(());
        }
        self.write(Method::Discard, async { self.store.discard(damaged).await }).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.write(Method::Note, async { self.store.note(space, about).await }).await
    }

    async fn flush(&self) -> Result<()> {
        self.write(Method::Flush, async { self.store.flush().await }).await
    }
}
