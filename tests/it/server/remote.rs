//! `Remote` against the service itself: the laws in each dialect, restarts, another model at the same address.

use std::{sync::Arc, time::Duration};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, ErrorKind, InputKind, Lane, Limits, Truncation,
    cache::Memory,
    conformance::Suite,
    provider::{Fake, Remote, RemoteDialect},
    server::{Server, ServerLimits},
    wrap::{RateLimiter, RetryPolicy},
};

use super::Running;
use crate::support::service::counter_of;

const DIALECTS: &[RemoteDialect] = &[
    RemoteDialect::Docvector,
    RemoteDialect::TextEmbeddingsInference,
    #[cfg(feature = "openai")]
    RemoteDialect::OpenAi,
];

fn model() -> Fake {
    let tokens = counter_of(&Fake::new(32));
    let limits = Limits::none().with_texts(50).with_tokens_per_text(64).with_tokens(tokens);
    Fake::builder().with_dimensions(32).with_limits(limits).build().expect("valid")
}

/// A whole stack, as a service would have it.
fn stack(fake: &Fake) -> impl Embedder + use<> {
    let policy = RetryPolicy::default().with_backoff(Duration::from_millis(1), Duration::from_millis(5));
    let provider = fake.clone().timeout(Duration::from_secs(30)).concurrency(8).rate_limit(RateLimiter::new());
    provider.retry(policy).coalesce(Duration::from_millis(1)).dedup().cached(Memory::new(64 << 20)).expect("one space")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_laws_hold_in_each_dialect_over_a_whole_stack() {
    for &dialect in DIALECTS {
        let fake = model();
        let running = Running::of(stack(&fake));
        // In the dialects of others, only the client can name the texts that were truncated.
        let limits = Limits::none().with_tokens_per_text(64).with_tokens(counter_of(&fake));
        let remote =
            Remote::builder(running.url()).with_dialect(dialect).with_space(fake.space().expect("one").clone());
        let remote = remote.with_limits(limits).build().expect("valid");
        Suite::new(&remote).run().await.unwrap_or_else(|violation| panic!("{dialect}: {violation}"));
        let stack = remote.retry(RetryPolicy::default()).dedup();
        Suite::new(&stack).run().await.unwrap_or_else(|violation| panic!("{dialect} in a stack: {violation}"));
        assert!(fake.calls().len() > 50);
    }
    // What the service itself tells is enough in its own dialect.
    let fake = model();
    let running = Running::of(stack(&fake));
    let remote = Remote::connect(running.url()).await.expect("connects");
    assert_eq!(remote.space().expect("one"), fake.space().expect("one"));
    Suite::new(&remote).run().await.unwrap_or_else(|violation| panic!("connected: {violation}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_option_of_a_batch_arrives() {
    let fake = model();
    let running = Running::of(fake.clone());
    let space = fake.space().expect("one").clone();
    for &dialect in DIALECTS {
        let remote = Remote::builder(running.url()).with_dialect(dialect).with_space(space.clone());
        let remote = remote.build().expect("valid");
        let before = fake.calls().len();
        let batch = Batch::queries(&["a query"]).with_key("library:ä, b").with_tenant("t%").with_trace("00-1-2-01");
        let batch = batch.with_lane(Lane::Bulk).with_truncation(Truncation::Truncate).with_space(space.id());
        let batch = batch.with_deadline(std::time::Instant::now() + Duration::from_secs(50));
        let rows = remote.embed(batch).await.expect("a row");
        assert_eq!(rows.row(0), fake.vector_of(InputKind::Query, "a query"));
        // The probe of a foreign server is no call of this caller.
        let calls = fake.calls();
        let call = calls[before..].iter().find(|call| call.texts == ["a query"]).expect("the call");
        assert_eq!((call.kind, call.lane, call.truncation), (InputKind::Query, Lane::Bulk, Truncation::Truncate));
        assert_eq!((call.key.as_deref(), call.tenant.as_deref()), (Some("library:ä, b"), Some("t%")), "{dialect}");
        assert_eq!((call.trace.as_deref(), call.space), (Some("00-1-2-01"), Some(space.id())), "{dialect}");
        assert!(call.deadline.is_some(), "{dialect}");
    }
}

/// A restart in the middle costs nothing but time. Another model at the same address gets no row through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_comes_back_and_another_model_is_found_out() {
    for &dialect in DIALECTS {
        let fake = model();
        let running = Running::of(fake.clone());
        let address = running.address;
        let space = fake.space().expect("one").clone();
        let remote = Remote::builder(running.url()).with_dialect(dialect).with_space(space.clone());
        let policy = RetryPolicy::default()
            .with_attempts(40)
            .with_backoff(Duration::from_millis(20), Duration::from_millis(100))
            .with_max_elapsed(Duration::from_secs(30));
        let remote = Arc::new(remote.build().expect("valid").retry(policy));
        let texts: Vec<String> = (0..3000).map(|i| format!("text {i}")).collect();
        let work = tokio::spawn({
            let (remote, texts) = (remote.clone(), texts.clone());
            async move {
                let mut rows = Vec::new();
                for part in texts.chunks(10) {
                    rows.push(remote.embed_documents(part).await.expect("rows"));
                }
                rows
            }
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let running = tokio::task::spawn_blocking(move || {
            running.server.drain();
            running.ended();
            std::thread::sleep(Duration::from_millis(150));
            Running::at(address, fake)
        });
        let running = running.await.expect("restarted");
        let rows = work.await.expect("no panic");
        let fake = model();
        for (part, rows) in texts.chunks(10).zip(&rows) {
            for (text, row) in part.iter().zip(rows.rows()) {
                assert_eq!(row, fake.vector_of(InputKind::Document, text), "{dialect}");
            }
        }
        let other = Fake::builder().with_model("another").with_dimensions(32).build().expect("valid");
        let running = tokio::task::spawn_blocking(move || {
            running.server.drain();
            running.ended();
            Running::at(address, other)
        });
        let _running = running.await.expect("restarted");
        for _ in 0..3 {
            let error = remote.embed_documents(&["a text"]).await.expect_err("another model");
            assert_eq!(error.kind(), ErrorKind::SpaceMismatch, "{dialect}: {error}");
            assert_eq!(error.partials().count(), 0);
        }
    }
}

/// Batches far above what the queue takes are split by what the service tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_batches_fit_into_small_queues() {
    let fake = Fake::new(16);
    let mut limits = ServerLimits::default();
    (limits.bulk_tokens, limits.interactive_tokens, limits.texts) = (20_000, 5_000, 300);
    let running = Running::with(Server::builder().with_limits(limits), fake.clone());
    let remote = Remote::connect(running.url()).await.expect("connects");
    let texts: Vec<String> = (0..2_000).map(|i| format!("{i} ").repeat(i % 40 + 1)).collect();
    for kind in [InputKind::Document, InputKind::Query] {
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        let stack = remote.clone().concurrency(2).retry(RetryPolicy::default());
        let rows = stack.embed_all(Batch::new(kind, &borrowed)).await.expect("rows");
        for (text, row) in texts.iter().zip(rows.rows()) {
            assert_eq!(row, fake.vector_of(kind, text));
        }
    }
    // A text that is longer than the queue is truncated by a model that has a limit; this one has none.
    let long = "word ".repeat(30_000);
    let error = remote.embed(Batch::documents(&[&long])).await.expect_err("too large");
    assert_eq!((error.kind(), error.status()), (ErrorKind::InvalidInput, Some(413)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_queues_and_deadlines_have_their_kinds() {
    let fake = Fake::new(4);
    let mut limits = ServerLimits::default();
    limits.bulk_tokens = 10;
    let running = Running::with(Server::builder().with_api_key("right").with_limits(limits), fake.clone());
    let space = fake.space().expect("one").clone();
    let of =
        |key: &str| Remote::builder(running.url()).with_api_key(key).with_space(space.clone()).build().expect("valid");
    let error = of("wrong").embed_documents(&["a"]).await.expect_err("a wrong key");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Auth, Some(401)), "{error}");
    let remote = of("right");
    assert_eq!(remote.embed_documents(&["a"]).await.expect("a row").len(), 1);
    let hold = fake.hold();
    let waiting = tokio::spawn({
        let remote = remote.clone();
        async move { remote.embed_documents(&["abcd".repeat(9)]).await.map(|rows| rows.len()) }
    });
    while fake.calls().len() < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let error = remote.embed_documents(&["abcd".repeat(2)]).await.expect_err("a full queue");
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    assert!(error.retry_after().is_some_and(|wait| wait >= Duration::from_millis(100)));
    let deadline = std::time::Instant::now() + Duration::from_millis(150);
    let error = remote.embed(Batch::queries(&["q"]).with_deadline(deadline)).await.expect_err("late");
    assert_eq!(error.kind(), ErrorKind::DeadlinePassed, "{error}");
    drop(hold);
    assert_eq!(waiting.await.expect("no panic").expect("rows"), 1);
}
