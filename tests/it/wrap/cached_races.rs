//! The cache when calls overlap, leave, fail and are late: each text is embedded once, and each row is that of its
//! text.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use docvector_embed::{
    BadText, BadTextReason, Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits, Partial,
    Result, Space, SpaceId, StreamOptions, Truncation, Usage, async_trait,
    cache::{CacheStore, Entry, Key, Memory, Sink},
    provider::{Fake, FakeOutcome},
    wrap::Cached,
};
use fastrand::Rng;
use futures_util::{
    FutureExt, StreamExt,
    future::{join, join_all},
    stream,
};

use crate::support::own;

/// Different texts of a race.
const TEXTS: usize = 50;
const CALLERS: usize = 40;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything takes here: a caller without an answer by then gets none.
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn fake(limits: Limits) -> Fake {
    Fake::builder().with_dimensions(4).with_limits(limits).build().expect("valid")
}

fn cached<E: Embedder>(embedder: E, store: impl CacheStore) -> Cached<E> {
    Cached::new(embedder, store).expect("one space")
}

fn asked(fake: &Fake) -> Vec<String> {
    fake.calls().into_iter().flat_map(|call| call.texts).collect()
}

/// How long a store takes.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// Some turns of the other tasks.
    Turns,
    /// Some milliseconds.
    Moments,
    This(Duration),
}

/// A store that waits before and after each call.
#[derive(Debug)]
struct Slow {
    memory: Memory,
    random: Mutex<Rng>,
    get: Takes,
    put: Takes,
}

impl Slow {
    fn new(seed: u64, get: Takes, put: Takes) -> Self {
        Self { memory: Memory::unbounded(), random: Mutex::new(Rng::with_seed(seed)), get, put }
    }

    fn few(&self) -> u64 {
        self.random.lock().expect("not poisoned").u64(..6)
    }

    async fn wait(&self, takes: Takes) {
        match takes {
            Takes::Turns => {
                for _ in 0..self.few() {
                    tokio::task::yield_now().await;
                }
            }
            Takes::Moments => tokio::time::sleep(Duration::from_millis(self.few())).await,
            Takes::This(long) => tokio::time::sleep(long).await,
        }
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slow")
    }
}

#[async_trait]
impl CacheStore for Slow {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        self.wait(self.get).await;
        self.memory.get(keys, sink).await?;
        self.wait(self.get).await;
        Ok(())
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.wait(self.put).await;
        self.memory.put(entries).await?;
        self.wait(self.put).await;
        Ok(())
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.memory.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.wait(self.put).await;
        self.memory.note(space, about).await
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// What one of many callers does.
#[derive(Debug)]
struct Caller {
    texts: Vec<String>,
    /// The texts per window, if it asks for a stream.
    window: Option<usize>,
    begins: Duration,
    /// After how many polls it leaves.
    polls: usize,
}

impl Caller {
    fn random(random: &mut Rng) -> Self {
        let texts = (0..random.usize(1..40)).map(|_| format!("text {}", random.usize(..TEXTS))).collect();
        let window = (random.u8(..4) == 0).then(|| random.usize(1..20));
        Self { texts, window, begins: Duration::from_millis(random.u64(..20)), polls: usize::MAX }
    }

    /// The same, but one in three leaves early.
    fn fickle(random: &mut Rng) -> Self {
        let caller = Self::random(random);
        let polls = if random.u8(..3) == 0 { random.usize(1..15) } else { usize::MAX };
        Self { polls, ..caller }
    }
}

/// The cost of the rows that were handed over, and why there are no more.
type Answer = (Usage, Option<Error>);

/// Asks, and checks each row that comes back.
async fn ask(cached: &Cached<Fake>, caller: &Caller) -> Answer {
    let (fake, texts) = (cached.get_ref(), &caller.texts);
    let Some(window) = caller.window else {
        let result = cached.embed_documents(texts).await;
        own(fake, texts, &result);
        return match result {
            Ok(rows) => (rows.usage(), None),
            Err(error) => (Usage::ZERO, Some(error)),
        };
    };
    let options = StreamOptions::new(InputKind::Document).with_window_texts(window).with_window_bytes(1 << 20);
    let mut windows = pin!(cached.embed_stream(stream::iter(texts.clone()), options));
    let (mut usage, mut next) = (Usage::ZERO, 0);
    while let Some(result) = windows.next().await {
        // An error counts from the first text of the stream.
        let part = result.as_ref().map_or(0..texts.len(), |rows| next..next + rows.len());
        own(fake, &texts[part.clone()], &result);
        match result {
            Ok(rows) => usage += rows.usage(),
            Err(error) => return (usage, Some(error)),
        }
        next = part.end;
    }
    assert_eq!(next, texts.len(), "the stream gives all rows");
    (usage, None)
}

/// Polls a future so often at most, then drops it.
async fn at_most<F: Future<Output: Send> + Send>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Starts all callers, and waits for their results; callers that left have none.
async fn race(cached: &Cached<Fake>, callers: &[Arc<Caller>]) -> Vec<Option<Answer>> {
    let calls: Vec<_> = callers
        .iter()
        .map(|caller| {
            let (cached, caller) = (cached.clone(), caller.clone());
            tokio::spawn(async move {
                tokio::time::sleep(caller.begins).await;
                at_most(caller.polls, ask(&cached, &caller)).await
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(calls.len());
    for call in calls {
        answers.push(tokio::time::timeout(MINUTE, call).await.expect("nobody hangs").expect("no panic"));
    }
    answers
}

/// An embedder of random limits, and a cache of it.
fn random_cache(random: &mut Rng, takes: Takes) -> (Fake, Cached<Fake>) {
    let limits = Limits::none().with_texts(random.usize(1..9)).with_in_flight(random.usize(1..5));
    let builder = Fake::builder().with_dimensions(4).with_limits(limits);
    let fake = builder.with_latency(Duration::from_millis(random.u64(..4))).build().expect("valid");
    (fake.clone(), cached(fake, Slow::new(random.u64(..), takes, takes)))
}

/// A race in which nothing fails and nobody leaves.
async fn each_text_once(seed: u64, takes: Takes) {
    let mut random = Rng::with_seed(seed);
    let (fake, cached) = random_cache(&mut random, takes);
    let callers: Vec<_> = (0..CALLERS).map(|_| Arc::new(Caller::random(&mut random))).collect();
    let mut told = Usage::ZERO;
    for answer in race(&cached, &callers).await {
        let (usage, error) = answer.expect("nobody leaves");
        assert!(error.is_none(), "seed {seed}: {error:?}");
        told += usage;
    }
    let wanted: BTreeSet<String> = callers.iter().flat_map(|caller| caller.texts.iter().cloned()).collect();
    let mut asked = asked(&fake);
    asked.sort();
    assert_eq!(asked, wanted.into_iter().collect::<Vec<_>>(), "seed {seed}: each text once");
    let paid = fake.charged();
    assert_eq!((told.tokens, told.requests), (paid.tokens, paid.requests), "seed {seed}: what is paid is told, once");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_timing_each_text_is_paid_for_once() {
    for seed in 0..100 {
        each_text_once(seed, if seed % 2 == 0 { Takes::Turns } else { Takes::Moments }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_several_threads_too() {
    for seed in 0..12 {
        each_text_once(seed, if seed % 4 == 0 { Takes::Moments } else { Takes::Turns }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_tasks_pay_for_a_hundred_texts() {
    let fake = fake(Limits::none().with_texts(7));
    let cached = cached(fake.clone(), Memory::unbounded());
    let waiting = Arc::new(AtomicUsize::new(0));
    let hold = fake.hold();
    let calls: Vec<_> = (0..1_000)
        .map(|i| {
            let (cached, waiting) = (cached.clone(), waiting.clone());
            tokio::spawn(async move {
                let texts = [format!("text {}", i % 100)];
                let mut call = pin!(cached.embed_documents(&texts));
                let mut first = true;
                let result = poll_fn(|context| {
                    let poll = call.as_mut().poll(context);
                    waiting.fetch_add(usize::from(std::mem::take(&mut first)), Ordering::Relaxed);
                    poll
                })
                .await;
                own(cached.get_ref(), &texts, &result);
                result.expect("embeds").usage()
            })
        })
        .collect();
    // The store answers at once, so each caller that was polled waits for the embedder.
    while waiting.load(Ordering::Relaxed) < calls.len() {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked(&fake).len(), 100);
    drop(hold);
    let mut told = Usage::ZERO;
    for call in calls {
        told += call.await.expect("no panic");
    }
    assert_eq!(asked(&fake).len(), 100);
    let counts = cached.counts();
    assert_eq!((counts.misses, counts.joined, counts.hits), (100, 900, 0));
    assert_eq!((told.tokens, told.requests), (fake.charged().tokens, fake.charged().requests));
}

fn mishap(random: &mut Rng) -> Error {
    match random.u8(..5) {
        0 => Error::new(ErrorKind::Unavailable, "as scripted"),
        1 => Error::new(ErrorKind::QuotaExhausted, "as scripted"),
        2 => Error::new(ErrorKind::DeadlinePassed, "as scripted"),
        3 => Error::new(ErrorKind::InvalidInput, "as scripted"),
        _ => Error::invalid_texts(vec![BadText::new(0, BadTextReason::Rejected)]),
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_and_what_fails_costs_the_others_no_row() {
    let all: Vec<String> = (0..TEXTS).map(|i| format!("text {i}")).collect();
    let (mut left, mut failed, mut whole, mut alone) = (0, 0, 0, 0);
    for seed in 0..100 {
        let mut random = Rng::with_seed(seed);
        let (fake, cached) = random_cache(&mut random, if seed % 2 == 0 { Takes::Turns } else { Takes::Moments });
        // In some of the races, callers only leave.
        let (fails, mut scripted) = (seed % 3 != 0, 0);
        for _ in 0..30 {
            if fails && random.u8(..4) == 0 {
                scripted += 1;
                fake.fail_next(mishap(&mut random));
            } else {
                fake.succeed_next();
            }
        }
        let callers: Vec<_> = (0..CALLERS).map(|_| Arc::new(Caller::fickle(&mut random))).collect();
        let answers = race(&cached, &callers).await;

        let calls = fake.calls();
        assert!(calls.iter().all(|call| call.outcome != FakeOutcome::Running), "seed {seed}: a call that nobody wants");
        for text in &all {
            let asked = |done: bool| {
                let calls = calls.iter().filter(|call| (call.outcome == FakeOutcome::Done) == done);
                calls.filter(|call| call.texts.contains(text)).count()
            };
            // Rows that were answered but not stored when the last caller left are asked for again.
            let gone =
                callers.iter().zip(&answers).filter(|(caller, answer)| answer.is_none() && caller.texts.contains(text));
            let reasons = asked(false) + gone.count();
            let times = asked(true) + asked(false);
            let again = times > 1 + reasons;
            assert!(fails || !again, "seed {seed}: {text} was asked for {times} times, for {reasons} reasons");
            alone += usize::from(again);
        }
        for answer in &answers {
            match answer {
                None => left += 1,
                Some((_, Some(_))) => failed += 1,
                Some((_, None)) => whole += 1,
            }
        }

        // Nothing is left behind: only the failures that are still in the script come.
        let mut failures = 0;
        loop {
            let call = tokio::time::timeout(MINUTE, cached.embed_documents(&all));
            let result = call.await.expect("nobody hangs");
            own(&fake, &all, &result);
            let Err(error) = result else { break };
            failures += 1;
            assert!(failures <= scripted, "seed {seed}: {error:?}");
        }
        let rows = cached.embed_documents(&all).await.expect("all are there");
        assert_eq!((rows.usage().requests, rows.usage().cached), (0, TEXTS as u64), "seed {seed}");
    }
    assert!(left > 100 && failed > 100 && whole > 100, "{left} left, {failed} failed, {whole} were answered");
    // A caller that failed several times for reasons of others asks alone in the end. That is rare.
    assert!(alone < TEXTS, "{alone} of {} texts were asked for by several at once", 100 * TEXTS);
}

/// Five hundred callers wait for a call that fails for reasons of the caller that began it.
async fn herd(scripted: Option<Error>) {
    let fake = fake(Limits::none());
    let cached = cached(fake.clone(), Memory::unbounded());
    let hold = fake.hold();
    let texts = ["theirs", "shared"];
    let mut batch = Batch::documents(&texts);
    match &scripted {
        Some(error) => fake.fail_next(error.clone()),
        None => batch = batch.with_deadline(in_a_second()),
    }
    let mut leader = cached.embed(batch);
    assert!(leader.as_mut().now_or_never().is_none());
    let mut calls: Vec<_> = (0..500).map(|_| Box::pin(cached.embed_documents(&["shared"]))).collect();
    for call in &mut calls {
        assert!(call.as_mut().now_or_never().is_none());
    }
    assert_eq!(asked(&fake), texts, "all wait for the one call");

    // A deadline passes while the answer is held; any other failure is the answer.
    let held = scripted.is_none().then_some(hold);
    let error = leader.await.expect_err("fails");
    assert_eq!(error.kind(), scripted.map_or(ErrorKind::DeadlinePassed, |error| error.kind()));
    let again = fake.hold();
    for call in &mut calls {
        assert!(call.as_mut().now_or_never().is_none());
    }
    drop((held, again));
    for result in tokio::time::timeout(MINUTE, join_all(calls)).await.expect("nobody hangs") {
        own(&fake, &["shared"], &result);
        result.expect("it was not this caller's failure");
    }
    let times = asked(&fake).iter().filter(|text| *text == "shared").count();
    assert!(times <= 5, "asked for {times} times");
}

fn in_a_second() -> Instant {
    tokio::time::Instant::now().into_std() + SECOND
}

#[tokio::test(start_paused = true)]
async fn a_herd_whose_leader_is_late_asks_together() {
    herd(None).await;
}

#[tokio::test(start_paused = true)]
async fn a_herd_whose_leader_has_a_bad_text_asks_together() {
    herd(Some(Error::invalid_texts(vec![BadText::new(0, BadTextReason::Rejected)]))).await;
    // If no text is named, it may have been a text of the leader.
    herd(Some(Error::new(ErrorKind::InvalidInput, "one of them"))).await;
}

/// What an [`Odd`] does instead of an answer.
#[derive(Debug)]
enum Trick {
    /// After so long.
    Panics(Duration),
    Fails(Error),
}

/// An embedder that plays some tricks before it works as it should. It counts how many calls it has at once.
#[derive(Debug)]
struct Odd {
    fake: Fake,
    tricks: Mutex<VecDeque<Trick>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Odd {
    fn new(fake: &Fake, tricks: impl IntoIterator<Item = Trick>) -> Self {
        let tricks = Mutex::new(tricks.into_iter().collect());
        Self { fake: fake.clone(), tricks, running: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("odd")
    }
}

#[async_trait]
impl Embedder for Odd {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let trick = self.tricks.lock().expect("not poisoned").pop_front();
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(running, Ordering::Relaxed);
        let long = match trick {
            Some(Trick::Panics(long)) => long,
            _ => Duration::from_millis(10),
        };
        if !long.is_zero() {
            tokio::time::sleep(long).await;
        }
        let result = match trick {
            Some(Trick::Panics(_)) => panic!("as scripted"),
            Some(Trick::Fails(error)) => Err(error),
            None => self.fake.embed(batch).await,
        };
        self.running.fetch_sub(1, Ordering::Relaxed);
        result
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_for_all_who_wait() {
    for long in [Duration::ZERO, Duration::from_millis(10)] {
        let fake = fake(Limits::none());
        let cached = cached(Odd::new(&fake, [Trick::Panics(long)]), Memory::unbounded());
        let calls: Vec<_> = (0..20)
            .map(|i| {
                let cached = cached.clone();
                tokio::spawn(async move {
                    let texts = ["shared".to_owned(), format!("own {i}")];
                    let result = cached.embed_documents(&texts[..1 + i % 2]).await;
                    own(&cached.get_ref().fake, &texts[..1 + i % 2], &result);
                    result.is_err()
                })
            })
            .collect();
        let mut errors = 0;
        for call in calls {
            let call = tokio::time::timeout(MINUTE, call).await.expect("nobody hangs");
            errors += usize::from(call.expect("the panic goes no further"));
        }
        assert!(errors > 0, "who asked was told");
        let call = tokio::time::timeout(MINUTE, cached.embed_documents(&["shared"]));
        let result = call.await.expect("nobody hangs");
        own(&fake, &["shared"], &result);
        result.expect("the next call works");
    }
}

#[tokio::test(start_paused = true)]
async fn finished_rows_that_cannot_be_placed_are_nobodys() {
    let fake = fake(Limits::none());
    let other = Fake::builder().with_model("other").with_dimensions(4).build().expect("valid");
    let wide = Fake::new(8);
    let rows = |of: &Fake| {
        let components = ["a", "b"].iter().flat_map(|text| of.vector_of(InputKind::Document, text)).collect();
        Embeddings::new(2, &of.spaces()[0], components, Usage::ZERO).expect("two rows")
    };
    // The places, the rows, how many of them could be right, and what becomes of the error.
    let cases = [
        ("of another space", [0, 1], rows(&other), 0, ErrorKind::Unavailable),
        ("of another width", [0, 1], rows(&wide), 0, ErrorKind::Unavailable),
        ("one out of range", [0, 2], rows(&fake), 1, ErrorKind::Protocol),
        ("all out of range", [7, usize::MAX], rows(&fake), 0, ErrorKind::Protocol),
    ];
    for (what, places, rows, right, kind) in cases {
        let partial = Partial::new(places.to_vec(), rows).expect("ascending");
        let error = Error::new(ErrorKind::Unavailable, "half-way").with_partial(partial);
        let store = Memory::unbounded();
        let odd = cached(Odd::new(&fake, [Trick::Fails(error)]), store.clone());
        // The second waits for the first one's "b", and asks for "c" itself.
        let (first, second) = join(odd.embed_documents(&["a", "b"]), odd.embed_documents(&["b", "c"])).await;
        let places = own(&fake, &["a", "b"], &first);
        assert!(places.len() <= right, "{what}: {places:?}");
        assert_eq!(first.expect_err("it failed").kind(), kind, "{what}");
        let places = own(&fake, &["b", "c"], &second);
        assert!(second.is_ok() || !places.contains(&0), "{what}: {places:?}");

        // None was stored.
        let next = cached(fake.clone(), store).embed_documents(&["a", "b"]).await;
        own(&fake, &["a", "b"], &next);
        let hits = next.expect("embeds").usage().cached;
        assert!(hits <= right as u64, "{what}: {hits} stored");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_there_do_not_wait_for_a_slow_store() {
    let fake = fake(Limits::none());
    let store = Slow::new(0, Takes::This(Duration::ZERO), Takes::This(HOUR));
    let cached = cached(fake.clone(), store);
    let texts = ["a", "b", "a"];
    let call = cached.embed_all(Batch::documents(&texts).with_deadline(in_a_second()));
    // The clock is paused, so these two seconds take no time.
    let result = tokio::time::timeout(2 * SECOND, call).await.expect("at its deadline at the latest");
    own(&fake, &texts, &result);
    assert_eq!(result.expect("the rows are there").usage().requests, 1);
    assert_eq!(asked(&fake), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_takes_no_finished_row_from_a_call_that_is_not_finished() {
    let fake = fake(Limits::none().with_texts(1).with_in_flight(1));
    let store = Slow::new(0, Takes::This(Duration::ZERO), Takes::This(HOUR));
    let cached = cached(fake.clone(), store);
    let texts = ["a", "b", "c"];
    let call = cached.embed_all(Batch::documents(&texts).with_deadline(in_a_second()));
    let result = tokio::time::timeout(2 * SECOND, call).await.expect("at its deadline at the latest");
    let places = own(&fake, &texts, &result);
    assert_eq!(places.len(), asked(&fake).len(), "what was paid for is handed out");
    if let Err(error) = result {
        assert_eq!(error.kind(), ErrorKind::DeadlinePassed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_up_ends_at_the_deadline() {
    let fake = fake(Limits::none());
    let store = Slow::new(0, Takes::This(HOUR), Takes::This(Duration::ZERO));
    let cached = cached(fake.clone(), store);
    let call = cached.embed_all(Batch::documents(&["a"]).with_deadline(in_a_second()));
    let result = tokio::time::timeout(2 * SECOND, call).await.expect("at its deadline at the latest");
    assert_eq!(result.expect_err("too late").kind(), ErrorKind::DeadlinePassed);
    assert!(fake.calls().is_empty(), "nothing is asked for that nobody can wait for");
    // A caller with enough time gets the row.
    let result = cached.embed_documents(&["a"]).await;
    own(&fake, &["a"], &result);
    result.expect("embeds");
}

#[tokio::test(start_paused = true)]
async fn who_joins_many_calls_has_no_more_of_them_at_once() {
    for callers in 1..5 {
        let fake = fake(Limits::none().with_texts(1).with_in_flight(2));
        let cached = cached(Odd::new(&fake, []), Memory::unbounded());
        let texts: Vec<String> = (0..20).map(|i| format!("text {i}")).collect();
        let calls: Vec<_> = (0..callers).map(|_| cached.embed_documents(&texts)).collect();
        for result in tokio::time::timeout(MINUTE, join_all(calls)).await.expect("nobody hangs") {
            own(&fake, &texts, &result);
            result.expect("embeds");
        }
        let most = cached.get_ref().most.load(Ordering::Relaxed);
        assert!(most <= 2 * callers, "{callers} callers had {most} calls at once");
        assert!(most >= 2, "a caller uses what it may: {most}");
        assert_eq!(asked(&fake).len(), texts.len());
    }
}

#[tokio::test]
async fn what_is_cut_elsewhere_is_another_text() {
    // Tokens have four characters. The first two embedders truncate the long text, each at its own limit.
    let (short, long) = ("short", "much too long for it");
    let texts = [short, long];
    let mut embedders = [(2, &long[..8]), (4, &long[..16]), (5, long)];
    for _ in 0..2 {
        let store = Memory::unbounded();
        for (limit, rest) in embedders {
            let fake = fake(Limits::none().with_tokens_per_text(limit));
            let cached = cached(fake.clone(), store.clone());
            for round in 0..2 {
                let rows = cached.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await;
                own(&fake, &[short, rest], &rows);
                let rows = rows.expect("cuts");
                assert_eq!(rows.truncated().contains(&1), rest != long, "limit {limit}, round {round}");
                // The short text may come from the entry of another embedder.
                let asked = if round == 0 { 1..=2 } else { 0..=0 };
                let anew = 2 - rows.usage().cached;
                assert!(asked.contains(&anew), "limit {limit}, round {round}: {anew} asked for");
            }
        }
        embedders.reverse();
    }
}
