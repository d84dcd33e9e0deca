//! Bounded queues of gates and limiters: if one is full, the next call fails at once and costs nothing.

use docvector_embed::{
    EmbedderExt, Error, ErrorKind,
    provider::Fake,
    wrap::{Concurrency, Gate, RateLimiter},
};
use tokio::task::yield_now;

fn is_overloaded(error: &Error, most: usize) {
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    // A retry would only move the wait elsewhere. Another provider may have room.
    assert!(!error.is_retryable() && error.should_fall_back(), "{error}");
    assert!(error.message().contains(&format!("full (interactive calls that may wait: {most})")), "{error}");
    assert_eq!(error.total_usage(), docvector_embed::Usage::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_gate_lets_no_more_wait_than_it_may() {
    let fake = Fake::new(4);
    let hold = fake.hold();
    let embedder = Concurrency::with_gate(fake.clone(), Gate::new(1).with_max_waiting(2));
    let call = |text: &'static str| {
        let embedder = embedder.clone();
        tokio::spawn(async move { embedder.embed_query(text).await })
    };
    let mut calls = vec![call("runs"), call("waits"), call("leaves")];
    yield_now().await;
    is_overloaded(&embedder.embed_query("too many").await.expect_err("full"), 2);
    // A call that leaves makes room.
    calls.pop().expect("three").abort();
    yield_now().await;
    calls.push(call("comes"));
    yield_now().await;
    is_overloaded(&embedder.embed_query("too many").await.expect_err("full again"), 2);
    drop(hold);
    for call in calls {
        call.await.expect("no panic").expect("embeds");
    }
    let texts: Vec<String> = fake.calls().into_iter().flat_map(|call| call.texts).collect();
    assert_eq!(texts, ["runs", "waits", "comes"]);
    // A call takes a free place, also if no call may wait.
    let strict = Concurrency::with_gate(fake, Gate::new(1).with_max_waiting(0));
    strict.embed_query("alone").await.expect("embeds");
}

#[tokio::test(start_paused = true)]
async fn a_limiter_lets_no_more_wait_than_it_may() {
    for most in [0, 2] {
        let fake = Fake::new(4);
        // One request at once, and then one per minute.
        let limiter = RateLimiter::new().with_requests_per_minute(1).with_max_waiting(most);
        let embedder = fake.clone().rate_limit(limiter.clone());
        embedder.embed_query("goes at once").await.expect("embeds");
        let waiting: Vec<_> = (0..most)
            .map(|_| {
                let embedder = embedder.clone();
                tokio::spawn(async move { embedder.embed_query("waits").await })
            })
            .collect();
        yield_now().await;
        assert_eq!(limiter.waiting(), most);
        is_overloaded(&embedder.embed_query("too many").await.expect_err("full"), most);
        for call in waiting {
            call.await.expect("no panic").expect("embeds");
        }
        assert_eq!((limiter.waiting(), fake.calls().len()), (0, most + 1));
    }
}

/// An index run that fills its lane leaves room for queries, and a retry outside does not wait in the gate's place.
#[tokio::test(start_paused = true)]
async fn bulk_calls_do_not_take_the_room_of_queries() {
    let fake = Fake::new(4);
    let hold = fake.hold();
    let gated = Concurrency::with_gate(fake.clone(), Gate::new(1).with_max_waiting(1));
    let embedder = gated.retry(docvector_embed::wrap::RetryPolicy::default());
    let bulk = |text: &'static str| {
        let embedder = embedder.clone();
        tokio::spawn(async move { embedder.embed_documents(&[text]).await })
    };
    let calls = [bulk("runs"), bulk("waits")];
    yield_now().await;
    let began = tokio::time::Instant::now();
    let refused = embedder.embed_documents(&["too many"]).await.expect_err("full");
    assert_eq!((refused.kind(), began.elapsed().as_millis()), (ErrorKind::Overloaded, 0), "{refused}");
    let query = tokio::spawn({
        let embedder = embedder.clone();
        async move { embedder.embed_query("a query").await }
    });
    yield_now().await;
    drop(hold);
    query.await.expect("no panic").expect("there was room for it");
    for call in calls {
        call.await.expect("no panic").expect("embeds");
    }
}
