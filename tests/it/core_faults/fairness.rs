//! A caller of one row does not wait behind thousands of rows, nor for tokens that no text can have.

use std::time::Duration;

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Lane, Limits, RateLimitStatus,
    RateLimitWindow, Result, Space, Usage, async_trait,
    cache::Memory,
    provider::Fake,
    wrap::{RateLimit, RateLimiter},
};
use tokio::time::Instant;

use super::{HOUR, MINUTE, SECOND, Scripted, Step, fake, finished, request_of, sound};

// Claims of tokens

/// Returns how many seconds a second call waits after a call of a short text with this answer.
async fn wait_after(tokens_a_minute: u64, step: impl Fn(&Fake, &Batch<'_>) -> Step + Send + Sync + 'static) -> f64 {
    let fake = fake(Limits::none());
    let inner = fake.clone();
    let provider = Scripted::new(&fake, move |number, batch| match number {
        0 => step(&inner, batch),
        _ => Step::answers(),
    });
    let embedder = provider.rate_limit(RateLimiter::new().with_tokens_per_minute(tokens_a_minute));
    let _ = embedder.embed_documents(&["a short text"]).await;
    let began = Instant::now();
    let call = tokio::time::timeout(24 * HOUR, embedder.embed_documents(&["another short text"]));
    call.await.map_or(f64::INFINITY, |rows| {
        rows.expect("embeds");
        began.elapsed().as_secs_f64()
    })
}

/// The tokens of a text are bounded by a little more than its bytes, whatever a reply claims.
#[tokio::test(start_paused = true)]
async fn a_reply_that_claims_absurd_tokens_does_not_block_a_limiter() {
    for claimed in [1_000_000_000, u64::MAX] {
        for a_minute in [6000, 1_000_000] {
            let seconds = wait_after(a_minute, move |_, _| Step::gives(request_of(claimed))).await;
            assert!(seconds <= 5.0, "{seconds} s after {claimed} tokens at {a_minute} per minute");
        }
    }
}

/// The same for the claims of an error and of its finished rows.
#[tokio::test(start_paused = true)]
async fn an_error_that_claims_absurd_tokens_does_not_block_a_limiter() {
    let quota = || Error::new(ErrorKind::QuotaExhausted, "as scripted");
    let seconds = wait_after(1_000_000, move |_, _| Step::fails(quota().with_usage(request_of(1_000_000_000)))).await;
    assert!(seconds <= 5.0, "{seconds} s after an error");
    let claims = move |fake: &Fake, batch: &Batch<'_>| {
        Step::fails(quota().with_partial(finished(fake, batch.texts(), &[0], request_of(1_000_000_000))))
    };
    let seconds = wait_after(1_000_000, claims).await;
    assert!(seconds <= 5.0, "{seconds} s after finished rows");
}

// Queries beside bulk calls

/// Makes an embedder with OpenAI's limits, and bulk texts for one full call: 2,048 texts of 120 tokens.
fn limited(tokens_a_minute: u64) -> (Fake, RateLimit<Fake>, Vec<String>) {
    let limits = Limits::none().with_texts(2048).with_tokens_per_text(8191).with_tokens_per_call(300_000);
    let fake = Fake::builder().with_dimensions(1).with_limits(limits).with_latency(SECOND).without_log();
    let fake = fake.build().expect("valid");
    let embedder = fake.clone().rate_limit(RateLimiter::new().with_tokens_per_minute(tokens_a_minute));
    (fake, embedder, vec!["four".repeat(120); 2048])
}

/// Returns how long a query waits for its turn.
async fn query_wait(embedder: &impl Embedder) -> Duration {
    let began = Instant::now();
    let query = tokio::time::timeout(10 * MINUTE, embedder.embed_query("which one of all these?"));
    query.await.expect("no query starves").expect("embeds");
    // The time of its own call does not count as waiting.
    began.elapsed() - SECOND
}

/// Returns the longest wait of a query that comes some seconds after a bulk call, while the limiter still lacks tokens.
async fn longest_wait_behind_one(tokens_a_minute: u64) -> Duration {
    let mut longest = Duration::ZERO;
    for seconds in [1, 3, 7, 15, 30] {
        let (_, embedder, texts) = limited(tokens_a_minute);
        let bulk = tokio::spawn({
            let embedder = embedder.clone();
            async move { embedder.embed_documents(&texts).await.map(drop) }
        });
        tokio::time::sleep(seconds * SECOND).await;
        longest = longest.max(query_wait(&embedder).await);
        bulk.await.expect("no panic").expect("embeds");
    }
    longest
}

/// A bulk call takes only a share of a minute's tokens, so that a query is not in debt for it.
#[tokio::test(start_paused = true)]
async fn a_query_does_not_wait_for_the_tokens_of_a_bulk_call() {
    let longest = longest_wait_behind_one(350_000).await;
    assert!(longest <= 5 * SECOND, "{longest:?} with 350,000 tokens per minute");
}

#[tokio::test(start_paused = true)]
async fn a_query_does_not_wait_for_the_tokens_of_a_bulk_call_at_a_low_limit() {
    let longest = longest_wait_behind_one(150_000).await;
    assert!(longest <= 8 * SECOND, "{longest:?} with 150,000 tokens per minute");
}

/// Returns the longest wait of many queries while `callers` callers make bulk calls without end.
async fn longest_wait_behind_many(tokens_a_minute: u64, callers: usize) -> Duration {
    let (fake, embedder, texts) = limited(tokens_a_minute);
    let bulk: Vec<_> = (0..callers)
        .map(|_| {
            let (embedder, texts) = (embedder.clone(), texts.clone());
            tokio::spawn(async move {
                loop {
                    embedder.embed_documents(&texts).await.expect("embeds");
                }
            })
        })
        .collect();
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    for number in 0..40 {
        // Each query comes at another moment of a bulk call.
        tokio::time::sleep(Duration::from_millis(3000 + 370 * number)).await;
        longest = longest.max(query_wait(&embedder).await);
    }
    bulk.iter().for_each(tokio::task::JoinHandle::abort);
    // The bulk calls still get most of the tokens.
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let had = fake.charged().tokens as f64;
    assert!(had >= 0.5 * minutes * tokens_a_minute as f64, "{had} tokens in {minutes} minutes");
    longest
}

/// Queries do not pay for the patience of bulk calls, however long those go on and however many callers make them.
#[tokio::test(start_paused = true)]
async fn no_query_starves_behind_bulk_calls_without_end() {
    for callers in [1, 3] {
        let longest = longest_wait_behind_many(350_000, callers).await;
        assert!(longest <= 5 * SECOND, "{longest:?} with 350,000 tokens per minute behind {callers} callers");
    }
}

#[tokio::test(start_paused = true)]
async fn no_query_starves_behind_bulk_calls_without_end_at_a_low_limit() {
    for callers in [1, 3] {
        let longest = longest_wait_behind_many(150_000, callers).await;
        assert!(longest <= 8 * SECOND, "{longest:?} with 150,000 tokens per minute behind {callers} callers");
    }
}

/// Makes `bulk` bulk calls and one more for the text "shared", and then an interactive call for that text. Returns how
/// long the interactive call waits, and the usage that all bulk calls are told.
async fn wait_beside_bulk<E: Embedder>(fake: &Fake, embedder: E, bulk: usize) -> (Duration, Usage) {
    let cached = embedder.cached(Memory::unbounded()).expect("one space");
    let call = |text: String| {
        let cached = cached.clone();
        tokio::spawn(async move { cached.embed_documents(&[text]).await.map(|rows| rows.usage()) })
    };
    let mut calls: Vec<_> = (0..bulk).map(|i| call(format!("bulk {i}"))).collect();
    tokio::time::sleep(SECOND / 10).await;
    calls.push(call("shared".to_owned()));
    tokio::time::sleep(SECOND / 10).await;
    let began = Instant::now();
    let texts = ["shared"];
    let result = cached.embed(Batch::documents(&texts).with_lane(Lane::Interactive)).await;
    sound(fake, &texts, &result);
    result.expect("embeds");
    let waited = began.elapsed();
    let mut usage = Usage::ZERO;
    for call in calls {
        usage += tokio::time::timeout(HOUR, call).await.expect("nobody hangs").expect("no panic").expect("embeds");
    }
    (waited, usage)
}

/// An interactive call does not wait in the bulk lane, if a bulk call for the same text waits there.
#[tokio::test(start_paused = true)]
async fn an_interactive_call_does_not_wait_in_the_bulk_lane_for_a_text_of_a_bulk_call() {
    let fake = fake(Limits::none().with_texts(1));
    let provider = Scripted::new(&fake, |_, _| Step::answers().after(SECOND));
    let (waited, usage) = wait_beside_bulk(&fake, provider.concurrency(1), 9).await;
    // It waits for the rest of the call under way, and for its own call.
    assert!(waited <= 3 * SECOND, "{waited:?} behind nine bulk calls of a second each");
    assert!(usage.requests <= 10);
    assert_eq!(fake.vector_of(InputKind::Document, "shared").len(), 4);
}

/// The same behind a rate limit, which has lanes of its own.
#[tokio::test(start_paused = true)]
async fn an_interactive_call_does_not_wait_in_the_bulk_lane_of_a_rate_limit() {
    let fake = fake(Limits::none().with_texts(1));
    // Ten saved requests, then one per second.
    let limited = fake.clone().rate_limit(RateLimiter::new().with_requests_per_minute(60));
    let (waited, _) = wait_beside_bulk(&fake, limited, 18).await;
    assert!(waited <= 3 * SECOND, "{waited:?} behind eight bulk calls of a second each");
}

// Errors that another provider may not have

/// If one provider's configuration is wrong, another provider's may be right. A mistake in the batch is wrong for every
/// provider, and a passed deadline has passed for every provider.
#[test]
fn a_wrong_configuration_is_that_providers_alone() {
    use ErrorKind::{Auth, Config, DeadlinePassed, InvalidInput, Protocol, SpaceMismatch, Unavailable};
    for (kind, falls_back) in [
        (Config, true),
        (Auth, true),
        (Protocol, true),
        (Unavailable, true),
        (DeadlinePassed, false),
        (InvalidInput, false),
        (SpaceMismatch, false),
    ] {
        assert_eq!(Error::new(kind, "as scripted").should_fall_back(), falls_back, "{kind}");
    }
    assert!(!Error::new(Config, "as scripted").is_retryable());
}

/// Names the account's limits per minute with each answer.
#[derive(Clone, Debug)]
struct Tells(Fake, u64);

impl std::fmt::Display for Tells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tells")
    }
}

#[async_trait]
impl Embedder for Tells {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let allowed = RateLimitStatus::default().with_tokens(RateLimitWindow::new(self.1));
        self.0.embed(batch).await.map(|rows| rows.with_rate_limit_status(allowed))
    }

    fn spaces(&self) -> &[Space] {
        self.0.spaces()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

/// A limit that is learned from the first answer also holds for calls that were planned before it.
#[tokio::test(start_paused = true)]
async fn what_a_limiter_learns_makes_the_calls_that_are_planned_smaller() {
    let limits = Limits::none().with_texts(1_000).with_tokens_per_text(8).with_in_flight(1);
    let fake = || Fake::builder().with_dimensions(4).with_limits(limits.clone()).build().expect("valid");
    // Two tokens each; 1,200 per minute are 100 in five seconds.
    let texts: Vec<String> = (0..3_000).map(|i| format!("t {i:04}")).collect();
    let sizes = |fake: &Fake| fake.calls().iter().map(|call| call.texts.len()).collect::<Vec<_>>();
    let plain = fake();
    let embedder = Tells(plain.clone(), 1_200).rate_limit(RateLimiter::new());
    embedder.embed_documents(&texts).await.expect("embeds");
    assert_eq!((sizes(&plain)[0], sizes(&plain)[1..].iter().max()), (1_000, Some(&50)));
    let each = fake();
    let embedder = Tells(each.clone(), 1_200).rate_limit(RateLimiter::new());
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(embedder.embed_each(Batch::documents(&refs)).await.errors().count(), 0);
    assert_eq!((sizes(&each)[0], sizes(&each)[1..].iter().max()), (1_000, Some(&50)));
    let cached = fake();
    let embedder = Tells(cached.clone(), 1_200).rate_limit(RateLimiter::new());
    let embedder = embedder.cached(Memory::unbounded()).expect("one space");
    embedder.embed_documents(&texts).await.expect("embeds");
    assert_eq!((sizes(&cached)[0], sizes(&cached)[1..].iter().max()), (1_000, Some(&50)));
}
