//! `Coalesce`: many small calls become one, and rows, errors, costs and departures stay with those they belong to.

use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use docvector_embed::{
    BadText, BadTextReason, Batch, Charges, CountTokens, Embedder, EmbedderExt, Embeddings, Error, ErrorKind,
    InputKind, Lane, Limits, Partial, RateLimitStatus, RateLimitWindow, Result, Space, TokenCount, Truncation, Usage,
    async_trait,
    cache::Memory,
    conformance,
    provider::{Fake, FakeCall, FakeOutcome},
    wrap::{RetryPolicy, Totals},
};
use futures_util::{
    FutureExt, StreamExt,
    future::{join, join_all},
};
use tokio::time::Instant;

use crate::support::deaf::Deaf;

const WINDOW: Duration = Duration::from_millis(5);
const MINUTE: Duration = Duration::from_secs(60);

fn fake(limits: Limits) -> Fake {
    Fake::builder().with_dimensions(4).with_limits(limits).build().expect("valid")
}

fn fake_taking(latency: Duration) -> Fake {
    Fake::builder().with_dimensions(4).with_latency(latency).build().expect("valid")
}

/// Returns the moment so long from now, on tokio's clock.
fn after(time: Duration) -> std::time::Instant {
    (Instant::now() + time).into_std()
}

fn sizes(fake: &Fake) -> Vec<usize> {
    fake.calls().iter().map(|call| call.texts.len()).collect()
}

/// Embeds documents in one call.
async fn embed(embedder: &impl Embedder, texts: &[&str]) -> Result<Embeddings> {
    embedder.embed(Batch::documents(texts)).await
}

fn own(fake: &Fake, texts: &[&str], rows: &Embeddings) {
    assert_eq!(rows.len(), texts.len());
    for (row, text) in rows.rows().zip(texts) {
        assert_eq!(row, fake.vector_of(InputKind::Document, text), "{text}");
    }
}

fn named(error: &Error) -> Vec<usize> {
    error.bad_texts().iter().map(|bad| bad.index).collect()
}

fn rejects(places: &[usize]) -> Error {
    Error::invalid_texts(places.iter().map(|&at| BadText::new(at, BadTextReason::Rejected)).collect())
}

fn finished(fake: &Fake, places: &[usize], texts: &[&str], tokens: u64) -> Partial {
    let components = texts.iter().flat_map(|text| fake.vector_of(InputKind::Document, text)).collect();
    let rows = Embeddings::new(texts.len(), &fake.spaces()[0], components, Usage::of_request(Some(tokens)));
    Partial::new(places.to_vec(), rows.expect("valid")).expect("ascending")
}

fn cost(result: &Result<Embeddings>) -> Usage {
    match result {
        Ok(rows) => rows.usage(),
        Err(error) => error.total_usage(),
    }
}

#[tokio::test(start_paused = true)]
async fn keeps_the_laws_with_every_window() {
    for window in [0, 1, 10, 1_000].map(Duration::from_millis) {
        conformance::wrapper(|fake| fake.coalesce(window)).await.expect("lawful");
        conformance::wrapper(|fake| fake.coalesce(window).with_max_texts(2)).await.expect("lawful in small groups");
    }
}

#[tokio::test(start_paused = true)]
async fn keeps_the_laws_in_stacks() {
    conformance::wrapper(|fake| Arc::new(fake.coalesce(WINDOW))).await.expect("lawful");
    conformance::wrapper(|fake| fake.dedup().coalesce(WINDOW).dedup()).await.expect("lawful");
    conformance::wrapper(|fake| fake.coalesce(WINDOW).coalesce(WINDOW)).await.expect("lawful");
    conformance::wrapper(|fake| {
        let inner = fake.metered(Totals::new()).timeout(MINUTE).concurrency(3).retry(RetryPolicy::default());
        inner.coalesce(WINDOW).cached(Memory::new(64 << 20)).expect("one space").metered(Totals::new())
    })
    .await
    .expect("lawful where it belongs");
    conformance::wrapper(|fake| {
        fake.cached(Memory::new(64 << 20)).expect("one space").coalesce(WINDOW).timeout(MINUTE).concurrency(2)
    })
    .await
    .expect("lawful where it does not belong");
    conformance::wrapper(|fake| fake.coalesce(WINDOW).retry(RetryPolicy::default())).await.expect("lawful");
}

#[test]
fn shows_what_it_is_around() {
    let embedder = Fake::new(4).coalesce(WINDOW).with_max_texts(3);
    assert_eq!(embedder.to_string(), "Coalesce(fake)");
    let shown = format!("{embedder:?}");
    assert!(shown.contains("window: 5ms") && shown.contains("max_texts: Some(3)"), "{shown}");
    assert_eq!((embedder.window(), embedder.limits()), (WINDOW, embedder.get_ref().limits()));
}

/// 1,000 calls of 10 ms each become four at once.
#[tokio::test(start_paused = true)]
async fn a_thousand_single_texts_take_the_time_of_three_calls() {
    const CALL: Duration = Duration::from_millis(10);
    let fake = fake_taking(CALL);
    let embedder = fake.clone().coalesce(WINDOW);
    let began = Instant::now();
    let texts: Vec<String> = (0..1_000).map(|i| format!("text {i}")).collect();
    let tasks: Vec<_> = texts
        .iter()
        .map(|text| {
            let (embedder, text) = (embedder.clone(), text.clone());
            tokio::spawn(async move { embed(&embedder, &[&text]).await.expect("embeds") })
        })
        .collect();
    let mut told = Usage::ZERO;
    for (task, text) in tasks.into_iter().zip(&texts) {
        let rows = task.await.expect("no panic");
        own(&fake, &[text], &rows);
        told += rows.usage();
    }
    assert!(began.elapsed() <= 3 * CALL, "{:?}", began.elapsed());
    assert_eq!(sizes(&fake), [256, 256, 256, 232]);
    assert_eq!(told, fake.charged());
    let counts = embedder.counts();
    assert_eq!((counts.calls, counts.texts, counts.merged_calls, counts.straight), (1_000, 1_000, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn each_caller_gets_its_rows_its_marks_and_its_share() {
    let fake = fake(Limits::none().with_tokens_per_text(3));
    let embedder = fake.clone().coalesce(WINDOW);
    let calls = [vec!["a", "long beyond measure", "b"], vec!["also far too long"], vec!["c", "a"]];
    let batch = |texts| Batch::documents(texts).with_truncation(Truncation::Truncate);
    let rows = join_all(calls.iter().map(|texts| embedder.embed(batch(texts)))).await;
    let rows: Vec<Embeddings> = rows.into_iter().map(|rows| rows.expect("embeds")).collect();
    assert_eq!(sizes(&fake), [6]);
    assert_eq!([rows[0].truncated(), rows[1].truncated(), rows[2].truncated()], [&[1][..], &[0], &[]]);
    own(&fake, &["a", "long beyond ", "b"], &rows[0]);
    own(&fake, &["also far too"], &rows[1]);
    own(&fake, &["c", "a"], &rows[2]);
    // Ten tokens: five of the first, three of the second, two of the third.
    assert_eq!([0, 1, 2].map(|at| rows[at].usage().tokens), [5, 3, 2]);
    let told: Charges = rows.iter().map(Embeddings::charges).sum();
    assert_eq!((told.usage(), told.iter().count()), (fake.charged(), 1));
}

#[tokio::test(start_paused = true)]
async fn calls_of_other_options_are_never_merged() {
    let fake = fake(Limits::none());
    let embedder = fake.clone().coalesce(WINDOW);
    let space = fake.spaces()[0].id();
    let plain = Batch::documents(&["text"]);
    let others = [
        plain,
        Batch::queries(&["text"]).with_lane(Lane::Bulk),
        plain.with_key("a"),
        plain.with_key("b"),
        plain.with_tenant("a"),
        plain.with_space(space),
        plain.with_truncation(Truncation::Truncate),
        plain.with_lane(Lane::Interactive),
    ];
    // Each twice, so that each is merged with its like.
    let all = others.iter().chain(&others);
    join_all(all.map(|batch| embedder.embed(*batch))).await.into_iter().for_each(|rows| drop(rows.expect("embeds")));
    let calls = fake.calls();
    assert_eq!(sizes(&fake), [2; 8]);
    let asked =
        |call: &FakeCall| (call.kind, call.key.clone(), call.tenant.clone(), call.space, call.truncation, call.lane);
    let distinct: std::collections::HashSet<_> = calls.iter().map(asked).collect();
    assert_eq!(distinct.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn traces_and_deadlines_of_the_callers_are_put_together() {
    let fake = fake(Limits::none());
    let embedder = fake.clone().coalesce(WINDOW);
    let (soon, late) = (after(MINUTE), after(2 * MINUTE));
    let plain = Batch::documents(&["text"]);
    for (batches, trace, deadline) in [
        ([plain.with_trace("t").with_deadline(soon), plain.with_trace("t").with_deadline(late)], Some("t"), Some(late)),
        ([plain.with_trace("t").with_deadline(late), plain.with_trace("u")], None, None),
        ([plain, plain.with_trace("t")], None, None),
    ] {
        join_all(batches.map(|batch| embedder.embed(batch))).await;
        let call = fake.calls().pop().expect("a call");
        assert_eq!((call.trace.as_deref(), call.deadline, call.texts.len()), (trace, deadline, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_wait_or_needs_no_others_goes_straight() {
    let fake = fake(Limits::none().with_bytes(100));
    let embedder = fake.clone().coalesce(WINDOW).with_max_texts(3);
    let began = Instant::now();
    embed(&embedder, &["as", "many", "as a group"]).await.expect("embeds");
    embed(&embedder, &["x".repeat(100).as_str()]).await.expect("embeds");
    let urgent = Batch::documents(&["urgent"]).with_deadline(after(WINDOW));
    embedder.embed(urgent).await.expect("embeds");
    assert!(embed(&embedder, &[]).await.expect("no rows").is_empty());
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(fake.calls()[2].deadline, urgent.deadline());
    let counts = embedder.counts();
    assert_eq!((counts.straight, counts.calls), (3, 0));
    // A window of zero merges nothing.
    let embedder = fake.clone().coalesce(Duration::ZERO);
    let (a, b) = join(embed(&embedder, &["a"]), embed(&embedder, &["b"])).await;
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(sizes(&fake)[3..], [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_group_departs_when_the_window_ends_or_when_it_is_full() {
    let fake = fake(Limits::none().with_texts(5).with_bytes(40));
    let embedder = fake.clone().coalesce(WINDOW);
    let began = Instant::now();
    let ask = async |wait: u64, texts: &[&str]| {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        embed(&embedder, texts).await.expect("embeds");
        began.elapsed().as_millis()
    };
    // The third call fills the group. The fourth comes after 4 ms and departs at 9 ms. The sixth does not fit into its
    // group, which departs at once, and departs itself 5 ms later.
    let ends = join_all([
        ask(0, &["a"]).boxed(),
        ask(1, &["b", "c"]).boxed(),
        ask(2, &["d", "e"]).boxed(),
        ask(4, &["f"]).boxed(),
        ask(6, &["g", "h"]).boxed(),
        ask(7, &["i", "j", "k"]).boxed(),
    ])
    .await;
    assert_eq!(ends, [2, 2, 2, 7, 7, 12]);
    assert_eq!(sizes(&fake), [5, 3, 3]);
    // Bytes fill a group, too.
    let texts = ["x".repeat(20), "y".repeat(15), "z".repeat(6)];
    let began = Instant::now();
    join_all(texts.iter().map(|text| embedder.embed_query(text))).await;
    assert_eq!(sizes(&fake)[3..], [2, 1]);
    assert_eq!(began.elapsed(), WINDOW);
}

#[tokio::test(start_paused = true)]
async fn tokens_fill_a_group() {
    let fake = fake(Limits::none().with_tokens_per_call(10));
    let embedder = fake.clone().coalesce(WINDOW);
    let texts = ["four tokens here", "three tokens", "just 2", "1"];
    let rows = join_all(texts.map(|text| async { embedder.embed_query(text).await })).await;
    assert!(rows.iter().all(Result::is_ok), "{rows:?}");
    assert_eq!(sizes(&fake), [4]);
    join_all(
        ["four tokens here", "four tokens more", "three tokens"].map(|text| async { embedder.embed_query(text).await }),
    )
    .await;
    assert_eq!(sizes(&fake)[1..], [2, 1]);
}

/// Counts one token per word, and its own calls.
#[derive(Debug)]
struct Words(Arc<AtomicUsize>);

impl CountTokens for Words {
    fn count(&self, _: InputKind, text: &str) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed);
        text.split(' ').count()
    }

    fn at_most(&self, _: InputKind, text: &str) -> usize {
        text.len()
    }
}

#[tokio::test(start_paused = true)]
async fn each_text_is_counted_once() {
    let counted = Arc::new(AtomicUsize::new(0));
    let tokens = TokenCount::exact(Words(counted.clone()));
    let fake = fake(Limits::none().with_tokens_per_text(8).with_tokens_per_call(1_000).with_tokens(tokens));
    let embedder = fake.clone().coalesce(WINDOW);
    // Two texts are so long that they must be counted, and one is not.
    let texts = ["a few words", "short", "some more words"];
    let rows = join_all(texts.map(|text| async { embed(&embedder, &["x", text]).await.expect("embeds") })).await;
    assert_eq!((sizes(&fake), counted.load(Ordering::Relaxed)), (vec![6], 2));
    // The counts decide on the parts, too: 4, 3 and 4 of 11. The fake says 12 tokens, and the first gets the rest.
    assert_eq!([0, 1, 2].map(|at| rows[at].usage().tokens), [5, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn an_endless_window_ends_when_the_group_is_full() {
    let fake = fake(Limits::none());
    let embedder = fake.clone().coalesce(Duration::MAX).with_max_texts(2);
    let first = embed(&embedder, &["a"]);
    let second = async {
        tokio::time::sleep(1_000 * MINUTE).await;
        embed(&embedder, &["b"]).await
    };
    let (first, second) = join(first, second).await;
    assert!(first.is_ok() && second.is_ok());
    // With a deadline, nobody waits for an end that does not come.
    let urgent = Batch::documents(&["c"]).with_deadline(after(MINUTE));
    embedder.embed(urgent).await.expect("embeds");
    assert_eq!(sizes(&fake), [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_before_joins_no_group() {
    let fake = fake(Limits::none().with_tokens_per_text(3).with_bytes(50));
    let embedder = fake.clone().coalesce(WINDOW);
    let texts = ["fine", "", "much too long for it"];
    let error = embed(&embedder, &texts).await.expect_err("two bad texts");
    assert_eq!((error.kind(), named(&error)), (ErrorKind::InvalidInput, vec![1, 2]));
    assert_eq!(error.embedder(), Some("Coalesce(fake)"));
    let other = Space::builder("another", 4).build().expect("valid").id();
    let error = embedder.embed(Batch::documents(&["a"]).with_space(other)).await.expect_err("no such space");
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    assert_eq!((fake.calls().len(), embedder.counts().calls), (0, 0));
}

/// Polls a future so often at most, then drops it.
async fn at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let poll = future.as_mut().poll(context).map(Some);
        if poll.is_pending() {
            context.waker().wake_by_ref();
        }
        poll
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_the_departure_takes_its_texts_along() {
    let fake = fake(Limits::none());
    let embedder = fake.clone().coalesce(WINDOW);
    // The first caller opens the group, and leaves.
    let (left, rows) = join(at_most(2, embed(&embedder, &["leaves", "too"])), embed(&embedder, &["stays"])).await;
    assert!(left.is_none());
    own(&fake, &["stays"], &rows.expect("embeds"));
    assert_eq!(fake.calls()[0].texts, ["stays"]);
    // Without callers there is no call, and the next group has a window of its own.
    assert!(at_most(3, embed(&embedder, &["leaves"])).await.is_none());
    tokio::time::sleep(2 * WINDOW).await;
    assert_eq!(fake.calls().len(), 1);
    let began = Instant::now();
    embed(&embedder, &["later"]).await.expect("embeds");
    assert_eq!(began.elapsed(), WINDOW);
    assert!(embedder.unclaimed().is_none());
}

/// The window is that of the group, whoever is in it.
#[tokio::test(start_paused = true)]
async fn a_group_departs_in_time_without_the_caller_that_opened_it() {
    let fake = fake(Limits::none());
    let embedder = fake.clone().coalesce(WINDOW);
    let began = Instant::now();
    let opener = tokio::time::timeout(WINDOW * 3 / 5, embed(&embedder, &["opens"]));
    let second = async {
        tokio::time::sleep(WINDOW * 2 / 5).await;
        embed(&embedder, &["stays"]).await
    };
    let (left, rows) = join(opener, second).await;
    assert!(left.is_err() && rows.is_ok());
    assert_eq!((began.elapsed(), &fake.calls()[0].texts[..]), (WINDOW, &["stays".to_owned()][..]));
}

#[tokio::test(start_paused = true)]
async fn who_has_left_is_not_asked_for_again() {
    let fake = fake_taking(MINUTE);
    let embedder = fake.clone().coalesce(WINDOW);
    fake.fail_next(rejects(&[0]).with_usage(Usage::of_request(Some(10))));
    let leaver = tokio::time::timeout(MINUTE / 2, embed(&embedder, &["leaves"]));
    let ((bad, left), stayed) = join(join(embed(&embedder, &["bad"]), leaver), embed(&embedder, &["stays"])).await;
    assert!(bad.is_err() && left.is_err());
    let asked: Vec<Vec<String>> = fake.calls().into_iter().map(|call| call.texts).collect();
    assert_eq!(asked, [vec!["bad", "leaves", "stays"], vec!["stays"]]);
    let told = cost(&bad) + cost(&stayed) + embedder.unclaimed().usage();
    assert_eq!(told, fake.charged() + Usage::of_request(Some(10)));
    assert!(embedder.unclaimed().usage().tokens > 0, "a part of the first call");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_after_the_departure_leaves_its_share() {
    let fake = fake_taking(MINUTE);
    let embedder = fake.clone().coalesce(WINDOW);
    let texts = ["twelve tokens are in this text of a caller wh", "abcd"];
    let began = Instant::now();
    let leaver = tokio::time::timeout(MINUTE / 2, embed(&embedder, &texts[..1]));
    let (left, stayed) = join(leaver, embed(&embedder, &texts[1..])).await;
    assert!(left.is_err());
    let stayed = stayed.expect("the call goes on");
    // The one that left had driven the call. The other one takes over at once.
    assert_eq!(began.elapsed(), WINDOW + MINUTE);
    own(&fake, &texts[1..], &stayed);
    let (told, unclaimed) = (stayed.usage(), embedder.unclaimed());
    assert_eq!((told.tokens, unclaimed.usage().tokens), (1, 12));
    assert_eq!(told + unclaimed.usage(), fake.charged());
    assert_eq!(unclaimed.iter().count(), 1, "it is known who is paid");
    assert_eq!(embedder.counts().unclaimed, unclaimed.usage());
}

#[tokio::test(start_paused = true)]
async fn if_all_leave_the_call_is_dropped_and_given_up() {
    let fake = fake_taking(MINUTE);
    let embedder = fake.clone().coalesce(WINDOW);
    let leaver = |time| tokio::time::timeout(time, embed(&embedder, &["text"]));
    let began = Instant::now();
    let left = join(leaver(MINUTE / 2), leaver(MINUTE / 3)).await;
    assert!(left.0.is_err() && left.1.is_err());
    assert_eq!(began.elapsed(), MINUTE / 2);
    assert_eq!(fake.calls()[0].outcome, FakeOutcome::Dropped);
    assert_eq!(embedder.unclaimed().usage(), Usage::of_given_up());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_one_does_not_fail_another() {
    let fake = fake_taking(MINUTE);
    let embedder = fake.clone().coalesce(WINDOW);
    let hasty = Batch::documents(&["hasty"]).with_deadline(after(MINUTE / 2));
    let (late, rows) = join(embedder.embed(hasty), embed(&embedder, &["patient"])).await;
    let late = late.expect_err("too late");
    assert_eq!((late.kind(), late.total_usage()), (ErrorKind::DeadlinePassed, Usage::ZERO));
    assert_eq!(late.to_string(), "deadline passed in Coalesce(fake): while the call waited with others");
    let rows = rows.expect("has no deadline");
    assert_eq!(rows.usage() + embedder.unclaimed().usage(), fake.charged());
}

#[tokio::test(start_paused = true)]
async fn the_last_to_be_late_is_told_that_the_call_is_given_up() {
    let fake = fake_taking(MINUTE);
    let embedder = Deaf(fake.clone()).coalesce(WINDOW);
    let by = |time| Batch::documents(&["text"]).with_deadline(after(time));
    let (first, last) = join(embedder.embed(by(MINUTE / 3)), embedder.embed(by(MINUTE / 2))).await;
    assert_eq!(first.expect_err("late").total_usage(), Usage::ZERO);
    assert_eq!(last.expect_err("late").total_usage(), Usage::of_given_up());
    assert!(embedder.unclaimed().is_none());
    assert_eq!(fake.calls()[0].outcome, FakeOutcome::Dropped);
}

/// The embedder itself finds that it is too late for all.
#[tokio::test(start_paused = true)]
async fn late_callers_are_not_asked_for_again() {
    let fake = fake(Limits::none());
    let late = |_: &Fake, batch: Batch<'_>| {
        let deadline = batch.deadline().expect("all have one");
        let is_late = Instant::from_std(deadline) <= Instant::now();
        Some(Err(Error::new(if is_late { ErrorKind::DeadlinePassed } else { ErrorKind::Timeout }, "as scripted")))
    };
    let embedder = Odd { fake, takes: MINUTE / 2, embed: late }.coalesce(WINDOW);
    let by = Batch::documents(&["text"]).with_deadline(after(WINDOW + MINUTE / 2));
    let (one, other) = join(embedder.embed(by), embedder.embed(by)).await;
    for late in [one, other] {
        assert_eq!(late.expect_err("late").kind(), ErrorKind::DeadlinePassed);
    }
    assert_eq!((embedder.counts().merged_calls, embedder.counts().alone), (1, 0));
}

/// As `RateLimit` needs to know it, wherever it is.
#[tokio::test(start_paused = true)]
async fn each_caller_hears_what_the_provider_still_allows() {
    let status = RateLimitStatus::default().with_requests(RateLimitWindow::new(3000).with_remaining(7));
    let says = move |fake: &Fake, batch: Batch<'_>| {
        fake.embed(batch).now_or_never().map(|rows| rows.map(|rows| rows.with_rate_limit_status(status)))
    };
    let embedder = Odd { fake: fake(Limits::none()), takes: WINDOW, embed: says }.coalesce(WINDOW);
    let (one, other) = join(embed(&embedder, &["a"]), embed(&embedder, &["b"])).await;
    assert_eq!([one, other].map(|rows| rows.expect("embeds").rate_limit_status()), [Some(status); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_text_fails_its_caller_alone() {
    let fake = fake(Limits::none());
    let embedder = fake.clone().coalesce(WINDOW);
    let calls: [&[&str]; 4] = [&["a", "b"], &["bad", "c", "bad"], &["d"], &["e", "f"]];
    // Rows of "a", "d" and "f" come with the error. The others are asked for again, together.
    let error = rejects(&[2, 4]).with_partial(finished(&fake, &[0, 5, 7], &["a", "d", "f"], 30));
    fake.fail_next(error.with_usage(Usage::of_request(Some(50))));
    let results = join_all(calls.iter().map(|texts| embed(&embedder, texts))).await;
    let bad = results[1].as_ref().expect_err("has a bad text");
    assert_eq!((bad.kind(), named(bad), bad.partial().is_none()), (ErrorKind::InvalidInput, vec![0, 2], true));
    for at in [0, 2, 3] {
        own(&fake, calls[at], results[at].as_ref().expect("others' texts are not its fault"));
    }
    let asked = fake.calls();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].texts, ["b", "e"]);
    let told: Usage = results.iter().map(cost).sum();
    assert_eq!(told, fake.charged() + Usage::of_request(Some(30)) + Usage::of_request(Some(50)));
    assert_eq!(embedder.counts().alone, 0);
}

#[tokio::test(start_paused = true)]
async fn if_the_second_call_names_texts_too_the_rest_ask_alone() {
    let fake = fake(Limits::none());
    let embedder = fake.clone().coalesce(WINDOW);
    fake.fail_next(rejects(&[0]).with_usage(Usage::of_request(Some(10))));
    fake.fail_next(rejects(&[1]).with_usage(Usage::of_request(None)));
    let texts = ["bad", "a", "bad as well", "b"];
    let results = join_all(texts.map(|text| async { embedder.embed(Batch::documents(&[text])).await })).await;
    assert_eq!([0, 2].map(|at| named(results[at].as_ref().expect_err("bad"))), [[0], [0]]);
    for at in [1, 3] {
        own(&fake, &texts[at..=at], results[at].as_ref().expect("good"));
    }
    let asked: Vec<Vec<String>> = fake.calls().into_iter().map(|call| call.texts).collect();
    assert_eq!(asked[1..], [vec!["a", "bad as well", "b"], vec!["a"], vec!["b"]]);
    let told: Usage = results.iter().map(cost).sum();
    assert_eq!(told, fake.charged() + Usage::of_request(Some(10)) + Usage::of_request(None));
    assert_eq!((embedder.counts().alone, embedder.counts().merged_calls), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_without_a_name_each_asks_alone() {
    for kind in [ErrorKind::InvalidInput, ErrorKind::DeadlinePassed] {
        let fake = fake(Limits::none());
        let embedder = fake.clone().coalesce(WINDOW);
        let error = Error::new(kind, "as scripted").with_partial(finished(&fake, &[0, 1], &["a", "b"], 9));
        fake.fail_next(error.with_usage(Usage::of_request(Some(5))));
        let calls: [&[&str]; 3] = [&["a"], &["b", "c"], &["d"]];
        let results = join_all(calls.iter().map(|texts| embed(&embedder, texts))).await;
        for (texts, rows) in calls.iter().zip(&results) {
            own(&fake, texts, rows.as_ref().expect("it was not its fault"));
        }
        assert_eq!(sizes(&fake), [4, 1, 1]);
        let told: Usage = results.iter().map(cost).sum();
        assert_eq!(told, fake.charged() + Usage::of_request(Some(9)) + Usage::of_request(Some(5)));
    }
}

#[tokio::test(start_paused = true)]
async fn other_failures_are_told_to_all_and_paid_for_once() {
    let fake = fake(Limits::none());
    let embedder = fake.clone().coalesce(WINDOW);
    for kind in [ErrorKind::Unavailable, ErrorKind::RateLimited, ErrorKind::QuotaExhausted, ErrorKind::Protocol] {
        let error = Error::new(kind, "as scripted").with_partial(finished(&fake, &[0, 1], &["a", "b"], 9));
        fake.fail_next(error.with_usage(Usage::of_request(None)).with_retry_after(MINUTE));
        let calls: [&[&str]; 3] = [&["a"], &["b", "c"], &["d"]];
        let results = join_all(calls.iter().map(|texts| embed(&embedder, texts))).await;
        own(&fake, &["a"], results[0].as_ref().expect("its row was finished"));
        let errors = [1, 2].map(|at| results[at].as_ref().expect_err("the server is down"));
        for error in errors {
            assert_eq!((error.kind(), error.retry_after(), error.embedder()), (kind, Some(MINUTE), Some("fake")));
        }
        let partial = errors[0].partial().expect("one row was finished");
        assert_eq!(partial.indices(), [0]);
        own(&fake, &["b"], partial.embeddings());
        assert!(errors[1].partial().is_none());
        let told: Usage = results.iter().map(cost).sum();
        assert_eq!(told, Usage::of_request(Some(9)) + Usage::of_request(None));
    }
    assert_eq!(fake.calls().len(), 4);
}

/// Does something else than a fake.
struct Odd<F> {
    fake: Fake,
    takes: Duration,
    embed: F,
}

impl<F> fmt::Debug for Odd<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Odd")
    }
}

impl<F> fmt::Display for Odd<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("odd")
    }
}

#[async_trait]
impl<F: Fn(&Fake, Batch<'_>) -> Option<Result<Embeddings>> + Send + Sync + 'static> Embedder for Odd<F> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        tokio::time::sleep(self.takes).await;
        match (self.embed)(&self.fake, batch) {
            Some(result) => result,
            None => self.fake.embed(batch).await,
        }
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_for_all_and_later_calls_go_on() {
    let fake = fake(Limits::none());
    let panics = |_: &Fake, batch: Batch<'_>| {
        assert!(!batch.texts().contains(&"panics"), "as scripted");
        None
    };
    let embedder = Odd { fake: fake.clone(), takes: WINDOW, embed: panics }.coalesce(WINDOW);
    let results = join(embed(&embedder, &["panics"]), embed(&embedder, &["a", "b"])).await;
    let results = [results.0, results.1];
    assert!(results.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Inference)));
    assert_eq!(results.iter().map(cost).sum::<Usage>(), Usage::of_given_up());
    own(&fake, &["c"], &embed(&embedder, &["c"]).await.expect("embeds"));
}

#[tokio::test(start_paused = true)]
async fn what_breaks_the_laws_gives_nobody_a_wrong_row() {
    let fake = fake(Limits::none());
    let short = |fake: &Fake, batch: Batch<'_>| fake.embed(batch.with_texts(&batch.texts()[1..])).now_or_never();
    let embedder = Odd { fake: fake.clone(), takes: WINDOW, embed: short }.coalesce(WINDOW);
    let results = join(embed(&embedder, &["a"]), embed(&embedder, &["b", "c"])).await;
    let results = [results.0, results.1];
    assert!(results.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Protocol)));
    assert_eq!(results.iter().map(cost).sum::<Usage>(), fake.charged());
}

/// The first caller drives the call. It is there, but its task does something else.
#[tokio::test(start_paused = true)]
async fn a_caller_that_is_not_polled_holds_nobody_up() {
    let call = Duration::from_millis(100);
    let fake = fake_taking(call);
    let embedder = fake.clone().coalesce(WINDOW);
    for stuck_after in [Duration::ZERO, WINDOW, call / 2] {
        let mut stuck = Box::pin(embed(&embedder, &["stuck"]));
        let began = Instant::now();
        let sleep = async {
            let polled = tokio::time::timeout(stuck_after, &mut stuck).await;
            assert!(polled.is_err());
            Box::pin(std::future::pending::<()>()).await;
        };
        let others = async {
            join(embed(&embedder, &["a"]), async {
                tokio::time::sleep(WINDOW / 2).await;
                embed(&embedder, &["b"]).await
            })
            .await
        };
        let (a, b) = tokio::select! {
            biased;
            () = sleep => unreachable!(),
            others = others => others,
        };
        own(&fake, &["a"], &a.expect("embeds"));
        own(&fake, &["b"], &b.expect("embeds"));
        assert!(began.elapsed() <= 2 * (WINDOW + call), "{stuck_after:?}: {:?}", began.elapsed());
        // Its own answer waits for it.
        let asked = Instant::now();
        own(&fake, &["stuck"], &stuck.await.expect("embeds"));
        assert_eq!(asked.elapsed(), Duration::ZERO);
    }
    assert_eq!(sizes(&fake), [3, 3, 3]);
}

/// A call is woken each time that a piece of its answer arrives. With all callers each time, that would be their
/// product.
#[tokio::test(start_paused = true)]
async fn a_call_that_wakes_often_wakes_one_caller_each_time() {
    const CALLERS: usize = 200;
    const PIECES: usize = 100;
    let inner_polls = Arc::new(AtomicUsize::new(0));
    let embedder = Pieces { fake: fake(Limits::none()), pieces: PIECES, polls: inner_polls.clone() }.coalesce(WINDOW);
    let polls = AtomicUsize::new(0);
    let ask = async |at: usize| {
        let text = format!("text {at}");
        counting(&polls, embedder.embed_query(&text)).await.expect("embeds");
    };
    let tasks = (0..CALLERS).map(ask).map(Box::pin).collect::<futures_util::stream::FuturesUnordered<_>>();
    assert_eq!(tasks.count().await, CALLERS);
    let (inner, all) = (inner_polls.load(Ordering::Relaxed), polls.load(Ordering::Relaxed));
    assert!(inner <= PIECES + 20, "{inner} polls of the call");
    assert!(all <= PIECES + 12 * CALLERS, "{all} polls of the callers");
}

/// Counts the polls of a future.
async fn counting<F: Future>(polls: &AtomicUsize, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        polls.fetch_add(1, Ordering::Relaxed);
        future.as_mut().poll(context)
    })
    .await
}

/// Is woken so many times before it answers.
#[derive(Debug)]
struct Pieces {
    fake: Fake,
    pieces: usize,
    polls: Arc<AtomicUsize>,
}

impl fmt::Display for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pieces")
    }
}

#[async_trait]
impl Embedder for Pieces {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        counting(&self.polls, async {
            for _ in 0..self.pieces {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        self.fake.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}
