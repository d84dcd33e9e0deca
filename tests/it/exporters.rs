//! A stack is logged as it happens, with stable names, and nothing that nobody may see.

use std::{sync::Arc, time::Duration};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error, ErrorKind,
    cache::Memory,
    observer::{Observer, ToTracing},
    provider::Fake,
    telemetry,
    wrap::{RateLimiter, RetryPolicy},
};

use crate::telemetry::{TEXT, fields, names};

/// The error that the provider gives, with the text in each part that an embedder can set.
fn failure() -> Error {
    Error::new(ErrorKind::Unavailable, TEXT).with_provider_message(TEXT).with_request_id(TEXT)
}

fn stack(fake: &Fake, observer: impl Observer) -> Arc<dyn Embedder> {
    let limiter = RateLimiter::new().with_requests_per_minute(6);
    let policy = RetryPolicy::default().with_attempts(2).with_backoff(Duration::from_secs(1), Duration::from_secs(1));
    let embedder = fake.clone().metered(()).rate_limit(limiter).retry(policy);
    Arc::new(embedder.cached(Memory::new(1 << 20)).expect("one space").observed(observer))
}

/// Meets a miss with a repeated text and a failing call, a hit, and two failing calls in a row.
async fn scenario(observer: impl Observer) {
    let fake = Fake::builder().with_latency(Duration::from_secs(2)).build().expect("valid");
    let embedder = stack(&fake, observer);
    let texts = [TEXT, "two", TEXT];
    let batch = Batch::documents(&texts).with_key(TEXT).with_tenant(TEXT).with_trace(TEXT);
    fake.fail_next(failure());
    embedder.embed_all(batch).await.expect("the second attempt answers");
    embedder.embed_all(batch.with_texts(&texts[..2])).await.expect("from the cache");
    (0..2).for_each(|_| fake.fail_next(failure()));
    embedder.embed_query(TEXT).await.expect_err("fails twice");
}

#[test]
fn a_stack_is_logged() {
    use telemetry::*;
    let logged = fields(|| async {
        tokio::time::pause();
        scenario(ToTracing::new()).await;
    });
    // `fields` has looked for the text in all values, and for all names in the table.
    let call = [CALL_OUTCOME, CALL_LATENCY_MS, INPUT_TOKENS, ERROR_TYPE, SPACE];
    let others = [CACHE_HITS, CACHE_MISSES, DAMAGED, DEDUP_TEXTS, RETRY_ATTEMPT, RETRY_WAIT_MS];
    let waits = [QUEUE, QUEUE_WAIT_MS, QUEUE_WAITING, EMBEDDER, BATCH_SIZE];
    assert_eq!(logged, names(&[&call[..], &others, &waits].concat()));
}
