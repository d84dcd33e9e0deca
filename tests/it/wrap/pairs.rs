//! Every pair of wrappers keeps the laws together, or refuses to be built.

use std::{sync::Arc, time::Duration};

use docvector_embed::{
    Embedder, EmbedderExt, ErrorKind, Result,
    cache::Memory,
    conformance,
    observer::Event,
    provider::Fake,
    wrap::{AbSplit, RateLimiter, Resilient, RetryPolicy, Totals},
};

/// Any stack.
type Stack = Arc<dyn Embedder>;

/// A wrapper: its name, and how it goes around a stack.
type Wrapper = (&'static str, fn(Stack) -> Result<Stack>);

/// All wrappers. The two that have several parts have the stack in each of them.
const WRAPPERS: [Wrapper; 11] = [
    ("Cached", |inner| Ok(Arc::new(inner.cached(Memory::unbounded())?))),
    ("Dedup", |inner| Ok(Arc::new(inner.dedup()))),
    ("Retry", |inner| Ok(Arc::new(inner.retry(RetryPolicy::default())))),
    ("RateLimit", |inner| Ok(Arc::new(inner.rate_limit(RateLimiter::new())))),
    ("Concurrency", |inner| Ok(Arc::new(inner.concurrency(4)))),
    ("Timeout", |inner| Ok(Arc::new(inner.timeout(Duration::from_secs(60))))),
    ("Metered", |inner| Ok(Arc::new(inner.metered(Totals::new())))),
    ("Observed", |inner| Ok(Arc::new(inner.observed(|_: &Event<'_>| {})))),
    ("Coalesce", |inner| Ok(Arc::new(inner.coalesce(Duration::from_millis(2))))),
    ("Resilient", |inner| {
        Ok(Arc::new(Resilient::builder(inner.clone()).with_fallback(inner).with_trusted_spaces().build()?))
    }),
    ("AbSplit", |inner| {
        Ok(Arc::new(AbSplit::builder("pairs").with_arm("one", 1, inner.clone()).with_arm("two", 1, inner).build()?))
    }),
];

#[tokio::test(start_paused = true)]
async fn every_pair_keeps_the_laws() {
    for (outer, around) in WRAPPERS {
        conformance::wrapper(|fake| around(Arc::new(fake)).expect("one space"))
            .await
            .unwrap_or_else(|violation| panic!("{outer}: {violation}"));
        for (inner, inside) in WRAPPERS {
            let pair = |fake: Fake| inside(Arc::new(fake)).and_then(around).expect("one space");
            let name = pair(Fake::new(8)).to_string();
            assert!(name.starts_with(&format!("{outer}(")) && name.contains(&format!("{inner}(")), "{name}");
            conformance::wrapper(pair).await.unwrap_or_else(|violation| panic!("{outer} around {inner}: {violation}"));
        }
    }
}

/// Makes a split over two arms of two spaces.
fn split(arms: Vec<Fake>) -> Stack {
    let [one, two] = arms.try_into().expect("two arms");
    Arc::new(AbSplit::builder("pairs").with_arm("one", 1, one).with_arm("two", 1, two).build().expect("two arms"))
}

/// Makes a stack that falls back into a second space.
fn across() -> Stack {
    let other = Fake::builder().with_model("other").with_dimensions(8).build().expect("valid");
    let builder = Resilient::builder(Fake::new(8)).with_fallback_in_another_space(other);
    Arc::new(builder.build().expect("asked for"))
}

#[tokio::test(start_paused = true)]
async fn around_several_spaces_a_wrapper_keeps_the_laws_of_routers_or_does_not_build() {
    let mut refused = Vec::new();
    for (outer, around) in WRAPPERS {
        let fakes = || {
            let fake = |model: &str, width| Fake::builder().with_model(model).with_dimensions(width).build();
            vec![fake("left", 12).expect("valid"), fake("right", 16).expect("valid")]
        };
        let built = [around(split(fakes())), around(across())];
        if let Some(error) = built.iter().find_map(|built| built.as_ref().err()) {
            assert_eq!(error.kind(), ErrorKind::Config, "{outer}: {error}");
            assert!(error.to_string().contains("2 spaces"), "{outer}: {error}");
            assert!(built.iter().all(Result::is_err), "{outer} builds over one of them");
            refused.push(outer);
            continue;
        }
        conformance::router(|arms| around(split(arms)).expect("builds"))
            .await
            .unwrap_or_else(|violation| panic!("{outer}: {violation}"));
    }
    assert_eq!(refused, ["Cached", "Resilient", "AbSplit"]);
}

/// Two models of one width, each of which could be taken for the other.
#[test]
fn a_fall_back_into_another_space_is_not_built_by_accident() {
    let other = || Fake::builder().with_model("other").with_dimensions(8).build().expect("valid");
    for (name, around) in WRAPPERS.into_iter().filter(|(name, _)| *name != "AbSplit") {
        let member = around(Arc::new(other())).expect("one space");
        let error = Resilient::builder(Fake::new(8)).with_fallback(member).build().expect_err(name);
        assert_eq!(error.kind(), ErrorKind::SpaceMismatch, "{name}: {error}");
    }
}
