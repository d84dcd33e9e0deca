//! Builds the ONNX graph of a BERT-like model from its configuration and weights, pooling and normalization included.
//!
//! Families: BERT, RoBERTa (XLM-RoBERTa, CamemBERT), DistilBERT, MPNet. The graph uses ONNX Runtime's own fused
//! operators (domain `com.microsoft`), so nothing needs to be fused at load time. The weights stay outside the graph's
//! bytes, so that all sessions share one copy and no model is too large for protobuf. A [`GraphTarget`] is what a
//! device runs fastest: fp32 or int8 on a CPU, fp16 on CUDA.

mod int8;
mod layers;
mod mpnet_bias;
mod names;
pub(super) mod nodes;
mod pooling;
mod tail;
mod weight_bits;

use self::nodes::{FLOAT, GraphBuilder, int};
pub(super) use self::{
    names::{ENDS, IDS, MASK, OUTPUT, POOLING_MASK, POSITIONS, SEGMENTS},
    nodes::{GraphTarget, SharedWeights, WeightData},
    weight_bits::WeightBits,
};
use super::{
    family::{Architecture, Family},
    model_folder::ModelFolder,
    weights::Weights,
};
use crate::Result;

/// The fast kernels of GPUs need sizes that are a multiple of this: 16 bytes of fp16.
pub(super) const STEP: usize = 8;

/// A model file without its weights, and the weights by the names that the file gives them.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) model: Vec<u8>,
    pub(super) weights: Vec<(String, SharedWeights)>,
    /// The table that each batch gets as an input, if the device reads it where it is.
    pub(super) given: Option<(String, SharedWeights)>,
    /// The names of the inputs that a batch fills.
    pub(super) inputs: Vec<&'static str>,
    pub(super) dimensions: usize,
    /// Rows of the table of token vectors: ids must be below this.
    pub(super) vocabulary: usize,
    /// The padding's id, if positions are numbered from one above it and are an input of the graph.
    pub(super) positions_after: Option<u32>,
    /// The facts that the graph was built from, in words, for the space's identity.
    pub(super) facts: String,
}

impl Graph {
    pub(super) fn build(folder: &ModelFolder, weights: &mut Weights, target: GraphTarget) -> Result<Self> {
        let arch = Architecture::read(&folder.config)?;
        let prefix = arch.prefix(weights);
        let biased = arch.family == Family::Mpnet;
        let segments =
            target == GraphTarget::Cuda && takes_segments(arch.hidden / arch.heads, biased.then(|| arch.length()));
        let mask = if segments { SEGMENTS } else { MASK };
        let (nodes, shared, constants) = (Vec::new(), Vec::new(), Vec::new());
        let mut builder = GraphBuilder { weights, prefix, target, mask, nodes, shared, given: None, constants };
        let mut hidden = builder.add_embeddings(&arch)?;
        let bias = biased.then(|| builder.add_relative_bias(&arch)).transpose()?;
        let names = arch.layer_names();
        if let GraphTarget::Int8(bits) = target {
            hidden = builder.add_int8_layers(&arch, &names, &hidden, bias.as_deref(), bits)?;
        } else {
            for layer in 0..arch.layers {
                hidden = builder.add_layer(&arch, &names, layer, &hidden, bias.as_deref())?;
            }
        }
        if target == GraphTarget::Cuda {
            hidden = builder.node("Cast", "", &[&hidden], "hidden.wide", vec![int("to", FLOAT)]);
        }
        // The rest is in fp32 for all targets.
        builder.target = GraphTarget::Cpu;
        let (mut vector, mut dimensions) = builder.add_pooling(folder, &hidden, arch.hidden);
        let mut facts = facts(&arch, target);
        for (at, step) in folder.tail.iter().enumerate() {
            (vector, dimensions) = builder.add_tail_module(at, step, vector, dimensions, &mut facts)?;
        }
        builder.node("Identity", "", &[&vector], OUTPUT, Vec::new());
        let mut inputs = vec![IDS];
        inputs.extend((!segments || folder.pool_prompt).then_some(MASK));
        inputs.extend(segments.then_some(SEGMENTS));
        inputs.extend((!folder.pool_prompt).then_some(POOLING_MASK));
        inputs.extend(arch.positions_after.map(|_| POSITIONS));
        inputs.extend((target == GraphTarget::Cuda && biased).then_some(ENDS));
        Ok(Self {
            model: builder.write_model(&inputs, dimensions),
            weights: builder.shared,
            given: builder.given,
            inputs,
            dimensions,
            vocabulary: arch.vocabulary,
            positions_after: arch.positions_after.map(|pad| pad as u32),
            facts,
        })
    }
}

/// Returns what shapes the vectors besides the weights. The target is no part of it for CUDA, whose vectors lie in the
/// CPU's space.
fn facts(arch: &Architecture, target: GraphTarget) -> String {
    let target = match target {
        GraphTarget::Int8(bits) => format!("int8 a token, {bits}-bit weights a column, "),
        GraphTarget::Cpu | GraphTarget::Cuda => String::new(),
    };
    format!(
        "{target}{} layers {} heads {} epsilon {} {} positions {} types {}",
        arch.family.as_str(),
        arch.layers,
        arch.heads,
        arch.epsilon,
        arch.activation.as_str(),
        arch.positions_after.map_or(0, |pad| pad + 1),
        arch.token_types.min(1)
    )
}

/// Returns whether attention on a GPU runs in the kernels that understand [`SEGMENTS`], for heads of this width and, if
/// there is a bias, texts of this length. Other kernels would misread them, and get a mask, which says the same.
const fn takes_segments(head: usize, biased: Option<usize>) -> bool {
    let rows = match biased {
        Some(length) => length.is_multiple_of(STEP),
        None => true,
    };
    head.is_multiple_of(STEP) && rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_for_the_kernels_that_understand_them() {
        for (head, biased, takes) in [
            (64, None, true),
            (32, None, true),
            (12, None, false),
            (64, Some(512), true),
            (64, Some(510), false),
            (12, Some(512), false),
        ] {
            assert_eq!(takes_segments(head, biased), takes, "{head} {biased:?}");
        }
    }

    /// ONNX Runtime copies weights while it makes a session, and inputs never.
    #[test]
    fn the_table_of_token_vectors_is_an_input_on_a_cpu() {
        const TABLE: &str = "embeddings.word_embeddings.weight";
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/bert-cls");
        let folder = ModelFolder::read(&folder).expect("a folder");
        for (target, input) in
            [(GraphTarget::Cpu, true), (GraphTarget::Int8(WeightBits::Eight), true), (GraphTarget::Cuda, false)]
        {
            let mut weights = Weights::open(&folder.transformer.join("model.safetensors")).expect("weights");
            let graph = Graph::build(&folder, &mut weights, target).expect("a graph");
            let name = graph.given.as_ref().map(|(name, _)| name.as_str());
            assert_eq!(name, input.then_some(TABLE), "{target:?}");
            assert_ne!(graph.weights.iter().any(|(name, _)| name == TABLE), input, "{target:?}");
        }
    }

    /// Heads of 8 components, and of 4 with a bias.
    #[test]
    fn the_graph_for_cuda_takes_segments_or_a_mask() {
        for (name, segments) in [("bert-cls", true), ("mpnet", false)] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny").join(name);
            let folder = ModelFolder::read(&folder).expect("a folder");
            let inputs = |target| {
                let mut weights = Weights::open(&folder.transformer.join("model.safetensors")).expect("weights");
                Graph::build(&folder, &mut weights, target).expect("a graph").inputs
            };
            assert_eq!(inputs(GraphTarget::Cuda).contains(&SEGMENTS), segments, "{name}");
            assert_eq!(inputs(GraphTarget::Cuda).contains(&ENDS), name == "mpnet", "{name}");
            for target in [GraphTarget::Cpu, GraphTarget::Int8(WeightBits::Seven)] {
                assert!(inputs(target).contains(&MASK) && !inputs(target).contains(&SEGMENTS), "{name}");
                assert!(!inputs(target).contains(&ENDS), "{name}");
            }
        }
    }
}
