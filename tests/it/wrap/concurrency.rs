//! `Concurrency` and `Gate`: how many calls go, in which order, and that no place is ever lost.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Lane, Limits, Result, Space, SpaceId, Usage,
    async_trait, conformance,
    provider::Fake,
    wrap::{Concurrency, Gate},
};
use futures_util::{FutureExt, future::join_all};
use tokio::task::JoinHandle;

fn gated(fake: &Fake, calls: usize) -> Concurrency<Fake> {
    Concurrency::new(fake.clone(), calls)
}

/// Lets all other tasks run until they wait.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Begins a call of one text. When this returns, the call is in the queue or further.
async fn begin(embedder: &Concurrency<Fake>, lane: Lane, text: &str) -> JoinHandle<Result<Embeddings>> {
    let (embedder, text) = (embedder.clone(), text.to_owned());
    let call = tokio::spawn(async move {
        let texts = [text.as_str()];
        embedder.embed(Batch::documents(&texts).with_lane(lane)).await
    });
    settle().await;
    call
}

async fn all_done(calls: Vec<JoinHandle<Result<Embeddings>>>) {
    for call in join_all(calls).await {
        call.expect("no panic").expect("embeds");
    }
}

/// Returns the texts that reached the inside, in the order in which they came.
fn arrived(fake: &Fake) -> Vec<String> {
    fake.calls().into_iter().flat_map(|call| call.texts).collect()
}

/// Counts the calls that run at once, and panics if the text asks for it.
#[derive(Debug)]
struct Crowd {
    fake: Fake,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Crowd {
    fn new() -> Self {
        Self { fake: Fake::new(4), now: Arc::default(), most: Arc::default() }
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("crowd")
    }
}

/// Counts down when it is dropped.
struct One<'a>(&'a AtomicUsize);

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Embedder for Crowd {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        let _one = One(&self.now);
        self.most.fetch_max(now, Ordering::SeqCst);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        assert!(batch.texts() != ["panic"], "as asked");
        self.fake.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.fake.spaces()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }
}

#[tokio::test]
async fn keeps_the_laws() {
    for calls in [1, 8] {
        conformance::wrapper(|fake| Concurrency::new(fake, calls)).await.expect("Concurrency keeps the laws");
    }
    conformance::wrapper(|fake| Concurrency::new(Concurrency::new(fake, 2).dedup(), 1)).await.expect("stacked, too");
    // One gate for all of the suite's wrappers: none may leave a place behind.
    let gate = Gate::new(1);
    conformance::wrapper(|fake| Concurrency::with_gate(fake, gate.clone())).await.expect("with a shared gate");
    assert_eq!((gate.running(), gate.waiting()), (0, 0));
}

#[test]
fn says_how_many_calls_go_at_once() {
    let fake = |limits| Fake::builder().with_limits(limits).build().expect("valid");
    for (inner, gate, expected) in [(None, 8, 8), (Some(4), 8, 4), (Some(16), 8, 8)] {
        let limits = inner.map_or(Limits::none(), |calls| Limits::none().with_in_flight(calls));
        let embedder = Concurrency::new(fake(limits.with_texts(7)), gate);
        assert_eq!(embedder.limits().in_flight, Some(expected), "inner {inner:?}, gate {gate}");
        assert_eq!(embedder.limits().texts, Some(7));
    }
}

#[tokio::test]
async fn lets_through_as_many_as_it_has_places_and_no_more() {
    let fake = Fake::new(4);
    let embedder = gated(&fake, 3);
    let hold = fake.hold();
    let mut calls = Vec::new();
    for i in 0..10 {
        calls.push(begin(&embedder, Lane::Bulk, &format!("call {i}")).await);
    }
    assert_eq!(fake.calls().len(), 3);
    assert_eq!((embedder.gate().running(), embedder.gate().waiting()), (3, 7));
    drop(hold);
    all_done(calls).await;
    assert_eq!(fake.calls().len(), 10);
    assert_eq!((embedder.gate().running(), embedder.gate().waiting()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn never_too_many_on_many_threads_and_no_place_lost() {
    let crowd = Crowd::new();
    let most = crowd.most.clone();
    let embedder = Arc::new(Concurrency::new(crowd, 3));
    let calls: Vec<_> = (0..600)
        .map(|i| {
            let embedder = embedder.clone();
            tokio::spawn(async move {
                let text = format!("call {i}");
                let texts = [text.as_str()];
                let lane = if i % 5 == 0 { Lane::Interactive } else { Lane::Bulk };
                embedder.embed(Batch::documents(&texts).with_lane(lane)).await
            })
        })
        .collect();
    // By then a call may be in the queue, on its way, inside, or done.
    for (i, call) in calls.iter().enumerate().filter(|(i, _)| i % 3 == 0) {
        if i % 2 == 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
    }
    for (i, call) in calls.into_iter().enumerate() {
        match call.await {
            Ok(rows) => assert_eq!(rows.expect("embeds").len(), 1),
            Err(error) => assert!(error.is_cancelled() && i % 3 == 0, "call {i}: {error}"),
        }
    }
    assert!(most.load(Ordering::SeqCst) <= 3, "{} at once", most.load(Ordering::SeqCst));
    assert_eq!((embedder.gate().running(), embedder.gate().waiting()), (0, 0));
}

#[tokio::test]
async fn interactive_calls_go_first_and_one_bulk_call_after_eight_of_them() {
    let fake = Fake::new(4);
    let embedder = gated(&fake, 1);
    let hold = fake.hold();
    let mut calls = vec![begin(&embedder, Lane::Bulk, "first").await];
    for i in 0..3 {
        calls.push(begin(&embedder, Lane::Bulk, &format!("bulk {i}")).await);
    }
    for i in 0..20 {
        calls.push(begin(&embedder, Lane::Interactive, &format!("interactive {i}")).await);
    }
    drop(hold);
    all_done(calls).await;

    let mut expected = vec!["first".to_owned()];
    for (interactive, bulk) in [(0..8, 0), (8..16, 1), (16..20, 2)] {
        expected.extend(interactive.map(|i| format!("interactive {i}")));
        expected.push(format!("bulk {bulk}"));
    }
    assert_eq!(arrived(&fake), expected);
}

#[tokio::test]
async fn interactive_calls_that_passed_nobody_take_nobodys_turn() {
    let fake = Fake::new(4);
    let embedder = gated(&fake, 1);
    // More than eight interactive calls wait, and no bulk call.
    let hold = fake.hold();
    let mut calls = Vec::new();
    for i in 0..12 {
        calls.push(begin(&embedder, Lane::Interactive, &format!("before {i}")).await);
    }
    drop(hold);
    all_done(calls).await;

    let hold = fake.hold();
    let mut calls = vec![begin(&embedder, Lane::Interactive, "first").await];
    calls.push(begin(&embedder, Lane::Bulk, "bulk").await);
    for i in 0..9 {
        calls.push(begin(&embedder, Lane::Interactive, &format!("interactive {i}")).await);
    }
    drop(hold);
    all_done(calls).await;
    let order = arrived(&fake);
    assert_eq!(order[order.len() - 3..], ["interactive 7", "bulk", "interactive 8"]);
}

#[tokio::test]
async fn passing_a_bulk_call_that_left_takes_nobodys_turn() {
    let fake = Fake::new(4);
    let embedder = gated(&fake, 1);
    let _hold = fake.hold();
    let texts = [["other"], ["bulk"], ["interactive"]];
    let queue = |lane: Lane, text: usize| {
        let mut call = embedder.embed(Batch::documents(&texts[text]).with_lane(lane));
        assert!(call.as_mut().now_or_never().is_none());
        call
    };
    let first = queue(Lane::Interactive, 0);
    let left = queue(Lane::Bulk, 0);
    let mut eight: Vec<_> = (0..8).map(|_| queue(Lane::Interactive, 0)).collect();
    drop(left);
    drop(first);
    // Each of them has the place in turn, and passes it on.
    let eighth = eight.pop();
    drop(eight);
    let bulk = queue(Lane::Bulk, 1);
    let mut interactive = queue(Lane::Interactive, 2);
    drop(eighth);
    assert!(interactive.as_mut().now_or_never().is_none());
    assert_eq!(arrived(&fake), ["other", "interactive"]);
    drop(bulk);
}

#[tokio::test]
async fn the_lane_decides_and_not_the_kind() {
    let fake = Fake::new(4);
    let embedder = gated(&fake, 1);
    let hold = fake.hold();
    let first = begin(&embedder, Lane::Bulk, "first").await;
    let texts = [["bulk query"], ["interactive document"]];
    let bulk = Batch::queries(&texts[0]).with_lane(Lane::Bulk);
    let interactive = Batch::documents(&texts[1]).with_lane(Lane::Interactive);
    let both = futures_util::future::join(embedder.embed(bulk), embedder.embed(interactive));
    let mut both = std::pin::pin!(both);
    assert!(both.as_mut().now_or_never().is_none());
    drop(hold);
    let (bulk, interactive) = both.await;
    bulk.expect("embeds");
    interactive.expect("embeds");
    first.await.expect("no panic").expect("embeds");
    assert_eq!(arrived(&fake), ["first", "interactive document", "bulk query"]);
}

#[tokio::test]
async fn dropped_waiters_leave_the_queue() {
    let fake = Fake::new(4);
    let embedder = gated(&fake, 1);
    let hold = fake.hold();
    let first = begin(&embedder, Lane::Bulk, "first").await;
    let mut waiting = Vec::new();
    for i in 0..1000 {
        let lane = if i % 2 == 0 { Lane::Interactive } else { Lane::Bulk };
        let (embedder, text) = (embedder.clone(), format!("dropped {i}"));
        waiting.push(tokio::spawn(async move {
            let texts = [text.as_str()];
            embedder.embed(Batch::documents(&texts).with_lane(lane)).await
        }));
    }
    settle().await;
    let last = begin(&embedder, Lane::Bulk, "last").await;
    assert_eq!(embedder.gate().waiting(), 1001);
    waiting.iter().for_each(JoinHandle::abort);
    settle().await;
    assert_eq!(embedder.gate().waiting(), 1);
    drop(hold);
    all_done(vec![first, last]).await;
    assert_eq!(arrived(&fake), ["first", "last"]);
    assert_eq!((embedder.gate().running(), embedder.gate().waiting()), (0, 0));
}

/// Each waiter is dropped after its place was sent and before it is polled.
#[tokio::test]
async fn places_sent_to_dropped_waiters_go_on_to_the_next() {
    let fake = Fake::new(4);
    let embedder = gated(&fake, 1);
    let gate = embedder.gate();
    let texts = ["a text"];
    let batch = Batch::documents(&texts);
    let hold = fake.hold();
    let mut first = embedder.embed(batch);
    assert!(first.as_mut().now_or_never().is_none());
    let waiting: Vec<_> = (0..1000)
        .map(|_| {
            let mut call = embedder.embed(batch);
            assert!(call.as_mut().now_or_never().is_none());
            call
        })
        .collect();
    assert_eq!((gate.running(), gate.waiting()), (1, 1000));
    drop(first);
    for (i, call) in waiting.into_iter().enumerate() {
        assert_eq!((gate.running(), gate.waiting()), (1, 1000 - 1 - i));
        drop(call);
    }
    assert_eq!((gate.running(), gate.waiting()), (0, 0));
    drop(hold);
    embedder.embed(batch).await.expect("there is a place");
    assert_eq!(fake.calls().len(), 2, "the first, which was dropped inside, and this one");
}

#[tokio::test]
async fn failures_and_panics_give_the_place_back() {
    let embedder = Arc::new(Concurrency::new(Crowd::new(), 1));
    embedder.get_ref().fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
    let error = embedder.embed_query("fails").await.expect_err("scripted");
    assert_eq!((error.kind(), error.embedder()), (ErrorKind::Unavailable, Some("fake")));
    assert_eq!(embedder.gate().running(), 0);

    let call = tokio::spawn({
        let embedder = embedder.clone();
        async move { embedder.embed(Batch::documents(&["panic"])).await }
    });
    assert!(call.await.expect_err("panics").is_panic());
    assert_eq!(embedder.gate().running(), 0);
    let row = embedder.embed_query("after").await.expect("embeds");
    assert_eq!(row, embedder.get_ref().fake.vector_of(InputKind::Query, "after"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_in_the_queue() {
    let fake = Fake::new(4);
    let embedder = gated(&fake, 1);
    let hold = fake.hold();
    let first = begin(&embedder, Lane::Bulk, "first").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    let texts = ["too late"];
    let batch = Batch::documents(&texts).with_deadline(deadline.into_std());
    let error = embedder.embed(batch).await.expect_err("no place in time");
    assert_eq!((error.kind(), error.embedder()), (ErrorKind::DeadlinePassed, Some("Concurrency(fake)")));
    assert_eq!(error.usage(), Usage::ZERO);
    // A call whose deadline has passed when it comes is not sent, either.
    assert_eq!(embedder.embed(batch).await.expect_err("too late").kind(), ErrorKind::DeadlinePassed);
    assert_eq!((embedder.gate().running(), embedder.gate().waiting()), (1, 0));
    drop(hold);
    all_done(vec![first]).await;
    assert_eq!(arrived(&fake), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn a_place_in_time_is_taken_and_the_deadline_goes_on() {
    let fake = Fake::builder().with_dimensions(4).with_latency(Duration::from_secs(2)).build().expect("valid");
    let embedder = gated(&fake, 1);
    let first = begin(&embedder, Lane::Bulk, "first").await;
    let deadline = (tokio::time::Instant::now() + Duration::from_secs(10)).into_std();
    let texts = ["in time"];
    let rows = embedder.embed(Batch::documents(&texts).with_deadline(deadline)).await.expect("in time");
    assert_eq!(rows.len(), 1);
    all_done(vec![first]).await;
    assert_eq!(fake.calls()[1].deadline, Some(deadline));
}

#[tokio::test]
async fn what_needs_no_work_does_not_wait() {
    let limits = Limits::none().with_bytes(10);
    let fake = Fake::builder().with_dimensions(4).with_limits(limits).build().expect("valid");
    let embedder = gated(&fake, 1);
    let hold = fake.hold();
    let first = begin(&embedder, Lane::Bulk, "first").await;

    let nothing = embedder.embed(Batch::documents(&[])).now_or_never().expect("at once").expect("no rows");
    assert!(nothing.is_empty());
    let bad = ["good", "", "more than ten bytes", ""];
    let error = embedder.embed(Batch::documents(&bad)).now_or_never().expect("at once").expect_err("bad texts");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.bad_texts().iter().map(|bad| bad.index).collect::<Vec<_>>(), [1, 2, 3]);
    let other = Batch::documents(&["good"]).with_space(SpaceId::from_bytes([7; 16]));
    let error = embedder.embed(other).now_or_never().expect("at once").expect_err("another space");
    assert_eq!((error.kind(), error.embedder()), (ErrorKind::SpaceMismatch, Some("fake")));

    let good = Batch::documents(&["good"]).with_space(fake.spaces()[0].id());
    assert!(embedder.embed(good).now_or_never().is_none(), "what is work waits");
    drop(hold);
    all_done(vec![first]).await;
}

#[tokio::test]
async fn a_gate_can_be_shared() {
    let (small, large) = (Fake::new(4), Fake::new(8));
    let gate = Gate::new(1);
    let one = Concurrency::with_gate(small.clone(), gate.clone());
    let other = Concurrency::with_gate(large.clone(), gate.clone());
    let hold = small.hold();
    let calls = vec![begin(&one, Lane::Bulk, "one").await, begin(&other, Lane::Bulk, "other").await];
    assert_eq!((small.calls().len(), large.calls().len()), (1, 0));
    assert_eq!((one.gate().waiting(), other.gate().running()), (1, 1));
    drop(hold);
    all_done(calls).await;
    assert_eq!(large.calls().len(), 1);

    // Gates made apart share nothing; clones share their places.
    let (one, other) = (gated(&small, 1), gated(&small, 1));
    let hold = small.hold();
    let calls = vec![begin(&one, Lane::Bulk, "a").await, begin(&other, Lane::Bulk, "b").await];
    assert_eq!((one.gate().running(), other.gate().running(), one.clone().gate().running()), (1, 1, 1));
    assert_eq!(one.gate().waiting() + other.gate().waiting(), 0);
    drop(hold);
    all_done(calls).await;
}

#[tokio::test]
async fn any_number_of_texts_goes_through_a_narrow_gate() {
    let fake = Fake::builder().with_dimensions(4).with_limits(Limits::none().with_texts(3)).build().expect("valid");
    let embedder = gated(&fake, 2);
    let texts: Vec<String> = (0..50).map(|i| format!("text {i}")).collect();
    let rows = embedder.embed_documents(&texts).await.expect("embeds");
    for (text, row) in texts.iter().zip(rows.rows()) {
        assert_eq!(row, fake.vector_of(InputKind::Document, text));
    }
    assert_eq!(rows.usage(), fake.charged());
}

#[test]
fn gives_back_what_it_wraps() {
    let embedder = gated(&Fake::new(4), 5);
    assert_eq!(embedder.to_string(), "Concurrency(fake)");
    assert_eq!(format!("{:?}", embedder.gate()), "Gate { calls: 5, running: 0, waiting: 0 }");
    assert_eq!(embedder.get_ref().spaces(), embedder.spaces());
    assert_eq!(embedder.into_inner().to_string(), "fake");
}
