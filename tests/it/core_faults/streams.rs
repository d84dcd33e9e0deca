//! A stream's windows go on without its consumer: nobody waits for one that is busy, and nothing is asked for twice.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Limits, Partial, Result, Space,
    StreamOptions, Usage, async_trait,
    provider::{Fake, FakeOutcome},
    wrap::RateLimiter,
};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{HOUR, MINUTE, SECOND, Scripted, Step, fake, finished, numbered, paid, patient, request_of};

/// One text per window, two windows at once.
fn options() -> StreamOptions {
    StreamOptions::new(InputKind::Document).with_window_texts(1).with_window_bytes(1 << 20).with_windows_in_flight(2)
}

fn slow_fake() -> Fake {
    Fake::builder().with_dimensions(4).with_latency(SECOND).build().expect("valid")
}

/// Reads a stream of twenty windows, and uses the same embedder for something else after each window.
async fn with_a_body<E: Embedder + Clone>(embedder: E, kind: InputKind) {
    let reading = async {
        let mut windows = pin!(embedder.embed_stream(stream::iter(numbered(20)), options()));
        let mut rows = 0;
        while let Some(window) = windows.next().await {
            rows += window.expect("embeds").len();
            embedder.embed_all(Batch::new(kind, &["of the loop's body"])).await.expect("embeds");
        }
        rows
    };
    let rows = tokio::time::timeout(10 * MINUTE, reading).await.expect("the body does not wait for its own stream");
    assert_eq!(rows, 20);
}

/// The loop's body may use the stack that the stream uses.
#[tokio::test(start_paused = true)]
async fn a_loop_over_a_stream_may_use_the_same_gate() {
    for kind in [InputKind::Document, InputKind::Query] {
        with_a_body(slow_fake().concurrency(1), kind).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_over_a_stream_may_use_the_same_rate_limit() {
    for kind in [InputKind::Document, InputKind::Query] {
        with_a_body(slow_fake().rate_limit(RateLimiter::new().with_requests_per_minute(60)), kind).await;
    }
}

/// Windows under way are finished while the consumer does something else, and no others begin.
#[tokio::test(start_paused = true)]
async fn windows_that_are_begun_go_on_without_the_consumer() {
    let fake = slow_fake();
    let read = Arc::new(AtomicUsize::new(0));
    let counted = read.clone();
    let texts = stream::iter(numbered(1000)).inspect(move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
    let mut windows = pin!(fake.embed_stream(texts, options()));
    windows.next().await.expect("a window").expect("embeds");
    tokio::time::sleep(MINUTE).await;
    let outcomes: Vec<FakeOutcome> = fake.calls().iter().map(|call| call.outcome).collect();
    assert!(outcomes.len() >= 2, "the second was begun with the first");
    assert!(outcomes.iter().all(|outcome| *outcome == FakeOutcome::Done), "{outcomes:?} while the consumer was busy");
    // One was handed over, two are ready.
    assert!(outcomes.len() <= 3, "{} windows were begun", outcomes.len());
    let read = read.load(Ordering::Relaxed);
    assert!(read <= 3 + 2, "{read} texts were read");
    // The rest comes in order.
    for number in 1..50 {
        let rows = windows.next().await.expect("a window").expect("embeds");
        assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, &format!("text {number}")));
    }
}

/// Two stacks share a limiter, and one of them has a stream whose consumer is busy for ten minutes.
#[tokio::test(start_paused = true)]
async fn a_limiter_does_not_wait_for_the_consumer_of_a_stream() {
    let limiter = RateLimiter::new().with_requests_per_minute(60);
    let streaming = Fake::new(4).rate_limit(limiter.clone());
    let other = Fake::new(4).rate_limit(limiter);
    // Use up the savings.
    for _ in 0..10 {
        other.embed_query("text").await.expect("embeds");
    }
    let consumer = tokio::spawn(async move {
        let mut windows = pin!(streaming.embed_stream(stream::iter(numbered(20)), options()));
        while let Some(window) = windows.next().await {
            window.expect("embeds");
            tokio::time::sleep(10 * MINUTE).await;
        }
    });
    tokio::time::sleep(20 * SECOND).await;
    for kind in [InputKind::Document, InputKind::Query] {
        for _ in 0..20 {
            let began = Instant::now();
            let call = tokio::time::timeout(HOUR, other.embed_all(Batch::new(kind, &["text"])));
            call.await.expect("nobody hangs").expect("embeds");
            assert!(began.elapsed() < 10 * SECOND, "{:?} for a {kind}", began.elapsed());
        }
    }
    consumer.abort();
}

/// A reply that has come is not given up because nobody reads it: there are as many calls as windows.
#[tokio::test(start_paused = true)]
async fn replies_are_not_timed_out_unread() {
    let fake = fake(Limits::none());
    // Replies come in pieces, every other reply in more pieces, and each whole reply within the limit.
    let provider = Scripted::new(&fake, |_, batch| {
        let odd = batch.texts()[0].ends_with(['1', '3', '5', '7', '9']);
        let pieces = if odd { 4 } else { 2 };
        (0..pieces).fold(Step::answers(), |step, _| step.after(SECOND))
    });
    let embedder = provider.clone().timeout(5 * SECOND).retry(patient());
    let mut windows = pin!(embedder.embed_stream(stream::iter(numbered(10)), options()));
    let mut usage = Usage::ZERO;
    while let Some(window) = windows.next().await {
        usage += window.expect("embeds").usage();
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(provider.asked().len(), 10, "calls for ten windows");
    assert_eq!((usage.unanswered, paid(usage)), (0, paid(fake.charged())));
}

/// Answers each text in the space that it names, as a router does, after a number of seconds. Fails as it is told to.
#[derive(Clone, Debug)]
struct Router {
    spaces: [Fake; 2],
    all: Arc<[Space]>,
    /// Whether a call that fails has finished its first row.
    finishes: bool,
}

impl Router {
    fn new(finishes: bool) -> Self {
        let of = |model: &str| Fake::builder().with_model(model).with_dimensions(4).build().expect("valid");
        let spaces = ["left", "right"].map(of);
        let all = spaces.iter().flat_map(|fake| fake.spaces().to_vec()).collect();
        Self { spaces, all, finishes }
    }

    /// Returns the fake that a window's texts are for.
    fn of(&self, text: &str) -> &Fake {
        &self.spaces[usize::from(text.starts_with("right"))]
    }

    fn charged(&self) -> Usage {
        self.spaces.iter().map(Fake::charged).sum()
    }
}

/// The cost of the call of two texts that failed with one row, beyond the charges of the fakes.
const HALF_WAY: u64 = 3;

impl std::fmt::Display for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("router")
    }
}

#[async_trait]
impl Embedder for Router {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let text = batch.texts()[0];
        let fails = text.contains("fails");
        tokio::time::sleep(if fails { 5 * SECOND } else { SECOND }).await;
        let fake = self.of(text);
        if !fails {
            return fake.embed(batch).await;
        }
        let error = Error::new(ErrorKind::QuotaExhausted, "as scripted");
        let usage = request_of(HALF_WAY);
        Err(if self.finishes {
            error.with_partial(finished(fake, batch.texts(), &[0], usage))
        } else {
            error.with_usage(usage)
        })
    }

    fn spaces(&self) -> &[Space] {
        &self.all
    }

    fn limits(&self) -> Limits {
        Limits::none()
    }
}

/// Reads a stream of windows of two texts, four at once, of which the second fails, and checks what is promised: all
/// that was paid is told, rows lie in one space, and each is its text's own. Gives the places that have a row.
async fn over_two_spaces(finishes: bool, names: [&str; 6]) -> (Router, Partial) {
    let router = Router::new(finishes);
    let texts: Vec<String> = names.iter().flat_map(|name| [format!("{name} a"), format!("{name} b")]).collect();
    let options = StreamOptions::new(InputKind::Document)
        .with_window_texts(2)
        .with_window_bytes(1 << 20)
        .with_windows_in_flight(4);
    let windows: Vec<_> = router.embed_stream(stream::iter(texts.clone()), options).collect().await;
    assert_eq!(windows.len(), 2);
    let first = windows[0].as_ref().expect("the first window is handed over");
    let error = windows[1].as_ref().expect_err("the second fails").clone();
    let usage = first.usage() + error.total_usage();
    assert_eq!(paid(usage), paid(router.charged() + request_of(HALF_WAY)), "all that was paid is told");
    let partial = error.into_partial().expect("rows were finished");
    let fake = router.of(&texts[partial.indices()[0]]).clone();
    assert_eq!(partial.embeddings().space(), &fake.spaces()[0]);
    for (&index, row) in partial.indices().iter().zip(partial.embeddings().rows()) {
        assert_eq!(row, fake.vector_of(InputKind::Document, &texts[index]), "row {index}");
    }
    (router, partial)
}

/// Rows of two spaces do not fit into one matrix. The rows in the space of the failed window are given back, even from
/// behind a window of the other space. The other rows are at least on the bill.
#[tokio::test(start_paused = true)]
async fn a_stream_over_two_spaces_loses_no_row_of_the_failed_windows_space() {
    let names = ["left 0", "left 1 fails", "right 2", "left 3", "left 4", "left 5"];
    let (_, partial) = over_two_spaces(true, names).await;
    assert_eq!(partial.indices(), [2, 6, 7, 8, 9]);
}

/// If the failed window has no rows, all rows of one space are given back, and all rows are on the bill.
#[tokio::test(start_paused = true)]
async fn a_stream_over_two_spaces_tells_all_that_it_cost() {
    let names = ["left 0", "left 1 fails", "right 2", "left 3", "left 4", "left 5"];
    let (router, partial) = over_two_spaces(false, names).await;
    let left = partial.embeddings().space() == &router.spaces[0].spaces()[0];
    assert_eq!(partial.indices(), if left { vec![6, 7, 8, 9] } else { vec![4, 5] });
}
