//! `RateLimit`: the pace, the limits learned from the provider, and the order of the calls.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, Lane, Limits, RateLimitStatus, RateLimitWindow, Result,
    Space, async_trait, conformance, provider::Fake, wrap::RateLimiter,
};
use proptest::prelude::*;
use tokio::time::Instant;

/// A fake that names its limits with every reply, and keeps the time of each call.
#[derive(Clone, Debug)]
struct Telling {
    fake: Fake,
    tells: Arc<Mutex<VecDeque<RateLimitStatus>>>,
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Telling {
    fn new(fake: Fake) -> Self {
        Self { fake, tells: Arc::default(), times: Arc::default() }
    }

    fn tell(self, rate_limit_status: RateLimitStatus) -> Self {
        self.tells.lock().expect("not poisoned").push_back(rate_limit_status);
        self
    }

    /// Returns for each call the seconds since the first call.
    fn seconds(&self) -> Vec<f64> {
        let times = self.times.lock().expect("not poisoned");
        times.iter().map(|time| (*time - times[0]).as_secs_f64()).collect()
    }
}

impl std::fmt::Display for Telling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("telling")
    }
}

#[async_trait]
impl Embedder for Telling {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        self.times.lock().expect("not poisoned").push(Instant::now());
        let rate_limit_status = self.tells.lock().expect("not poisoned").pop_front();
        let rows = self.fake.embed(batch).await?;
        Ok(rate_limit_status.into_iter().fold(rows, Embeddings::with_rate_limit_status))
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}

fn fake() -> Telling {
    Telling::new(Fake::new(4))
}

fn near(have: f64, want: f64) -> bool {
    (have - want).abs() < 0.01
}

#[tokio::test(start_paused = true)]
async fn cannot_be_told_from_what_it_wraps() {
    conformance::wrapper(|fake| fake.rate_limit(RateLimiter::new())).await.expect("lawful");
    let limited =
        |fake: Fake| fake.rate_limit(RateLimiter::new().with_requests_per_minute(6000).with_tokens_per_minute(60_000));
    conformance::wrapper(limited).await.expect("lawful");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// No stretch of time has more calls and tokens than were saved and have arrived since, whenever the calls come.
    #[test]
    fn no_stretch_of_time_has_more_than_the_limit(
        requests in 6_u64..600,
        tokens in 60_u64..6000,
        calls in prop::collection::vec((1_usize..40, 0_u64..3000), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("one");
        runtime.block_on(async {
            let telling = fake();
            let embedder = telling.clone().rate_limit(RateLimiter::new().with_requests_per_minute(requests).with_tokens_per_minute(tokens));
            let began = Instant::now();
            let mut sizes = Vec::new();
            for (size, pause) in calls {
                tokio::time::advance(Duration::from_millis(pause)).await;
                // Four bytes are one token, to the fake and to the limiter.
                embedder.embed_documents(&["four".repeat(size)]).await.expect("embeds");
                sizes.push(size as f64);
            }
            let times = telling.times.lock().expect("not poisoned").clone();
            for (a, &from) in times.iter().enumerate() {
                for (b, &to) in times.iter().enumerate().skip(a) {
                    let minutes = (to - from).as_secs_f64() / 60.0 + 1.0 / 6.0;
                    let made = (b - a + 1) as f64;
                    prop_assert!(made <= (requests as f64 * minutes).max(1.0) + 0.1, "{made} calls in {minutes} minutes");
                    // One call may be larger than what can be saved, and leaves a debt.
                    let had: f64 = sizes[a..=b].iter().sum();
                    let most = tokens as f64 * minutes + 40.0;
                    prop_assert!(had <= most + 0.1, "{had} tokens in {minutes} minutes, {most} at most");
                }
            }
            prop_assert!(began.elapsed() < Duration::from_secs(3600 * 2));
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn clones_and_other_stacks_share_one_limiter() {
    let limiter = RateLimiter::new().with_requests_per_minute(60);
    let (first, second) = (fake(), fake());
    let (one, two) = (first.clone().rate_limit(limiter.clone()), second.clone().rate_limit(limiter));
    let began = Instant::now();
    for _ in 0..10 {
        one.embed_query("text").await.expect("embeds");
        two.clone().embed_query("text").await.expect("embeds");
    }
    // Ten requests are saved, and the other ten arrive at one per second.
    assert!(near(began.elapsed().as_secs_f64(), 10.0), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn guesses_of_tokens_are_put_right() {
    // Of 100 bytes, the fake makes 25 tokens, as estimated. In "é", two bytes are one character.
    let telling = fake();
    let embedder = telling.clone().rate_limit(RateLimiter::new().with_tokens_per_minute(600));
    let text = "é".repeat(200);
    for _ in 0..4 {
        embedder.embed_query(&text).await.expect("embeds");
    }
    // Each call is estimated at 100 tokens and takes 50; 100 are saved. Without the correction, the calls would go at
    // 0, 10, 20 and 30 s.
    let seconds = telling.seconds();
    assert!(near(seconds[1], 5.0) && near(seconds[2], 10.0) && near(seconds[3], 15.0), "{seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn learns_limits_from_the_provider() {
    let rate_limit_status = RateLimitStatus::default().with_requests(RateLimitWindow::new(60).with_remaining(2));
    let telling = fake().tell(rate_limit_status);
    let limiter = RateLimiter::new();
    assert_eq!((limiter.requests_per_minute(), limiter.tokens_per_minute()), (None, None));
    let embedder = telling.clone().rate_limit(limiter.clone());
    for _ in 0..6 {
        embedder.embed_query("text").await.expect("embeds");
    }
    assert_eq!((limiter.requests_per_minute(), limiter.tokens_per_minute()), (Some(60), None));
    // Two are left, and then one arrives per second.
    let seconds = telling.seconds();
    assert!(near(seconds[2], 0.0) && near(seconds[3], 1.0) && near(seconds[5], 3.0), "{seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn the_lower_of_given_and_learned_limits_holds() {
    for (given, told) in [(60, 6000), (6000, 60)] {
        let telling = fake().tell(RateLimitStatus::default().with_requests(RateLimitWindow::new(told)));
        let limiter = RateLimiter::new().with_requests_per_minute(given);
        telling.rate_limit(limiter.clone()).embed_query("text").await.expect("embeds");
        assert_eq!((limiter.requests_per_minute(), limiter.tokens_per_minute()), (Some(60), None));
    }
    // A limit that makes no sense is ignored.
    let telling = fake().tell(RateLimitStatus::default().with_requests(RateLimitWindow::new(0)));
    let limiter = RateLimiter::new();
    telling.rate_limit(limiter.clone()).embed_query("text").await.expect("embeds");
    assert_eq!((limiter.requests_per_minute(), limiter.tokens_per_minute()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn everybody_waits_where_one_was_told_to() {
    let telling = fake();
    let wait = Duration::from_secs(20);
    telling.fake.fail_next(Error::new(ErrorKind::RateLimited, "as scripted").with_retry_after(wait));
    let embedder = telling.clone().rate_limit(RateLimiter::new());
    let other = embedder.clone();
    embedder.embed_query("text").await.expect_err("scripted");
    other.embed_query("text").await.expect("embeds");
    assert!(near(telling.seconds()[1], 20.0), "{:?}", telling.seconds());
}

#[tokio::test(start_paused = true)]
async fn interactive_calls_go_first_but_do_not_starve_the_others() {
    let telling = fake();
    let embedder = telling.clone().rate_limit(RateLimiter::new().with_requests_per_minute(60));
    for _ in 0..10 {
        embedder.embed_query("uses up what is saved").await.expect("embeds");
    }
    let call = |lane: Lane, name: String| {
        let embedder = embedder.clone();
        tokio::spawn(async move { embedder.embed(Batch::documents(&[&name]).with_lane(lane)).await.map(drop) })
    };
    let bulk: Vec<_> = (0..3).map(|i| call(Lane::Bulk, format!("bulk {i}"))).collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let interactive: Vec<_> = (0..30).map(|i| call(Lane::Interactive, format!("interactive {i}"))).collect();
    for task in bulk.into_iter().chain(interactive) {
        task.await.expect("no panic").expect("embeds");
    }
    let calls = telling.fake.calls();
    let order: Vec<&str> = calls[10..].iter().map(|call| call.texts[0].as_str()).collect();
    assert!(order[..8].iter().all(|name| name.starts_with("interactive")), "{order:?}");
    // The first bulk call loses patience after ten seconds, and does not wait for all thirty.
    let first_bulk = order.iter().position(|name| name.starts_with("bulk")).expect("it went");
    assert!((8..16).contains(&first_bulk), "{order:?}");
    // Within a lane, calls go in the order in which they came.
    let within = |lane: &str| order.iter().filter(|name| name.starts_with(lane)).copied().collect::<Vec<_>>();
    let expected: Vec<String> = (0..30).map(|i| format!("interactive {i}")).collect();
    assert_eq!(within("interactive"), expected);
    assert_eq!(within("bulk"), ["bulk 0", "bulk 1", "bulk 2"]);
}

/// If a reply asks for a wait of a day, the other calls do not wait for a day.
#[tokio::test(start_paused = true)]
async fn nobody_is_held_back_for_ever() {
    let telling = fake();
    let day = Duration::from_secs(86_400);
    telling.fake.fail_next(Error::new(ErrorKind::RateLimited, "as scripted").with_retry_after(day));
    let embedder = telling.clone().rate_limit(RateLimiter::new());
    embedder.embed_query("text").await.expect_err("scripted");
    embedder.embed_query("text").await.expect("embeds");
    assert!(near(telling.seconds()[1], 120.0), "{:?}", telling.seconds());
}

/// Queries that use tokens as fast as they arrive would leave a larger call waiting for ever.
#[tokio::test(start_paused = true)]
async fn a_large_bulk_call_gets_its_tokens_in_the_end() {
    let telling = fake();
    let embedder = telling.clone().rate_limit(RateLimiter::new().with_tokens_per_minute(6000));
    embedder.embed_documents(&["four".repeat(1000)]).await.expect("takes what is saved");
    let large = {
        let embedder = embedder.clone();
        let text = "four".repeat(800);
        tokio::spawn(async move { embedder.embed_documents(&[text]).await.map(drop) })
    };
    let queries = tokio::spawn(async move {
        // A query comes every fifth of a second, and takes the tokens that arrive in that time.
        for _ in 0..1000 {
            let embedder = embedder.clone();
            tokio::spawn(async move { embedder.embed_query(&"four".repeat(20)).await });
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    // Ten seconds of patience, eight for its tokens.
    tokio::time::timeout(Duration::from_secs(25), large).await.expect("in time").expect("no panic").expect("embeds");
    queries.abort();
}

/// A refused call has taken nothing, so it leaves no debt.
#[tokio::test(start_paused = true)]
async fn a_refused_call_leaves_no_debt() {
    let telling = fake();
    telling.fake.fail_next(Error::new(ErrorKind::InvalidInput, "too large"));
    let embedder = telling.clone().rate_limit(RateLimiter::new().with_tokens_per_minute(600));
    embedder.embed_documents(&["four".repeat(5000)]).await.expect_err("scripted");
    embedder.embed_query("text").await.expect("embeds");
    assert!(near(telling.seconds()[1], 0.0), "{:?}", telling.seconds());
}

/// With 100 requests per day, of which 10 are left, it takes nine tenths of a day until all are available again.
#[tokio::test(start_paused = true)]
async fn windows_longer_than_a_minute_are_seen() {
    let reset = Duration::from_secs(86_400 * 9 / 10);
    let quota = RateLimitWindow::new(100).with_remaining(0).with_reset(reset);
    let telling = fake().tell(RateLimitStatus::default().with_requests(quota));
    let embedder = telling.clone().rate_limit(RateLimiter::new());
    embedder.embed_query("text").await.expect("embeds");
    embedder.embed_query("text").await.expect("embeds");
    let waited = telling.seconds()[1];
    assert!((waited - 777.6).abs() < 1.0, "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let telling = fake();
    let embedder = telling.clone().rate_limit(RateLimiter::new().with_requests_per_minute(6));
    embedder.embed_query("takes what is saved").await.expect("embeds");
    let began = Instant::now();
    let deadline = began.into_std() + Duration::from_secs(5);
    let error = embedder.embed(Batch::queries(&["text"]).with_deadline(deadline)).await.expect_err("too late");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::DeadlinePassed, Duration::ZERO));
    // Nothing was taken for it: the next call goes when the second request has arrived.
    embedder.embed_query("text").await.expect("embeds");
    assert!(near(telling.seconds()[1], 10.0), "{:?}", telling.seconds());
}

#[tokio::test(start_paused = true)]
async fn dropped_waiters_take_nothing_and_block_nobody() {
    let telling = fake();
    let embedder = telling.clone().rate_limit(RateLimiter::new().with_requests_per_minute(60));
    for _ in 0..10 {
        embedder.embed_query("uses up what is saved").await.expect("embeds");
    }
    for lane in [Lane::Bulk, Lane::Interactive] {
        let texts = ["dropped"];
        let batch = Batch::documents(&texts).with_lane(lane);
        let calls: Vec<_> =
            (0..1000).map(|_| tokio::time::timeout(Duration::from_millis(1), embedder.embed(batch))).collect();
        let results = futures_util::future::join_all(calls).await;
        assert!(results.iter().all(Result::is_err));
    }
    let began = Instant::now();
    embedder.embed_documents(&["text"]).await.expect("embeds");
    assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(telling.fake.calls().len(), 11);
}
