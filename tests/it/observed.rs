//! An observer hears what happens in every wrapper inside, and a dry run says what a batch would meet.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error, ErrorKind, Limits,
    cache::Memory,
    conformance,
    observer::{Event, EventKind, Observer, Queue},
    plan,
    provider::Fake,
    wrap::{Observed, RateLimiter, RetryPolicy, Totals},
};

/// Keeps a line for each event.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}

impl Observer for Lines {
    fn observe(&self, event: &Event<'_>) {
        let name = event.embedder.to_string();
        let what = match event.kind {
            EventKind::Call(call) => format!("{} {:?}", call.embedder, call.outcome),
            EventKind::CacheLookUp { hits, misses, damaged, .. } => format!("{hits} {misses} {damaged}"),
            EventKind::Deduplicated { texts, .. } => format!("saved {texts}"),
            EventKind::Retry { attempt, error, .. } => format!("again after {attempt}, {}", error.kind()),
            EventKind::GaveUp { attempts, error, .. } => format!("gave up after {attempts}, {}", error.kind()),
            EventKind::Waited { queue, time, waiting, .. } => format!("{queue} {time:?} {waiting}"),
            EventKind::QueueFull { queue, .. } => format!("{queue} full"),
            EventKind::TimedOut { limit, .. } => format!("{limit:?} is over"),
            other => format!("{other:?}"),
        };
        let wrapper = name.split('(').next().unwrap_or_default();
        self.0.lock().expect("no panic").push(format!("{wrapper} of {}: {what}", event.texts));
    }
}

#[tokio::test(start_paused = true)]
async fn each_wrapper_inside_tells() {
    let (lines, fake) = (Lines::default(), Fake::new(8));
    let policy = RetryPolicy::default().with_attempts(2);
    let embedder = fake.clone().metered(()).timeout(Duration::from_secs(1)).concurrency(1).retry(policy);
    let embedder = embedder.cached(Memory::new(1 << 20)).expect("one space").dedup().observed(lines.clone());
    embedder.embed_documents(&["one", "two", "one"]).await.expect("answers");
    assert_eq!(lines.take(), ["Metered of 2: fake Done", "Cached of 2: 0 2 0", "Dedup of 3: saved 1"], "a miss");
    embedder.embed_documents(&["one", "two"]).await.expect("answers");
    assert_eq!(lines.take(), ["Cached of 2: 2 0 0"], "a hit");
    for _ in 0..2 {
        fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
    }
    embedder.embed_query("three").await.expect_err("fails twice");
    let failed = "Metered of 1: fake Failed(Unavailable)";
    let told = ["Retry of 1: again after 1, unavailable", failed, "Retry of 1: gave up after 2, unavailable"];
    assert_eq!(lines.take(), [&[failed][..], &told, &["Cached of 1: 0 1 0"]].concat());
    let hold = fake.hold();
    embedder.embed_query("three").await.expect_err("takes too long, twice");
    let late = ["Metered of 1: fake Dropped", "Timeout of 1: 1s is over"];
    assert_eq!(lines.take()[..2], late);
    drop(hold);
}

#[tokio::test(start_paused = true)]
async fn a_cache_tells_of_its_own_hits_alone() {
    let lines = Lines::default();
    let inner = Fake::new(8).cached(Memory::new(1 << 20)).expect("one space");
    inner.embed_documents(&["one"]).await.expect("answers");
    let outer = inner.cached(Memory::new(1 << 20)).expect("one space").observed(lines.clone());
    outer.embed_documents(&["one", "two"]).await.expect("answers");
    assert_eq!(lines.take(), ["Cached of 2: 1 1 0", "Cached of 2: 0 2 0"]);
}

#[tokio::test(start_paused = true)]
async fn waits_are_told_with_their_length() {
    let lines = Lines::default();
    let fake = Fake::builder().with_latency(Duration::from_secs(2)).build().expect("valid");
    let embedder = fake.concurrency(1).observed(lines.clone());
    let (first, second) = tokio::join!(embedder.embed_query("one"), embedder.embed_query("two"));
    first.and(second).expect("both answer");
    let queue = Queue::Concurrency;
    assert_eq!(lines.take(), [format!("Concurrency of 1: {queue} 2s 0")]);
    let limiter = RateLimiter::new().with_requests_per_minute(6);
    let embedder = Fake::new(8).rate_limit(limiter).observed(lines.clone());
    embedder.embed_query("one").await.expect("answers");
    assert_eq!(lines.take(), <[String; 0]>::default(), "the first has no wait");
    embedder.embed_query("two").await.expect("answers");
    let told = lines.take();
    assert!(told.len() == 1 && told[0].starts_with("RateLimit of 1: rate_limit "), "{told:?}");
}

#[tokio::test]
async fn two_observers_hear_all_and_one_that_panics_costs_nothing() {
    let (outer, inner) = (Lines::default(), Lines::default());
    let panics = |_: &Event<'_>| panic!("an observer");
    let embedder = Fake::new(8).dedup().observed(inner.clone()).observed(panics).dedup().observed(outer.clone());
    embedder.embed_documents(&["one", "one"]).await.expect("answers");
    assert_eq!((inner.take().len(), outer.take().len()), (0, 1));
    let embedder = Fake::new(8).metered(Totals::new()).observed((panics, inner.clone())).observed(outer.clone());
    embedder.embed_query("one").await.expect("answers");
    assert_eq!(inner.take(), outer.take());
}

#[tokio::test(start_paused = true)]
async fn observed_keeps_the_laws() {
    conformance::wrapper(|fake| Observed::new(fake, Lines::default())).await.expect("keeps the laws");
    conformance::wrapper(|fake| fake.dedup().observed(|_: &Event<'_>| {}).retry(RetryPolicy::default()))
        .await
        .expect("a stack keeps the laws");
}

#[tokio::test]
async fn a_dry_run_says_what_a_batch_would_meet_and_asks_nobody() {
    let fake = Fake::builder().with_limits(Limits::none().with_texts(2)).build().expect("valid");
    let stack = fake.clone().metered(Totals::new()).timeout(Duration::from_secs(60)).concurrency(8);
    let stack = stack.rate_limit(RateLimiter::new().with_requests_per_minute(500)).retry(RetryPolicy::default());
    let stack: Arc<dyn Embedder> = Arc::new(stack.cached(Memory::new(1 << 20)).expect("one space"));
    let batch = Batch::documents(&["eight characters", "four", "four", "the last one"]);
    let dry_run = plan::explain(&stack, &batch);
    let shown = dry_run.to_string();
    let names: Vec<&str> = shown.lines().map(|line| line.trim_start().split(':').next().unwrap_or_default()).collect();
    assert_eq!(names, ["Cached", "Retry", "RateLimit", "Concurrency", "Timeout", "Metered", "fake"], "{shown}");
    for part in
        ["3 distinct texts", "up to 5 attempts", "500 requests per minute", "8 calls", "60s", "2 calls, 8 tokens"]
    {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    let provider = dry_run.providers().next().expect("one provider");
    let forecast = provider.forecast.as_ref().expect("of a provider");
    assert_eq!((forecast.calls, forecast.tokens, forecast.counted), (2, 8, true));
    assert!(forecast.cost().is_none() && forecast.price.is_none(), "the price of a fake is not known");
    assert!(forecast.refused.is_none());
    // What would be refused is said, too.
    let refused = plan::explain(&stack, &Batch::documents(&["", "a", "b"])).to_string();
    assert!(refused.contains("refuses the batch: invalid input: text 0 is empty"), "{refused}");
    let refused = plan::explain(&fake, &Batch::documents(&["", "a"])).to_string();
    assert!(refused.contains("refuses the batch: invalid input: text 0 is empty"), "one call: {refused}");
    assert!(fake.calls().is_empty());
}
