//! Clients that nobody here wrote, from their Python packages, against a real model: their vectors are the library's.

use std::{collections::BTreeMap, process::Command, sync::Mutex, thread};

use docvector_embed::{
    Batch, EmbedderExt, InputKind, Truncation,
    provider::Onnx,
    server::{Cl100k, ServedModel, Server, ServerBuilder},
};
use serde::Deserialize;

use super::Running;
use crate::support::{clients_python, minilm, root};

/// The name of the model has a slash, as most names have.
const MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";
const CASES: [&str; 13] = [
    "litellm",
    "llama-index-openai",
    "llama-index-tei",
    "langchain-openai",
    "langchain-openai-token-ids",
    "langchain-tei",
    "huggingface-hub",
    "openai-sync",
    "openai-async",
    "openai-base64-default",
    "openai-models",
    "openai-query-kind",
    "openai-errors",
];

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    vectors: BTreeMap<String, Vec<f32>>,
    #[serde(default)]
    query_vectors: BTreeMap<String, Vec<f32>>,
}

#[test]
fn foreign_clients_get_the_same_vectors() {
    let model = Onnx::load(minilm()).expect("loads");
    let running = serving(Server::builder(), &model);
    let left = Mutex::new(CASES.to_vec());
    let next = || left.lock().expect("no panic").pop();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = next() {
                    run(&running, &model, case);
                }
            });
        }
    });
}

/// A client that sends ids of cl100k is served if the operator says that these are its ids.
#[test]
fn token_ids_of_a_named_vocabulary_are_their_texts() {
    let model = Onnx::load(minilm()).expect("loads");
    let running = serving(Server::builder().with_token_ids(Cl100k::default()), &model);
    run(&running, &model, "langchain-openai-token-ids-taken");
}

fn serving(builder: ServerBuilder, model: &Onnx) -> Running {
    let running = Running::loading(builder.with_api_key("sk-test"));
    running.server.open(ServedModel::of_onnx(model).with_name(MODEL)).expect("opens");
    running
}

fn run(running: &Running, model: &Onnx, case: &str) {
    let script = root().join("tests/it/server/clients.py");
    let output =
        Command::new(clients_python()).arg(script).args([&running.url(), MODEL, case]).output().expect("Python starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{case}: {out}{error}");
    let told: Told = serde_json::from_str(out.lines().last().unwrap_or_default()).expect(case);
    println!("{case}: {} documents, {} queries", told.vectors.len(), told.query_vectors.len());
    compare(model, case, InputKind::Document, &told.vectors);
    compare(model, case, InputKind::Query, &told.query_vectors);
    assert!(
        case.contains("models") || case.ends_with("token-ids") || !told.vectors.is_empty(),
        "{case} embeds something"
    );
}

fn compare(model: &Onnx, case: &str, kind: InputKind, told: &BTreeMap<String, Vec<f32>>) {
    let texts: Vec<&str> = told.keys().map(String::as_str).collect();
    let batch = Batch::new(kind, &texts).with_truncation(Truncation::Truncate);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let own = runtime.block_on(model.embed_all(batch)).expect("rows");
    for ((text, told), own) in told.iter().zip(own.rows()) {
        assert_eq!(told.len(), own.len(), "{case}");
        let distance = told.iter().zip(own).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(distance < 2e-5, "{case}: {distance} in {text:?}");
    }
}
