//! Loads small `.onnx` files that are written here, in folders of every kind.

use std::{fs, path::Path};

use super::{
    Onnx, OnnxBuilder,
    proto::Message,
    tiny_file::{Dim, FLOAT, INT64, VOCABULARY, WIDTH, file, int, ints, node, tensor, value},
};
use crate::{EmbedderExt, Normalization, Pooling};

/// The id of the first token of every text.
const CLS: f32 = 2.0;

/// An output of a file: its name, 2 axes for one vector per text or 3 for one per token, and its width.
type Output<'a> = (&'a str, usize, usize);

/// Writes a model that gives each token the vector (its id, 1, 1, ..), and each text the mean of these.
fn model(outputs: &[Output<'_>]) -> Vec<u8> {
    let inputs = value("input_ids", INT64, &[Dim::Any, Dim::Any]);
    let mut graph = Message::default().string(2, "test").message(11, inputs);
    for &(name, axes, width) in outputs {
        let (table, tokens) = (format!("{name}.table"), format!("{name}.tokens"));
        let row = |id: usize| (0..width).map(move |at| if at == 0 { id as f32 } else { 1.0 });
        let rows: Vec<f32> = (0..VOCABULARY).flat_map(row).collect();
        graph = graph.message(5, tensor(&table, &[VOCABULARY, width], &rows));
        graph = graph.message(1, node("Gather", &[&table, "input_ids"], &[&tokens], Vec::new()));
        let (op, attributes) = match axes {
            2 => ("ReduceMean", vec![ints("axes", &[1]), int("keepdims", 0)]),
            _ => ("Identity", Vec::new()),
        };
        graph = graph.message(1, node(op, &[&tokens], &[name], attributes));
        let dims = [vec![Dim::Any; axes - 1], vec![Dim::Is(width)]].concat();
        graph = graph.message(12, value(name, FLOAT, &dims));
    }
    file(graph, Vec::new())
}

/// Fills a folder with a file of these outputs, and with what every model needs.
fn fill(folder: &Path, outputs: &[Output<'_>]) {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/bert-cls");
    fs::create_dir_all(folder.join("onnx")).expect("a folder");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tiny.join(file), folder.join(file)).expect("copied");
    }
    fs::write(folder.join("onnx/model.onnx"), model(outputs)).expect("written");
}

/// Makes such a folder; its name is in no catalogue.
fn folder(outputs: &[Output<'_>]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path(), outputs);
    folder
}

/// Writes a `modules.json` of mean pooling and normalization.
fn add_modules(folder: &Path) {
    let module =
        |kind: &str, path: &str| format!(r#"{{"type": "sentence_transformers.models.{kind}", "path": "{path}"}}"#);
    let modules = [module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")];
    fs::write(folder.join("modules.json"), format!("[{}]", modules.join(","))).expect("written");
    fs::create_dir_all(folder.join("1_Pooling")).expect("a folder");
    fs::write(folder.join("1_Pooling/config.json"), r#"{"pooling_mode": "mean"}"#).expect("written");
}

/// Loads a model on one thread: its first component for a text, and its poolings and normalization.
async fn first_of(builder: OnnxBuilder) -> (f32, Vec<Pooling>, Normalization) {
    let embedder = builder.with_threads(1).build().expect("loads");
    let rows = embedder.embed_documents(&["river"]).await.expect("embeds");
    (rows.row(0)[0], rows.space().pooling().to_vec(), rows.space().normalization())
}

fn refused(builder: OnnxBuilder, says: &[&str]) {
    let error = builder.with_threads(1).build().expect_err("refused").to_string();
    for part in says {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

const BY_TOKEN: Output<'static> = ("last_hidden_state", 3, WIDTH);
const BY_TEXT: Output<'static> = ("sentence_embedding", 2, WIDTH);

#[tokio::test]
async fn a_file_that_gives_one_vector_per_text_needs_no_pooling() {
    let folder = folder(&[BY_TEXT]);
    let (first, pooling, normalization) = first_of(Onnx::builder(folder.path())).await;
    assert!(first > CLS, "the mean is not {first}");
    // The space says the mean, whatever the file did: ids exist that were made so.
    assert_eq!((pooling, normalization), (vec![Pooling::Mean], Normalization::None));
    let (_, pooling, normalization) =
        first_of(Onnx::builder(folder.path()).with_normalization(Normalization::L2)).await;
    assert_eq!((pooling, normalization), (vec![Pooling::Mean], Normalization::L2));
}

#[tokio::test]
async fn a_file_that_gives_one_vector_per_token_needs_pooling() {
    let folder = folder(&[BY_TOKEN]);
    let load = || Onnx::builder(folder.path());
    refused(load(), &["has no modules.json", "their mean", "--pooling", "--normalize", "OnnxBuilder::with_pooling"]);
    let stated = first_of(load().with_pooling([Pooling::Cls])).await;
    assert_eq!(stated, (CLS, vec![Pooling::Cls], Normalization::None));
    // A name that is known: a cached copy of a repository.
    let root = folder.path().join("models--BAAI--bge-base-en-v1.5/snapshots/0a1b");
    fill(&root, &[BY_TOKEN]);
    let unit = CLS / (CLS * CLS + (WIDTH - 1) as f32).sqrt();
    let (first, pooling, normalization) = first_of(Onnx::builder(&root)).await;
    assert!((first - unit).abs() < 1e-6, "{first} is not {unit}");
    assert_eq!((pooling, normalization), (vec![Pooling::Cls], Normalization::L2));
    let stated = first_of(Onnx::builder(&root).with_normalization(Normalization::None)).await;
    assert_eq!(stated, (CLS, vec![Pooling::Cls], Normalization::None));
}

/// A head of scores, and projections of tokens, are no vectors of an embedder.
#[test]
fn scores_and_projections_are_refused() {
    for (output, says) in [
        (("logits", 3, VOCABULARY), "has the output logits, which are scores of words or classes"),
        (("logits", 2, 2), "has the output logits"),
        (("logits", 3, WIDTH), "has the output logits"),
        (("output", 3, VOCABULARY), "has an output output of 228 numbers per token, but config.json says"),
        (("last_hidden_state", 3, 8), "has an output last_hidden_state of 8 numbers per token"),
    ] {
        for with_modules in [false, true] {
            let folder = folder(&[output]);
            if with_modules {
                add_modules(folder.path());
            }
            let load = Onnx::builder(folder.path());
            refused(if with_modules { load } else { load.with_pooling([Pooling::Cls]) }, &["onnx/model.onnx", says]);
        }
    }
}

/// BERT's own pooled output is another vector than the folder's pooling makes.
#[test]
fn a_pooled_output_of_another_name_is_refused() {
    let folder = folder(&[("pooler_output", 2, WIDTH)]);
    let says = "has a pooled output pooler_output, which may lack modules that the folder describes: take a file with \
                the output last_hidden_state or sentence_embedding";
    refused(Onnx::builder(folder.path()), &["onnx/model.onnx", says]);
    add_modules(folder.path());
    refused(Onnx::builder(folder.path()), &["onnx/model.onnx", says]);
}

#[tokio::test]
async fn another_pooling_takes_the_vectors_of_tokens() {
    let both = folder(&[BY_TEXT, BY_TOKEN]);
    add_modules(both.path());
    let stated = Onnx::builder(both.path()).with_pooling([Pooling::Cls]).with_normalization(Normalization::None);
    assert_eq!(first_of(stated).await, (CLS, vec![Pooling::Cls], Normalization::None));
    let pooled = folder(&[BY_TEXT]);
    add_modules(pooled.path());
    let load = || Onnx::builder(pooled.path());
    refused(load().with_pooling([Pooling::Cls]), &["onnx/model.onnx gives one vector per text", "with_pooling"]);
    refused(load().with_normalization(Normalization::None), &["gives one vector per text", "with_normalization"]);
    // To state what the folder says changes nothing.
    let own = load().with_pooling([Pooling::Mean]).with_normalization(Normalization::L2);
    assert_eq!(first_of(own).await, first_of(load()).await);
}
