//! Servers of shared stores that are killed, stopped, cut off or hanging in the middle of a run: no row is wrong or
//! missing, and no text is paid for again that the store confirmed.
#![cfg(all(unix, any(feature = "redis", feature = "postgres")))]

use std::{
    collections::{HashMap, HashSet},
    env, fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, ErrorKind, InputKind, Limits, Result, Space, StreamOptions, async_trait,
    cache::{CacheScan, CacheStore, Entry, Key},
    provider::Fake,
    wrap::Cached,
};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::stores::{find, key, put_one, try_find};
use crate::support::{numbered, server_child::PATIENCE, tcp_proxy::TcpProxy};

/// The distinct texts of a run, and how many of them come a second time where one call has all of them.
const TEXTS: usize = 2_000;
const REPEATED: usize = 100;

/// The texts per call of the provider, and its calls in flight.
const PER_CALL: usize = 50;
const IN_FLIGHT: usize = 2;

/// The calls that are made while the server is away.
const CALLS_WITHOUT_STORE: usize = 6;

/// The timeouts of a store whose server hangs. A busy machine must be able to answer in this time.
const SOON: Duration = Duration::from_secs(2);

/// How often each fault is tried.
fn rounds() -> usize {
    if env::var_os("DOCVECTOR_EMBED_FULL").is_some_and(|full| full == "1") { 30 } else { 10 }
}

/// What befalls a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is killed, and started again.
    Killed,
    /// It is stopped in good order, and started again.
    Stopped,
    /// Its connections are cut, and new ones too, and then no longer.
    Cut,
}

/// A server that a test can do this to.
trait Breakable {
    fn port(&self) -> u16;
    fn kill(&mut self);
    fn stop(&mut self);
    fn restart(&mut self);
    /// The URL of a store with this name, through a port.
    fn url(&self, port: u16, store: &str) -> String;
}

/// A server, and a proxy before it.
struct Site<B> {
    server: B,
    proxy: TcpProxy,
}

impl<B: Breakable> Site<B> {
    fn new(server: B) -> Self {
        let proxy = TcpProxy::before(server.port());
        Self { server, proxy }
    }

    fn url(&self, fault: Fault, store: &str) -> String {
        let port = if fault == Fault::Cut { self.proxy.port() } else { self.server.port() };
        self.server.url(port, store)
    }

    fn break_by(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.server.kill(),
            Fault::Stopped => self.server.stop(),
            Fault::Cut => self.proxy.cut(),
        }
    }

    fn repair(&mut self, fault: Fault) {
        match fault {
            Fault::Killed | Fault::Stopped => self.server.restart(),
            Fault::Cut => self.proxy.restore(),
        }
    }
}

/// How a run meets a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// One call embeds everything. The server is back before the store is needed again.
    Brief,
    /// One call embeds everything, and goes on while the server is away.
    Whole,
    /// A stream goes on while the server is away.
    Stream,
}

impl Run {
    const ALL: [Self; 3] = [Self::Brief, Self::Whole, Self::Stream];

    /// The calls of the provider that wait when no other is under way.
    const fn waiting(self) -> usize {
        // The last call of a window is alone.
        if matches!(self, Self::Stream) { 1 } else { IN_FLIGHT }
    }

    fn texts(self) -> Vec<String> {
        let mut texts = numbered(TEXTS);
        if self != Self::Stream {
            texts.extend_from_within(..REPEATED);
        }
        texts
    }

    /// Embeds the texts, and checks that each row is its text's own.
    async fn embed<E: Embedder + Clone>(self, embedder: E, fake: Fake) {
        let texts = self.texts();
        let rows: Vec<Embeddings> = if self == Self::Stream {
            let options = StreamOptions::new(InputKind::Document).with_windows_in_flight(1);
            let owned = futures_util::stream::iter(texts.clone());
            let windows = embedder.embed_stream(owned, options);
            windows.map(|rows| rows.expect("a broken store costs no row")).collect().await
        } else {
            vec![embedder.embed_documents(&texts).await.expect("a broken store costs no row")]
        };
        let rows = rows.iter().flat_map(Embeddings::rows);
        let mut count = 0;
        for (text, row) in texts.iter().zip(rows) {
            assert!(row == fake.vector_of(InputKind::Document, text), "the row of '{text}' is not its own");
            count += 1;
        }
        assert_eq!(count, texts.len(), "one row per text");
    }
}

/// An embedder that lets a set number of calls through to a fake.
#[derive(Clone, Debug)]
struct Gate {
    fake: Fake,
    asked: Arc<AtomicUsize>,
    passes: watch::Sender<usize>,
}

impl Gate {
    fn new(fake: Fake, passes: usize) -> Self {
        Self { fake, asked: Arc::default(), passes: watch::Sender::new(passes) }
    }

    fn let_through(&self, calls: usize) {
        self.passes.send_replace(calls);
    }

    /// Waits until so many calls have come, whether they were let through or not.
    async fn until_asked(&self, calls: usize) {
        until("calls come", async || self.asked.load(Ordering::Acquire) >= calls).await;
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({})", self.fake)
    }
}

#[async_trait]
impl Embedder for Gate {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let number = self.asked.fetch_add(1, Ordering::AcqRel);
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.passes.subscribe().wait_for(|passes| *passes > number).await;
        self.fake.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}

fn fake() -> Fake {
    let limits = Limits::none().with_texts(PER_CALL).with_in_flight(IN_FLIGHT);
    Fake::builder().with_dimensions(8).with_limits(limits).build().expect("valid")
}

/// How often each text was paid for.
fn paid(fake: &Fake) -> HashMap<String, usize> {
    let mut paid = HashMap::new();
    fake.calls().into_iter().flat_map(|call| call.texts).for_each(|text| *paid.entry(text).or_default() += 1);
    paid
}

/// Waits until something holds, with a generous end.
pub(super) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < give_up, "in vain: waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn until_it_works(store: &dyn CacheStore) {
    until("the store works again", async || store.flush().await.is_ok()).await;
}

/// Lists the store, and returns how many entries it has.
pub(super) async fn entries_of(store: &dyn CacheScan) -> usize {
    let (mut keys, mut place) = (HashSet::new(), None);
    loop {
        let mut sink = |key: Key, _: &[u8]| _ = keys.insert(key);
        place = store.scan(place.as_ref(), &mut sink).await.expect("it lists");
        if place.is_none() {
            return keys.len();
        }
    }
}

/// Lets a fault befall the server in the middle of a run; returns the vectors that the store confirmed.
async fn run_through<S: CacheScan + Clone>(
    site: &mut Site<impl Breakable>,
    fault: Fault,
    run: Run,
    before: usize,
    store: &S,
) -> usize {
    let told = format!("{fault:?}, {run:?}, after {before} calls");
    let fake = fake();
    let gate = Gate::new(fake.clone(), before);
    let cached: Cached<Gate> = gate.clone().cached(store.clone()).expect("one space");
    let running = tokio::spawn(run.embed(cached.clone(), fake.clone()));
    gate.until_asked(before + run.waiting()).await;
    site.break_by(fault);
    let missed = if run == Run::Brief { 0 } else { CALLS_WITHOUT_STORE };
    if missed > 0 {
        gate.let_through(before + missed);
        gate.until_asked(before + missed + run.waiting()).await;
    }
    site.repair(fault);
    if missed > 0 {
        until_it_works(store).await;
    }
    gate.let_through(usize::MAX);
    running.await.expect("the run ends well");

    let paid = paid(&fake);
    let again = paid.values().filter(|times| **times > 1).count();
    assert_eq!((paid.len(), again), (TEXTS, 0), "{told}: each text is paid for once");
    let counts = cached.counts();
    let stored = usize::try_from(counts.stored).expect("a small number");
    if run == Run::Brief {
        assert_eq!((stored, counts.failures), (TEXTS, 0), "{told}: nobody needed the store meanwhile");
    }
    // The calls without a store, and one or two that were being stored when it went away.
    assert!(stored + (missed + IN_FLIGHT) * PER_CALL >= TEXTS, "{told}: only {stored} were stored: {counts:?}");
    // Processes of a killed server may live a moment longer.
    assert!(counts.failures > 0 || run == Run::Brief || fault == Fault::Killed, "{told}: nobody noticed");
    stored
}

/// Runs the same texts again, twice, and checks that only those are paid for that the store does not have.
async fn run_again<S: CacheScan + Clone>(run: Run, store: &S, confirmed: usize) {
    let found = entries_of(store).await;
    assert!(found >= confirmed && found <= TEXTS, "{found} entries are there, {confirmed} were confirmed");
    for missing in [TEXTS - found, 0] {
        let fake = fake();
        let cached = fake.clone().cached(store.clone()).expect("one space");
        run.embed(cached.clone(), fake.clone()).await;
        assert_eq!(paid(&fake).len(), missing, "what the store has is not paid for again");
        let counts = cached.counts();
        assert_eq!((counts.failures, counts.damaged), (0, 0));
    }
}

/// Lets this fault befall the server in many runs.
async fn many_rounds<S: CacheScan + Clone>(
    site: &mut Site<impl Breakable>,
    fault: Fault,
    open: impl AsyncFn(&str) -> S,
) {
    for round in 0..rounds() {
        let run = Run::ALL[round % Run::ALL.len()];
        let url = site.url(fault, &format!("round{round}"));
        let store = open(&url).await;
        let confirmed = run_through(site, fault, run, 2 + 2 * round % 24, &store).await;
        // As another process finds it.
        drop(store);
        run_again(run, &open(&url).await, confirmed).await;
    }
}

fn large(key: &Key) -> Vec<u8> {
    key.as_bytes().repeat(128)
}

pub(super) async fn put_all(store: &dyn CacheStore, keys: &[Key]) -> Result<()> {
    let values: Vec<Vec<u8>> = keys.iter().map(large).collect();
    let entries: Vec<Entry<'_>> = keys.iter().zip(&values).map(|(&key, value)| Entry::new(key, value)).collect();
    store.put(&entries).await
}

pub(super) async fn assert_all(store: &dyn CacheStore, keys: &[Key], what: &str) {
    for (place, (key, found)) in keys.iter().zip(find(store, keys).await).enumerate() {
        assert!(found.is_some_and(|found| found == large(key)), "{what}: place {place}");
    }
}

/// Puts until it fails for this reason; returns the keys that were stored before.
async fn fill(store: &dyn CacheStore, why: &str) -> Vec<Key> {
    let mut stored = Vec::new();
    for batch in 0..2_000 {
        let more: Vec<Key> = (0..20).map(|number| key((1 << 32) + 20 * batch + number)).collect();
        match put_all(store, &more).await {
            Ok(()) => stored.extend(more),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Cache);
                assert!(error.to_string().contains(why), "{error}");
                return stored;
            }
        }
    }
    panic!("160 MB went where there was no room for them");
}

/// Fills a store, and checks that entries are intact, that `Cached` returns all rows, and that entries are stored again
/// once there is room.
pub(super) async fn goes_on_without_room<S: CacheStore + Clone>(store: &S, why: &str, make_room: impl FnOnce()) {
    let stored = fill(store, why).await;
    assert!(!stored.is_empty(), "nothing was stored");
    assert_all(store, &stored, "without room").await;
    let fake = Fake::new(768);
    let cached = fake.clone().cached(store.clone()).expect("one space");
    let texts = numbered(400);
    for round in 1..=2 {
        let rows = cached.embed_documents(&texts).await.expect("a store without room costs no row");
        for (text, row) in texts.iter().zip(rows.rows()) {
            assert!(row == fake.vector_of(InputKind::Document, text), "the row of '{text}' is not its own");
        }
        assert!(cached.counts().failures >= round, "{:?}", cached.counts());
    }
    make_room();
    let after: Vec<Key> = (0..50).map(key).collect();
    until("there is room again", async || put_all(store, &after).await.is_ok()).await;
    assert_all(store, &after, "after there was room").await;
    assert_all(store, &stored, "from before").await;
    let few = &texts[..20];
    cached.embed_documents(few).await.expect("it embeds");
    let (paid, hits) = (fake.calls().len(), cached.counts().hits);
    cached.embed_documents(few).await.expect("they are stored");
    assert_eq!((fake.calls().len(), cached.counts().hits), (paid, hits + 20));
}

/// Cuts connections in the middle of replies: a call tries once more, and hands nothing over twice.
async fn replies_are_cut(proxy: &TcpProxy, store: &dyn CacheStore) {
    let keys: Vec<Key> = (0..300).map(key).collect();
    put_all(store, &keys).await.expect("it stores");
    settle(proxy, store, &keys).await;
    for round in 0..3 * rounds() {
        // All values are 1.2 MB.
        proxy.cut_after(fastrand::usize(..1_200_000));
        // Fails where a place is handed over twice.
        assert_all(store, &keys, &format!("round {round}")).await;
        settle(proxy, store, &keys).await;
        proxy.cut_after(fastrand::usize(..200));
        let new: Vec<Key> = (0..20).map(|number| key(1_000 + 20 * round as u64 + number)).collect();
        put_all(store, &new).await.expect("it stores at the second attempt");
        proxy.restore();
        assert_all(store, &new, &format!("round {round}, put")).await;
        settle(proxy, store, &keys).await;
    }
}

/// Ends what a cut may have left: it closes all connections, also those that the call did not use. A later call that
/// finds one of them closed, and is then cut itself, has had its second attempt. So has one that is cut while it makes a
/// connection: a look-up of all keys makes those that the next one needs.
async fn settle(proxy: &TcpProxy, store: &dyn CacheStore, keys: &[Key]) {
    proxy.restore();
    for _ in 0..4 {
        let _ = try_find(store, keys).await;
    }
}

/// A server that hangs is an error after the time that was set, and is used again when it goes on. The store has a short
/// timeout.
async fn hangs(proxy: &TcpProxy, store: &dyn CacheStore) {
    put_one(store, key(1), b"a value").await;
    proxy.stall();
    let error = try_find(store, &[key(1)]).await.expect_err("no reply comes");
    assert_eq!(error.kind(), ErrorKind::Cache);
    // Which call tells so is not said: later ones may be told of the connection that could not be made.
    let error = store.put(&[Entry::new(key(2), b"another")]).await.expect_err("no reply comes");
    assert_eq!(error.kind(), ErrorKind::Cache);
    proxy.restore();
    until_it_works(store).await;
    put_one(store, key(3), b"a third").await;
    let found = find(store, &[key(1), key(3)]).await;
    assert_eq!(found, [Some(b"a value".to_vec()), Some(b"a third".to_vec())]);
}

/// Calls that are dropped at any moment leave the store as it was for others.
async fn dropped(store: &dyn CacheStore) {
    let keys: Vec<Key> = (0..300).map(key).collect();
    put_all(store, &keys).await.expect("it stores");
    for round in 0..40 {
        let wait = Duration::from_micros(round * 100);
        let more: Vec<Key> = (0..50).map(|number| key(1_000 + number)).collect();
        let _ = tokio::time::timeout(wait, try_find(store, &keys)).await;
        let _ = tokio::time::timeout(wait, put_all(store, &more)).await;
    }
    assert_all(store, &keys, "after dropped calls").await;
    let (one, other) = tokio::join!(try_find(store, &keys[..150]), try_find(store, &keys[150..]));
    assert_eq!(one.expect("it reads").len() + other.expect("it reads").len(), 300);
}

#[cfg(feature = "redis")]
mod redis {
    use docvector_embed::cache::Redis;

    use super::*;
    use crate::support::redis_server::RedisServer;

    impl Breakable for RedisServer {
        fn port(&self) -> u16 {
            self.port()
        }

        fn kill(&mut self) {
            self.kill();
        }

        fn stop(&mut self) {
            self.terminate();
        }

        fn restart(&mut self) {
            self.restart();
        }

        fn url(&self, port: u16, store: &str) -> String {
            format!("{}?prefix={store}:", self.url_at(port))
        }
    }

    async fn open(url: &str) -> Redis {
        Redis::connect(url).await.expect("it connects")
    }

    async fn befallen_by(fault: Fault) {
        if let Some(server) = RedisServer::own(&[]) {
            many_rounds(&mut Site::new(server), fault, open).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn killed_in_the_middle_of_runs() {
        befallen_by(Fault::Killed).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn stopped_in_the_middle_of_runs() {
        befallen_by(Fault::Stopped).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn cut_off_in_the_middle_of_runs() {
        befallen_by(Fault::Cut).await;
    }

    #[tokio::test]
    async fn cut_in_the_middle_of_replies() {
        let Some(server) = RedisServer::own(&[]) else { return };
        let site = Site::new(server);
        replies_are_cut(&site.proxy, &open(&site.url(Fault::Cut, "replies")).await).await;
    }

    #[tokio::test]
    async fn a_server_that_hangs() {
        let Some(server) = RedisServer::own(&[]) else { return };
        let site = Site::new(server);
        let builder = Redis::builder(&site.url(Fault::Cut, "hangs"));
        hangs(&site.proxy, &builder.with_timeout(SOON).with_connect_timeout(SOON).build().await.expect("it connects"))
            .await;
    }

    #[tokio::test]
    async fn dropped_calls() {
        let Some(server) = RedisServer::own(&[]) else { return };
        dropped(&open(&server.url()).await).await;
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use docvector_embed::cache::Postgres;

    use super::*;
    use crate::support::postgres_server::PostgresServer;

    impl Breakable for PostgresServer {
        fn port(&self) -> u16 {
            self.port()
        }

        fn kill(&mut self) {
            self.kill();
        }

        fn stop(&mut self) {
            self.stop_fast();
        }

        fn restart(&mut self) {
            self.restart();
        }

        fn url(&self, port: u16, store: &str) -> String {
            format!("{}?table={store}", self.url_at(port))
        }
    }

    async fn open(url: &str) -> Postgres {
        Postgres::connect(url).await.expect("it connects")
    }

    async fn befallen_by(fault: Fault) {
        if let Some(server) = PostgresServer::own(&[]) {
            many_rounds(&mut Site::new(server), fault, open).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn killed_in_the_middle_of_runs() {
        befallen_by(Fault::Killed).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn stopped_in_the_middle_of_runs() {
        befallen_by(Fault::Stopped).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn cut_off_in_the_middle_of_runs() {
        befallen_by(Fault::Cut).await;
    }

    #[tokio::test]
    async fn cut_in_the_middle_of_replies() {
        let Some(server) = PostgresServer::own(&[]) else { return };
        let site = Site::new(server);
        replies_are_cut(&site.proxy, &open(&site.url(Fault::Cut, "replies")).await).await;
    }

    #[tokio::test]
    async fn a_server_that_hangs() {
        let Some(server) = PostgresServer::own(&[]) else { return };
        let site = Site::new(server);
        let builder = Postgres::builder(site.url(Fault::Cut, "hangs"));
        hangs(&site.proxy, &builder.with_timeout(SOON).with_connect_timeout(SOON).build().await.expect("it connects"))
            .await;
    }

    #[tokio::test]
    async fn dropped_calls() {
        let Some(server) = PostgresServer::own(&[]) else { return };
        dropped(&open(&server.url()).await).await;
    }
}
