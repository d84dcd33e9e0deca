//! Any number of texts: the planner, `embed_all`, `embed_each`, `embed_stream`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    BadText, BadTextReason, Batch, CountTokens, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits,
    Result, Space, StreamOptions, TokenCount, Truncation, Usage, async_trait, plan, provider::Fake, wrap::RetryPolicy,
};
use futures_util::{StreamExt, stream};
use proptest::prelude::*;

use crate::support::numbered;

fn fake(limits: Limits) -> Fake {
    Fake::builder().with_dimensions(4).with_limits(limits).build().expect("valid")
}

/// Counts characters, and how often it is asked.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl CountTokens for Counting {
    fn count(&self, _: InputKind, text: &str) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed);
        text.chars().count()
    }

    fn at_most(&self, _: InputKind, text: &str) -> usize {
        text.len()
    }
}

proptest! {
    #[test]
    fn plans_keep_every_limit_and_lose_nothing(
        texts in prop::collection::vec("[a-zé ]{1,40}", 0..60),
        most_texts in prop::option::of(1_usize..10),
        most_bytes in prop::option::of(80_usize..200),
        most_tokens in prop::option::of(40_usize..120),
    ) {
        let counter = Arc::new(Counting::default());
        let mut limits = Limits::none().with_tokens(TokenCount::Exact(counter.clone()));
        (limits.texts, limits.bytes, limits.tokens_per_call) = (most_texts, most_bytes, most_tokens);
        let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let calls = plan::split(&Batch::documents(&refs), &limits).expect("every text fits a call");
        // Each text is counted at most once.
        prop_assert!(counter.0.load(Ordering::Relaxed) <= texts.len());
        let mut next = 0;
        for call in &calls {
            prop_assert_eq!(call.start, next);
            prop_assert!(!call.is_empty());
            next = call.end;
            let part = &refs[call.clone()];
            prop_assert!(Batch::documents(part).check(&[], &limits).is_ok());
            // As full as can be: the next text would not have fitted.
            if let Some(&more) = refs.get(call.end) {
                let longer = &refs[call.start..=call.end];
                prop_assert!(Batch::documents(longer).check(&[], &limits).is_err(), "{more:?} would have fitted");
            }
        }
        prop_assert_eq!(next, texts.len());
    }

    #[test]
    fn any_number_of_texts_gives_the_same_rows(
        count in 0_usize..50,
        per_call in 1_usize..9,
        in_flight in 1_usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let fake = fake(Limits::none().with_texts(per_call).with_in_flight(in_flight));
            let texts = numbered(count);
            let rows = fake.embed_documents(&texts).await.expect("embeds");
            prop_assert_eq!(rows.len(), count);
            for (text, row) in texts.iter().zip(rows.rows()) {
                prop_assert_eq!(row, fake.vector_of(InputKind::Document, text));
            }
            prop_assert_eq!(rows.usage(), fake.charged());
            prop_assert_eq!(rows.usage().requests as usize, count.div_ceil(per_call));
            Ok(())
        })?;
    }
}

#[test]
fn nothing_is_counted_that_bytes_settle() {
    let counter = Arc::new(Counting::default());
    let limits = Limits::none()
        .with_tokens_per_text(100)
        .with_tokens_per_call(1000)
        .with_tokens(TokenCount::Exact(counter.clone()));
    plan::split(&Batch::documents(&["short"; 100]), &limits).expect("plans");
    assert_eq!(counter.0.load(Ordering::Relaxed), 0);
}

#[test]
fn bad_texts_are_named_before_the_first_call_all_at_once() {
    let limits = Limits::none().with_texts(2).with_bytes(50).with_tokens_per_text(20);
    let limits = limits.with_tokens(TokenCount::Exact(Arc::new(Counting::default())));
    let (long, large) = ("x".repeat(21), "y".repeat(51));
    let texts = ["ok", "", &long, "ok", &large, ""];
    let error = plan::split(&Batch::documents(&texts), &limits).expect_err("bad texts");
    let named: Vec<(usize, BadTextReason)> =
        error.bad_texts().iter().map(|bad| (bad.index, bad.reason.clone())).collect();
    assert_eq!(
        named,
        [
            (1, BadTextReason::Empty),
            (2, BadTextReason::TooLong { tokens: 21, limit: 20 }),
            (4, BadTextReason::TooLarge { bytes: 51, limit: 50 }),
            (5, BadTextReason::Empty),
        ]
    );
    // Cut, they are no problem, but for those that no call can hold.
    let calls = plan::split(&Batch::documents(&["ok", &long, "ok"]).with_truncation(Truncation::Truncate), &limits);
    assert_eq!(calls.expect("plans"), [0..2, 2..3]);
}

#[tokio::test]
async fn a_failure_gives_the_finished_rows_back() {
    let fake = fake(Limits::none().with_texts(10).with_in_flight(1));
    for _ in 0..49 {
        fake.succeed_next();
    }
    fake.fail_next(Error::new(ErrorKind::QuotaExhausted, "no money"));
    let texts = numbered(600);
    let error = fake.embed_documents(&texts).await.expect_err("fails");
    assert_eq!(error.kind(), ErrorKind::QuotaExhausted);
    assert_eq!(fake.calls().len(), 50, "nothing is sent after the failure");
    let partial = error.into_partial().expect("490 rows");
    assert_eq!(partial.indices(), (0..490).collect::<Vec<_>>());
    assert_eq!(partial.embeddings().usage(), fake.charged());
    for (&index, row) in partial.indices().iter().zip(partial.embeddings().rows()) {
        assert_eq!(row, fake.vector_of(InputKind::Document, &texts[index]));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_awaited_after_a_failure() {
    let fake = Fake::builder().with_dimensions(4).with_limits(Limits::none().with_texts(1).with_in_flight(4));
    let fake = fake.with_latency(Duration::from_millis(5)).build().expect("valid");
    fake.succeed_next();
    fake.fail_next(Error::new(ErrorKind::Auth, "no"));
    let error = fake.embed_documents(&numbered(20)).await.expect_err("fails");
    let paid = fake.charged().requests as usize;
    assert_eq!(error.partial().expect("rows").indices().len(), paid);
    assert!(paid >= 3, "{paid}");
}

#[tokio::test]
async fn one_bad_text_does_not_sink_the_rest() {
    let fake = fake(Limits::none().with_texts(8).with_tokens_per_text(30));
    let mut texts = numbered(40);
    texts[3].clear();
    texts[17] = "long ".repeat(40);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let each = fake.embed_each(Batch::documents(&refs)).await;
    let failed: Vec<usize> = each.errors().map(|(index, _)| index).collect();
    assert_eq!(failed, [3, 17]);
    assert_eq!(each.result(17).expect_err("too long").bad_texts()[0].index, 17);
    for (i, result) in each.iter().enumerate().filter(|(i, _)| ![3, 17].contains(i)) {
        assert_eq!(result.expect("a row"), fake.vector_of(InputKind::Document, &texts[i]));
    }
    assert_eq!(each.usage(), fake.charged());
}

/// Refuses calls that hold certain texts, without saying which.
async fn each_over_a_refusing_server(count: usize, refused: &[usize]) -> (docvector_embed::Each, usize) {
    #[derive(Debug)]
    struct Refusing(Fake, Vec<String>);
    impl std::fmt::Display for Refusing {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("refusing")
        }
    }
    #[docvector_embed::async_trait]
    impl Embedder for Refusing {
        async fn embed(&self, batch: Batch<'_>) -> docvector_embed::Result<docvector_embed::Embeddings> {
            if batch.texts().iter().any(|text| self.1.iter().any(|refused| refused == text)) {
                self.0.fail_next(Error::new(ErrorKind::InvalidInput, "bad request").with_status(400));
            }
            self.0.embed(batch).await
        }
        fn spaces(&self) -> &[docvector_embed::Space] {
            self.0.spaces()
        }
        fn limits(&self) -> Limits {
            self.0.limits()
        }
    }
    let texts = numbered(count);
    let refused = refused.iter().map(|&i| texts[i].clone()).collect();
    let server = Refusing(fake(Limits::none().with_texts(64)), refused);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let each = server.embed_each(Batch::documents(&refs)).await;
    (each, server.0.calls().len())
}

#[tokio::test]
async fn a_refusal_that_names_nothing_is_isolated_by_halving() {
    let (each, calls) = each_over_a_refusing_server(64, &[5, 40]).await;
    let failed: Vec<usize> = each.errors().map(|(index, _)| index).collect();
    assert_eq!(failed, [5, 40]);
    assert_eq!(each.result(5).expect_err("refused").bad_texts(), [BadText::new(5, BadTextReason::Rejected)]);
    assert!(calls <= 2 * 2 * 7, "{calls} calls");
}

#[tokio::test]
async fn a_refusal_of_everything_costs_few_requests() {
    let all: Vec<usize> = (0..6400).collect();
    let (each, calls) = each_over_a_refusing_server(6400, &all).await;
    assert_eq!(each.errors().count(), 6400);
    assert!(calls <= 50, "{calls} calls");
}

#[tokio::test]
async fn what_will_not_pass_ends_the_run() {
    let fake = fake(Limits::none().with_texts(1).with_in_flight(1));
    fake.fail_next(Error::new(ErrorKind::Auth, "wrong key"));
    let texts = numbered(50);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let each = fake.embed_each(Batch::documents(&refs)).await;
    assert_eq!((each.errors().count(), fake.calls().len()), (50, 1));
    assert!(each.errors().all(|(_, error)| error.kind() == ErrorKind::Auth));
}

#[tokio::test]
async fn a_stream_gives_windows_in_order_and_holds_few() {
    let fake = fake(Limits::none());
    let alive = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));

    /// Counts how many texts there are at once.
    struct Text(String, Arc<AtomicUsize>);
    impl AsRef<str> for Text {
        fn as_ref(&self) -> &str {
            &self.0
        }
    }
    impl Drop for Text {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
        }
    }

    let corpus = stream::iter((0..1000).map(|i| {
        let now = alive.fetch_add(1, Ordering::Relaxed) + 1;
        most.fetch_max(now, Ordering::Relaxed);
        Text(format!("streamed {i}"), alive.clone())
    }));
    let options = StreamOptions::new(InputKind::Document)
        .with_window_texts(10)
        .with_window_bytes(1 << 20)
        .with_windows_in_flight(2);
    let mut windows = std::pin::pin!(fake.embed_stream(corpus, options));
    let mut next = 0;
    while let Some(window) = windows.next().await {
        for row in window.expect("embeds").rows() {
            assert_eq!(row, fake.vector_of(InputKind::Document, &format!("streamed {next}")));
            next += 1;
        }
    }
    assert_eq!(next, 1000);
    assert!(most.load(Ordering::Relaxed) <= 3 * 10 + 1, "{} texts at once", most.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_stream_ends_after_an_error_with_the_streams_indices() {
    let fake = fake(Limits::none());
    let corpus = stream::iter((0..100).map(|i| if i == 57 { String::new() } else { format!("text {i}") }));
    let options = StreamOptions::new(InputKind::Document).with_window_texts(10).with_window_bytes(1 << 20);
    let windows: Vec<_> = fake.embed_stream(corpus, options).collect().await;
    assert_eq!(windows.len(), 6);
    let error = windows[5].as_ref().expect_err("an empty text");
    assert_eq!(error.bad_texts(), [BadText::new(57, BadTextReason::Empty)]);
}

#[tokio::test]
async fn a_window_of_no_bytes_holds_a_text() {
    let fake = fake(Limits::none());
    let options = StreamOptions::new(InputKind::Document).with_window_texts(5).with_window_bytes(0);
    let sizes: Vec<usize> = fake
        .embed_stream(stream::iter(["a", "b"]), options)
        .map(|window| window.expect("embeds").len())
        .collect()
        .await;
    assert_eq!(sizes, [1, 1]);
}

/// Rows that an inner embedder had finished before it failed are not requested again.
#[tokio::test]
async fn finished_rows_of_a_failed_call_are_kept() {
    let fake = fake(Limits::none().with_texts(4).with_in_flight(1));
    fake.succeed_next();
    fake.fail_next(Error::invalid_texts(vec![BadText::new(1, BadTextReason::Rejected)]));
    #[derive(Debug)]
    struct Whole(Fake);
    impl std::fmt::Display for Whole {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("whole")
        }
    }
    #[docvector_embed::async_trait]
    impl Embedder for Whole {
        async fn embed(&self, batch: Batch<'_>) -> docvector_embed::Result<docvector_embed::Embeddings> {
            self.0.embed_all(batch).await
        }
        fn spaces(&self) -> &[docvector_embed::Space] {
            self.0.spaces()
        }
        fn limits(&self) -> Limits {
            Limits::none()
        }
    }
    let texts = numbered(12);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let each = Whole(fake.clone()).embed_each(Batch::documents(&refs)).await;
    assert_eq!(each.errors().map(|(index, _)| index).collect::<Vec<_>>(), [5]);
    assert_eq!(each.usage(), fake.charged());
    let sent: Vec<String> = fake.calls().into_iter().flat_map(|call| call.texts).collect();
    assert!((0..4).all(|i| sent.iter().filter(|text| **text == texts[i]).count() == 1), "paid twice: {sent:?}");
}

#[tokio::test]
async fn windows_are_bounded_by_bytes_too() {
    let fake = fake(Limits::none());
    let corpus = stream::iter(["aaaa", "bbbb", "a long text of its own window", "c"]);
    let options = StreamOptions::new(InputKind::Document).with_window_texts(100).with_window_bytes(10);
    let sizes: Vec<usize> =
        fake.embed_stream(corpus, options).map(|window| window.expect("embeds").len()).collect().await;
    assert_eq!(sizes, [2, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_call() {
    let fake = Fake::builder().with_latency(Duration::from_secs(60)).build().expect("valid");
    let texts = ["slow"];
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    let error = fake.embed(Batch::documents(&texts).with_deadline(deadline.into_std())).await.expect_err("too slow");
    assert_eq!(error.kind(), ErrorKind::DeadlinePassed);
}

/// From the caller to the provider, through a wrapper that picks texts out, nothing is counted twice.
#[tokio::test]
async fn each_text_is_counted_once_on_its_way() {
    let counter = Arc::new(Counting::default());
    // Of two bytes a character, so that bytes settle nothing.
    let texts: Vec<String> = (0..300).map(|i| format!("{}{}", "é".repeat(20), i % 200)).collect();
    let limits = || {
        let counted = TokenCount::Exact(counter.clone());
        Limits::none().with_texts(50).with_tokens_per_text(30).with_tokens_per_call(800).with_tokens(counted)
    };
    let counted = || counter.0.swap(0, Ordering::Relaxed);
    let embedder = fake(limits());
    embedder.embed_documents(&texts).await.expect("embeds");
    let fakes_own = texts.len();
    // The fake counts what it charges in its own way, not with this counter.
    assert!((1..=fakes_own).contains(&counted()));
    embedder.clone().dedup().embed_documents(&texts).await.expect("embeds");
    assert!((1..=texts.len()).contains(&counted()));
    // Bad texts fall out of the plan, and those that stay keep their counts.
    let mut texts = texts;
    texts[7] = "é".repeat(31);
    texts[250] = String::new();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let each = embedder.embed_each(Batch::documents(&texts)).await;
    assert_eq!(each.errors().map(|(index, _)| index).collect::<Vec<_>>(), [7, 250]);
    assert!((1..=texts.len()).contains(&counted()));
}

#[tokio::test]
async fn planning_lets_others_have_their_turn() {
    let counter = Arc::new(Counting::default());
    let limits = Limits::none().with_texts(100).with_tokens_per_call(10_000).with_tokens(TokenCount::Exact(counter));
    let fake = fake(limits);
    let texts: Vec<String> = (0..2000).map(|i| format!("{}{i}", "é".repeat(100))).collect();
    let turns = Arc::new(AtomicUsize::new(0));
    let seen = turns.clone();
    // On one thread, the other task only runs where the planner yields.
    let other = tokio::spawn(async move {
        loop {
            seen.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let _hold = fake.hold();
    let call = tokio::time::timeout(Duration::from_millis(1), fake.embed_documents(&texts));
    call.await.expect_err("held");
    other.abort();
    assert!(turns.load(Ordering::Relaxed) > 5, "{turns:?}");
}

/// The second window fails; the third and fourth are under way by then, and paid for.
#[tokio::test]
async fn a_stream_gives_back_what_was_begun_behind_its_failure() {
    let fake = fake(Limits::none());
    fake.succeed_next();
    fake.fail_next(Error::new(ErrorKind::QuotaExhausted, "no money").with_usage(Usage::of_request(Some(5))));
    let options = StreamOptions::new(InputKind::Document)
        .with_window_texts(10)
        .with_window_bytes(usize::MAX)
        .with_windows_in_flight(3);
    let texts = numbered(100);
    let mut windows = std::pin::pin!(fake.embed_stream(stream::iter(texts.clone()), options));
    assert_eq!(windows.next().await.expect("a window").expect("the first").len(), 10);
    let error = windows.next().await.expect("a window").expect_err("the second");
    assert_eq!((error.kind(), error.usage()), (ErrorKind::QuotaExhausted, Usage::of_request(Some(5))));
    assert!(windows.next().await.is_none());
    let (indices, rows) = error.into_partial().expect("what was begun").into_parts();
    assert_eq!(indices, (20..40).collect::<Vec<_>>());
    for (&index, row) in indices.iter().zip(rows.rows()) {
        assert_eq!(row, fake.vector_of(InputKind::Document, &texts[index]));
    }
    // No window began after the failure, and everything charged was told.
    assert_eq!(fake.calls().len(), 4);
}

#[tokio::test]
async fn a_slow_source_does_not_hold_up_what_is_under_way() {
    let fake = fake(Limits::none());
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<String>();
    let source = stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|text| (text, receiver)) });
    let options = StreamOptions::new(InputKind::Document)
        .with_window_texts(1)
        .with_window_bytes(usize::MAX)
        .with_windows_in_flight(4);
    let mut windows = std::pin::pin!(fake.embed_stream(source, options));
    sender.send("the only text so far".into()).expect("it is read");
    // The source has not ended, and says nothing.
    let first = tokio::time::timeout(Duration::from_secs(20), windows.next()).await.expect("no wait for the source");
    assert_eq!(first.expect("a window").expect("embeds").len(), 1);
}

/// Answers in a space that it has not announced, and is paid for it.
#[derive(Debug)]
struct Stray(Fake, Space);

impl std::fmt::Display for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stray")
    }
}

#[async_trait]
impl Embedder for Stray {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let rows = self.0.embed(batch).await?;
        Embeddings::new(rows.len(), &self.1, rows.as_slice().to_vec(), rows.usage())
    }

    fn spaces(&self) -> &[Space] {
        self.0.spaces()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

#[tokio::test]
async fn unusable_answers_are_on_the_bill() {
    let inner = fake(Limits::none().with_texts(2));
    let stray = Stray(inner.clone(), Space::builder("another", 4).build().expect("valid"));
    let texts = ["four", "four", "four", "four", "four"];
    let error = stray.embed_documents(&texts).await.expect_err("another space");
    assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, inner.charged()));
    let before = inner.charged().requests;
    let each = stray.embed_each(Batch::documents(&texts)).await;
    assert_eq!(each.usage().requests, inner.charged().requests - before);
}

/// One call whose texts may be over-long: counted once, whatever the number of attempts, and in turn with others.
#[tokio::test(start_paused = true)]
async fn attempts_do_not_count_again() {
    let counter = Arc::new(Counting::default());
    let counted = TokenCount::Exact(counter.clone());
    let limits = Limits::none().with_tokens_per_text(30).with_tokens_per_call(5000).with_tokens(counted);
    let inner = fake(limits);
    (0..3).for_each(|_| inner.fail_next(Error::new(ErrorKind::Unavailable, "as scripted")));
    let texts: Vec<String> = (0..100).map(|i| format!("{}{i}", "é".repeat(20))).collect();
    inner.retry(RetryPolicy::default()).embed_documents(&texts).await.expect("the fourth attempt");
    assert_eq!(counter.0.load(Ordering::Relaxed), 100);
}

/// Embeds with progress, and returns what was told with the result.
async fn told_of(embedder: &impl Embedder, texts: &[&str]) -> (Vec<usize>, Result<Embeddings>) {
    let mut told = Vec::new();
    let result = embedder.embed_all_with_progress(Batch::documents(texts), |done| told.push(done)).await;
    (told, result)
}

#[tokio::test]
async fn progress_counts_the_rows_that_are_there() {
    let texts = numbered(20_000);
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    // With a limit of its own, an embedder gets the same calls as without progress.
    let small = fake(Limits::none().with_texts(8).with_in_flight(1));
    let (told, rows) = told_of(&small, &refs[..20]).await;
    assert_eq!((told, rows.expect("embeds").len()), (vec![8, 16, 20], 20));
    // Without one, it gets parts that depend on the number of texts.
    for (count, part) in [(0, 0), (100, 100), (128, 128), (300, 128), (20_000, 312)] {
        let fake = fake(Limits::none().with_in_flight(1));
        let (told, rows) = told_of(&fake, &refs[..count]).await;
        let whole = small.embed_all(Batch::documents(&refs[..count])).await.expect("embeds");
        assert_eq!(rows.expect("embeds").as_slice(), whole.as_slice());
        let expected: Vec<usize> = (1..=count.div_ceil(part.max(1))).map(|call| (call * part).min(count)).collect();
        assert_eq!(told, if count == 0 { vec![0] } else { expected }, "{count} texts");
    }
}

#[tokio::test]
async fn progress_counts_no_row_of_a_call_that_fails() {
    let fake = fake(Limits::none().with_texts(2).with_in_flight(1));
    fake.succeed_next();
    fake.fail_next(Error::new(ErrorKind::QuotaExhausted, "as scripted"));
    let (told, result) = told_of(&fake, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(told, [2]);
    let error = result.expect_err("the second call fails");
    assert_eq!(error.partial().map(|partial| partial.indices().to_vec()), Some(vec![0, 1]));
}
