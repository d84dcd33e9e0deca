//! Values that make no sense are errors of `build` or, without a `build`, of the first call. None is silently changed.

use std::time::Duration;

use docvector_embed::{
    EmbedderExt, ErrorKind, InputKind, StreamOptions,
    provider::Fake,
    wrap::{RateLimiter, RetryBudget, RetryPolicy},
};
use futures_util::{StreamExt, stream};

async fn refuses(embedder: impl EmbedderExt, says: &str) {
    for _ in 0..2 {
        let error = tokio::time::timeout(Duration::from_secs(60), embedder.embed_query("a text"))
            .await
            .expect("an error and no hang")
            .expect_err("must be refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(says), "{error}");
        assert!(error.embedder().is_some(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn wrappers_refuse_every_call() {
    let fake = Fake::new(4);
    refuses(fake.clone().concurrency(0), "at least 1").await;
    refuses(fake.clone().rate_limit(RateLimiter::new().with_requests_per_minute(0)), "0 requests per minute").await;
    refuses(fake.clone().rate_limit(RateLimiter::new().with_tokens_per_minute(0)), "0 tokens per minute").await;
    refuses(fake.clone().retry(RetryPolicy::default().with_attempts(0)), "`with_attempts`").await;
    for (share, per_second) in [(-1.0, 1.0), (f64::NAN, 1.0), (0.2, f64::INFINITY), (0.2, -0.1)] {
        let policy = RetryPolicy::default().with_budget(RetryBudget::new(share, per_second));
        refuses(fake.clone().retry(policy), "finite").await;
    }
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_stream_refuses_with_its_only_item() {
    let fake = Fake::new(4);
    let options = StreamOptions::new(InputKind::Document);
    for (options, says) in [
        (options.clone().with_window_texts(0), "`with_window_texts`"),
        (options.with_windows_in_flight(0), "`with_windows_in_flight`"),
    ] {
        let items: Vec<_> = fake.embed_stream(stream::iter(["a", "b"]), options).collect().await;
        let [Err(error)] = &items[..] else { panic!("{items:?}") };
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(says), "{error}");
    }
    assert!(fake.calls().is_empty());
}
