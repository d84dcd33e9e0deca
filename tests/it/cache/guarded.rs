//! `Guarded`: its time limits, and when its breaker opens, closes, and lets calls through.

use std::{
    error::Error as _,
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    BreakerState, EmbedderExt, Error, ErrorKind, Result, SpaceId, async_trait,
    cache::{CacheStore, Entry, Guarded, Key, Memory, Sink, Tiered},
    conformance,
    provider::Fake,
};
use futures_util::{FutureExt, future::join_all};
use tokio::time::{Instant, sleep};

use super::stores::{find, find_one, key, put_one, try_find};
use crate::support::warnings::Capture;

const READ: Duration = Duration::from_secs(1);
const WRITE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(10);
const SPACE: SpaceId = SpaceId::from_bytes([1; 16]);

/// How a store behaves in its next calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// Answers after this time.
    Slow(Duration),
    Fails,
    Panics,
    Hangs,
    /// Hands the first half over, and then...
    HalfHangs,
    HalfFails,
    HalfPanics,
}

/// A store that behaves as its mood says.
#[derive(Clone, Debug)]
struct Moody {
    inner: Memory,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
}

impl Moody {
    fn new(mood: Mood) -> Self {
        Self { inner: Memory::unbounded(), mood: Arc::new(Mutex::new(mood)), asked: Arc::default() }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().expect("nobody panics with it") = mood;
    }

    /// Returns the number of calls since this was called last.
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }

    fn begin(&self) -> Mood {
        self.asked.fetch_add(1, Ordering::Relaxed);
        *self.mood.lock().expect("nobody panics with it")
    }

    async fn react(mood: Mood) -> Result<()> {
        match mood {
            Mood::Well => {}
            Mood::Slow(time) => sleep(time).await,
            Mood::Fails | Mood::HalfFails => return Err(Error::new(ErrorKind::Cache, "as told")),
            Mood::Panics | Mood::HalfPanics => panic!("as told"),
            Mood::Hangs | Mood::HalfHangs => std::future::pending().await,
        }
        Ok(())
    }
}

impl fmt::Display for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moody")
    }
}

#[async_trait]
impl CacheStore for Moody {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        let mood = self.begin();
        if matches!(mood, Mood::HalfHangs | Mood::HalfFails | Mood::HalfPanics) {
            self.inner.get(&keys[..keys.len() / 2], sink).await?;
        }
        Self::react(mood).await?;
        self.inner.get(keys, sink).await
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        Self::react(self.begin()).await?;
        self.inner.put(entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        Self::react(self.begin()).await?;
        self.inner.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        Self::react(self.begin()).await?;
        self.inner.note(space, about).await
    }

    /// Panics before there is a future.
    fn flush<'a, 'b>(&'a self) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let mood = self.begin();
        assert_ne!(mood, Mood::Panics, "as told");
        Box::pin(Self::react(mood))
    }
}

fn guarded(mood: Mood) -> (Moody, Guarded<Moody>) {
    let store = Moody::new(mood);
    (store.clone(), Guarded::new(store))
}

/// The methods, in order: `get`, `put`, `discard`, `note`, `flush`.
const METHODS: usize = 5;

async fn call(store: &dyn CacheStore, method: usize) -> Result<()> {
    let entries = [Entry::new(key(1), b"value")];
    match method {
        0 => store.get(&[key(1)], &mut |_: usize, _: &[u8]| {}).await,
        1 => store.put(&entries).await,
        2 => store.discard(&entries).await,
        3 => store.note(SPACE, "a model").await,
        _ => store.flush().await,
    }
}

async fn fail(store: &dyn CacheStore, method: usize) -> Error {
    let error = call(store, method).await.expect_err("it fails");
    assert_eq!(error.kind(), ErrorKind::Cache, "{error}");
    error
}

/// Opens the breaker of a store that fails.
async fn open(store: &Guarded<Moody>) {
    for _ in 0..5 {
        fail(store, 0).await;
    }
    assert_eq!((store.state(), store.failures()), (BreakerState::Open, 5));
    store.get_ref().asked();
}

fn memory() -> Memory {
    Memory::new(64 << 20)
}

#[tokio::test]
async fn guarded_stores_pass() {
    conformance::store(|| Guarded::new(memory())).await.expect("over memory");
    conformance::store(|| Guarded::new(Arc::new(memory()) as Arc<dyn CacheStore>)).await.expect("over a pointer");
    conformance::store(|| Tiered::new(memory(), Guarded::new(memory()))).await.expect("as the slow one");
    conformance::store(|| Guarded::new(Tiered::new(Guarded::new(memory()), memory()))).await.expect("around tiers");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_within_its_limit_passes() {
    let slow = || Guarded::new(Moody::new(Mood::Slow(Duration::from_millis(999))));
    conformance::store(slow).await.expect("it is only slow");
}

#[tokio::test(start_paused = true)]
async fn each_call_ends_in_time() {
    for method in 0..METHODS {
        let (inner, store) = guarded(Mood::Hangs);
        let (limit, setter) = if method == 0 { (READ, "with_read_limit") } else { (WRITE, "with_write_limit") };
        let start = Instant::now();
        let error = fail(&store, method).await.to_string();
        assert_eq!(start.elapsed(), limit, "{method}");
        assert_eq!((inner.asked(), store.failures()), (1, 1));
        assert!(error.contains("moody did not end `") && error.contains(&format!("{limit:?}")), "{error}");
        assert!(error.contains(setter), "{error}");
    }
    let (_, store) = guarded(Mood::Hangs);
    let error = fail(&store, 1).await.to_string();
    assert!(error.contains("may or may not be stored"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn limits_can_be_set() {
    let store = Moody::new(Mood::Slow(Duration::from_secs(3)));
    let (read, write) = (Duration::from_secs(2), Duration::from_secs(4));
    let store = Guarded::new(store).with_read_limit(read).with_write_limit(write);
    assert_eq!((store.read_limit(), store.write_limit()), (read, write));
    let start = Instant::now();
    call(&store, 1).await.expect("in time");
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    fail(&store, 0).await;
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    store.with_read_limit(write).get(&[key(1)], &mut |_: usize, _: &[u8]| {}).await.expect("in time");
}

#[tokio::test(start_paused = true)]
async fn no_time_is_too_long() {
    let (inner, store) = guarded(Mood::Well);
    let store = store.with_read_limit(Duration::MAX).with_write_limit(Duration::MAX).with_pause(Duration::MAX);
    for method in 0..METHODS {
        call(&store, method).await.expect("it is well");
    }
    inner.set(Mood::Fails);
    open(&store).await;
    sleep(Duration::from_secs(1 << 20)).await;
    inner.set(Mood::Well);
    fail(&store, 0).await;
    assert_eq!(inner.asked(), 0);
    // Nor too short: without a pause, the next call is the probe.
    let store = store.with_pause(Duration::ZERO);
    call(&store, 0).await.expect("it is well");
    assert_eq!(store.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn while_open_every_call_fails_at_once_and_says_why() {
    let (inner, store) = guarded(Mood::Fails);
    for failures in 1..=5 {
        assert_eq!(store.state(), BreakerState::Closed);
        // The store's own error, as it is.
        assert_eq!(fail(&store, failures % METHODS).await.to_string(), "cache failed: as told");
        assert_eq!(store.failures() as usize, failures);
    }
    assert_eq!((store.state(), inner.asked()), (BreakerState::Open, 5));
    inner.set(Mood::Well);
    let start = Instant::now();
    for method in 0..METHODS {
        let error = fail(&store, method).await;
        let text = error.to_string();
        for part in ["breaker of moody is open", "5 times", "10s", "`Guarded::with_failures`", "`with_pause`"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let source = error.source().expect("the last failure");
        assert_eq!(source.to_string(), "cache failed: as told");
    }
    assert_eq!((start.elapsed(), inner.asked(), store.failures()), (Duration::ZERO, 0, 5));
    sleep(Duration::from_secs(4)).await;
    let error = fail(&store, 0).await.to_string();
    assert!(error.contains("for 10s, 6s of which are left"), "{error}");
    // Calls without keys or entries do not reach the store and do not count.
    sleep(PAUSE).await;
    store.get(&[], &mut |_: usize, _: &[u8]| {}).await.expect("no keys");
    store.put(&[]).await.expect("no entries");
    store.discard(&[]).await.expect("no entries");
    assert_eq!((inner.asked(), store.state()), (0, BreakerState::Open));
    assert!(format!("{store:?}").contains("state: Open, failures: 5"), "{store:?}");
}

#[tokio::test(start_paused = true)]
async fn only_failures_in_a_row_open() {
    let (inner, store) = guarded(Mood::Well);
    for round in 0..20 {
        inner.set(Mood::Fails);
        for failures in 1..5 {
            fail(&store, (round + failures) % METHODS).await;
            assert_eq!(store.failures() as usize, failures);
        }
        inner.set(Mood::Well);
        call(&store, round % METHODS).await.expect("it is well");
        assert_eq!((store.failures(), store.state()), (0, BreakerState::Closed));
    }
    let store = store.with_failures(0);
    inner.set(Mood::Fails);
    fail(&store, 0).await;
    assert_eq!(store.state(), BreakerState::Open, "0 means the same as 1");
}

#[tokio::test(start_paused = true)]
async fn panics_are_failures() {
    let (inner, store) = guarded(Mood::Panics);
    for method in 0..METHODS {
        let error = fail(&store, method).await.to_string();
        assert!(error.contains("moody panicked in `"), "{error}");
        // The message of the panic may hold anything.
        assert!(!error.contains("as told"), "{error}");
    }
    assert_eq!((store.state(), inner.asked()), (BreakerState::Open, METHODS));
    // A probe that panics has failed.
    sleep(PAUSE).await;
    fail(&store, 4).await;
    assert_eq!((store.state(), store.failures(), inner.asked()), (BreakerState::Open, 6, 1));
}

#[tokio::test(start_paused = true)]
async fn failures_of_all_forms_count_together() {
    let (inner, store) = guarded(Mood::Fails);
    for (method, mood) in [Mood::Fails, Mood::Hangs, Mood::Panics, Mood::HalfHangs, Mood::Fails].into_iter().enumerate()
    {
        assert_eq!(store.state(), BreakerState::Closed);
        inner.set(mood);
        fail(&store, method % METHODS).await;
    }
    assert_eq!(store.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_get_that_is_cut_off_has_handed_over_what_it_had() {
    for mood in [Mood::HalfHangs, Mood::HalfFails, Mood::HalfPanics] {
        let (inner, store) = guarded(Mood::Well);
        for number in 0..4 {
            put_one(&store, key(number), &[number as u8]).await;
        }
        inner.set(mood);
        let mut given = Vec::new();
        let keys: Vec<Key> = (0..4).map(key).collect();
        let start = Instant::now();
        let mut sink = |place: usize, value: &[u8]| given.push((place, value.to_vec()));
        let error = store.get(&keys, &mut sink).await.expect_err("it is cut off");
        assert_eq!(error.kind(), ErrorKind::Cache, "{mood:?}");
        assert_eq!(start.elapsed(), if mood == Mood::HalfHangs { READ } else { Duration::ZERO }, "{mood:?}");
        sleep(READ).await;
        assert_eq!(given, [(0, vec![0]), (1, vec![1])], "{mood:?}");
        inner.set(Mood::Well);
        assert_eq!(find(&store, &keys).await.iter().flatten().count(), 4, "{mood:?}");
    }
}

/// Hands one value over every 400 ms.
#[derive(Debug)]
struct Dripping;

impl fmt::Display for Dripping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dripping")
    }
}

#[async_trait]
impl CacheStore for Dripping {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        for place in 0..keys.len() {
            sleep(Duration::from_millis(400)).await;
            sink(place, b"drop");
        }
        Ok(())
    }

    async fn put(&self, _: &[Entry<'_>]) -> Result<()> {
        Ok(())
    }

    async fn discard(&self, _: &[Entry<'_>]) -> Result<()> {
        Ok(())
    }

    async fn note(&self, _: SpaceId, _: &str) -> Result<()> {
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_limit_nothing_is_handed_over() {
    let store = Guarded::new(Dripping);
    let keys: Vec<Key> = (0..9).map(key).collect();
    let start = Instant::now();
    let mut at = Vec::new();
    store.get(&keys, &mut |_: usize, _: &[u8]| at.push(start.elapsed())).await.expect_err("out of time");
    sleep(4 * READ).await;
    assert_eq!(at, [Duration::from_millis(400), Duration::from_millis(800)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_back_is_asked_again() {
    let (inner, store) = guarded(Mood::Hangs);
    open(&store).await;

    // Each pause ends with one probe. While probes fail, the next pause begins.
    for probes in 1..4 {
        sleep(PAUSE - Duration::from_millis(1)).await;
        fail(&store, 0).await;
        assert_eq!(inner.asked(), 0);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(store.state(), BreakerState::Open);
        fail(&store, 0).await;
        assert_eq!((inner.asked(), store.state(), store.failures()), (1, BreakerState::Open, 5 + probes));
    }

    inner.set(Mood::Well);
    sleep(PAUSE).await;
    put_one(&store, key(1), b"value").await;
    assert_eq!((store.state(), store.failures()), (BreakerState::Closed, 0));
    assert!(find_one(&store, key(1)).await.is_some());
    // Opening takes as many failures as the first time.
    inner.set(Mood::Fails);
    open(&store).await;
}

#[tokio::test(start_paused = true)]
async fn of_callers_at_once_one_is_the_probe() {
    let (inner, store) = guarded(Mood::Fails);
    open(&store).await;
    sleep(PAUSE).await;
    inner.set(Mood::Slow(READ / 2));
    let start = Instant::now();
    let results = join_all((0..100).map(|caller| {
        let store = store.clone();
        async move {
            let result = call(&store, caller % METHODS).await;
            (result, start.elapsed())
        }
    }))
    .await;
    assert_eq!(inner.asked(), 1);
    let (probe, others): (Vec<_>, Vec<_>) = results.into_iter().partition(|(result, _)| result.is_ok());
    assert!(matches!(probe[..], [(Ok(()), elapsed)] if elapsed == READ / 2));
    assert_eq!(others.len(), 99);
    for (result, elapsed) in others {
        let text = result.expect_err("not let through").to_string();
        assert!(elapsed.is_zero() && text.contains("one call tries it now"), "{text}");
    }
    // The breaker has closed for all.
    assert!(join_all((0..100).map(|_| call(&store, 0))).await.iter().all(Result::is_ok));
    assert_eq!(inner.asked(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_threads_at_once_one_is_the_probe() {
    for _ in 0..50 {
        let (inner, store) = guarded(Mood::Fails);
        // Long enough for a busy machine.
        let store = store.with_pause(Duration::ZERO).with_read_limit(Duration::from_secs(600));
        open(&store).await;
        inner.set(Mood::Hangs);
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { call(&store, 0).await })
            })
            .collect();
        let refused = async {
            while callers.iter().filter(|caller| caller.is_finished()).count() < 7 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), refused).await.expect("all but one are refused");
        assert_eq!((inner.asked(), store.state()), (1, BreakerState::HalfOpen));
        callers.iter().for_each(|caller| caller.abort());
        let ended = join_all(callers).await;
        assert_eq!(ended.iter().filter(|ended| matches!(ended, Ok(Err(_)))).count(), 7);
        // The probe was dropped with its task; the next one is let through.
        inner.set(Mood::Well);
        call(&store, 0).await.expect("it is well");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_makes_way_for_the_next() {
    for method in 0..METHODS {
        let (inner, store) = guarded(Mood::Fails);
        open(&store).await;
        sleep(PAUSE).await;
        inner.set(Mood::Hangs);
        for _ in 0..3 {
            let mut probe = Box::pin(call(&store, method));
            assert!(probe.as_mut().now_or_never().is_none());
            assert_eq!(store.state(), BreakerState::HalfOpen);
            fail(&store, method).await;
            drop(probe);
            assert_eq!((store.state(), store.failures(), inner.asked()), (BreakerState::Open, 5, 1));
        }
        // At once, because the pause is over.
        inner.set(Mood::Well);
        call(&store, method).await.expect("it is well");
        assert_eq!((store.state(), inner.asked()), (BreakerState::Closed, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_does_not_count() {
    let (inner, store) = guarded(Mood::Hangs);
    for method in 0..4 * METHODS {
        assert!(call(&store, method % METHODS).now_or_never().is_none());
    }
    // A call that was never polled has not begun.
    drop(call(&store, 0));
    assert_eq!((store.failures(), store.state(), inner.asked()), (0, BreakerState::Closed, 4 * METHODS));
}

#[tokio::test(start_paused = true)]
async fn a_call_of_an_earlier_time_does_not_count() {
    let (inner, store) = guarded(Mood::Slow(Duration::from_secs(5)));
    // A call that will succeed, and one that will fail.
    let mut early = Box::pin(call(&store, 1));
    assert!(early.as_mut().now_or_never().is_none());
    inner.set(Mood::Hangs);
    let mut late = Box::pin(call(&store, 1));
    assert!(late.as_mut().now_or_never().is_none());

    inner.set(Mood::Fails);
    open(&store).await;
    early.await.expect("it ends well");
    assert_eq!((store.state(), store.failures()), (BreakerState::Open, 5));
    sleep(PAUSE / 2).await;
    inner.set(Mood::Well);
    call(&store, 0).await.expect("the probe ends well");
    late.await.expect_err("out of time");
    assert_eq!((store.state(), store.failures()), (BreakerState::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_sink_is_the_callers() {
    let (_, store) = guarded(Mood::Well);
    let store = store.with_failures(1);
    put_one(&store, key(1), b"value").await;
    let keys = [key(1)];
    let mut sink = |_: usize, _: &[u8]| panic!("the caller's");
    let panic = AssertUnwindSafe(store.get(&keys, &mut sink)).catch_unwind().await.expect_err("it passes through");
    assert_eq!(panic.downcast_ref(), Some(&"the caller's"));
    assert_eq!((store.state(), store.failures()), (BreakerState::Closed, 0));
    assert!(find_one(&store, key(1)).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn clones_share_the_breaker_and_not_the_settings() {
    let (inner, store) = guarded(Mood::Fails);
    let strict = store.clone().with_failures(2).with_pause(PAUSE / 10);
    fail(&store, 0).await;
    fail(&strict, 0).await;
    assert_eq!([store.state(), strict.state()], [BreakerState::Open; 2]);
    inner.asked();
    fail(&store, 0).await;
    sleep(PAUSE / 10).await;
    fail(&store, 0).await;
    assert_eq!(inner.asked(), 0);
    inner.set(Mood::Well);
    call(&strict, 0).await.expect("its pause is over");
    assert_eq!([store.state(), strict.state()], [BreakerState::Closed; 2]);
    assert_eq!(strict.into_inner().asked(), 1);
}

/// A cache over a store that hangs costs time until the breaker opens, and no vector.
#[tokio::test(start_paused = true)]
async fn a_cache_over_a_store_that_hangs_goes_on() {
    let (inner, store) = guarded(Mood::Hangs);
    let fake = Fake::new(8);
    let embedder = docvector_embed::wrap::Cached::builder(fake.clone(), store.clone())
        .with_stored_queries(true)
        .build()
        .expect("one space");
    let start = Instant::now();
    let mut took = Vec::new();
    for text in ["one", "two", "three", "four", "five"] {
        let expected = fake.embed_query(text).await.expect("it embeds");
        let before = start.elapsed();
        assert_eq!(embedder.embed_query(text).await.expect("it embeds"), expected);
        took.push((start.elapsed() - before).as_secs());
    }
    // A read and a write, each out of time, until there are five failures.
    assert_eq!(took, [11, 11, 1, 0, 0]);
    assert_eq!(store.state(), BreakerState::Open);

    inner.set(Mood::Well);
    sleep(PAUSE).await;
    for (round, cached) in [0, 1].into_iter().enumerate() {
        let result = embedder.embed_documents(&["six"]).await.expect("it embeds");
        assert_eq!(result.usage().cached, cached, "{round}");
    }
    assert_eq!(store.state(), BreakerState::Closed);
    assert!(try_find(&store, &[key(1)]).await.is_ok());
}

#[test]
fn opening_is_a_warning_and_closing_is_said() {
    let capture = Capture::default();
    let writer = capture.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let lines = || {
        let logged = std::mem::take(&mut *capture.0.lock().expect("nobody panicked"));
        String::from_utf8_lossy(&logged).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let (inner, store) = guarded(Mood::Fails);
            for _ in 0..4 {
                fail(&store, 0).await;
            }
            assert_eq!(lines(), [""; 0], "nothing has changed");
            for _ in 0..10 {
                fail(&store, 0).await;
            }
            let logged = lines();
            assert!(matches!(&logged[..], [line] if line.contains("WARN")), "{logged:?}");
            for part in
                ["no call goes to it until the pause is over", "store=moody", "failures=5", "pause=10s", "as told"]
            {
                assert!(logged[0].contains(part), "{part}: {logged:?}");
            }
            // A probe that fails changes nothing.
            sleep(PAUSE).await;
            fail(&store, 0).await;
            assert_eq!(lines(), [""; 0]);
            sleep(PAUSE).await;
            inner.set(Mood::Well);
            call(&store, 0).await.expect("it is well");
            let logged = lines();
            assert!(matches!(&logged[..], [line] if line.contains("INFO") && line.contains("is back")), "{logged:?}");
            call(&store, 0).await.expect("it is well");
            assert_eq!(lines(), [""; 0]);
        });
    });
}
