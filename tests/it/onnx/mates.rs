//! The same vectors whatever the batch-mates, the order, the batches' size and the other callers.

use docvector_embed::{Batch, Embedder, InputKind, Lane, Precision, Truncation, provider::Onnx};
use futures_util::future::try_join_all;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::support::{golden, minilm};

/// How far a component may be from that of the text embedded alone.
const MOST: f32 = 1e-5;

/// Texts of one to about `longest` words.
fn texts(longest: usize) -> Vec<String> {
    const WORDS: [&str; 8] = ["owner", "a", "borrowed", "value", "naïve", "of", "文字", "unwinding"];
    let text = |i: usize| {
        let words = (0..1 + i * i * 7 % longest).map(|at| WORDS[(i + at * (1 + i % 3)) % WORDS.len()]);
        format!("{i} {}", words.collect::<Vec<_>>().join(" "))
    };
    (0..40).map(text).collect()
}

/// Calls made at once: each the places of its texts, in any order and any number of times, and its lane.
fn calls() -> impl Strategy<Value = Vec<(Vec<usize>, bool)>> {
    vec((vec(0_usize..40, 1..24), any::<bool>()), 1..5)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn alone(embedder: &Onnx, kind: InputKind, texts: &[String]) -> Vec<Vec<f32>> {
    let row = |text: &String| {
        let batch = [text.as_str()];
        let rows = runtime()
            .block_on(embedder.embed(Batch::new(kind, &batch).with_truncation(Truncation::Truncate)))
            .expect("embeds");
        rows.row(0).to_vec()
    };
    texts.iter().map(row).collect()
}

fn check(
    embedder: &Onnx,
    kind: InputKind,
    texts: &[String],
    alone: &[Vec<f32>],
    calls: &[(Vec<usize>, bool)],
) -> Result<(), TestCaseError> {
    let refs: Vec<Vec<&str>> =
        calls.iter().map(|(places, _)| places.iter().map(|&at| texts[at].as_str()).collect()).collect();
    let at_once = refs.iter().zip(calls).map(|(refs, &(_, bulk))| {
        let lane = if bulk { Lane::Bulk } else { Lane::Interactive };
        embedder.embed(Batch::new(kind, refs).with_lane(lane).with_truncation(Truncation::Truncate))
    });
    let results = runtime().block_on(try_join_all(at_once)).expect("embeds");
    for (rows, (places, _)) in results.iter().zip(calls) {
        prop_assert_eq!(rows.len(), places.len());
        for (row, &at) in rows.rows().zip(places) {
            let far = row.iter().zip(&alone[at]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            prop_assert!(far <= MOST, "text {at}: {far:e}");
        }
    }
    Ok(())
}

#[test]
fn of_minilm() {
    minilm_in(Precision::Full, 12);
}

#[test]
fn of_minilm_in_int8() {
    minilm_in(Precision::Int8, 12);
}

fn minilm_in(precision: Precision, cases: u32) {
    let texts = texts(70);
    let load = |budget, threads| {
        let builder = Onnx::builder(minilm()).with_batch_tokens(budget).with_threads(threads);
        builder.with_precision(precision).build()
    };
    let embedders = [(64, 2), (256, 1), (1024, 2)].map(|(budget, threads)| load(budget, threads).expect("loads"));
    let alone = alone(&embedders[1], InputKind::Document, &texts);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    let run = runner.run(&(calls(), 0_usize..3), |(calls, which)| {
        check(&embedders[which], InputKind::Document, &texts, &alone, &calls)
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn of_every_family() {
    let texts = texts(20);
    for name in ["bert-cls", "bert-prompts", "bert-dense", "bert-multi", "xlm-roberta", "mpnet", "distilbert"] {
        for precision in [Precision::Full, Precision::Int8] {
            let load = |budget, threads| {
                let builder = Onnx::builder(golden("tiny").join(name)).with_precision(precision);
                builder.with_batch_tokens(budget).with_threads(threads).build().expect(name)
            };
            let kinds = [InputKind::Document, InputKind::Query];
            let first = load(256, 1);
            let alone = kinds.map(|kind| alone(&first, kind, &texts));
            let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(12) });
            let run =
                runner.run(&(calls(), 64_usize..1024, 1_usize..4, 0_usize..2), |(calls, budget, threads, kind)| {
                    check(&load(budget, threads), kinds[kind], &texts, &alone[kind], &calls)
                });
            run.unwrap_or_else(|error| panic!("{name} {precision:?}: {error}"));
        }
    }
}
