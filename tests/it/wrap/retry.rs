//! `Retry`: the errors that it retries, its waits, its limits, and the error after the last attempt.

use std::time::Duration;

use docvector_embed::{
    BadText, BadTextReason, Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits, Partial,
    RateLimitStatus, RateLimitWindow, Result, Space, Usage, async_trait, conformance,
    provider::Fake,
    wrap::{RetryBudget, RetryPolicy},
};
use proptest::prelude::*;
use tokio::time::Instant;

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "as scripted")
}

fn limited(wait: Duration) -> Error {
    Error::new(ErrorKind::RateLimited, "as scripted").with_retry_after(wait)
}

fn failing(times: usize, error: impl Fn() -> Error) -> Fake {
    let fake = Fake::new(4);
    (0..times).for_each(|_| fake.fail_next(error()));
    fake
}

#[tokio::test(start_paused = true)]
async fn cannot_be_told_from_what_it_wraps() {
    conformance::wrapper(|fake| fake.retry(RetryPolicy::default())).await.expect("lawful");
}

#[tokio::test(start_paused = true)]
async fn waits_longer_and_longer_within_bounds_and_never_in_step() {
    let mut first_waits = Vec::new();
    for seed in 0..50 {
        let fake = failing(4, down);
        let embedder = fake.clone().retry(RetryPolicy::default().with_seed(seed));
        let began = Instant::now();
        embedder.embed_query("text").await.expect("the fifth attempt");
        assert_eq!(fake.calls().len(), 5);
        // 0.5 + 1 + 2 + 4 seconds at most.
        assert!(began.elapsed() <= Duration::from_millis(7500 + 4), "{:?}", began.elapsed());
        first_waits.push(began.elapsed());
    }
    first_waits.sort();
    first_waits.dedup();
    assert!(first_waits.len() > 45, "{} of 50 waits differ", first_waits.len());
    // Full jitter spreads from nothing to the bound: the mean is half of it.
    let mean = first_waits.iter().sum::<Duration>() / first_waits.len() as u32;
    assert!((Duration::from_secs(3)..Duration::from_millis(4500)).contains(&mean), "{mean:?}");
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_the_waits() {
    let wait = async |seed| {
        let began = Instant::now();
        let embedder = failing(3, down).retry(RetryPolicy::default().with_seed(seed));
        embedder.embed_query("text").await.expect("the fourth attempt");
        began.elapsed()
    };
    assert_eq!(wait(7).await, wait(7).await);
    assert_ne!(wait(7).await, wait(8).await);
}

#[tokio::test(start_paused = true)]
async fn waits_as_long_as_the_server_asks_and_not_much_longer() {
    let asked = Duration::from_secs(30);
    let embedder = failing(1, || limited(asked)).retry(RetryPolicy::default());
    let began = Instant::now();
    embedder.embed_query("text").await.expect("the second attempt");
    let waited = began.elapsed();
    assert!(waited >= asked && waited <= asked + Duration::from_millis(502), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn gives_up_at_once_where_the_server_asks_for_too_long() {
    let fake = failing(1, || limited(Duration::from_secs(121)));
    let began = Instant::now();
    let error = fake.clone().retry(RetryPolicy::default()).embed_query("text").await.expect_err("too long");
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(fake.calls().len(), 1);
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(121))));
    assert!(!error.is_retryable() && error.to_string().contains("121s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_will_not_pass_is_not_tried_again() {
    for kind in [
        ErrorKind::Auth,
        ErrorKind::Config,
        ErrorKind::DeadlinePassed,
        ErrorKind::InvalidInput,
        ErrorKind::Protocol,
        ErrorKind::QuotaExhausted,
        ErrorKind::SpaceMismatch,
    ] {
        let fake = failing(1, || Error::new(kind, "as scripted"));
        let error = fake.clone().retry(RetryPolicy::default()).embed_query("text").await.expect_err("scripted");
        assert_eq!((error.kind(), fake.calls().len()), (kind, 1));
        assert!(!error.to_string().contains("gave up"), "{error}");
    }
    // An error that an inner retry has given up is not retried, either.
    let fake = failing(1, || down().mark_exhausted());
    fake.clone().retry(RetryPolicy::default()).embed_query("text").await.expect_err("scripted");
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nested_retries_do_not_multiply() {
    let fake = failing(100, down);
    let policy = || RetryPolicy::default().with_attempts(3);
    let error = fake.clone().retry(policy()).retry(policy()).retry(policy()).embed_query("text").await;
    let error = error.expect_err("down");
    assert_eq!(fake.calls().len(), 3);
    assert!(error.to_string().contains("gave up after 3 attempts: no more are allowed"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn keeps_to_the_time_limit_and_to_the_deadline() {
    let policy = RetryPolicy::default().with_attempts(1000).with_max_elapsed(Duration::from_secs(60)).without_budget();
    let fake = failing(1000, down);
    let began = Instant::now();
    let error = fake.clone().retry(policy).embed_query("text").await.expect_err("down");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(fake.calls().len() > 5, "{}", fake.calls().len());
    assert!(error.to_string().contains("later than 60s"), "{error}");

    let fake = failing(1000, || limited(Duration::from_secs(10)));
    let deadline = Instant::now().into_std() + Duration::from_secs(25);
    let embedder = fake.clone().retry(RetryPolicy::default());
    let error = embedder.embed(Batch::queries(&["text"]).with_deadline(deadline)).await.expect_err("down");
    assert_eq!((error.kind(), fake.calls().len()), (ErrorKind::RateLimited, 3));
    assert!(!error.is_retryable() && error.to_string().contains("deadline"), "{error}");
}

/// The time of the first attempt, with its wait for a turn inside, does not count.
#[tokio::test(start_paused = true)]
async fn the_time_limit_begins_with_the_first_failure() {
    let fake = Fake::builder().with_dimensions(4).with_latency(Duration::from_secs(600)).build().expect("valid");
    fake.fail_next(down());
    fake.clone().retry(RetryPolicy::default()).embed_query("text").await.expect("the second attempt");
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn endless_waits_are_no_overflow() {
    let policy = RetryPolicy::default().with_max_retry_after(Duration::MAX).with_max_elapsed(Duration::MAX);
    let policy = policy.with_backoff(Duration::MAX, Duration::MAX);
    let fake = failing(1, || limited(Duration::MAX));
    // The wait is as long as the clock allows. On this clock it takes no time.
    fake.clone().retry(policy).embed_query("text").await.expect("the second attempt");
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_budget_bounds_the_load_of_all() {
    // All 100 calls fail. The budget allows a retry for one call in five, and none for the time that passes.
    let budget = RetryBudget::new(0.2, 0.0);
    let fake = failing(1000, down);
    let policy = || RetryPolicy::default().with_budget(budget.clone());
    let (first, second) = (fake.clone().retry(policy()), fake.clone().retry(policy()));
    let mut empty = 0;
    for i in 0..100 {
        let embedder = if i % 2 == 0 { &first } else { &second };
        let error = embedder.embed_query("text").await.expect_err("down");
        empty += usize::from(error.to_string().contains("budget is empty"));
    }
    assert_eq!(fake.calls().len(), 120);
    assert!(empty >= 95, "{empty}");
}

/// A server that names no wait worth the name is waited for as long as one that names none, and not a bit less.
#[tokio::test(start_paused = true)]
async fn a_wait_of_nothing_does_not_make_retries_faster() {
    let waited = async |seed, error: Error| {
        let began = Instant::now();
        let embedder = failing(4, || error.clone()).retry(RetryPolicy::default().with_seed(seed));
        embedder.embed_query("text").await.expect("the fifth attempt");
        began.elapsed()
    };
    for seed in 0..20 {
        let least = waited(seed, down()).await;
        for asked in [Duration::ZERO, Duration::from_millis(6)] {
            let waited = waited(seed, limited(asked)).await;
            assert!(waited >= least && waited <= least + 4 * asked + Duration::from_millis(4), "{waited:?} {least:?}");
        }
    }
}

/// A refusal that names a wait is no outage. The number of attempts bounds it, and nothing is taken from the budget.
#[tokio::test(start_paused = true)]
async fn a_refusal_with_a_wait_takes_nothing_from_the_budget() {
    let second = Duration::from_secs(1);
    let used_up = |reset: Duration| {
        let window = RateLimitWindow::new(60).with_remaining(0).with_reset(reset);
        let status = RateLimitStatus::default().with_requests(window);
        Error::new(ErrorKind::RateLimited, "as scripted").with_rate_limit_status(status)
    };
    let empty = || RetryPolicy::default().with_budget(RetryBudget::new(0.0, 0.0));
    for (error, attempts, least) in [
        (limited(second), 5, 4),
        // Such a wait bounds no load.
        (limited(Duration::ZERO), 1, 0),
        (limited(Duration::from_millis(6)), 1, 0),
        (used_up(7 * second), 5, 28),
        // No wait of its own: the reset is that of a long window, or something is left.
        (used_up(3600 * second), 1, 0),
        (Error::new(ErrorKind::RateLimited, "as scripted"), 1, 0),
        (down().with_retry_after(second), 1, 0),
    ] {
        let fake = failing(5, || error.clone());
        let began = Instant::now();
        let told = fake.clone().retry(empty()).embed_query("text").await.expect_err("as scripted");
        assert_eq!(fake.calls().len(), attempts, "{told:?}");
        // 0.5 + 1 + 2 + 4 seconds of backoff at most.
        assert!(began.elapsed().as_secs() >= least && began.elapsed().as_secs() < least + 8, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_fills_with_time_but_not_without_bound() {
    let budget = RetryBudget::new(0.0, 2.0);
    let fake = failing(10_000, down);
    let policy = RetryPolicy::default().with_backoff(Duration::ZERO, Duration::ZERO).with_attempts(1000);
    let embedder = fake.clone().retry(policy.with_budget(budget));
    let attempts = async || {
        let before = fake.calls().len();
        embedder.embed_query("text").await.expect_err("down");
        fake.calls().len() - before
    };
    // Ten seconds' worth at the beginning, then only what time adds, and after a long time ten seconds' worth again.
    assert_eq!(attempts().await, 21);
    assert_eq!(attempts().await, 1);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(attempts().await, 7);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(attempts().await, 21);
}

#[tokio::test(start_paused = true)]
async fn the_cost_of_all_attempts_is_told() {
    let unanswered = || Error::new(ErrorKind::Timeout, "as scripted").with_usage(Usage::of_unanswered());
    let embedder = failing(2, unanswered).retry(RetryPolicy::default());
    let usage = embedder.embed_documents(&["four"]).await.expect("the third attempt").usage();
    assert_eq!((usage.exact_tokens(), usage.requests, usage.unanswered), (Some(1), 3, 2));

    let embedder = failing(9, unanswered).retry(RetryPolicy::default().with_attempts(4));
    let error = embedder.embed_documents(&["four"]).await.expect_err("down");
    assert_eq!(
        error.usage(),
        Usage::of_unanswered() + Usage::of_unanswered() + Usage::of_unanswered() + Usage::of_unanswered()
    );
}

/// Finishes a few more texts with every attempt, and pays for each text once.
#[derive(Debug)]
struct Piecemeal {
    fake: Fake,
    /// The numbers of texts that calls finish before they fail, the last call's first.
    pieces: std::sync::Mutex<Vec<usize>>,
}

impl std::fmt::Display for Piecemeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("piecemeal")
    }
}

#[async_trait]
impl Embedder for Piecemeal {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let piece = self.pieces.lock().expect("not poisoned").pop();
        let Some(piece) = piece.filter(|&piece| piece < batch.len()) else { return self.fake.embed(batch).await };
        // Every other text is finished, so that the rest has gaps.
        let done: Vec<usize> = (0..batch.len()).step_by(2).take(piece).collect();
        let texts: Vec<&str> = done.iter().map(|&index| batch.texts()[index]).collect();
        let rows = self.fake.embed(batch.with_texts(&texts)).await?;
        Err(down().with_partial(Partial::new(done, rows)?))
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}

proptest! {
    #[test]
    fn finished_rows_are_kept_and_only_the_rest_is_asked_for(
        count in 1_usize..30,
        pieces in prop::collection::vec(0_usize..10, 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("one");
        runtime.block_on(async {
            let fake = Fake::new(4);
            let failures = pieces.len();
            let inner = Piecemeal { fake: fake.clone(), pieces: pieces.into() };
            let texts: Vec<String> = (0..count).map(|i| format!("text {i}")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let embedder = inner.retry(RetryPolicy::default().with_attempts(4));
            let (indices, rows) = match embedder.embed(Batch::documents(&texts)).await {
                Ok(rows) => ((0..count).collect(), Some(rows)),
                Err(error) => {
                    prop_assert!(failures >= 4);
                    error.into_partial().map_or((Vec::new(), None), |partial| {
                        let (indices, rows) = partial.into_parts();
                        (indices, Some(rows))
                    })
                }
            };
            for (row, &index) in indices.iter().enumerate() {
                let rows = rows.as_ref().expect("rows");
                prop_assert_eq!(rows.row(row), fake.vector_of(InputKind::Document, texts[index]));
            }
            // In all cases, no text is paid for twice, and all cost is told.
            let mut paid: Vec<String> = fake.calls().into_iter().flat_map(|call| call.texts).collect();
            let all = paid.len();
            paid.sort();
            paid.dedup();
            prop_assert_eq!(paid.len(), all);
            prop_assert_eq!(all, indices.len());
            prop_assert_eq!(rows.map_or(0, |rows| rows.usage().requests), fake.charged().requests);
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn bad_texts_keep_the_callers_indices_after_a_part_was_finished() {
    let fake = Fake::new(4);
    let inner = Piecemeal { fake: fake.clone(), pieces: vec![2].into() };
    // The first attempt finishes texts 0 and 2. The second attempt refuses text 1 of the rest, which is text 3 of all.
    fake.succeed_next();
    fake.fail_next(Error::invalid_texts(vec![BadText::new(1, BadTextReason::Rejected)]));
    let embedder = inner.retry(RetryPolicy::default());
    let error = embedder.embed(Batch::documents(&["a", "b", "c", "d", "e"])).await.expect_err("refused");
    assert_eq!(error.bad_texts(), [BadText::new(3, BadTextReason::Rejected)]);
    assert_eq!(error.partial().expect("two rows").indices(), [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_ends_its_wait() {
    let fake = failing(1, || limited(Duration::from_secs(100)));
    let embedder = fake.clone().retry(RetryPolicy::default());
    tokio::time::timeout(Duration::from_secs(1), embedder.embed_query("text")).await.expect_err("still waiting");
    tokio::time::advance(Duration::from_secs(1000)).await;
    assert_eq!(fake.calls().len(), 1);
    embedder.embed_query("text").await.expect("usable");
}
