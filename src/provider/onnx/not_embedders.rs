//! Knows models that do not give one dense vector per text: what they are, so that an error can say it.
//!
//! A `modules.json` with Transformer and Pooling is an embedder's, whatever head `architectures` names: embedders that
//! were made from language models keep the name of the old head there.

use std::path::Path;

use serde_json::Value;

use super::{
    json_file::{JsonFile, config},
    weights::Weights,
};
use crate::Result;

const SCORES: &str = "a reranker or classifier, which gives scores and no vectors";
const LABELS: &str = "a model that labels the tokens of a text";
const ANSWERS: &str = "a model that finds answers in a text";
const SPARSE: &str = "a sparse model (SPLADE), which gives weights of words and not one dense vector per text";
const BY_TOKEN: &str = "a late-interaction model (ColBERT), which gives one vector per token and not one per text";

/// The ends of architectures' names, and what they are.
const HEADS: [(&str, &str); 5] = [
    ("ForSequenceClassification", SCORES),
    ("ForMultipleChoice", SCORES),
    ("ForNextSentencePrediction", SCORES),
    ("ForTokenClassification", LABELS),
    ("ForQuestionAnswering", ANSWERS),
];

/// The ends of the names of language models, which some embedders and all SPLADE models keep.
const LANGUAGE_MODELS: [&str; 5] =
    ["ForMaskedLM", "ForCausalLM", "ForPreTraining", "LMHeadModel", "ForConditionalGeneration"];

/// Modules of sentence-transformers' sparse models.
const SPARSE_MODULES: [&str; 6] =
    ["MLMTransformer", "SpladePooling", "SparseAutoEncoder", "CSRSparsity", "SparseStaticEmbedding", "IDF"];

/// Says what a model is, by the `model_type` of `config_sentence_transformers.json`.
pub(super) fn of_model_type(kind: &str) -> &'static str {
    match kind {
        "SparseEncoder" => SPARSE,
        "CrossEncoder" => SCORES,
        "MultiVectorEncoder" | "ColBERT" => BY_TOKEN,
        _ => "not a model of one dense vector per text",
    }
}

/// Says what a model is that has a module of this type; `None` if an embedder may have it.
pub(super) fn of_module(kind: &str) -> Option<&'static str> {
    let last = kind.rsplit('.').next().unwrap_or(kind);
    if SPARSE_MODULES.contains(&last) {
        return Some(SPARSE);
    }
    kind.starts_with("pylate.").then_some(BY_TOKEN)
}

fn of_architecture(name: &str) -> Option<&'static str> {
    if name.to_ascii_lowercase().contains("colbert") {
        return Some(BY_TOKEN);
    }
    HEADS.iter().find(|(head, _)| name.ends_with(head)).map(|&(_, what)| what)
}

fn architectures(config: &JsonFile) -> impl Iterator<Item = &str> {
    config.get("architectures").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Refuses a model without `modules.json` none of whose architectures is an embedder's. Some embedders name an encoder,
/// and a head beside it.
pub(super) fn check_architecture(config: &JsonFile) -> Result<()> {
    let heads: Option<Vec<_>> = architectures(config).map(|name| Some((name, of_architecture(name)?))).collect();
    match heads.as_deref() {
        None | Some([]) => Ok(()),
        Some(&[(name, what), ..]) => Err(config.error(format!(
            "field architectures is {name}: {what}. Load an embedding model in its place; if this is one, fetch its \
             modules.json too"
        ))),
    }
}

/// Refuses weights without `modules.json` that have the head of a ColBERT model.
pub(super) fn check_weights(weights: &Weights, file: &Path) -> Result<()> {
    if weights.has("linear.weight") {
        let message = format!(
            "has a tensor linear.weight beside the encoder: {BY_TOKEN}. Load an embedding model in its place; if this \
             is one, fetch its modules.json too"
        );
        return Err(config(file, &message));
    }
    Ok(())
}

/// Returns the architecture's name if it is that of a language model.
pub(super) fn language_model(config: &JsonFile) -> Option<&str> {
    architectures(config).find(|name| LANGUAGE_MODELS.iter().any(|end| name.ends_with(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_known_and_encoders_pass() {
        for (name, what) in [
            ("XLMRobertaForSequenceClassification", Some(SCORES)),
            ("NewForTokenClassification", Some(LABELS)),
            ("BertForQuestionAnswering", Some(ANSWERS)),
            ("HF_ColBERT", Some(BY_TOKEN)),
            ("BertModel", None),
            ("MPNetForMaskedLM", None),
            ("Qwen3ForCausalLM", None),
        ] {
            assert_eq!(of_architecture(name), what, "{name}");
        }
    }

    #[test]
    fn modules_of_other_models_are_known() {
        assert_eq!(of_module("sentence_transformers.sparse_encoder.models.SpladePooling"), Some(SPARSE));
        assert_eq!(
            of_module("sentence_transformers.sparse_encoder.models.MLMTransformer.MLMTransformer"),
            Some(SPARSE)
        );
        assert_eq!(of_module("pylate.models.Dense.Dense"), Some(BY_TOKEN));
        assert_eq!(of_module("sentence_transformers.models.Dense"), None);
    }
}
