//! The recommended stack before a server whose limits nobody has set, and that names them or not.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, Lane, Limits, RateLimitStatus, RateLimitWindow, Result,
    Space, Usage, async_trait,
    provider::Fake,
    wrap::{Concurrency, Gate, RateLimiter, RetryPolicy},
};
use futures_util::FutureExt;
use tokio::{task::yield_now, time::Instant};

const SECOND: Duration = Duration::from_secs(1);

/// The requests that the server allows per minute.
const ALLOWED: f64 = 60.0;

/// How a server counts its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Counting {
    /// One request arrives per second, and at most a minute's are saved.
    Bucket,
    /// A minute's requests are there at each full minute.
    Window,
}

/// What a server says of its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tells {
    /// The limit, what is left, and when it is whole again; with a refusal, also how long to wait.
    Limits,
    /// The same, but the reset is the only wait.
    Reset,
    /// How long to wait after a refusal.
    Wait,
}

#[derive(Debug)]
struct Counts {
    left: f64,
    at: Instant,
    requests: usize,
    refused: usize,
}

/// A server that refuses more than 60 requests per minute.
#[derive(Clone, Debug)]
struct Server {
    fake: Fake,
    counting: Counting,
    tells: Tells,
    counts: Arc<Mutex<Counts>>,
}

impl Server {
    fn new(counting: Counting, tells: Tells) -> Self {
        let limits = Limits::none().with_texts(1);
        let fake = Fake::builder().with_dimensions(4).with_limits(limits).build().expect("valid");
        let counts = Counts { left: ALLOWED, at: Instant::now(), requests: 0, refused: 0 };
        Self { fake, counting, tells, counts: Arc::new(Mutex::new(counts)) }
    }

    /// Counts a request. Returns what the reply says, and the wait of a refusal.
    fn count(&self) -> (Option<RateLimitStatus>, Option<Duration>) {
        let mut counts = self.counts.lock().expect("not poisoned");
        let passed = counts.at.elapsed();
        let (arrived, wait, reset) = match self.counting {
            Counting::Bucket => {
                let arrived = passed.as_secs_f64();
                counts.at += passed;
                (arrived, SECOND, Duration::from_secs_f64((ALLOWED - counts.left).max(0.0)))
            }
            Counting::Window => {
                let windows = passed.as_secs() / 60;
                counts.at += windows as u32 * 60 * SECOND;
                let rest = 60 * SECOND - counts.at.elapsed();
                (windows as f64 * ALLOWED, rest, rest)
            }
        };
        counts.left = (counts.left + arrived).min(ALLOWED);
        counts.requests += 1;
        let is_refused = counts.left < 1.0;
        if is_refused {
            counts.refused += 1;
        } else {
            counts.left -= 1.0;
        }
        let window = RateLimitWindow::new(ALLOWED as u64).with_remaining(counts.left as u64).with_reset(reset);
        let status = (self.tells != Tells::Wait).then(|| RateLimitStatus::default().with_requests(window));
        (status, is_refused.then_some(wait))
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("server")
    }
}

#[async_trait]
impl Embedder for Server {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let (status, refused) = self.count();
        tokio::time::sleep(SECOND / 5).await;
        let Some(wait) = refused else {
            let rows = self.fake.embed(batch).await?;
            return Ok(status.into_iter().fold(rows, Embeddings::with_rate_limit_status));
        };
        let error =
            Error::new(ErrorKind::RateLimited, "too many").with_status(429).with_usage(Usage::of_request(Some(0)));
        let error = if self.tells == Tells::Reset { error } else { error.with_retry_after(wait) };
        Err(status.into_iter().fold(error, Error::with_rate_limit_status))
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}

/// 60 small collections begin at once. All of them end, and hardly a request is refused.
#[tokio::test(start_paused = true)]
async fn sixty_collections_at_once_all_end_and_few_requests_are_refused() {
    for counting in [Counting::Bucket, Counting::Window] {
        for tells in [Tells::Limits, Tells::Reset, Tells::Wait] {
            let server = Server::new(counting, tells);
            let timed = server.clone().timeout(60 * SECOND).concurrency(8).rate_limit(RateLimiter::new());
            let embedder = timed.retry(RetryPolicy::default().with_seed(7));
            let began = Instant::now();
            let collections: Vec<_> = (0..60)
                .map(|collection| {
                    let embedder = embedder.clone();
                    tokio::spawn(async move {
                        let texts: Vec<String> = (0..5).map(|text| format!("{collection} {text}")).collect();
                        embedder.embed_documents(&texts).await.map(drop)
                    })
                })
                .collect();
            let mut failed = Vec::new();
            for collection in collections {
                failed.extend(collection.await.expect("no panic").err());
            }
            let (requests, refused) = {
                let counts = server.counts.lock().expect("not poisoned");
                (counts.requests, counts.refused)
            };
            let took = began.elapsed().as_secs();
            println!("{counting:?}, {tells:?}: {refused} of {requests} refused, {} failed, {took} s", failed.len());
            assert!(failed.is_empty(), "{counting:?}, {tells:?}: {} failed, first: {}", failed.len(), failed[0]);
            assert!(refused * 20 < requests, "{counting:?}, {tells:?}: {refused} of {requests} refused");
            // The server itself needs four minutes for the 300 requests.
            assert!(took < 8 * 60, "{counting:?}, {tells:?}: {took} s");
        }
    }
}

/// Starts so many calls, each in a task of its own.
fn start(embedder: &(impl Embedder + Clone + 'static), lane: Lane, count: usize) {
    for number in 0..count {
        let embedder = embedder.clone();
        tokio::spawn(async move {
            let text = format!("{lane} {number}");
            embedder.embed(Batch::documents(&[&text]).with_lane(lane)).await.map(drop)
        });
    }
}

async fn settle() {
    for _ in 0..1000 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn successes_let_more_calls_go_at_once_and_a_refusal_fewer() {
    // Each call takes a second, so the calls of one second have gone at once.
    let at_once = async |in_flight: Option<usize>, refusals: usize| {
        let limits = in_flight.into_iter().fold(Limits::none(), Limits::with_in_flight);
        let fake = Fake::builder().with_dimensions(4).with_limits(limits).with_latency(SECOND).build().expect("valid");
        (0..refusals).for_each(|_| fake.fail_next(Error::new(ErrorKind::RateLimited, "as scripted")));
        start(&fake.clone().rate_limit(RateLimiter::new()), Lane::Bulk, 100);
        let mut seen = Vec::new();
        for _ in 0..5 {
            settle().await;
            let before: usize = seen.iter().sum();
            seen.push(fake.calls().len() - before);
            tokio::time::sleep(SECOND).await;
        }
        seen
    };
    assert_eq!(at_once(None, 0).await, [4, 8, 16, 16, 16]);
    assert_eq!(at_once(Some(6), 0).await, [4, 6, 6, 6, 6]);
    assert_eq!(at_once(Some(1), 0).await, [1, 1, 1, 1, 1]);
    assert_eq!(at_once(None, 4).await, [4, 1, 2, 4, 8]);
    // A limit that is named needs no such bound.
    let fake = Fake::new(4);
    let _hold = fake.hold();
    start(&fake.clone().rate_limit(RateLimiter::new().with_requests_per_minute(6000)), Lane::Bulk, 100);
    settle().await;
    assert_eq!(fake.calls().len(), 100);
}

/// A small embedder shares the limiter. Its call waits for none of the large one's, and holds none of them up.
#[tokio::test(start_paused = true)]
async fn embedders_of_few_and_of_many_calls_at_once_share_a_limiter() {
    let fake = |in_flight| {
        let limits = Limits::none().with_in_flight(in_flight);
        Fake::builder().with_dimensions(4).with_limits(limits).with_latency(SECOND).build().expect("valid")
    };
    let (small, large, limiter) = (fake(1), fake(16), RateLimiter::new());
    let large_limited = large.clone().rate_limit(limiter.clone());
    let small_limited = small.clone().concurrency(1).rate_limit(limiter);
    start(&large_limited, Lane::Bulk, 3);
    settle().await;
    start(&small_limited, Lane::Bulk, 1);
    settle().await;
    start(&large_limited, Lane::Bulk, 4);
    settle().await;
    assert_eq!((large.calls().len(), small.calls().len()), (3, 1), "four go at once");
    tokio::time::sleep(SECOND).await;
    settle().await;
    assert_eq!(large.calls().len(), 7);
}

/// Calls that were let through and are not polled do not come back. The others wait for a while, and then they go.
#[tokio::test(start_paused = true)]
async fn calls_that_nobody_polls_hold_up_the_others_for_ten_seconds_once() {
    // Successes make no room: four calls at once are the most.
    let limits = Limits::none().with_in_flight(4);
    let fake = Fake::builder().with_dimensions(4).with_limits(limits).with_latency(SECOND).build().expect("valid");
    let embedder = fake.rate_limit(RateLimiter::new());
    let mut held: Vec<_> = (0..4).map(|_| embedder.embed(Batch::documents(&["held"]))).collect();
    assert!(held.iter_mut().all(|call| call.now_or_never().is_none()));
    let began = Instant::now();
    embedder.embed_query("text").await.expect("embeds");
    assert_eq!(began.elapsed().as_secs(), 11);
    // The silence is over: those that were silent no longer count.
    embedder.embed_query("text").await.expect("embeds");
    assert_eq!(began.elapsed().as_secs(), 12);
    // A dropped call has ended.
    held.pop();
    let mut other = embedder.embed(Batch::documents(&["other"]));
    assert!((&mut other).now_or_never().is_none());
    let began = Instant::now();
    other.await.expect("embeds");
    assert_eq!(began.elapsed().as_secs(), 1);
}

/// One bulk call goes after eight interactive ones, as in a gate.
#[tokio::test(start_paused = true)]
async fn queries_go_first_but_do_not_starve_bulk_calls() {
    let limits = Limits::none().with_in_flight(1);
    let fake = Fake::builder().with_dimensions(4).with_limits(limits).with_latency(SECOND / 10).build().expect("valid");
    let embedder = fake.clone().rate_limit(RateLimiter::new());
    start(&embedder, Lane::Bulk, 4);
    settle().await;
    start(&embedder, Lane::Interactive, 20);
    tokio::time::sleep(5 * SECOND).await;
    let calls = fake.calls();
    let bulk: Vec<usize> = (0..calls.len()).filter(|&at| calls[at].texts[0].starts_with("bulk")).collect();
    // The first one went before any query came.
    assert_eq!((calls.len(), bulk), (24, vec![0, 9, 18, 23]));
}

/// A call that has had its turn waits in the gate. It hears of the pause that begins meanwhile.
#[tokio::test(start_paused = true)]
async fn a_pause_also_holds_calls_that_wait_in_the_gate() {
    let fake = Fake::builder().with_dimensions(4).with_latency(SECOND).build().expect("valid");
    fake.fail_next(Error::new(ErrorKind::RateLimited, "as scripted").with_retry_after(20 * SECOND));
    let limiter = RateLimiter::new().with_requests_per_minute(6000);
    start(&fake.clone().concurrency(1).rate_limit(limiter.clone()), Lane::Bulk, 3);
    settle().await;
    assert_eq!((fake.calls().len(), limiter.waiting()), (1, 0), "the others have had their turn");
    tokio::time::sleep(20 * SECOND).await;
    settle().await;
    assert_eq!(fake.calls().len(), 1, "the pause lasts until the 21st second");
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(fake.calls().len(), 3);
}

/// Two providers share a gate. A pause of one of them takes no places from the other, and its calls lose nothing.
#[tokio::test(start_paused = true)]
async fn paused_calls_leave_the_places_of_a_shared_gate_to_others() {
    let fake = || Fake::builder().with_dimensions(4).with_latency(SECOND).build().expect("valid");
    let (paused, free, gate) = (fake(), fake(), Gate::new(1).with_max_waiting(2));
    paused.fail_next(Error::new(ErrorKind::RateLimited, "as scripted").with_retry_after(20 * SECOND));
    let limiter = RateLimiter::new().with_requests_per_minute(6000);
    start(&Concurrency::with_gate(paused.clone(), gate.clone()).rate_limit(limiter), Lane::Bulk, 3);
    settle().await;
    assert_eq!((gate.running(), gate.waiting()), (1, 2));
    tokio::time::sleep(SECOND).await;
    settle().await;
    assert_eq!((gate.running(), gate.waiting()), (0, 0), "they wait for the end of the pause and for no place");
    let embedder = Concurrency::with_gate(free.clone(), gate.clone());
    let began = Instant::now();
    embedder.embed_query("text").await.expect("embeds");
    assert_eq!(began.elapsed().as_secs(), 1);
    // When the pause ends, the queue is full. It takes them all the same: they were in it before.
    tokio::time::sleep(18 * SECOND + SECOND / 2).await;
    start(&embedder, Lane::Bulk, 3);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((paused.calls().len(), free.calls().len()), (3, 4));
}

/// The pause does not hold a call past its deadline.
#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_in_the_gate() {
    let fake = Fake::builder().with_dimensions(4).with_latency(SECOND).build().expect("valid");
    fake.fail_next(Error::new(ErrorKind::RateLimited, "as scripted").with_retry_after(20 * SECOND));
    let embedder = fake.concurrency(1).rate_limit(RateLimiter::new().with_requests_per_minute(6000));
    start(&embedder, Lane::Bulk, 1);
    settle().await;
    let began = Instant::now();
    let deadline = began.into_std() + 5 * SECOND;
    let late = embedder.embed(Batch::documents(&["text"]).with_deadline(deadline)).await.expect_err("too late");
    assert_eq!((late.kind(), began.elapsed().as_secs()), (ErrorKind::DeadlinePassed, 5));
}

/// A call that has its turn has its tokens. Only the pause delays it, and not the time until as many are there again.
#[tokio::test(start_paused = true)]
async fn a_call_that_has_its_turn_needs_no_second_one() {
    let fake = Fake::new(4);
    let error = Error::new(ErrorKind::RateLimited, "as scripted").with_status(429);
    fake.fail_next(error.with_retry_after(2 * SECOND));
    let hold = fake.hold();
    let limiter = RateLimiter::new().with_requests_per_minute(6);
    let embedder = fake.clone().rate_limit(limiter.clone());
    start(&embedder, Lane::Bulk, 1);
    settle().await;
    let began = Instant::now();
    let batch = Batch::documents(&["text"]).with_deadline(began.into_std() + 16 * SECOND);
    let mut call = embedder.embed(batch);
    assert!((&mut call).now_or_never().is_none());
    tokio::time::sleep(10 * SECOND + SECOND / 2).await;
    // The turn comes while nobody polls the call: every change of the limiter grants the turns that are due.
    let _ = limiter.clone().with_requests_per_minute(6);
    assert_eq!(limiter.waiting(), 0);
    drop(hold);
    settle().await;
    call.await.expect("its turn was granted");
    assert_eq!(began.elapsed().as_millis() / 100, 125);
}

/// A limit that was set too high is corrected by refusals, too.
#[tokio::test(start_paused = true)]
async fn refusals_lower_a_limit_that_was_set_and_a_named_limit_ends_the_guess() {
    let fake = Fake::new(4);
    let limiter = RateLimiter::new().with_requests_per_minute(6000);
    let embedder = fake.clone().rate_limit(limiter.clone());
    for _ in 0..60 {
        embedder.embed_query("text").await.expect("embeds");
    }
    assert_eq!(limiter.requests_per_minute(), Some(6000));
    fake.fail_next(Error::new(ErrorKind::RateLimited, "as scripted").with_status(429).with_retry_after(60 * SECOND));
    embedder.embed_query("text").await.expect_err("as scripted");
    assert_eq!(limiter.requests_per_minute(), Some(54));
    let told = RateLimitStatus::default().with_requests(RateLimitWindow::new(600));
    fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted").with_status(503).with_rate_limit_status(told));
    embedder.embed_query("text").await.expect_err("as scripted");
    assert_eq!(limiter.requests_per_minute(), Some(600));
}
