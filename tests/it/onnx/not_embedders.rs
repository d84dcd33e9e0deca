//! Models that give no dense vector per text are refused, and the error says what they are. Embedders pass.

use std::{fs, path::Path};

use docvector_embed::{Pooling, provider::Onnx};
use serde_json::json;

use super::{
    folders::{assert_says, copy, edit, refused},
    old_names::rename,
};
use crate::support::golden;

fn bare(folder: &Path, architecture: &str) {
    fs::remove_file(folder.join("modules.json")).expect("removed");
    edit(folder, "config.json", &|json| json["architectures"] = json!([architecture]));
}

#[test]
fn heads_without_modules_json_are_refused() {
    for (architecture, what) in [
        ("XLMRobertaForSequenceClassification", "a reranker or classifier"),
        ("BertForTokenClassification", "labels the tokens"),
        ("BertForQuestionAnswering", "finds answers"),
        ("HF_ColBERT", "ColBERT"),
    ] {
        let text = refused("bert-cls", &|folder| bare(folder, architecture));
        let field = format!("DIR/config.json field architectures is {architecture}");
        assert_says(&text, &[&field, what, "Load an embedding model", "modules.json"]);
    }
    // The head of a ColBERT model, under an encoder's architecture.
    let folder = tempfile::tempdir().expect("a folder");
    copy(&golden("tiny/bert-cls"), folder.path());
    fs::remove_file(folder.path().join("modules.json")).expect("removed");
    rename(folder.path(), &|name| (name == "pooler.dense.weight").then(|| "linear.weight".to_owned()));
    let stated = Onnx::builder(folder.path()).with_pooling([Pooling::Cls]);
    let text = stated.build().expect_err("a head").to_string();
    assert_says(&text, &["model.safetensors has a tensor linear.weight", "ColBERT"]);
}

/// An encoder that is named beside a head makes vectors.
#[test]
fn an_encoder_beside_a_head_needs_a_stated_pooling() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&golden("tiny/bert-cls"), folder.path());
    bare(folder.path(), "BertForTokenClassification");
    let load = || Onnx::builder(folder.path()).with_pooling([Pooling::Cls]);
    assert_says(&load().build().expect_err("a head alone").to_string(), &["labels the tokens"]);
    for architectures in [["NewModel", "NewForTokenClassification"], ["BertForTokenClassification", "BertModel"]] {
        edit(folder.path(), "config.json", &|json| json["architectures"] = json!(architectures));
        load().build().unwrap_or_else(|error| panic!("{architectures:?}: {error}"));
        let error = Onnx::load(folder.path()).expect_err("nothing says how it pools").to_string();
        assert_says(&error, &["has no modules.json", "--pooling"]);
    }
}

/// A language model may be an embedder, or SPLADE: the caller must say how it pools.
#[test]
fn a_language_model_needs_a_stated_pooling() {
    let text = refused("bert-cls", &|folder| bare(folder, "BertForMaskedLM"));
    assert_says(&text, &["has no modules.json", "--pooling", "BertForMaskedLM", "SPLADE"]);
    let folder = tempfile::tempdir().expect("a folder");
    copy(&golden("tiny/bert-cls"), folder.path());
    bare(folder.path(), "BertForMaskedLM");
    Onnx::builder(folder.path()).with_pooling([Pooling::Mean]).build().expect("loads");
}

/// Embedders that were made from other models keep the old name.
#[test]
fn transformer_and_pooling_are_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&golden("tiny/bert-cls"), folder.path());
    for architecture in ["BertForMaskedLM", "Qwen3ForCausalLM", "BertForSequenceClassification", "HF_ColBERT"] {
        edit(folder.path(), "config.json", &|json| json["architectures"] = json!([architecture]));
        Onnx::load(folder.path()).unwrap_or_else(|error| panic!("{architecture}: {error}"));
    }
}

#[test]
fn modules_and_types_of_other_models_are_refused() {
    let module = |kind: &'static str| {
        refused("bert-cls", &move |folder| edit(folder, "modules.json", &|json| json[1]["type"] = json!(kind)))
    };
    let splade = module("sentence_transformers.sparse_encoder.models.SpladePooling");
    assert_says(&splade, &["DIR/modules.json module", "SPLADE", "load an embedding model"]);
    assert_says(&module("pylate.models.Dense.Dense"), &["DIR/modules.json module pylate", "ColBERT"]);
    for (kind, what) in [("SparseEncoder", "SPLADE"), ("CrossEncoder", "reranker"), ("MultiVectorEncoder", "ColBERT")] {
        // Such a folder has no Pooling module.
        let text = refused("bert-cls", &|folder| {
            edit(folder, "config_sentence_transformers.json", &|json| json["model_type"] = json!(kind));
            edit(folder, "modules.json", &|json| json.as_array_mut().expect("a list").truncate(1));
        });
        let field = format!("config_sentence_transformers.json field model_type is {kind}");
        assert_says(&text, &[&field, what, "Load an embedding model"]);
    }
}
