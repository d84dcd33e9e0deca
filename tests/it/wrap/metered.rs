//! `Metered`: one record for each call, with everything in it; `Totals`: every one of them counted.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Lane, Limits, Partial, Result, Space,
    SpaceId, Usage, async_trait, conformance,
    provider::Fake,
    wrap::{CallOutcome, CallRecord, Metered, MetricsSink, Timeout, Totals, TotalsSnapshot},
};
use futures_util::{FutureExt, future::join_all};

/// Returns the usage in the record of a dropped call.
fn unanswered() -> Usage {
    let mut usage = Usage::ZERO;
    usage.unanswered = 1;
    usage
}

/// The parts of a record that the tests compare.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    embedder: String,
    kind: InputKind,
    lane: Lane,
    key: Option<String>,
    space: Option<SpaceId>,
    texts: usize,
    bytes: usize,
    usage: Usage,
    seconds: u64,
    outcome: CallOutcome,
}

/// Keeps every record.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }

    /// Returns the only record; fails if there are more or none.
    fn only(&self) -> Seen {
        let mut seen = self.take();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

impl MetricsSink for Log {
    fn record(&self, call: &CallRecord<'_>) {
        self.0.lock().expect("not poisoned").push(Seen {
            embedder: call.embedder.to_owned(),
            kind: call.options.kind,
            lane: call.options.lane,
            key: call.options.key.map(str::to_owned),
            space: call.space,
            texts: call.texts,
            bytes: call.bytes,
            usage: call.usage,
            seconds: call.latency.as_secs(),
            outcome: call.outcome,
        });
    }
}

fn logged(fake: &Fake) -> (Log, Metered<Fake>) {
    let log = Log::default();
    (log.clone(), Metered::new(fake.clone(), log))
}

fn fake_taking(latency: Duration) -> Fake {
    Fake::builder().with_dimensions(4).with_latency(latency).build().expect("valid")
}

#[tokio::test]
async fn keeps_the_laws() {
    conformance::wrapper(|fake| Metered::new(fake, Totals::new())).await.expect("Metered keeps the laws");
    conformance::wrapper(|fake| Metered::new(Metered::new(fake, Log::default()).dedup(), |_: &CallRecord<'_>| {}))
        .await
        .expect("in a stack, with a closure");
}

#[tokio::test(start_paused = true)]
async fn tells_everything_of_a_call() {
    let fake = fake_taking(Duration::from_secs(3));
    let (log, embedder) = logged(&fake);
    let space = fake.spaces()[0].id();
    let texts = ["five5", "é"];
    let batch = Batch::queries(&texts).with_lane(Lane::Bulk).with_key("library:serde").with_space(space);
    embedder.embed(batch).await.expect("embeds");
    let expected = Seen {
        embedder: "fake".into(),
        kind: InputKind::Query,
        lane: Lane::Bulk,
        key: Some("library:serde".into()),
        space: Some(space),
        texts: 2,
        bytes: 7,
        usage: fake.charged(),
        seconds: 3,
        outcome: CallOutcome::Done,
    };
    assert_eq!(log.only(), expected);
}

#[tokio::test]
async fn one_record_a_call_whatever_the_number_of_texts() {
    let fake = Fake::builder().with_dimensions(4).with_limits(Limits::none().with_texts(10)).build().expect("valid");
    let (log, embedder) = logged(&fake);
    let texts: Vec<String> = (0..95).map(|i| format!("text {i}")).collect();
    let rows = embedder.embed_documents(&texts).await.expect("embeds");
    let seen = log.take();
    assert_eq!(seen.len(), fake.calls().len());
    assert_eq!(seen.iter().map(|seen| seen.texts).sum::<usize>(), 95);
    assert_eq!(seen.iter().map(|seen| seen.usage).sum::<Usage>(), rows.usage());
}

#[tokio::test]
async fn a_failure_is_told_with_all_that_it_cost() {
    let fake = Fake::new(4);
    let finished = fake.embed_documents(&["finished before"]).await.expect("embeds");
    let (known, space) = (finished.usage(), finished.space().id());
    let partial = Partial::new(vec![0], finished).expect("one row");
    let error = Error::new(ErrorKind::Unavailable, "as scripted").with_partial(partial);
    fake.fail_next(error.with_usage(Usage::of_unanswered()));
    fake.fail_next(Error::new(ErrorKind::QuotaExhausted, "as scripted"));

    let (log, embedder) = logged(&fake);
    let error = embedder.embed_documents(&["finished before", "not"]).await.expect_err("scripted");
    assert_eq!((error.kind(), error.embedder()), (ErrorKind::Unavailable, Some("fake")));
    let seen = log.only();
    assert_eq!(seen.outcome, CallOutcome::Failed(ErrorKind::Unavailable));
    assert_eq!(seen.usage, known + Usage::of_unanswered());
    assert_eq!((seen.texts, seen.space), (2, Some(space)));

    embedder.embed_query("no money").await.expect_err("scripted");
    let seen = log.only();
    assert_eq!(
        (seen.outcome, seen.usage, seen.space),
        (CallOutcome::Failed(ErrorKind::QuotaExhausted), Usage::ZERO, None)
    );
}

#[tokio::test]
async fn a_refusal_is_a_call_and_no_texts_are_none() {
    let fake = Fake::new(4);
    let (log, embedder) = logged(&fake);
    embedder.embed(Batch::documents(&["", "good"])).await.expect_err("an empty text");
    assert_eq!(log.only().outcome, CallOutcome::Failed(ErrorKind::InvalidInput));

    let nothing = Batch::documents(&[]);
    embedder.embed(nothing).await.expect("no rows");
    embedder.embed(nothing.with_space(SpaceId::from_bytes([7; 16]))).await.expect_err("another space");
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_told_once() {
    let fake = Fake::new(4);
    let (log, embedder) = logged(&fake);
    let texts = ["held"];
    let hold = fake.hold();

    // Never polled: no call was made.
    drop(embedder.embed(Batch::documents(&texts)));
    assert!(log.take().is_empty());

    let mut call = embedder.embed(Batch::documents(&texts).with_key("key"));
    assert!(call.as_mut().now_or_never().is_none());
    assert!(log.take().is_empty(), "it has not ended");
    tokio::time::advance(Duration::from_secs(2)).await;
    drop(call);
    let seen = log.only();
    assert_eq!((seen.outcome, seen.usage, seen.space), (CallOutcome::Dropped, unanswered(), None));
    assert_eq!((seen.key.as_deref(), seen.texts, seen.bytes, seen.seconds), (Some("key"), 1, 4, 2));
    drop(hold);
    embedder.embed_query("after").await.expect("embeds");
    assert_eq!(log.only().outcome, CallOutcome::Done);
}

#[tokio::test(start_paused = true)]
async fn a_call_given_up_outside_is_a_dropped_one() {
    let (log, embedder) = logged(&fake_taking(Duration::from_secs(60)));
    let error = Timeout::new(embedder, Duration::from_secs(5)).embed_query("slow").await.expect_err("too slow");
    let seen = log.only();
    assert_eq!((seen.outcome, seen.seconds), (CallOutcome::Dropped, 5));
    assert_eq!(seen.usage, error.usage(), "what is told here is what the caller is told");
}

/// Panics in the middle of every call.
#[derive(Debug)]
struct Panics(Fake);

impl fmt::Display for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panics")
    }
}

#[async_trait]
impl Embedder for Panics {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        tokio::task::yield_now().await;
        assert!(batch.is_empty(), "as asked");
        self.0.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.0.spaces()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

#[tokio::test]
async fn a_call_that_panics_is_told_once() {
    let log = Log::default();
    let embedder = Metered::new(Panics(Fake::new(4)), log.clone());
    let call = tokio::spawn(async move { embedder.embed(Batch::documents(&["a text"])).await });
    assert!(call.await.expect_err("panics").is_panic());
    let seen = log.only();
    assert_eq!((seen.outcome, seen.embedder.as_str()), (CallOutcome::Dropped, "panics"));
}

#[tokio::test]
async fn a_meter_that_panics_costs_nothing_but_its_record() {
    let fake = Fake::new(4);
    let totals = Totals::new();
    let inner = Metered::new(fake.clone(), totals.clone());
    let embedder = Metered::new(inner, |call: &CallRecord<'_>| assert_eq!(call.texts, 0, "the sink's own fault"));
    for _ in 0..2 {
        let row = embedder.embed_query("a text").await.expect("the row is there");
        assert_eq!(row, fake.vector_of(InputKind::Query, "a text"));
    }
    let texts = ["a text"];
    let hold = fake.hold();
    assert!(embedder.embed(Batch::documents(&texts)).now_or_never().is_none());
    drop(hold);
    assert_eq!(totals.snapshot().calls, 3);

    // Two panics at once: the sink panics while the call's panic is under way.
    let embedder =
        Metered::new(Panics(fake), |call: &CallRecord<'_>| assert_eq!(call.texts, 0, "the sink's own fault"));
    let call = tokio::spawn(async move { embedder.embed(Batch::documents(&["a text"])).await });
    assert!(call.await.expect_err("panics").is_panic());
}

#[tokio::test]
async fn a_meter_can_be_shared_behind_a_pointer() {
    let totals = Totals::new();
    let shared: Arc<dyn MetricsSink> = Arc::new(totals.clone());
    let (one, other) = (Metered::new(Fake::new(4), shared.clone()), Metered::new(Fake::new(8), shared));
    one.embed_query("one").await.expect("embeds");
    other.clone().embed_query("other").await.expect("embeds");
    assert_eq!(totals.snapshot().calls, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn totals_add_up_over_concurrent_callers() {
    let fake = Fake::new(4);
    let totals = Totals::new();
    let embedder = Metered::new(fake.clone(), totals.clone());
    for kind in [ErrorKind::Unavailable, ErrorKind::RateLimited] {
        for _ in 0..10 {
            fake.fail_next(Error::new(kind, "as scripted"));
        }
    }
    fake.fail_next(Error::new(ErrorKind::Timeout, "as scripted").with_usage(Usage::of_unanswered()));
    let callers = (0..8).map(|caller| {
        let embedder = embedder.clone();
        tokio::spawn(async move {
            let mut told = Usage::ZERO;
            for i in 0..25 {
                let text = format!("caller {caller} text {i}");
                let texts = [text.as_str(), "four"];
                told += match embedder.embed(Batch::documents(&texts)).await {
                    Ok(rows) => rows.usage(),
                    Err(error) => error.usage(),
                };
                tokio::task::yield_now().await;
            }
            told
        })
    });
    let told: Usage = join_all(callers).await.into_iter().map(|told| told.expect("no panic")).sum();

    let hold = fake.hold();
    let texts = ["dropped"];
    for _ in 0..7 {
        assert!(embedder.embed(Batch::documents(&texts)).now_or_never().is_none());
    }
    drop(hold);

    let sum = totals.snapshot();
    assert_eq!((sum.calls, sum.dropped), (8 * 25 + 7, 7));
    let failed = [(ErrorKind::RateLimited, 10), (ErrorKind::Timeout, 1), (ErrorKind::Unavailable, 10)];
    assert_eq!(sum.failed, failed);
    let bytes: usize = (0..25).map(|i: usize| format!("caller 0 text {i}").len() + "four".len()).sum();
    assert_eq!((sum.texts, sum.bytes), (8 * 25 * 2 + 7, 8 * bytes as u64 + 7 * "dropped".len() as u64));
    // The sums equal those that all callers were told, and those that the inside charged.
    let charged = fake.charged();
    assert_eq!((sum.usage.tokens, sum.usage.requests), (told.tokens, told.requests));
    assert_eq!((sum.usage.tokens, sum.usage.requests), (charged.tokens, charged.requests + 1));
    assert_eq!((sum.usage.unanswered, told.unanswered), (1 + 7, 1));
    assert_eq!(sum.latency_histogram().iter().map(|&(_, calls)| calls).sum::<u64>(), sum.calls);
}

#[tokio::test(start_paused = true)]
async fn latencies_are_sorted_into_buckets() {
    let totals = Totals::new();
    for (millis, calls) in [(5, 3), (100, 5), (3_000, 1), (100_000, 1)] {
        let embedder = Metered::new(fake_taking(Duration::from_millis(millis)), totals.clone());
        for _ in 0..calls {
            embedder.embed_query("a text").await.expect("embeds");
        }
    }
    let sum = totals.snapshot();
    let hit: Vec<(f64, u64)> = sum.latency_histogram().into_iter().filter(|&(_, calls)| calls > 0).collect();
    assert_eq!(hit, [(0.01, 3), (0.16, 5), (5.12, 1), (f64::INFINITY, 1)]);
    let millis = |q| sum.latency_quantile(q).map(|latency| latency.as_millis());
    assert_eq!([millis(0.0), millis(0.3), millis(0.31)], [Some(10), Some(10), Some(160)]);
    assert_eq!([millis(0.8), millis(0.9)], [Some(160), Some(5_120)]);
    assert_eq!(sum.latency_quantile(1.0), Some(sum.latency_max));
    assert_eq!((sum.latency_max.as_secs(), sum.latency_sum.as_secs()), (100, 103));
    assert_eq!([millis(-0.1), millis(1.1), millis(f64::NAN)], [None; 3]);
    assert_eq!(Totals::new().snapshot().latency_quantile(0.5), None);
}

#[tokio::test(start_paused = true)]
async fn a_quantile_is_never_more_than_the_longest() {
    let totals = Totals::new();
    let embedder = Metered::new(fake_taking(Duration::from_millis(200)), totals.clone());
    embedder.embed_query("a text").await.expect("embeds");
    let sum = totals.snapshot();
    assert_eq!(sum.latency_quantile(0.5), Some(sum.latency_max));
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was() {
    let totals = Totals::new();
    let embedder = Metered::new(Fake::new(4), totals.clone());
    embedder.embed_query("one").await.expect("embeds");
    let before = totals.snapshot();
    embedder.get_ref().fail_next(Error::new(ErrorKind::RateLimited, "as scripted"));
    embedder.embed_query("two").await.expect_err("scripted");
    let after = totals.clone().snapshot();
    assert_eq!((before.calls, after.calls), (1, 2));
    assert_eq!((before.failed.len(), after.failed), (0, vec![(ErrorKind::RateLimited, 1)]));
    assert_eq!(Totals::new().snapshot(), TotalsSnapshot::default());
    // A table: each line has the same width.
    let table = totals.snapshot().to_string();
    let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|&width| width == widths[0]), "{table}");
    assert!(table.contains("\n  rate limited ") && !table.contains("dropped"), "{table}");
}

#[test]
fn gives_back_what_it_wraps() {
    let embedder = Metered::new(Fake::new(4), Totals::new());
    assert_eq!(embedder.to_string(), "Metered(fake)");
    assert!(format!("{embedder:?}").starts_with("Metered { inner: Fake"));
    assert_eq!(embedder.get_ref().spaces(), embedder.spaces());
    assert_eq!(embedder.into_inner().to_string(), "fake");
}
