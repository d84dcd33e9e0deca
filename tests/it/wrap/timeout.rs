//! `Timeout`: ends slow calls in time, says why, and changes nothing else.

use std::time::Duration;

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error, ErrorKind, InputKind, Limits, Usage, conformance,
    provider::{Fake, FakeOutcome},
    wrap::Timeout,
};
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::support::deaf::Deaf;

const LIMIT: Duration = Duration::from_secs(5);

fn fake_taking(seconds: u64) -> Fake {
    Fake::builder().with_dimensions(4).with_latency(Duration::from_secs(seconds)).build().expect("valid")
}

/// Returns the moment a number of seconds from now, on tokio's clock.
fn in_seconds(seconds: u64) -> std::time::Instant {
    (Instant::now() + Duration::from_secs(seconds)).into_std()
}

#[tokio::test]
async fn keeps_the_laws() {
    let minute = Duration::from_secs(60);
    conformance::wrapper(|fake| Timeout::new(fake, minute)).await.expect("Timeout keeps the laws");
    conformance::wrapper(|fake| Timeout::new(fake.dedup(), Duration::MAX).dedup()).await.expect("in a stack, too");
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_given_up_and_says_so() {
    let fake = fake_taking(60);
    let error = Timeout::new(fake.clone(), LIMIT).embed_query("slow").await.expect_err("too slow");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.to_string(), "timed out in Timeout(fake): no answer within 5s");
    assert!(error.is_retryable() && error.should_fall_back());
    assert_eq!(error.usage().unanswered, 1);
    assert_eq!((error.usage().exact_tokens(), error.usage().requests), (Some(0), 0));
    assert_eq!(fake.calls()[0].outcome, FakeOutcome::Dropped);
}

#[tokio::test(start_paused = true)]
async fn each_call_has_the_whole_limit() {
    let limits = Limits::none().with_texts(1).with_in_flight(1);
    let fake = Fake::builder().with_dimensions(4).with_limits(limits).with_latency(Duration::from_secs(4));
    let fake = fake.build().expect("valid");
    let rows = Timeout::new(fake.clone(), LIMIT).embed_documents(&["a", "b", "c"]).await.expect("each in time");
    assert_eq!(rows.row(2), fake.vector_of(InputKind::Document, "c"));
    assert_eq!(rows.usage(), fake.charged());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_reaches_the_inside_unchanged() {
    let fake = fake_taking(60);
    let (texts, hour) = (["slow"], in_seconds(3600));
    let embedder = Timeout::new(fake.clone(), LIMIT);
    let error = embedder.embed(Batch::documents(&texts).with_deadline(hour)).await.expect_err("too slow");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(fake.calls()[0].deadline, Some(hour));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_is_the_inner_embedders_to_tell() {
    let embedder = Timeout::new(fake_taking(60), LIMIT);
    let texts = ["slow"];
    let error = embedder.embed(Batch::documents(&texts).with_deadline(in_seconds(1))).await.expect_err("too late");
    assert_eq!((error.kind(), error.embedder()), (ErrorKind::DeadlinePassed, Some("fake")));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_the_inner_embedder_missed_is_told_in_place_of_the_timeout() {
    let embedder = Timeout::new(Deaf(fake_taking(60)), LIMIT);
    let texts = ["slow"];
    for (deadline, kind) in [(1, ErrorKind::DeadlinePassed), (30, ErrorKind::Timeout)] {
        let batch = Batch::documents(&texts).with_deadline(in_seconds(deadline));
        let error = embedder.embed(batch).await.expect_err("too slow");
        assert_eq!((error.kind(), error.embedder()), (kind, Some("Timeout(Deaf(fake))")), "{deadline} s");
        assert_eq!(error.usage().unanswered, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passed_does_not_take_an_answer_that_came_in_time() {
    let embedder = Timeout::new(Deaf(fake_taking(3)), LIMIT);
    let texts = ["work under way may finish"];
    let rows = embedder.embed(Batch::documents(&texts).with_deadline(in_seconds(1))).await.expect("within the limit");
    assert_eq!(rows.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn inner_errors_pass_untouched() {
    let fake = fake_taking(1);
    fake.fail_next(Error::new(ErrorKind::RateLimited, "as scripted").with_retry_after(LIMIT).with_status(429));
    let error = Timeout::new(fake, LIMIT).embed_query("refused").await.expect_err("scripted");
    assert_eq!((error.kind(), error.embedder()), (ErrorKind::RateLimited, Some("fake")));
    assert_eq!((error.retry_after(), error.status()), (Some(LIMIT), Some(429)));
    assert_eq!(error.usage(), Usage::ZERO);
}

#[tokio::test(start_paused = true)]
async fn after_a_timeout_everything_is_usable() {
    let fake = Fake::new(4);
    let embedder = Timeout::new(fake.clone(), LIMIT);
    let hold = fake.hold();
    for _ in 0..3 {
        assert_eq!(embedder.embed_query("held").await.expect_err("held").kind(), ErrorKind::Timeout);
    }
    drop(hold);
    let row = embedder.embed_query("free").await.expect("embeds");
    assert_eq!(row, fake.vector_of(InputKind::Query, "free"));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_drops_the_inner_one() {
    let fake = fake_taking(1);
    let embedder = Timeout::new(fake.clone(), LIMIT);
    assert!(embedder.embed(Batch::documents(&["dropped"])).now_or_never().is_none());
    assert_eq!(fake.calls()[0].outcome, FakeOutcome::Dropped);
}

#[test]
fn gives_back_what_it_wraps() {
    let embedder = Timeout::new(Fake::new(4), LIMIT);
    assert_eq!((embedder.limit(), embedder.to_string().as_str()), (LIMIT, "Timeout(fake)"));
    assert_eq!(embedder.get_ref().spaces(), embedder.spaces());
    assert_eq!(embedder.into_inner().to_string(), "fake");
}
