//! `Onnx` keeps the laws, alone and in a stack.

use std::sync::Arc;

use docvector_embed::{
    Batch, Embedder, EmbedderExt, InputKind, Normalization, Precision, Truncation, conformance::Suite, provider::Onnx,
};

use crate::support::{golden, minilm, minilm_int8};

#[tokio::test]
async fn from_weights_and_in_a_stack() {
    let embedder = Onnx::load(minilm()).expect("loads");
    Suite::new(&embedder).run().await.expect("Onnx keeps the laws");
    Suite::new(&embedder.clone().dedup()).run().await.expect("Dedup(Onnx) keeps the laws");
    let boxed: Box<dyn Embedder> = Box::new(Arc::new(embedder));
    Suite::new(&boxed).run().await.expect("Box(Arc(Onnx)) keeps the laws");
    assert_eq!(boxed.dedup().to_string(), "Dedup(onnx/all-MiniLM-L6-v2)");
}

#[tokio::test]
async fn from_a_file() {
    let embedder = Onnx::load(minilm_int8()).expect("loads");
    // The file's arithmetic depends on the batch a little more than ours.
    Suite::new(&embedder).with_tolerance(1e-4).run().await.expect("Onnx keeps the laws");
}

#[tokio::test]
async fn of_every_family() {
    for name in ["bert-cls", "bert-prompts", "xlm-roberta", "mpnet", "distilbert", "bert-multi"] {
        let embedder = Onnx::builder(golden("tiny").join(name)).with_threads(2).build().expect(name);
        Suite::new(&embedder).run().await.unwrap_or_else(|violation| panic!("{name}: {violation}"));
    }
}

/// The space depends on everything that changes vectors, and on neither the model's folder nor the number of threads.
#[tokio::test]
async fn the_space_tells_what_matters() {
    let load = || Onnx::builder(golden("tiny").join("bert-cls"));
    let id = |builder: docvector_embed::provider::OnnxBuilder| builder.build().expect("loads").spaces()[0].id();
    let first = id(load());
    assert_eq!(first, id(load().with_threads(1).with_batch_tokens(64)));
    let copy = tempfile::tempdir().expect("a folder");
    crate::onnx::folders::copy(&golden("tiny").join("bert-cls"), copy.path());
    assert_eq!(first, id(Onnx::builder(copy.path())), "the folder's name matters");
    // The truncation and padding in the tokenizer's file are ignored, so they are no part of the space.
    let file = copy.path().join("tokenizer.json");
    let mut tokenizer = crate::support::json(&file);
    tokenizer["truncation"] =
        serde_json::json!({"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"});
    let text = std::fs::read_to_string(&file).expect("read").replacen(
        "\"truncation\": null",
        &format!("\"truncation\": {}", tokenizer["truncation"]),
        1,
    );
    assert!(text.contains("LongestFirst"), "the file has another form");
    std::fs::write(&file, text).expect("written");
    assert_eq!(first, id(Onnx::builder(copy.path())), "ignored truncation matters");
    let prompts = docvector_embed::Prompts::new("", "query: ");
    for (what, other) in [
        ("length", load().with_max_tokens(20)),
        ("prompts", load().with_prompts(prompts)),
        ("width", load().with_truncate_dim(8)),
        ("model", Onnx::builder(golden("tiny").join("bert-dense"))),
    ] {
        assert_ne!(first, id(other), "{what} does not matter");
    }
    let space = Onnx::load(minilm()).expect("loads").spaces()[0].clone();
    assert_eq!((space.dimensions(), space.model(), space.label()), (384, "bert", Some("all-MiniLM-L6-v2")));
    assert_eq!((space.normalization(), space.precision()), (Normalization::L2, Precision::Full));
    // Collections are named by it: if a change of the code changes it, every user must embed everything again.
    assert_eq!(space.id().to_string(), "cd5cb9c85b1211c7dec098ef2a2dd4b5");
    let int8 = Onnx::load(minilm_int8()).expect("loads").spaces()[0].clone();
    assert_eq!(int8.precision(), Precision::Int8);
    assert_ne!(int8.id(), space.id());
}

/// The vectors are the same for all batches and orders.
#[tokio::test]
async fn vectors_do_not_depend_on_their_mates() {
    let embedder = Onnx::load(minilm()).expect("loads");
    let texts: Vec<String> = (0..60_usize).map(|i| "a few more words of text ".repeat(i * i % 37 + 1)).collect();
    let texts: Vec<String> = texts.iter().enumerate().map(|(i, text)| format!("{i} {text}")).collect();
    let together = embedder.embed_documents(&texts).await.expect("embeds");
    for (i, text) in texts.iter().enumerate() {
        let texts = [text.as_str()];
        let alone = embedder.embed(Batch::new(InputKind::Document, &texts)).await.expect("embeds");
        let far = alone.row(0).iter().zip(together.row(i)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= 1e-5, "text {i}: {far:e}");
    }
}

#[tokio::test]
async fn whitespace_and_nul_are_texts() {
    let embedder = Onnx::load(minilm()).expect("loads");
    let rows = embedder.embed_documents(&[" ", "\0", "\n\t", "\u{feff}"]).await.expect("embeds");
    // Nothing is left of them but the special tokens, so they are all alike.
    assert!(rows.rows().all(|row| row == rows.row(0)));
    assert_eq!(rows.usage().exact_tokens(), Some(8));
}

#[tokio::test]
async fn over_long_texts_are_named_or_truncated() {
    let embedder = Onnx::load(minilm()).expect("loads");
    let long = "word ".repeat(300);
    let edge = "word ".repeat(254);
    let texts = ["short", &long, &edge, &long];
    let error = embedder.embed(Batch::documents(&texts)).await.expect_err("too long");
    assert_eq!(error.bad_texts().iter().map(|bad| bad.index).collect::<Vec<_>>(), [1, 3]);
    assert!(error.to_string().contains("text 1 has at least 302 tokens, the limit is 256"), "{error}");
    let rows = embedder.embed(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await.expect("embeds");
    assert_eq!(rows.truncated(), [1, 3]);
    assert_eq!(rows.usage().exact_tokens(), Some(3 + 3 * 256));
    // Truncated after 254 words, it is the text of 254 words.
    assert_eq!(rows.row(1), rows.row(2));
}
