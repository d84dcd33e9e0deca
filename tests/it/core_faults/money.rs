//! Nothing is paid twice, and every known cost is told to one of the callers that remain.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error, ErrorKind, InputKind, Lane, Limits, Result, SpaceId, Usage, async_trait,
    cache::{CacheStore, Entry, Key, Memory, Sink},
    wrap::{Cached, RateLimiter, Totals},
};
use tokio::time::Instant;

use super::{
    MINUTE, SECOND, Scripted, Step, fake, finished, paid, poll, polls_of, request_of, silent_request, sound, told,
};

// Rows that had arrived are stored

/// A store whose writes take this long.
#[derive(Clone, Debug)]
struct Slow(Arc<Memory>, Duration);

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slow")
    }
}

#[async_trait]
impl CacheStore for Slow {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        self.0.get(keys, sink).await
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        tokio::time::sleep(self.1).await;
        self.0.put(entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.0.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.0.note(space, about).await
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A cache whose only caller leaves during a write. The rows come after one second, and writing them takes ten.
async fn left_while_writing() -> (Scripted, Cached<Scripted>) {
    let provider = Scripted::new(&fake(Limits::none()), |_, _| Step::answers().after(SECOND));
    let store = Slow(Arc::new(Memory::unbounded()), 10 * SECOND);
    let cached = provider.clone().cached(store).expect("one space");
    let call = tokio::time::timeout(2 * SECOND, cached.embed_documents(&["a", "b"]));
    call.await.expect_err("it is being written");
    (provider, cached)
}

async fn assert_paid_once(provider: &Scripted, cached: &Cached<Scripted>) {
    let texts = ["b", "a"];
    let result = tokio::time::timeout(MINUTE, cached.embed_documents(&texts)).await.expect("nobody hangs");
    sound(&provider.fake, &texts, &result);
    result.expect("the rows are there");
    assert_eq!(provider.asked(), [["a", "b"]], "what had arrived is not paid for again");
}

/// Storing goes on without the caller: the next call pays nothing.
#[tokio::test(start_paused = true)]
async fn rows_that_had_arrived_when_the_caller_left_are_stored() {
    let (provider, cached) = left_while_writing().await;
    tokio::time::sleep(MINUTE).await;
    assert_paid_once(&provider, &cached).await;
}

/// The same for a call that comes before the rows are stored.
#[tokio::test(start_paused = true)]
async fn rows_that_are_being_stored_for_nobody_are_not_paid_for_again() {
    let (provider, cached) = left_while_writing().await;
    assert_paid_once(&provider, &cached).await;
}

/// The same for the rows that a failed call had finished.
#[tokio::test(start_paused = true)]
async fn finished_rows_of_a_failed_call_are_stored_when_the_caller_has_left() {
    let fake = fake(Limits::none());
    let inner = fake.clone();
    let provider = Scripted::new(&fake, move |number, batch| match number {
        0 => Step::fails(Error::new(ErrorKind::QuotaExhausted, "as scripted").with_partial(finished(
            &inner,
            batch.texts(),
            &[1],
            request_of(1),
        )))
        .after(SECOND),
        _ => Step::answers(),
    });
    let store = Slow(Arc::new(Memory::unbounded()), 10 * SECOND);
    let cached = provider.clone().cached(store).expect("one space");
    let call = tokio::time::timeout(2 * SECOND, cached.embed_documents(&["a", "b"]));
    call.await.expect_err("it is being written");
    tokio::time::sleep(MINUTE).await;
    cached.embed_documents(&["a", "b"]).await.expect("embeds");
    assert_eq!(provider.asked()[1..], [["a"]], "what had arrived is not paid for again");
}

/// Each lane has its own call for a text. The bulk call is still found after an interactive call has come and gone.
#[tokio::test(start_paused = true)]
async fn an_interactive_call_that_comes_and_goes_hides_no_bulk_call() {
    let provider = Scripted::new(&fake(Limits::none()), |_, _| Step::answers().after(SECOND));
    let cached = provider.clone().cached(Memory::unbounded()).expect("one space");
    let texts = ["shared"];
    let mut bulk = cached.embed(Batch::documents(&texts));
    assert!(poll(&mut bulk).is_none());
    let mut quick = cached.embed(Batch::documents(&texts).with_lane(Lane::Interactive));
    assert!(poll(&mut quick).is_none());
    assert_eq!(provider.asked().len(), 2, "it does not wait where bulk work waits");
    drop(quick);
    for result in <[_; 2]>::from(tokio::join!(bulk, cached.embed(Batch::documents(&texts)))) {
        sound(&provider.fake, &texts, &result);
        result.expect("embeds");
    }
    assert_eq!(provider.asked().len(), 2, "the other bulk caller joins the call of the first");
}

// The caller that gets the bill

/// A caller that takes a shared call's rows and leaves before its own answer is complete is told nothing. One of the
/// callers that remain is told the whole cost of the call, and the others none of it.
#[tokio::test(start_paused = true)]
async fn when_the_first_that_took_the_rows_leaves_one_of_the_others_is_told_the_cost() {
    let fake = fake(Limits::none().with_texts(1).with_in_flight(2));
    let provider = Scripted::new(&fake, |_, batch| match batch.texts()[0] {
        "shared" => Step::answers().after(SECOND),
        _ => Step::answers().after(MINUTE),
    });
    let cached = provider.clone().cached(Memory::unbounded()).expect("one space");
    let shared = ["shared"];
    let mut first = Box::pin(cached.embed_documents(&["shared", "slow"]));
    assert!(poll(&mut first).is_none());
    let mut others: Vec<_> = (0..3).map(|_| Box::pin(cached.embed_documents(&shared))).collect();
    for other in &mut others {
        assert!(poll(other).is_none());
    }
    tokio::time::advance(2 * SECOND).await;
    assert!(poll(&mut first).is_none(), "it has one of its two rows");
    drop(first);
    let mut told_to_each = Vec::new();
    for other in others {
        let result = tokio::time::timeout(MINUTE / 2, other).await.expect("nobody hangs");
        sound(&fake, &shared, &result);
        told_to_each.push(paid(told(&result)));
    }
    assert_eq!(provider.asked(), [["shared"], ["slow"]]);
    told_to_each.sort_unstable();
    assert_eq!(told_to_each, [(0, 0), (0, 0), paid(fake.charged())], "of those that remain");
}

/// The same if the shared call fails and costs something all the same.
#[tokio::test(start_paused = true)]
async fn when_the_first_that_took_an_error_leaves_one_of_the_others_is_told_the_cost() {
    let fake = fake(Limits::none().with_texts(1).with_in_flight(2));
    let provider = Scripted::new(&fake, |_, batch| match batch.texts()[0] {
        "shared" => {
            Step::fails(Error::new(ErrorKind::QuotaExhausted, "as scripted").with_usage(request_of(7))).after(SECOND)
        }
        _ => Step::answers().after(MINUTE),
    });
    let cached = provider.cached(Memory::unbounded()).expect("one space");
    let mut first = Box::pin(cached.embed_documents(&["shared", "slow"]));
    assert!(poll(&mut first).is_none());
    let mut others: Vec<_> = (0..3).map(|_| Box::pin(cached.embed_documents(&["shared"]))).collect();
    for other in &mut others {
        assert!(poll(other).is_none());
    }
    tokio::time::advance(2 * SECOND).await;
    assert!(poll(&mut first).is_none(), "its second call is under way");
    drop(first);
    let mut told_to_each = Vec::new();
    for other in others {
        let result = tokio::time::timeout(MINUTE / 2, other).await.expect("nobody hangs");
        told_to_each.push(paid(told(&result)));
        assert_eq!(result.expect_err("scripted").kind(), ErrorKind::QuotaExhausted);
    }
    told_to_each.sort_unstable();
    assert_eq!(told_to_each, [(0, 0), (0, 0), (7, 1)], "of those that remain");
}

// Requests that count

/// The finished rows of a failed call took tokens, so they count against the limit.
#[tokio::test(start_paused = true)]
async fn a_rate_limit_counts_the_finished_rows_of_a_failed_call() {
    let fake = fake(Limits::none());
    let inner = fake.clone();
    let provider = Scripted::new(&fake, move |number, batch| match number {
        0 => Step::fails(Error::new(ErrorKind::Unavailable, "as scripted").with_partial(finished(
            &inner,
            batch.texts(),
            &[0],
            request_of(50),
        ))),
        _ => Step::answers(),
    });
    // A hundred are saved, and ten come each second.
    let embedder = provider.rate_limit(RateLimiter::new().with_tokens_per_minute(600));
    let texts = ["four".repeat(50), "five".repeat(50)];
    let began = Instant::now();
    embedder.embed_documents(&texts).await.expect_err("scripted");
    assert_eq!(began.elapsed(), Duration::ZERO, "as many as are saved");
    embedder.embed_documents(&texts).await.expect("embeds");
    let seconds = began.elapsed().as_secs_f64();
    assert!((4.9..5.1).contains(&seconds), "{seconds} s: the failed call has taken 50 of a hundred tokens");
}

/// If one reply does not report its tokens, the sum is a lower bound and says so.
#[tokio::test]
async fn totals_keep_the_known_sum_and_count_the_unknown_calls() {
    let fake = fake(Limits::none());
    let provider = Scripted::new(&fake, |number, _| match number {
        1 => Step::gives(silent_request()),
        _ => Step::gives(request_of(5)),
    });
    let totals = Totals::new();
    let embedder = provider.metered(totals.clone());
    for _ in 0..4 {
        embedder.embed_query("text").await.expect("embeds");
    }
    let usage = totals.snapshot().usage;
    assert_eq!(paid(usage), (15, 4));
    assert_eq!(usage.unreported, 1, "{usage:?}");
}

/// The same for a sum of usages: every result of several calls is one.
#[test]
fn a_sum_of_usages_keeps_what_is_known() {
    let sum: Usage = [request_of(7), silent_request(), request_of(5), silent_request()].into_iter().sum();
    assert_eq!(paid(sum), (12, 4));
    assert_eq!(sum.unreported, 2, "{sum:?}");
    // A call without an answer is counted separately.
    let sum = sum + Usage::of_unanswered();
    assert_eq!((sum.tokens, sum.unanswered, sum.unreported), (12, 1, 2), "{sum:?}");
}

/// A rate limit counts the known tokens, also beside a reply that does not report its own.
#[tokio::test]
async fn a_result_of_many_calls_tells_the_known_sum() {
    let fake = fake(Limits::none().with_texts(1));
    let provider = Scripted::new(&fake, |number, _| match number {
        0 => Step::gives(silent_request()),
        _ => Step::gives(request_of(5)),
    });
    let cached = provider.clone().cached(Memory::unbounded()).expect("one space");
    for usage in [
        provider.embed_documents(&["a", "b", "c"]).await.expect("embeds").usage(),
        cached.embed_documents(&["a", "b", "c"]).await.expect("embeds").usage(),
    ] {
        assert_eq!(usage.requests, 3);
        assert!(usage.tokens >= 10, "{usage:?}");
    }
}

// Turns of other tasks

/// Hashing a thousand texts of 256 KiB lets other tasks have turns: one poll hashes at most about a mebibyte.
#[tokio::test]
async fn hashing_many_large_texts_lets_others_have_their_turn() {
    let fake = fake(Limits::none());
    let cached = fake.clone().cached(Memory::unbounded()).expect("one space");
    let text = "words".repeat((256 << 10) / 5);
    let texts = vec![text.as_str(); 1000];
    let batch = Batch::documents(&texts);
    let call = pin!(cached.embed(batch));
    let (result, polls) = polls_of(call).await;
    let rows = result.expect("embeds");
    assert_eq!(rows.row(999), fake.vector_of(InputKind::Document, &text));
    assert!(polls > 200, "{polls} polls for 250 MiB");
}

/// If an interactive call ends at its own caller's deadline, its other waiters go back to the bulk call of the same
/// text, which was under way before it.
#[tokio::test(start_paused = true)]
async fn a_bulk_call_is_found_again_when_an_interactive_one_was_late() {
    let fake =
        docvector_embed::provider::Fake::builder().with_dimensions(4).with_latency(10 * SECOND).build().expect("valid");
    let cached = fake.clone().cached(Memory::unbounded()).expect("one space");
    let call = |lane: Lane, deadline: Option<std::time::Instant>| {
        let cached = cached.clone();
        tokio::spawn(async move {
            let batch = Batch::documents(&["a text"]).with_lane(lane);
            cached.embed_all(deadline.map_or(batch, |deadline| batch.with_deadline(deadline))).await
        })
    };
    let first = call(Lane::Bulk, None);
    tokio::time::sleep(SECOND).await;
    let late = call(Lane::Interactive, Some((Instant::now() + 2 * SECOND).into_std()));
    tokio::time::sleep(SECOND).await;
    let third = call(Lane::Bulk, None);
    for (bulk, what) in [(first, "first"), (third, "third")] {
        bulk.await.expect("no panic").expect(what);
    }
    let error = late.await.expect("no panic").expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::DeadlinePassed);
    assert_eq!(fake.charged().requests, 1, "{:?}", fake.calls());
}
