//! Checks the client against llmock, which fails on request, records every attempt with its time, and judges the
//! client: it must give neither an error nor a warning. llmock replies slowly and really waits, so these tests take
//! seconds.
#![cfg(unix)]

use std::time::Duration;

use docvector_embed::{
    Embedder, EmbedderExt, ErrorKind,
    wrap::{RateLimiter, RetryPolicy, Totals},
};
use futures_util::future::join_all;
use serde_json::json;

use crate::support::llmock::Llmock;

/// Concurrent calls.
const IN_FLIGHT: usize = 8;

/// Returns a policy with short waits. If the server asks for no wait, llmock warns of waits that do not grow by a
/// tenth. One time in four, two random waits do not grow so; those of this seed do, in every run.
fn policy() -> RetryPolicy {
    RetryPolicy::default()
        .with_attempts(5)
        .with_backoff(Duration::from_millis(200), Duration::from_secs(5))
        .with_seed(39)
}

/// Builds the documented stack. A new limiter knows no limits and learns them from the replies.
fn stack(server: &Llmock, policy: RetryPolicy, timeout: Duration) -> impl Embedder + use<> {
    let metered = server.openai().metered(Totals::new());
    metered.timeout(timeout).concurrency(IN_FLIGHT).rate_limit(RateLimiter::new()).retry(policy)
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    let server = Llmock::start(&[]);
    let cases = [
        // The server's instruction, and the number of requests that it applies to.
        (json!({"type": "fail", "status": 429, "retry_after": 1, "times": 2}), 2),
        // A wait of less than a second comes in milliseconds only.
        (json!({"type": "fail", "status": 429, "retry_after": 0.3, "times": 2}), 2),
        // The server asks for no wait, so the client's own waits must grow.
        (json!({"type": "fail", "status": 500, "times": 3}), 3),
        (json!({"type": "fail", "status": 502, "times": 2}), 2),
        (json!({"type": "fail", "status": 503}), 1),
        (json!({"type": "fail", "status": 529}), 1),
        // The server is down for three of five attempts.
        (json!({"type": "fail", "status": 503, "times": 3}), 3),
    ];
    for (number, (behavior, failures)) in cases.into_iter().enumerate() {
        let text = format!("case {number}");
        let stack = stack(&server, policy(), Duration::from_secs(60));
        server.script(&behavior);
        let rows = stack.embed_documents(&[&text]).await.unwrap_or_else(|error| panic!("{behavior}: {error}"));
        let statuses = server.statuses();
        assert_eq!(statuses.len(), failures + 1, "{behavior}: {statuses:?}");
        assert_eq!(statuses.last(), Some(&200), "{behavior}: {statuses:?}");
        server.judge();
        assert_eq!(rows.row(0), server.vector(&text), "{behavior}");
        server.forget();
    }
}

#[tokio::test]
async fn refusals_are_not_tried_again() {
    let server = Llmock::start(&[]);
    let stack = stack(&server, policy(), Duration::from_secs(60));
    let cases = [
        (400, ErrorKind::InvalidInput, "bad_request"),
        (401, ErrorKind::Auth, "invalid_api_key"),
        (403, ErrorKind::Auth, "forbidden"),
        (404, ErrorKind::Config, "not_found"),
        (422, ErrorKind::InvalidInput, "unprocessable_entity"),
    ];
    for (status, kind, code) in cases {
        server.script(&json!({"type": "fail", "status": status, "times": null}));
        let error = stack.embed_documents(&[format!("refused with {status}")]).await.expect_err("refused");
        assert_eq!((error.kind(), error.status(), error.provider_code()), (kind, Some(status), Some(code)), "{error}");
        assert_eq!(server.statuses(), [status]);
        server.judge();
        server.forget();
    }
}

#[tokio::test]
async fn an_outage_ends_after_the_attempts_allowed() {
    let server = Llmock::start(&[]);
    let stack = stack(&server, policy().with_attempts(3), Duration::from_secs(60));
    server.script(&json!({"type": "fail", "status": 503, "retry_after": 0.2, "times": null}));
    let error = stack.embed_documents(&["the server is down"]).await.expect_err("down");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unavailable, Some(503)), "{error}");
    assert!(!error.is_retryable(), "an outer retry would multiply the attempts: {error}");
    assert_eq!(server.statuses(), [503, 503, 503]);
    server.judge();
    server.report();
}

#[tokio::test]
async fn rows_belong_to_their_texts() {
    let server = Llmock::start(&[]);
    let stack = stack(&server, policy(), Duration::from_secs(60));
    let texts: Vec<String> = (0..12).map(|i| format!("text {i} of one call, é")).collect();
    server.script(&json!({"type": "fail", "status": 503, "retry_after": 0.1}));
    let rows = stack.embed_documents(&texts).await.expect("embeds");
    for (text, row) in texts.iter().zip(rows.rows()) {
        assert_eq!(row, server.vector(text), "{text}");
    }
    server.judge();
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up_and_made_again() {
    let server = Llmock::start(&[]);
    let stack = stack(&server, policy(), Duration::from_secs(3));
    // The delay is longer than the test, so this attempt gets no reply.
    server.script(&json!({"type": "delay", "seconds": 600}));
    let rows = stack.embed_documents(&["slow at first"]).await.expect("the second attempt is answered");
    assert_eq!(rows.usage().unanswered, 1, "the attempt given up may be billed");
    server.judge();
    assert_eq!(rows.row(0), server.vector("slow at first"));
}

/// Another client with the same key has used up the quota, which only the replies tell. The quota grows by four
/// requests per second: clients that wait exactly as long as each reply says collide again each time, and give up.
#[tokio::test]
async fn a_quota_is_learned_from_the_answers_and_kept() {
    let server = Llmock::start(&["--rpm", "240"]);
    while server.embed("somebody else's").header("x-ratelimit-remaining-requests") != Some("0") {}
    server.clear_requests();

    let stack = stack(&server, policy(), Duration::from_secs(60));
    let texts: Vec<String> = (0..24).map(|i| format!("call {i}")).collect();
    let results = join_all(texts.iter().map(|text| stack.embed_query(text))).await;
    for (text, result) in texts.iter().zip(results) {
        result.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let statuses = server.statuses();
    let refused = statuses.iter().filter(|&&status| status == 429).count();
    // All requests may have begun before the first reply; after it, the server refuses next to none.
    assert!(refused <= texts.len(), "{refused} of {} attempts were refused", statuses.len());
    server.judge();
    server.report();
}

/// llmock counts a token for every four bytes of the whole request, more than the text has. So only its replies tell
/// what is left.
#[tokio::test]
async fn a_quota_of_tokens_is_kept_too() {
    let server = Llmock::start(&["--tpm", "24000"]);
    let reply = server.embed(&"x".repeat(95_500));
    let left = reply.header("x-ratelimit-remaining-tokens").and_then(|left| left.parse::<u64>().ok());
    assert!(left.is_some_and(|left| left < 300), "{left:?} tokens are left");
    server.clear_requests();

    // A client that counts fewer tokens than the server sometimes comes too early.
    let stack = stack(&server, policy().with_attempts(7), Duration::from_secs(60));
    let texts: Vec<String> = (0..16).map(|i| format!("call {i} {}", "word ".repeat(80))).collect();
    let results = join_all(texts.iter().map(|text| stack.embed_query(text))).await;
    for (number, result) in results.into_iter().enumerate() {
        result.unwrap_or_else(|error| panic!("call {number}: {error}"));
    }
    server.judge();
    server.report();
}

#[tokio::test]
async fn random_failures_under_many_calls_lose_nothing() {
    let server = Llmock::start(&["--error-rate", "429=0.2", "--error-rate", "503=0.1"]);
    let stack = stack(&server, policy(), Duration::from_secs(60));
    let texts: Vec<String> = (0..48).map(|i| format!("chaos {i}")).collect();
    let results = join_all(texts.iter().map(|text| stack.embed_documents(std::slice::from_ref(text)))).await;
    let mut done = Vec::new();
    for (text, result) in texts.iter().zip(results) {
        match result {
            Ok(rows) => done.push((text, rows)),
            // Five failures in a row happen in one of four hundred calls.
            Err(error) => {
                let kinds = [ErrorKind::RateLimited, ErrorKind::Unavailable];
                assert!(kinds.contains(&error.kind()) && !error.is_retryable(), "{text}: {error}");
            }
        }
    }
    assert!(done.len() > texts.len() / 2, "{} of {} calls succeeded", done.len(), texts.len());
    let statuses = server.statuses();
    assert!(statuses.iter().any(|&status| status == 429 || status == 503), "nothing failed: {statuses:?}");
    let answered = statuses.iter().filter(|&&status| status == 200).count();
    assert_eq!(answered, done.len(), "every answer was used, and none was asked for twice");
    server.judge();
    server.report();
    for (text, rows) in done {
        assert_eq!(rows.row(0), server.vector(text), "{text}");
    }
}
