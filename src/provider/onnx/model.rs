//! Makes models for ONNX Runtime, from a graph built here or from a file.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};

use ort::{
    environment::Environment,
    session::{
        Session,
        builder::{GraphOptimizationLevel, PrepackedWeights},
    },
    value::{DynValue, Tensor},
};

use super::{
    device::Device,
    family::positions_after,
    file_signature::FileSignature,
    graph::{self, Graph, SharedWeights, WeightData},
    inputs::{Input, InputRole},
    json_file::config,
    model_folder::ModelFolder,
    onnx_file::{OnnxFile, Rounding},
    runtime_messages::failed,
    session::{cuda, step},
    stages::TokenRow,
    tail::{GraphOutput, Tail, TailOfFile, TruncateDim},
};
use crate::{Error, ErrorKind, Pooling, Result};

/// A model that any number of sessions can be made from. They share its weights.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) source: Source,
    pub(super) inputs: Vec<Input>,
    pub(super) output: String,
    pub(super) tail: Tail,
    pub(super) dimensions: usize,
    truncate_dim: Option<TruncateDim>,
    /// Sizes that the graph requires.
    pub(super) fixed_texts: Option<usize>,
    pub(super) fixed_tokens: Option<usize>,
    /// Whether a vector depends on the other texts of its batch, so that each text needs a batch of its own.
    pub(super) one_text_per_batch: bool,
    pub(super) rounding: Rounding,
    pub(super) padding_id: u32,
    /// Tokens of a text that the model has positions for.
    pub(super) positions: Option<usize>,
    /// How the vectors are made, besides the weights: in words, for the space's identity.
    pub(super) facts: String,
}

pub(super) enum Source {
    /// A graph built here and its weights by name. Sessions pack the weights for matrix products, and share the packed
    /// ones in `packed` if the device packs at all. Each batch gets `given` as an input.
    Graph {
        bytes: Vec<u8>,
        weights: Vec<(String, Arc<DynValue>)>,
        given: Option<(String, DynValue)>,
        packed: Option<PrepackedWeights>,
    },
    File(PathBuf),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Graph { bytes, weights, .. } => {
                write!(f, "Graph({} bytes, {} weights)", bytes.len(), weights.len())
            }
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl Model {
    /// Makes a model from a graph that was built here.
    pub(super) fn of_graph(graph: Graph, folder: &ModelFolder, padding_id: u32) -> Result<Self> {
        let mut weights = Vec::with_capacity(graph.weights.len());
        // fp16 is for GPUs, which pack nothing. On a CPU some operators would pack fp16 in a way that cannot be shared.
        let narrow = graph.weights.iter().any(|(_, weights)| matches!(weights.data, WeightData::F16(_)));
        let packed = (!narrow).then(PrepackedWeights::new);
        let value = |SharedWeights { shape, data }| {
            let value = match data {
                WeightData::F32(data) => Tensor::from_array((shape, data)).map(Tensor::into_dyn),
                WeightData::F16(data) => Tensor::from_array((shape, data)).map(Tensor::into_dyn),
                WeightData::I8(data) => Tensor::from_array((shape, data)).map(Tensor::into_dyn),
            };
            value.map_err(failed("weights cannot be handed to ONNX Runtime"))
        };
        for (name, one) in graph.weights {
            weights.push((name, Arc::new(value(one)?)));
        }
        let given = graph.given.map(|(name, table)| Ok::<_, Error>((name, value(table)?))).transpose()?;
        let input = |&name: &&str| {
            let role = match name {
                graph::MASK => InputRole::Mask,
                graph::SEGMENTS => InputRole::Segments,
                graph::POOLING_MASK => InputRole::PoolingMask,
                graph::POSITIONS => graph.positions_after.map_or(InputRole::Places, InputRole::PlacesAfter),
                graph::ENDS => InputRole::Ends,
                _ => InputRole::Ids,
            };
            Input { name: name.to_owned(), role, wide: role == InputRole::Ends }
        };
        let inputs = graph.inputs.iter().map(input).collect();
        let mut model = Self {
            source: Source::Graph { bytes: graph.model, weights, given, packed },
            inputs,
            output: graph::OUTPUT.to_owned(),
            tail: Tail::Nothing,
            dimensions: graph.dimensions,
            truncate_dim: None,
            fixed_texts: None,
            fixed_tokens: None,
            one_text_per_batch: false,
            // What a GPU does. A CPU rounds less.
            rounding: Rounding::Half,
            padding_id,
            positions: folder.positions,
            facts: graph.facts,
        };
        model.set_truncate_dim(folder)?;
        Ok(model)
    }

    /// Makes a model from a file as it is, and a session, which tells its inputs and its output.
    pub(super) fn of_file(
        file: &OnnxFile,
        folder: &mut ModelFolder,
        environment: &Environment,
        device: Device,
        padding_id: u32,
    ) -> Result<(Self, Session)> {
        let wrong = |message: String| config(&file.path, &message);
        let source = Source::File(file.path.clone());
        let session = source.session(environment, device, None)?;
        let signature =
            FileSignature::read(&session, positions_after(&folder.config)?, folder.restated).map_err(wrong)?;
        if !signature.output.is_pooled() {
            folder.settle_pooling()?;
        } else if folder.pooling.is_empty() {
            // Nothing says how the file pools, and nothing is done with this. But a space's id is made of it: ids of
            // such files have held the mean from the first.
            folder.pooling = vec![Pooling::Mean];
        }
        let TailOfFile { tail, dimensions, facts } = TailOfFile::read(folder, &signature.output, &wrong)?;
        let mut model = Self {
            source,
            inputs: signature.inputs,
            output: signature.output.name,
            tail,
            dimensions,
            truncate_dim: None,
            fixed_texts: signature.fixed_texts,
            fixed_tokens: signature.fixed_tokens,
            one_text_per_batch: file.dynamic,
            rounding: file.rounding,
            padding_id,
            positions: folder.positions,
            facts,
        };
        model.set_truncate_dim(folder)?;
        Ok((model, session))
    }

    fn set_truncate_dim(&mut self, folder: &ModelFolder) -> Result<()> {
        if let Some(dimensions) = folder.truncate_dim {
            self.truncate_dim = TruncateDim::new(folder, dimensions, self.dimensions)?;
            self.dimensions = dimensions;
        }
        Ok(())
    }

    /// Returns the most tokens that a text may have by the graph's own sizes.
    pub(super) fn most_tokens(&self) -> usize {
        [self.fixed_tokens, self.positions].into_iter().flatten().fold(usize::MAX, usize::min)
    }

    /// Returns the most texts that a batch may have, if anything but the memory limits them.
    pub(super) fn most_texts(&self) -> Option<usize> {
        if self.one_text_per_batch { Some(1) } else { self.fixed_texts }
    }

    /// Makes the vectors of a batch, one after the other, from the graph's output; `None` if its shape is not the
    /// announced one.
    pub(super) fn vectors<'v>(&self, output: GraphOutput<'v>, rows: &[TokenRow<'_>]) -> Option<Cow<'v, [f32]>> {
        if self.truncate_dim.is_none() && matches!(self.tail, Tail::Nothing) {
            let own = rows.len() * self.dimensions;
            return (*output.sizes == [output.texts, self.dimensions]).then(|| Cow::Borrowed(&output.values[..own]));
        }
        let mut out = Vec::with_capacity(rows.len() * self.dimensions);
        for (text, row) in rows.iter().enumerate() {
            let mut vector = self.tail.apply(output, text, row)?;
            if let Some(truncate_dim) = self.truncate_dim {
                truncate_dim.apply(&mut vector);
            }
            if vector.len() != self.dimensions {
                return None;
            }
            out.extend_from_slice(&vector);
        }
        Some(Cow::Owned(out))
    }
}

impl Source {
    /// Returns the table that each batch gets as an input, with the input's name.
    pub(super) fn given(&self) -> Option<&(String, DynValue)> {
        match self {
            Self::Graph { given, .. } => given.as_ref(),
            Self::File(_) => None,
        }
    }

    pub(super) fn session(&self, environment: &Environment, device: Device, profile: Option<&Path>) -> Result<Session> {
        // A graph built here has no node that a GPU cannot run.
        let mut builder = device.session(environment, matches!(self, Self::Graph { .. }))?;
        if let Some(profile) = profile {
            builder = step(builder.with_profiling(profile))?;
        }
        let refused = |message: String| {
            move |error: ort::Error| match device {
                Device::Cpu => Error::new(ErrorKind::Config, message).with_source(error),
                Device::Cuda(_) => cuda::unusable(device, error),
            }
        };
        match self {
            Self::File(path) => {
                let mut builder = step(builder.with_optimization_level(GraphOptimizationLevel::All))?;
                let message = format!("{} cannot be loaded by ONNX Runtime", path.display());
                builder.commit_from_file(path).map_err(refused(message))
            }
            Self::Graph { bytes, weights, packed, .. } => {
                // The graph is fused already; its nodes that are not are faster that way.
                let mut builder = step(builder.with_optimization_level(GraphOptimizationLevel::Level1))?;
                for (name, value) in weights {
                    builder = step(builder.with_external_initializer(name, Arc::clone(value)))?;
                    // The same weights under the same name again: the optimizer reads the first, and the session runs
                    // on the second without a copy. A GPU has a copy of its own in any case.
                    if device == Device::Cpu {
                        builder = step(builder.with_initializer(name, Arc::clone(value)))?;
                    }
                }
                if let Some(packed) = packed {
                    builder = step(builder.with_prepacked_weights(packed))?;
                }
                let message = "this ONNX Runtime refuses the graph that was built here".to_owned();
                builder.commit_from_memory(bytes).map_err(refused(message))
            }
        }
    }
}
