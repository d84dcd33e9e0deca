//! Each caller gets an answer, even if others leave, are late, are not polled, or panic.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, Lane, Limits, Result, Space, SpaceId, Usage,
    async_trait,
    cache::{CacheStore, Entry, Key, Memory, Sink},
    provider::Fake,
    wrap::{Cached, Concurrency, RateLimit, RateLimiter, Retry},
};
use fastrand::Rng;

use super::{HOUR, MINUTE, SECOND, Scripted, Step, fake, numbered, patient, poll, sound, told};

/// The recommended stack around one provider.
type Stack = Cached<Retry<Concurrency<Scripted>>>;

fn stack(provider: &Scripted, places: usize) -> Stack {
    provider.clone().concurrency(places).retry(patient()).cached(Memory::unbounded()).expect("one space")
}

/// A failure that is tried again five seconds later.
fn busy() -> Error {
    Error::new(ErrorKind::Unavailable, "as scripted").with_retry_after(5 * SECOND)
}

// Calls that are shared

/// Every place of the gate belongs to a call that somebody drives. Here another caller joins the second call of a
/// caller, drives it to the only place, and leaves. This must not keep the first call from its second attempt.
#[tokio::test(start_paused = true)]
async fn who_joins_a_call_and_leaves_takes_no_place_with_it() {
    let fake = fake(Limits::none().with_texts(1));
    let provider = Scripted::new(&fake, |number, _| match number {
        0 => Step::fails(busy()),
        _ => Step::answers().after(SECOND),
    });
    let stack = stack(&provider, 1);
    let texts = ["first", "second"];
    let mut caller = pin!(stack.embed_documents(&texts));
    assert!(poll(&mut caller).is_none(), "its first call waits for its second attempt");
    let mut other = Box::pin(stack.embed_documents(&texts[1..]));
    assert!(poll(&mut other).is_none());
    assert_eq!(provider.asked(), [["first"], ["second"]], "the other's call is under way");
    drop(other);
    let result = tokio::time::timeout(MINUTE, caller).await.expect("nobody hangs");
    sound(&fake, &texts, &result);
    result.expect("embeds");
}

/// The same at the size of a server: eight places, sixteen calls of one caller, and eight clients that hang up.
#[tokio::test(start_paused = true)]
async fn eight_clients_that_hang_up_take_no_places_with_them() {
    let fake = fake(Limits::none().with_texts(1));
    let provider = Scripted::new(&fake, |number, _| match number {
        0..8 => Step::fails(busy()),
        _ => Step::answers().after(SECOND),
    });
    let stack = stack(&provider, 8);
    let texts = numbered(16);
    let caller = tokio::spawn({
        let (stack, texts) = (stack.clone(), texts.clone());
        async move { stack.embed_documents(&texts).await }
    });
    tokio::time::sleep(SECOND).await;
    assert_eq!(provider.asked().len(), 8, "eight calls wait for their second attempt");
    let clients: Vec<_> = texts[8..]
        .iter()
        .map(|text| {
            let (stack, texts) = (stack.clone(), [text.clone()]);
            tokio::spawn(async move { stack.embed_documents(&texts).await })
        })
        .collect();
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(provider.asked().len(), 16, "the clients' calls are under way");
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    let result = tokio::time::timeout(MINUTE, caller).await.expect("nobody hangs").expect("no panic");
    sound(&fake, &texts, &result);
    result.expect("embeds");
}

/// A caller waits for two calls: one is in the queue, and the other has the place, but its own caller goes away.
async fn third_goes(lane: Lane, leaves: bool) {
    let fake = fake(Limits::none().with_texts(1));
    // It takes longer than its caller has time, and ignores the deadline.
    let provider = Scripted::new(&fake, |_, _| Step::answers().after(3 * SECOND));
    let stack = stack(&provider, 1);
    let (queued, running, both) = (["queued"], ["running"], ["queued", "running"]);
    let third = {
        let batch = Batch::documents(&running).with_lane(lane);
        let deadline = (tokio::time::Instant::now() + 2 * SECOND).into_std();
        stack.embed(if leaves { batch } else { batch.with_deadline(deadline) })
    };
    let third = tokio::time::timeout(if leaves { 2 * SECOND } else { HOUR }, third);
    let bulk = async {
        tokio::time::sleep(SECOND / 2).await;
        stack.embed(Batch::documents(&queued)).await
    };
    let mine = async {
        tokio::time::sleep(SECOND).await;
        stack.embed(Batch::documents(&both).with_lane(lane)).await
    };
    let all = async { tokio::join!(third, bulk, mine) };
    let (third, bulk, mine) = tokio::time::timeout(MINUTE, all).await.expect("nobody hangs");
    match third {
        Ok(answer) => assert_eq!(answer.expect_err("too late").kind(), ErrorKind::DeadlinePassed),
        Err(_) => assert!(leaves),
    }
    sound(&fake, &queued, &bulk);
    bulk.expect("embeds");
    sound(&fake, &both, &mine);
    mine.expect("embeds");
}

/// An interactive caller waits for another caller's bulk call, and for a call whose own caller leaves.
#[tokio::test(start_paused = true)]
async fn an_interactive_caller_is_answered_when_a_third_one_leaves() {
    third_goes(Lane::Interactive, true).await;
}

#[tokio::test(start_paused = true)]
async fn an_interactive_caller_is_answered_when_a_third_one_is_late() {
    third_goes(Lane::Interactive, false).await;
}

/// The same, with all calls in one lane.
#[tokio::test(start_paused = true)]
async fn a_bulk_caller_is_answered_when_a_third_one_leaves_or_is_late() {
    third_goes(Lane::Bulk, true).await;
    third_goes(Lane::Bulk, false).await;
}

// Wake-ups

/// Wakes a thread, so that it polls.
struct Bell(mpsc::SyncSender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // One wake-up that was not seen yet is enough.
        let _ = self.0.try_send(());
    }
}

/// Polls a future only when it is woken, as executors do. Returns `None` if it is not woken for this long.
fn drive<F: Future>(future: F, patience: Duration, mut polled: impl FnMut()) -> Option<F::Output> {
    let (bell, rings) = mpsc::sync_channel(1);
    let waker = Waker::from(Arc::new(Bell(bell)));
    let mut future = pin!(future);
    loop {
        let polled_now = future.as_mut().poll(&mut Context::from_waker(&waker));
        polled();
        match polled_now {
            Poll::Ready(output) => return Some(output),
            Poll::Pending => rings.recv_timeout(patience).ok()?,
        }
    }
}

/// Asks to be polled again during its poll, as a task that yields does, and makes the poll take some time.
#[derive(Clone, Debug)]
struct Yields {
    fake: Fake,
    /// Set while it is in that poll.
    inside: Arc<AtomicBool>,
    /// The number of polls of the other caller.
    others: Arc<AtomicUsize>,
    spins: Option<u32>,
}

impl Yields {
    /// The poll lasts until the other caller has polled too, or for this many turns of a loop.
    fn new(spins: Option<u32>) -> Self {
        let fake = Fake::builder().with_dimensions(4).without_log().build().expect("valid");
        Self { fake, inside: Arc::default(), others: Arc::default(), spins }
    }

    fn take_time(&self) {
        match self.spins {
            Some(spins) => (0..fastrand::u32(..=spins)).for_each(|_| std::hint::spin_loop()),
            None => {
                self.inside.store(true, Ordering::SeqCst);
                let began = Instant::now();
                // A lock around this call would keep the other call outside until the time is over.
                while self.others.load(Ordering::SeqCst) == 0 && began.elapsed() < Duration::from_millis(200) {
                    thread::yield_now();
                }
            }
        }
    }
}

impl fmt::Display for Yields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("yields")
    }
}

#[async_trait]
impl Embedder for Yields {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let mut yielded = false;
        poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            self.take_time();
            Poll::Pending
        })
        .await;
        self.fake.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}

/// Two callers of one text on two threads: the first caller's poll wakes the call, the second caller comes during that
/// poll, and then the first caller leaves. The second caller must be woken.
#[test]
fn who_comes_while_a_call_is_polled_is_woken_when_the_other_leaves() {
    let yields = Yields::new(None);
    let cached = yields.clone().cached(Memory::unbounded()).expect("one space");
    let texts = ["shared"];
    let second = thread::spawn({
        let (cached, yields) = (cached.clone(), yields.clone());
        move || {
            while !yields.inside.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let polled = || _ = yields.others.fetch_add(1, Ordering::SeqCst);
            drive(cached.embed_documents(&texts), Duration::from_secs(5), polled)
        }
    });
    let mut first = Box::pin(cached.embed_documents(&texts));
    assert!(poll(&mut first).is_none());
    drop(first);
    let result = second.join().expect("no panic").expect("it is woken");
    sound(&yields.fake, &texts, &result);
    result.expect("embeds");
}

/// The same with random timing, as often as there is time for.
#[test]
fn of_two_callers_on_two_threads_the_one_that_stays_always_wakes() {
    const LONG: Duration = Duration::from_secs(3);
    let yields = Yields::new(Some(200));
    let cached = yields.clone().cached(Memory::new(1 << 20)).expect("one space");
    // The number of the first round that is not played. (With a flag, one thread could see it one round before the
    // other, which would wait alone.)
    let (round, end) = (Arc::new(Barrier::new(2)), Arc::new(AtomicU64::new(u64::MAX)));
    let leaver = thread::spawn({
        let (cached, round, end) = (cached.clone(), round.clone(), end.clone());
        move || {
            let mut random = Rng::with_seed(1);
            for number in 0_u64.. {
                round.wait();
                if number == end.load(Ordering::SeqCst) {
                    return;
                }
                (0..random.u32(..200)).for_each(|_| std::hint::spin_loop());
                let texts = [format!("text {number}")];
                let mut call = Box::pin(cached.embed_documents(&texts));
                let _ = poll(&mut call);
            }
        }
    });
    let (began, mut random, mut lost) = (Instant::now(), Rng::with_seed(2), None);
    let mut rounds = 0_u64;
    while began.elapsed() < LONG && lost.is_none() {
        round.wait();
        (0..random.u32(..200)).for_each(|_| std::hint::spin_loop());
        let texts = [format!("text {rounds}")];
        match drive(cached.embed_documents(&texts), Duration::from_secs(5), || ()) {
            Some(result) => _ = sound(&yields.fake, &texts, &result),
            None => lost = Some(rounds),
        }
        rounds += 1;
    }
    end.store(rounds, Ordering::SeqCst);
    round.wait();
    leaver.join().expect("no panic");
    assert_eq!(lost, None, "the one that stayed was not woken in that round, of {rounds}");
    assert!(rounds > 100, "{rounds} rounds");
}

// Waiting for the rate limit without being polled

/// Makes a rate-limited embedder that has used up its savings.
async fn used_up() -> (Fake, RateLimit<Fake>) {
    let fake = fake(Limits::none());
    let embedder = fake.clone().rate_limit(RateLimiter::new().with_requests_per_minute(60));
    for _ in 0..10 {
        embedder.embed_query("uses up what is saved").await.expect("embeds");
    }
    (fake, embedder)
}

/// A caller that holds a future and does not poll it loses its own turn, not that of others.
#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_nobody_polls_keeps_no_other_waiting() {
    for (held, other) in [
        (Lane::Bulk, Lane::Bulk),
        (Lane::Interactive, Lane::Interactive),
        (Lane::Bulk, Lane::Interactive),
        (Lane::Interactive, Lane::Bulk),
    ] {
        let (_, embedder) = used_up().await;
        let mut waiting = embedder.embed(Batch::documents(&["held"]).with_lane(held));
        assert!(poll(&mut waiting).is_none(), "it waits");
        let call = embedder.embed(Batch::documents(&["other"]).with_lane(other));
        let answer = tokio::time::timeout(MINUTE / 2, call).await;
        answer.unwrap_or_else(|_| panic!("{other:?} waits for {held:?}")).expect("embeds");
    }
}

/// The same for a bulk call that has waited so long that interactive calls must let it go first.
#[tokio::test(start_paused = true)]
async fn an_overdue_call_that_nobody_polls_keeps_no_other_waiting() {
    let fake = fake(Limits::none());
    let embedder = fake.rate_limit(RateLimiter::new().with_tokens_per_minute(600));
    // A debt of 90 seconds.
    embedder.embed_documents(&["four".repeat(1000)]).await.expect("takes what is saved");
    let mut overdue = embedder.embed(Batch::documents(&["overdue"]));
    // An interactive call waits too, and leaves. Then the bulk call checks its turn, and has lost its patience.
    let passing = tokio::time::timeout(15 * SECOND, embedder.embed(Batch::queries(&["passing"])));
    let both = async { tokio::join!(&mut overdue, passing) };
    tokio::time::timeout(20 * SECOND, both).await.expect_err("there is a debt");
    for lane in [Lane::Interactive, Lane::Bulk] {
        let call = embedder.embed(Batch::documents(&["other"]).with_lane(lane));
        let answer = tokio::time::timeout(5 * MINUTE, call).await;
        answer.unwrap_or_else(|_| panic!("{lane:?} waits for the overdue one")).expect("embeds");
    }
}

/// The same, if the turn comes earlier than expected: a call gives back most of what it took.
#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_polls_keeps_no_other_from_an_earlier_turn() {
    let fake = fake(Limits::none());
    // It fails after a while, and its error says that it took few tokens.
    let provider = Scripted::new(&fake, |number, _| match number {
        0 => {
            let usage = Usage::of_request(Some(60));
            Step::fails(Error::new(ErrorKind::Config, "as scripted").with_usage(usage)).after(SECOND)
        }
        _ => Step::answers(),
    });
    let embedder = provider.rate_limit(RateLimiter::new().with_tokens_per_minute(60));
    // An hour's worth.
    let texts = ["four".repeat(3600)];
    let large = embedder.embed_documents(&texts);
    let others = async {
        tokio::time::sleep(SECOND / 2).await;
        let mut held = embedder.embed(Batch::documents(&["held"]));
        assert!(poll(&mut held).is_none(), "it waits");
        tokio::time::timeout(2 * MINUTE, embedder.embed_documents(&["other"])).await
    };
    let (large, other) = tokio::join!(large, others);
    large.expect_err("as scripted");
    other.expect("nobody hangs").expect("embeds");
}

/// A task of an executor that has ended. Only a waker keeps it alive, and waking it drops it.
struct Orphan(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Wake for Orphan {
    fn wake(self: Arc<Self>) {}
}

/// Waking a waiter may drop it, and a dropped waiter takes the limiter's lock to leave the queue. So a waiter must not
/// be woken under that lock.
#[tokio::test(start_paused = true)]
async fn who_is_dropped_by_being_told_of_its_turn_blocks_no_limiter() {
    let (_, embedder) = used_up().await;
    let limiter = embedder.limiter().clone();
    let cached = embedder.cached(Memory::unbounded()).expect("one space");
    let task = Arc::new(Orphan(Mutex::new(Some(Box::pin(async move {
        let _ = cached.embed_documents(&["orphan"]).await;
    })))));
    {
        let waker = Waker::from(task.clone());
        let mut future = task.0.lock().expect("not poisoned");
        let future = future.as_mut().expect("there");
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let lives = Arc::downgrade(&task);
    drop(task);
    assert_eq!((lives.strong_count(), limiter.waiting()), (1, 1), "only its waker keeps it");
    let (done, ended) = mpsc::channel();
    thread::spawn({
        let limiter = limiter.clone();
        // Its drop wakes the waiting call.
        move || {
            drop(limiter.with_requests_per_minute(600));
            done.send(())
        }
    });
    ended.recv_timeout(Duration::from_secs(5)).expect("it is not blocked");
    assert_eq!((lives.strong_count(), limiter.waiting()), (0, 0));
}

/// A call that is kept elsewhere.
type Kept = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Never answers. Whenever it is asked for its limits, it drops one of the calls that it keeps.
#[derive(Clone)]
struct Drops {
    fake: Fake,
    calls: Arc<Mutex<Vec<Kept>>>,
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("drops")
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drops").finish_non_exhaustive()
    }
}

#[async_trait]
impl Embedder for Drops {
    async fn embed(&self, _: Batch<'_>) -> Result<Embeddings> {
        std::future::pending().await
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        let call = self.calls.lock().expect("not poisoned").pop();
        drop(call);
        self.fake.limits()
    }
}

/// An embedder may do anything when it is asked for its limits, even drop a call of the same cache.
#[test]
fn an_embedder_that_ends_calls_blocks_no_cache() {
    let fake = fake(Limits::none());
    let embedder = Drops { fake, calls: Arc::default() };
    let cached = embedder.clone().cached(Memory::unbounded()).expect("one space");
    let calls: Vec<_> = numbered(10)
        .into_iter()
        .map(|text| {
            let cached = cached.clone();
            let mut call: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(async move { _ = cached.embed_documents(&[text]).await });
            assert!(poll(&mut call).is_none());
            call
        })
        .collect();
    *embedder.calls.lock().expect("not poisoned") = calls;
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let waits = poll(&mut Box::pin(cached.embed_documents(&["another"]))).is_none();
        done.send(waits)
    });
    assert!(ended.recv_timeout(Duration::from_secs(5)).expect("it is not blocked"));
    assert!(embedder.calls.lock().expect("not poisoned").len() < 10);
}

// Panics

/// The call at which a [`Brittle`] panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Get,
    Put,
}

/// A store that panics a number of times in one of its methods, after a moment.
#[derive(Debug)]
struct Brittle {
    memory: Memory,
    at: At,
    left: AtomicUsize,
}

impl Brittle {
    async fn perhaps(&self, at: At) {
        tokio::time::sleep(SECOND / 10).await;
        let lower = |left: usize| left.checked_sub(1);
        if at == self.at && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lower).is_ok() {
            panic!("as scripted");
        }
    }
}

impl fmt::Display for Brittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("brittle")
    }
}

#[async_trait]
impl CacheStore for Brittle {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        self.perhaps(At::Get).await;
        self.memory.get(keys, sink).await
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.perhaps(At::Put).await;
        self.memory.put(entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.memory.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.memory.note(space, about).await
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Ten callers, each with a shared text and one of its own, over a store that panics a number of times. This is done
/// twice.
async fn over_a_brittle_store(at: At, panics: usize) {
    let fake = fake(Limits::none());
    let store = Brittle { memory: Memory::unbounded(), at, left: AtomicUsize::new(panics) };
    let provider = Scripted::new(&fake, |_, _| Step::answers().after(SECOND));
    let cached = provider.cached(store).expect("one space");
    for round in 0..2 {
        let calls: Vec<_> = (0..10)
            .map(|i| {
                let (cached, fake) = (cached.clone(), fake.clone());
                tokio::spawn(async move {
                    let texts = ["shared".to_owned(), format!("own {i} of {round}")];
                    let result = cached.embed_documents(&texts).await;
                    sound(&fake, &texts, &result);
                    result
                })
            })
            .collect();
        for call in calls {
            let answer = tokio::time::timeout(MINUTE, call).await.expect("nobody hangs");
            answer.expect("no caller panics").expect("a store costs no row");
        }
    }
    let failures = cached.counts().failures;
    assert_eq!(failures, panics as u64, "each panic of the store is a failure of the store");
}

/// A store's panic is counted and logged, as its errors are, and never reaches a caller.
#[tokio::test(start_paused = true)]
async fn a_store_that_panics_once_when_it_writes_costs_no_caller() {
    over_a_brittle_store(At::Put, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_whenever_it_reads_costs_no_caller() {
    over_a_brittle_store(At::Get, 1).await;
    over_a_brittle_store(At::Get, 5).await;
}

/// An embedder's panic is an error for all waiting callers. One of them is told of the call that got no answer.
#[tokio::test(start_paused = true)]
async fn an_embedder_that_panics_is_an_error_with_its_bill() {
    let fake = fake(Limits::none());
    let provider = Scripted::new(&fake, |_, _| Step::panics().after(SECOND));
    let cached = provider.cached(Memory::unbounded()).expect("one space");
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let cached = cached.clone();
            tokio::spawn(async move { cached.embed_documents(&["shared"]).await })
        })
        .collect();
    let mut usage = Usage::ZERO;
    for call in calls {
        let answer = tokio::time::timeout(MINUTE, call).await.expect("nobody hangs").expect("no caller panics");
        usage += told(&answer);
        assert_eq!(answer.expect_err("there is no row").kind(), ErrorKind::Inference);
    }
    assert_eq!(usage.unanswered, 1, "what it cost will never be known, and that is told once");
}
