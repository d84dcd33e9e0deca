//! Knows the families of models: the names of their sizes and tensors, and how they number positions.
//!
//! A new family needs a variant of [`Family`] and an arm in each function of this file; `graph/layers.rs` builds its
//! layers.

use serde_json::Value;

use super::{activation::Activation, json_file::JsonFile, weights::Weights};
use crate::Result;

/// The sizes of a model, which each family has under names of its own.
pub(super) struct Architecture {
    pub(super) family: Family,
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
    pub(super) inner: usize,
    pub(super) epsilon: f32,
    pub(super) activation: Activation,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    /// The padding's id, if the position table's rows up to it are not for tokens.
    pub(super) positions_after: Option<usize>,
    pub(super) token_types: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Bert,
    Roberta,
    DistilBert,
    Mpnet,
}

impl Family {
    /// Returns the family of a `model_type`; `None` if its weights cannot be loaded here.
    fn of(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" => Some(Self::Bert),
            "roberta" | "xlm-roberta" | "camembert" => Some(Self::Roberta),
            "distilbert" => Some(Self::DistilBert),
            "mpnet" => Some(Self::Mpnet),
            _ => None,
        }
    }

    /// Returns a name of our own, for fingerprints.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::DistilBert => "distilbert",
            Self::Mpnet => "mpnet",
        }
    }
}

impl Architecture {
    pub(super) fn read(config: &JsonFile) -> Result<Self> {
        let name = config.text("model_type")?.ok_or_else(|| config.error("has no field model_type"))?;
        let family = Family::of(name).ok_or_else(|| {
            let known = "bert, roberta, xlm-roberta, camembert, distilbert and mpnet";
            config.error(format!(
                "field model_type is {name}: weights of {known} can be loaded; other families need an .onnx file"
            ))
        })?;
        config.refuse_unless("position_embedding_type", &["absolute"])?;
        for field in ["is_decoder", "add_cross_attention"] {
            if config.flag(field)?.unwrap_or(false) {
                return Err(config.error(format!("field {field} is true: such models are not known here")));
            }
        }
        let distil = family == Family::DistilBert;
        let named = |usual: &str, in_distil: &str| config.needed(if distil { in_distil } else { usual });
        let arch = Self {
            family,
            hidden: named("hidden_size", "dim")?,
            heads: named("num_attention_heads", "n_heads")?,
            layers: named("num_hidden_layers", "n_layers")?,
            inner: named("intermediate_size", "hidden_dim")?,
            epsilon: config.number("layer_norm_eps")?.unwrap_or(1e-12) as f32,
            activation: hidden_activation(config, if distil { "activation" } else { "hidden_act" })?,
            vocabulary: config.needed("vocab_size")?,
            positions: config.needed("max_position_embeddings")?,
            positions_after: positions_after(config)?,
            token_types: match family {
                Family::Bert | Family::Roberta => config.size("type_vocab_size")?.unwrap_or(2),
                Family::DistilBert | Family::Mpnet => 0,
            },
        };
        if !arch.hidden.is_multiple_of(arch.heads) {
            let message = format!("{} attention heads do not divide {} dimensions", arch.heads, arch.hidden);
            return Err(config.error(message));
        }
        if arch.length() == 0 {
            return Err(config.error("max_position_embeddings leaves no position for a token"));
        }
        Ok(arch)
    }

    /// Returns how many tokens there are positions for.
    pub(super) fn length(&self) -> usize {
        self.positions.saturating_sub(self.positions_after.map_or(0, |pad| pad + 1))
    }

    /// Returns what the names of all tensors begin with: nothing, or the family's name if the file is of a larger
    /// model.
    pub(super) fn prefix(&self, weights: &Weights) -> &'static str {
        let whole = match self.family {
            Family::Bert => "bert.",
            Family::Roberta => "roberta.",
            Family::DistilBert => "distilbert.",
            Family::Mpnet => "mpnet.",
        };
        if weights.has("embeddings.word_embeddings.weight") { "" } else { whole }
    }

    pub(super) fn layer_names(&self) -> LayerNames {
        match self.family {
            Family::Bert | Family::Roberta => LayerNames {
                layer: "encoder.layer",
                qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
                attention_output: "attention.output.dense",
                attention_norm: "attention.output.LayerNorm",
                inner: "intermediate.dense",
                output: "output.dense",
                output_norm: "output.LayerNorm",
            },
            Family::DistilBert => LayerNames {
                layer: "transformer.layer",
                qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
                attention_output: "attention.out_lin",
                attention_norm: "sa_layer_norm",
                inner: "ffn.lin1",
                output: "ffn.lin2",
                output_norm: "output_layer_norm",
            },
            Family::Mpnet => LayerNames {
                layer: "encoder.layer",
                qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
                attention_output: "attention.attn.o",
                attention_norm: "attention.LayerNorm",
                inner: "intermediate.dense",
                output: "output.dense",
                output_norm: "output.LayerNorm",
            },
        }
    }
}

pub(super) struct LayerNames {
    pub(super) layer: &'static str,
    pub(super) qkv: [&'static str; 3],
    pub(super) attention_output: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) inner: &'static str,
    pub(super) output: &'static str,
    pub(super) output_norm: &'static str,
}

/// Returns why the graph cannot be built from weights, if another file of the model may do.
pub(super) fn not_built(config: &JsonFile) -> Result<Option<String>> {
    let Some(name) = config.text("model_type")? else { return Ok(Some("config.json has no model_type".into())) };
    if Family::of(name).is_none() {
        return Ok(Some(format!("weights of model_type {name} cannot be loaded")));
    }
    let kind = config.text("position_embedding_type")?.filter(|&kind| kind != "absolute");
    Ok(kind.map(|kind| format!("weights with position_embedding_type {kind} cannot be loaded")))
}

/// Returns the width of the vectors between layers, if `config.json` says it.
pub(super) fn hidden_size(config: &JsonFile) -> Option<usize> {
    let distil = config.get("model_type").is_some_and(|name| name == "distilbert");
    let size = config.get(if distil { "dim" } else { "hidden_size" })?.as_u64()?;
    usize::try_from(size).ok()
}

/// Returns whether the model computes positions (rotary, ALiBi) and does not look them up in a table. Then
/// `max_position_embeddings` is a length that it was trained for, and not a limit.
pub(super) fn computes_positions(config: &JsonFile) -> bool {
    let named = |name: &str, value: &Value| match name {
        "position_embedding_type" => value.as_str().is_some_and(|kind| ["alibi", "rotary", "rope"].contains(&kind)),
        _ => (name.contains("rope_") || name.contains("rotary_")) && !value.is_null() && value.as_f64() != Some(0.0),
    };
    config.value.as_object().is_some_and(|fields| fields.iter().any(|(name, value)| named(name, value)))
}

/// Reads how many tokens the model has positions for. RoBERTa and its relatives do not use the first positions, up to
/// the padding's id.
pub(super) fn positions(config: &JsonFile) -> Result<Option<usize>> {
    let unused = positions_after(config)?.map_or(0, |pad| pad + 1);
    Ok(config.size("max_position_embeddings")?.map(|positions| positions.saturating_sub(unused)))
}

/// Reads the padding's id, in the families that number positions from one above it.
pub(super) fn positions_after(config: &JsonFile) -> Result<Option<usize>> {
    match config.text("model_type")?.and_then(Family::of) {
        Some(Family::Roberta | Family::Mpnet) => Ok(Some(config.size("pad_token_id")?.unwrap_or(1))),
        _ => Ok(None),
    }
}

/// Reads the activation function of the transformer's feed-forward layers.
fn hidden_activation(config: &JsonFile, field: &str) -> Result<Activation> {
    let name = config.text(field)?.unwrap_or("gelu");
    Activation::of(name).ok_or_else(|| config.error(format!("{field} {name} is not known here")))
}
