//! `Remote` keeps the laws, alone and in a stack.

use std::time::Duration;

use docvector_embed::{
    Embedder, EmbedderExt, Limits, Space, TokenCount,
    conformance::Suite,
    provider::{Remote, RemoteDialect},
    wrap::{RetryPolicy, Totals},
};

use super::{SPOKEN, builder, model, space_of};
use crate::support::service::{Program, Service, counter_of};

async fn check(embedder: &dyn Embedder, what: &str) {
    Suite::new(embedder).run().await.unwrap_or_else(|violation| panic!("{what}: {violation}"));
}

#[tokio::test]
async fn with_the_limits_that_the_service_tells() {
    for program in [Program::Own, Program::Tei] {
        let fake = model("fake");
        let service = Service::start(program, &fake).await;
        let remote = Remote::connect(service.url()).await.expect("connects");
        // Nobody can name a text that another server finds too long.
        let limits = Limits::none().with_texts(7);
        let own = limits.clone().with_tokens_per_text(40).with_tokens_per_call(100_000).with_bytes(4000);
        let own = own.with_tokens(TokenCount::AtMostBytes);
        assert_eq!(remote.limits(), if program == Program::Own { own } else { limits });
        check(&remote, &format!("{program:?}")).await;
        assert!(service.embeddings().len() > 100, "the suite came to the service");
    }
}

/// With a counter, every law can be checked: that of length and that of usage too.
#[tokio::test]
async fn with_a_counter_in_every_dialect() {
    for &(dialect, program) in SPOKEN {
        let fake = model("fake");
        let service = Service::start(program, &fake).await;
        for texts in [1, 7] {
            let limits = Limits::none().with_texts(texts).with_tokens_per_text(40).with_tokens(counter_of(&fake));
            let remote = builder(&service.url(), dialect, &fake).with_limits(limits).build().expect("valid");
            check(&remote, &format!("{dialect} at {program:?}")).await;
        }
    }
}

/// The service puts the prompts, or the client does if the other server knows nothing of them: never both.
#[tokio::test]
async fn with_prompts() {
    let fake = model("fake");
    let prompts = docvector_embed::Prompts::new("passage: ", "query: ");
    let space: Space = space_of(&fake).to_builder().with_prompts(prompts).build().expect("valid");
    let service = Service::start(Program::Tei, &fake).await;
    let limits = Limits::none().with_texts(7);
    let remote = Remote::builder(service.url()).with_dialect(RemoteDialect::TextEmbeddingsInference).with_space(space);
    check(&remote.with_limits(limits).build().expect("valid"), "prompts").await;
}

#[tokio::test]
async fn in_a_stack() {
    let fake = model("fake");
    let service = Service::start(Program::Own, &fake).await;
    let remote = Remote::connect(service.url()).await.expect("connects");
    let policy = RetryPolicy::default().with_backoff(Duration::from_millis(1), Duration::from_millis(5));
    let stack = remote.metered(Totals::new()).timeout(Duration::from_secs(60)).concurrency(4).retry(policy).dedup();
    assert_eq!(stack.to_string(), "Dedup(Retry(Concurrency(Timeout(Metered(remote/fake)))))");
    check(&stack, "a stack").await;
}
