//! `OpenAi` keeps the laws, alone and under every wrapper.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use docvector_embed::{
    Embedder, EmbedderExt, Limits, Space, TokenCount,
    conformance::Suite,
    provider::{OpenAi, OpenAiEncoding},
    wrap::{RateLimiter, RetryPolicy, Totals},
};
use serde_json::json;

use super::{Quarters, builder, client, limits::count, small};
use crate::support::{
    server::{Server, Step},
    stand_in::StandIn,
};

/// Returns limits with which every law has something to check.
fn limits() -> Limits {
    let tokens = TokenCount::Exact(Arc::new(Quarters));
    Limits::none().with_texts(7).with_tokens_per_text(40).with_tokens(tokens)
}

fn policy() -> RetryPolicy {
    RetryPolicy::default().with_backoff(Duration::from_millis(1), Duration::from_millis(5)).without_budget()
}

/// Builds the documented stack.
fn stack(openai: OpenAi) -> impl Embedder + Clone {
    let metered = openai.metered(Totals::new());
    metered.timeout(Duration::from_secs(60)).concurrency(4).rate_limit(RateLimiter::new()).retry(policy())
}

#[tokio::test]
async fn in_both_encodings() {
    for encoding in [OpenAiEncoding::Base64, OpenAiEncoding::Float] {
        for limits in [limits(), limits().with_texts(1), limits().with_tokens_per_call(60), Limits::none()] {
            let server = StandIn::start(16).await;
            let space = Space::builder("stand-in", 16).build().expect("valid");
            let client = builder(&server.base_url()).with_space(space).with_encoding(encoding);
            let client = client.with_limits(limits.clone()).build().expect("valid");
            let kept = Suite::new(&client).run().await;
            kept.unwrap_or_else(|violation| panic!("{encoding:?}, {limits:?}: {violation}"));
            assert!(server.requests() > 100, "the suite came to the server");
        }
    }
}

/// Uses OpenAI's own limits; both sides count the tokens.
#[tokio::test]
async fn with_openais_limits() {
    let server = Server::handling(|_, request| {
        let tokens: usize = request.texts().iter().map(|text| count(text)).sum();
        Step::edited(move |reply| reply["usage"] = json!({"prompt_tokens": tokens, "total_tokens": tokens}))
    })
    .await;
    let client = small(&server.base_url()).build().expect("valid");
    Suite::new(&client).run().await.expect("OpenAi keeps the laws");
}

#[tokio::test]
async fn in_the_documented_stack() {
    let server = Server::handling(|_, _| Step::Honest).await;
    let stack = stack(builder(&server.base_url()).with_limits(limits()).build().expect("valid"));
    assert_eq!(stack.to_string(), "Retry(RateLimit(Concurrency(Timeout(Metered(openai/stand-in)))))");
    Suite::new(&stack).run().await.expect("the stack keeps the laws");
    let dedup = stack.clone().dedup();
    assert_eq!(dedup.to_string(), "Dedup(Retry(RateLimit(Concurrency(Timeout(Metered(openai/stand-in))))))");
    Suite::new(&dedup).run().await.expect("Dedup over the stack keeps the laws");
    let boxed: Box<dyn Embedder> = Box::new(Arc::new(dedup));
    Suite::new(&boxed).run().await.expect("a pointer to it keeps the laws");
}

/// With retries, a server that fails each request the first time behaves like one that never fails.
#[tokio::test]
async fn over_a_server_that_fails_every_other_time() {
    let seen = Mutex::new(HashSet::new());
    let server = Server::handling(move |number, request| {
        if !seen.lock().expect("nobody panicked").insert(request.body.clone()) {
            return Step::Honest;
        }
        match number % 4 {
            0 => Step::Hangup,
            1 => Step::CloseMidBody,
            2 => {
                Step::refusal(429, "requests", Some("rate_limit_exceeded"), "Slow down.").header("retry-after-ms", "1")
            }
            _ => Step::Html(502),
        }
    })
    .await;
    let stack = stack(builder(&server.base_url()).with_limits(limits()).build().expect("valid"));
    Suite::new(&stack.clone().dedup()).run().await.expect("the stack keeps the laws");
    assert!(server.requests().len() > 200, "every request was made twice");
}

#[tokio::test]
async fn names_are_short_and_hold_no_address() {
    let server = Server::start([]).await;
    assert_eq!(client(&server).to_string(), "openai/stand-in");
    assert_eq!(small(&server.base_url()).build().expect("valid").to_string(), "openai/text-embedding-3-small");
}
