//! The threads behind `Onnx`: no call waits for another call's large text, and nothing is left behind.

use std::time::{Duration, Instant};

use docvector_embed::{Batch, Embedder, EmbedderExt, ErrorKind, InputKind, Lane, Truncation, provider::Onnx};

use crate::support::{golden, minilm};

/// Texts of 10 MB of several kinds.
fn giants() -> [String; 4] {
    const SIZE: usize = 10 << 20;
    let repeat = |text: &str| text.repeat(SIZE / text.len());
    [repeat("a word, and another. "), repeat("文"), repeat("x"), repeat(" ")]
}

#[tokio::test]
async fn a_giant_text_is_truncated_and_blocks_no_other_call() {
    // One thread, so that a giant on it would hold up everybody.
    let embedder = Onnx::builder(minilm()).with_threads(1).build().expect("loads");
    for giant in giants() {
        let texts = [giant.as_str()];
        let batch = Batch::documents(&texts).with_truncation(Truncation::Truncate);
        let mut bulk = std::pin::pin!(embedder.embed(batch));
        let begun = std::future::poll_fn(|context| std::task::Poll::Ready(bulk.as_mut().poll(context))).await;
        assert!(begun.is_pending());
        for i in 0..5 {
            embedder.embed_query(&format!("query {i}")).await.expect("embeds");
        }
        assert_eq!(bulk.await.expect("embeds").len(), 1);
    }
}

/// A text of 10 MB that can be split nowhere takes seconds: queries are done before it, on the only thread.
#[tokio::test]
async fn queries_overtake_a_giant_text_that_must_be_read_whole() {
    let embedder = Onnx::builder(minilm()).with_threads(1).build().expect("loads");
    let [_, _, giant, _] = giants();
    let bulk = tokio::spawn({
        let embedder = embedder.clone();
        async move {
            let texts = [giant.as_str()];
            embedder.embed(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await
        }
    });
    tokio::task::yield_now().await;
    embedder.embed_query("quick").await.expect("embeds");
    assert!(!bulk.is_finished(), "the query waited for the giant");
    bulk.await.expect("runs").expect("embeds");
}

/// Tokenizing the beginning of a giant text gives the same tokens as tokenizing all of it.
#[tokio::test]
async fn the_beginning_is_enough_to_truncate_a_text() {
    for model in [minilm(), golden("tiny/xlm-roberta")] {
        let embedder = Onnx::load(model).expect("loads");
        let limit = embedder.limits().tokens_per_text.expect("a limit");
        for (i, unit) in ["a word, and another. ", "naïve café ", "one.two,three;four", "文字 ", "[MASK] x ", "  \n "]
            .iter()
            .enumerate()
        {
            // One text a little over the limit, which is read whole, and one far over it that begins alike.
            let near: String = unit.repeat(limit + 40);
            let far = unit.repeat(200_000);
            let texts = [near.as_str(), far.as_str()];
            let rows =
                embedder.embed(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await.expect("embeds");
            assert_eq!(rows.row(0), rows.row(1), "unit {i}");
        }
    }
}

#[tokio::test]
async fn a_giant_text_that_may_not_be_truncated_is_refused_soon() {
    let embedder = Onnx::load(minilm()).expect("loads");
    let [giant, ..] = giants();
    let error = embedder.embed(Batch::documents(&["ok", &giant])).await.expect_err("too long");
    assert_eq!(error.bad_texts()[0].index, 1);
}

#[tokio::test]
async fn a_passed_deadline_is_an_error() {
    let embedder = Onnx::load(golden("tiny/bert-cls")).expect("loads");
    let texts = ["late"];
    let error = embedder.embed(Batch::documents(&texts).with_deadline(Instant::now())).await.expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::DeadlinePassed);
    embedder.embed_query("in time").await.expect("embeds");
}

#[tokio::test]
async fn dropped_calls_leave_nothing_behind() {
    let embedder = Onnx::builder(golden("tiny/bert-cls")).with_threads(2).build().expect("loads");
    let texts: Vec<String> = (0..400).map(|i| format!("text {i}")).collect();
    for round in 0..50 {
        let call = embedder.embed_documents(&texts);
        // Dropped before, during and after its work.
        let _ = tokio::time::timeout(Duration::from_micros(round * 40), call).await;
    }
    let rows = embedder.embed_documents(&texts).await.expect("embeds");
    assert_eq!(rows.len(), 400);
}

/// Runs the test of this name again in a process of its own, where no other test has threads or memory that would be
/// counted. Returns whether this is that process.
#[cfg(target_os = "linux")]
fn is_alone(name: &str) -> bool {
    const ALONE: &str = "DOCVECTOR_EMBED_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("this program");
    let mut child = std::process::Command::new(program);
    let name = format!("onnx::scheduling::{name}");
    let child = child.args(["--exact", &name, "--test-threads", "1", "--nocapture"]).env(ALONE, "1");
    let child = child.output().expect("runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// This process's threads.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("this process").count()
}

/// Waits until there are so many threads, at most five seconds: a joined thread may still be listed for a moment.
#[cfg(target_os = "linux")]
fn threads_soon(expected: usize) -> usize {
    for _ in 0..500 {
        if threads() == expected {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    threads()
}

#[cfg(target_os = "linux")]
#[test]
fn a_dropped_embedder_ends_its_threads() {
    if !is_alone("a_dropped_embedder_ends_its_threads") {
        return;
    }
    let load = || Onnx::builder(golden("tiny/bert-cls")).with_threads(3).build().expect("loads");
    drop(load());
    std::thread::sleep(Duration::from_millis(100));
    let before = threads();
    let embedder = load();
    assert_eq!(threads_soon(before + 5), before + 5, "not one thread per session, and two for long texts");
    drop(embedder);
    for _ in 0..20 {
        drop(load());
    }
    assert_eq!(threads_soon(before), before);
}

/// Closing waits for the threads; another clone keeps them.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_embedder_has_ended_its_threads() {
    if !is_alone("a_closed_embedder_has_ended_its_threads") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let load = || Onnx::builder(golden("tiny/bert-cls")).with_threads(3).build().expect("loads");
    runtime.block_on(load().close());
    std::thread::sleep(Duration::from_millis(100));
    let before = threads();
    let embedder = load();
    runtime.block_on(embedder.clone().close());
    runtime.block_on(embedder.embed_query("still open")).expect("embeds");
    assert_eq!(threads_soon(before + 5), before + 5, "a clone ended them");
    runtime.block_on(embedder.close());
    assert_eq!(threads_soon(before), before);
    // Dropped half-way, or never polled.
    let mut closing = Box::pin(load().close());
    let _ = closing.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    drop(closing);
    drop(load().close());
    assert_eq!(threads_soon(before), before);
    // All clones at once.
    let embedder = load();
    let clones: Vec<Onnx> = (0..8).map(|_| embedder.clone()).collect();
    drop(embedder);
    runtime.block_on(futures_util::future::join_all(clones.into_iter().map(Onnx::close)));
    assert_eq!(threads_soon(before), before);
}

/// A text of 10 MB that can be split nowhere takes seconds to be tokenized; closing waits for that.
#[tokio::test]
async fn closing_does_not_block_the_executor() {
    let embedder = Onnx::builder(minilm()).with_threads(1).build().expect("loads");
    let [_, _, giant, _] = giants();
    let texts = [giant.as_str()];
    let batch = Batch::documents(&texts).with_truncation(Truncation::Truncate);
    // The call is dropped when its text is being tokenized.
    let _ = tokio::time::timeout(Duration::from_millis(200), embedder.embed(batch)).await;
    let closing = tokio::spawn(embedder.close());
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    let mut steps = 0;
    while !closing.is_finished() {
        let step = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        longest = longest.max(step.elapsed());
        steps += 1;
    }
    closing.await.expect("closes");
    let took = begun.elapsed();
    assert!(steps > 3, "it did not wait: {took:?}");
    assert!(longest < took / 2, "the executor stood still for {longest:?} of {took:?}");
}

/// Returns the bytes of memory that this process has.
#[cfg(target_os = "linux")]
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this process");
    let pages: i64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// In a thousand rounds, calls are dropped or killed at any moment; in every tenth round the embedder is dropped too.
#[cfg(target_os = "linux")]
#[test]
fn a_thousand_rounds_of_killed_callers_leave_nothing_behind() {
    const MOST: i64 = 8 << 20;
    if !is_alone("a_thousand_rounds_of_killed_callers_leave_nothing_behind") {
        return;
    }
    let load = || Onnx::builder(golden("tiny/bert-cls")).with_threads(2).build().expect("loads");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
    drop(load());
    std::thread::sleep(Duration::from_millis(100));
    let before = threads();
    let texts: Vec<String> = (0..80).map(|i| format!("text {i} {}", "x ".repeat(i % 20))).collect();
    let mut random = fastrand::Rng::with_seed(5);
    let mut embedder = load();
    let mut early = 0;
    let (mut finished, mut spared) = (0, 0);
    for round in 1..=1000 {
        let mut callers = tokio::task::JoinSet::new();
        let kills = random.bool();
        for caller in 0..random.usize(1..6) {
            // Some are given all the time they need: they get their rows, whatever happens to the others.
            let patient = caller == 0 && !kills;
            spared += usize::from(patient);
            let ends = if patient { 60_000_000 } else { random.u64(0..4000) };
            let embedder = embedder.clone();
            let from = random.usize(0..texts.len());
            let texts = texts[from..random.usize(from..texts.len()) + 1].to_vec();
            let lane = if random.bool() { Lane::Bulk } else { Lane::Interactive };
            let _guard = runtime.enter();
            callers.spawn(async move {
                let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
                let call = embedder.embed(Batch::documents(&refs).with_lane(lane));
                let rows = tokio::time::timeout(Duration::from_micros(ends), call).await;
                patient && rows.is_ok_and(|rows| rows.expect("embeds").len() == texts.len())
            });
        }
        let wait = Duration::from_micros(random.u64(0..2000));
        let again = round % 10 == 0;
        if again {
            // The callers have clones; the last of them to go ends the threads.
            drop(std::mem::replace(&mut embedder, load()));
        }
        finished += runtime.block_on(async {
            if kills {
                tokio::time::sleep(wait).await;
                callers.abort_all();
            }
            let mut finished = 0;
            while let Some(done) = callers.join_next().await {
                match done {
                    Ok(done) => finished += usize::from(done),
                    Err(error) => assert!(error.is_cancelled(), "a caller panicked"),
                }
            }
            finished
        });
        if round == 200 {
            early = resident();
        }
    }
    let grown = resident() - early;
    assert!(spared > 300, "{spared}");
    assert_eq!(finished, spared, "a call that was not killed got no rows");
    let rows = runtime.block_on(embedder.embed_documents(&texts)).expect("embeds");
    assert_eq!(rows.len(), texts.len());
    drop(embedder);
    assert_eq!(threads_soon(before), before);
    assert!(grown < MOST, "{grown} bytes more after 1,000 rounds than after 200");
}

/// Many callers at the same time on one embedder and its clones; some of the calls are dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once_get_their_own_rows() {
    let embedder = Onnx::load(golden("tiny/bert-cls")).expect("loads");
    let text = |caller: usize, i: usize| format!("caller {caller} has text {i} {}", "x ".repeat(i % 7));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..40_usize {
        let embedder = embedder.clone();
        callers.spawn(async move {
            let texts: Vec<String> = (0..caller + 1).map(|i| text(caller, i)).collect();
            let kind = if caller % 3 == 0 { InputKind::Query } else { InputKind::Document };
            let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
            let call = embedder.embed(Batch::new(kind, &refs));
            if caller % 5 == 4 {
                let _ = tokio::time::timeout(Duration::from_micros(300), call).await;
                return;
            }
            let rows = call.await.expect("embeds");
            for (i, text) in texts.iter().enumerate() {
                let alone = [text.as_str()];
                let alone = embedder.embed(Batch::new(kind, &alone)).await.expect("embeds");
                let far = alone.row(0).iter().zip(rows.row(i)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far <= 1e-5, "caller {caller}, text {i}: {far:e}");
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.expect("no caller fails");
    }
}
