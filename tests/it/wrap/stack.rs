//! The documented stack: it keeps the laws as a whole, and its order is tested.

use std::time::Duration;

use docvector_embed::{
    Embedder, EmbedderExt, Error, ErrorKind,
    cache::Memory,
    conformance,
    observer::Event,
    provider::Fake,
    wrap::{AbSplit, RateLimiter, Resilient, RetryPolicy, Totals},
};

/// Makes the wrappers that are around each call.
fn calls(fake: Fake, totals: &Totals) -> impl Embedder + use<> {
    fake.metered(totals.clone())
        .timeout(Duration::from_secs(30))
        .concurrency(4)
        .rate_limit(RateLimiter::new().with_requests_per_minute(60_000).with_tokens_per_minute(6_000_000))
        .retry(RetryPolicy::default())
}

fn stack(fake: Fake, totals: &Totals) -> impl Embedder + use<> {
    calls(fake, totals).cached(Memory::new(64 << 20)).expect("one space")
}

#[tokio::test(start_paused = true)]
async fn the_stack_keeps_the_laws() {
    conformance::wrapper(|fake| stack(fake, &Totals::new())).await.expect("lawful");
    conformance::wrapper(|fake| calls(fake, &Totals::new()).dedup()).await.expect("lawful without a cache");
}

#[test]
fn the_stack_shows_itself_from_outside_in() {
    let shown = stack(Fake::new(4), &Totals::new()).to_string();
    assert_eq!(shown, "Cached(Retry(RateLimit(Concurrency(Timeout(Metered(fake))))))");
}

/// The stack of [stacking](docvector_embed::docs::stacking): arms, each with a cache and members.
fn whole(arms: [Fake; 2]) -> AbSplit {
    let arm = |fake: Fake| {
        let member = |fake: Fake| calls(fake, &Totals::new());
        let members = Resilient::builder(member(fake.clone())).with_fallback(member(fake)).with_trusted_spaces();
        let arm = members.build().expect("one space").coalesce(Duration::from_millis(2));
        arm.cached(Memory::unbounded()).expect("one space")
    };
    let [one, two] = arms.map(arm);
    AbSplit::builder("a split").with_arm("one", 1, one).with_arm("two", 1, two).build().expect("two arms")
}

#[tokio::test(start_paused = true)]
async fn the_whole_stack_keeps_the_laws_of_routers() {
    let arms = |arms: Vec<Fake>| whole(arms.try_into().expect("two arms"));
    conformance::router(arms).await.expect("lawful");
    conformance::router(|fakes| arms(fakes).observed(|_: &Event<'_>| {})).await.expect("lawful with an observer");
    let member = "Retry(RateLimit(Concurrency(Timeout(Metered(fake)))))";
    let arm = format!("Cached(Coalesce(Resilient({member}, {member})))");
    assert_eq!(whole([Fake::new(4), Fake::new(8)]).to_string(), format!("AbSplit(one: {arm}, two: {arm})"));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_metered_and_each_has_its_own_time() {
    let totals = Totals::new();
    let fake = Fake::builder().with_dimensions(4).with_latency(Duration::from_secs(20)).build().expect("valid");
    fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
    fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
    // Three attempts of 20 s each are within a time limit of 30 s for one.
    stack(fake, &totals).embed_query("text").await.expect("the third attempt");
    let sum = totals.snapshot();
    assert_eq!((sum.calls, sum.failed), (3, vec![(ErrorKind::Unavailable, 2)]));
}
