//! Makes models for ONNX Runtime, out of a graph built here or of a file.

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
    value::{DynValue, Outlet, Tensor, TensorElementType, ValueType},
};

use super::{
    device::Device,
    family::positions_after,
    graph::{self, Graph, SharedWeights, WeightData},
    inputs::{Input, InputRole},
    model_folder::ModelFolder,
    modules::TailModule,
    onnx_file::OnnxFile,
    pooling,
    runtime_messages::failed,
    session::{cuda, step},
    stages::TokenRow,
    tail::{self, Tail, TailStep},
};
use crate::{Error, ErrorKind, Result};

/// A model that sessions can be made of, any number of them sharing its weights.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) source: Source,
    pub(super) inputs: Vec<Input>,
    pub(super) output: String,
    pub(super) tail: Tail,
    pub(super) dimensions: usize,
    /// What the vectors are cut to after everything else, and whether they are scaled again then.
    truncate_dim: Option<(usize, bool)>,
    /// Sizes that the graph insists on.
    pub(super) fixed_texts: Option<usize>,
    pub(super) fixed_tokens: Option<usize>,
    /// Whether a vector depends on its batch-mates, so that each text needs a batch of its own.
    pub(super) one_text_per_batch: bool,
    pub(super) padding_id: u32,
    /// Tokens of a text that the model has positions for.
    pub(super) positions: Option<usize>,
    /// What the vectors are made with behind the weights, in words, for the space's identity.
    pub(super) facts: String,
}

pub(super) enum Source {
    /// A graph made here, the weights that go with it by name, and what sessions pack them into for matrix products,
    /// which they share where they can.
    Graph {
        bytes: Vec<u8>,
        weights: Vec<(String, Arc<DynValue>)>,
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
    /// Takes a graph that was built here.
    pub(super) fn of_graph(
        graph: Graph,
        folder: &ModelFolder,
        truncate_dim: Option<usize>,
        padding_id: u32,
    ) -> Result<Self> {
        let mut weights = Vec::with_capacity(graph.weights.len());
        // fp16 is for cards, which pack nothing; on a CPU some operators would, in a way that cannot be shared.
        let narrow = graph.weights.iter().any(|(_, weights)| matches!(weights.data, WeightData::F16(_)));
        let packed = (!narrow).then(PrepackedWeights::new);
        for (name, SharedWeights { shape, data }) in graph.weights {
            let value = match data {
                WeightData::F32(data) => Tensor::from_array((shape, data)).map(Tensor::into_dyn),
                WeightData::F16(data) => Tensor::from_array((shape, data)).map(Tensor::into_dyn),
                WeightData::I8(data) => Tensor::from_array((shape, data)).map(Tensor::into_dyn),
            };
            weights.push((name, Arc::new(value.map_err(failed("weights cannot be handed over"))?)));
        }
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
            source: Source::Graph { bytes: graph.model, weights, packed },
            inputs,
            output: graph::OUTPUT.to_owned(),
            tail: Tail::Nothing,
            dimensions: graph.dimensions,
            truncate_dim: None,
            fixed_texts: None,
            fixed_tokens: None,
            one_text_per_batch: false,
            padding_id,
            positions: folder.positions,
            facts: graph.facts,
        };
        model.set_truncate_dim(truncate_dim, folder)?;
        Ok(model)
    }

    /// Takes a file as it is: finds out, with a session, what it wants and gives.
    pub(super) fn of_file(
        file: &OnnxFile,
        folder: &ModelFolder,
        environment: &Environment,
        device: Device,
        truncate_dim: Option<usize>,
        padding_id: u32,
    ) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Config, format!("{} {message}", file.path.display()));
        let source = Source::File(file.path.clone());
        let session = source.session(environment, device, None)?;
        let mut inputs = Vec::new();
        let after = positions_after(&folder.config)?;
        let (mut fixed_texts, mut fixed_tokens) = (None, None);
        for outlet in session.inputs() {
            let role = match outlet.name() {
                "input_ids" => InputRole::Ids,
                "attention_mask" => InputRole::Mask,
                "token_type_ids" => InputRole::Types,
                "position_ids" => after.map_or(InputRole::Places, |pad| InputRole::PlacesAfter(pad as u32)),
                name => return Err(wrong(format!("has an input {name}, which is not known"))),
            };
            let wide = match outlet.dtype().tensor_type() {
                Some(TensorElementType::Int64) => true,
                Some(TensorElementType::Int32) => false,
                _ => return Err(wrong(format!("has an input {} that is not of whole numbers", outlet.name()))),
            };
            let shape = outlet.dtype().tensor_shape().filter(|shape| shape.len() == 2);
            let shape =
                shape.ok_or_else(|| wrong(format!("has an input {} that is not texts by tokens", outlet.name())))?;
            let fixed = |size: i64| usize::try_from(size).ok().filter(|&size| size > 0);
            fixed_texts = fixed_texts.or(fixed(shape[0]));
            fixed_tokens = fixed_tokens.or(fixed(shape[1]));
            inputs.push(Input { name: outlet.name().to_owned(), role, wide });
        }
        if inputs.iter().all(|input| input.role != InputRole::Ids) {
            return Err(wrong("has no input input_ids".into()));
        }
        let (output, rank, width) = output(session.outputs()).map_err(&wrong)?;
        if rank == 2 {
            // What is left of the folder's pipeline must be in the file, or the vectors are not what the folder says.
            let dense = folder.tail.iter().rev().find_map(|step| match step {
                TailModule::Dense { outputs, .. } => Some(*outputs),
                TailModule::Normalize => None,
            });
            let whole = POOLED.contains(&output.as_str()) && dense.is_none_or(|outputs| width == Some(outputs));
            if !whole || !folder.pool_prompt {
                return Err(wrong(format!(
                    "has a pooled output {output}, which may not be all that the folder describes"
                )));
            }
        }
        let normalizes = folder.tail.iter().any(|step| matches!(step, TailModule::Normalize));
        let mut facts = output.clone();
        let (tail, dimensions) = match (rank, width) {
            (2, Some(width)) if normalizes => (Tail::Normalize, width),
            (2, Some(width)) => (Tail::Nothing, width),
            (3, Some(width)) => {
                let mut dimensions = width * folder.pooling.len();
                let mut steps = Vec::new();
                for step in &folder.tail {
                    steps.push(match step {
                        TailModule::Normalize => {
                            facts.push_str(" normalize");
                            TailStep::Normalize
                        }
                        TailModule::Dense { activation, outputs, .. } => {
                            let dense = step.read_dense(dimensions)?;
                            dimensions = *outputs;
                            facts.push_str(&format!(" dense {} {}", activation.as_str(), dense.hash));
                            TailStep::Dense(Box::new(dense), *activation)
                        }
                    });
                }
                (Tail::Pool { modes: folder.pooling.clone(), width, steps }, dimensions)
            }
            _ => {
                return Err(wrong(format!(
                    "has an output {output} of {rank} axes and width {width:?}: 2 or 3 are known"
                )));
            }
        };
        let mut model = Self {
            source,
            inputs,
            output,
            tail,
            dimensions,
            truncate_dim: None,
            fixed_texts,
            fixed_tokens,
            one_text_per_batch: file.dynamic,
            padding_id,
            positions: folder.positions,
            facts,
        };
        model.set_truncate_dim(truncate_dim, folder)?;
        Ok(model)
    }

    fn set_truncate_dim(&mut self, truncate_dim: Option<usize>, folder: &ModelFolder) -> Result<()> {
        let Some(dimensions) = truncate_dim else { return Ok(()) };
        if dimensions == 0 || dimensions > self.dimensions {
            let message = format!("vectors of {} dimensions cannot be cut to {dimensions}", self.dimensions);
            return Err(Error::new(ErrorKind::Config, message));
        }
        let unit = matches!(folder.tail.last(), Some(TailModule::Normalize));
        self.truncate_dim = (dimensions < self.dimensions).then_some((dimensions, unit));
        self.dimensions = dimensions;
        Ok(())
    }

    /// Does what is left to do behind the graph; `None` where the output is not what was announced.
    pub(super) fn finish<'v>(
        &self,
        values: &'v [f32],
        sizes: &[usize],
        (texts, tokens): (usize, usize),
        rows: &[TokenRow<'_>],
    ) -> Option<Cow<'v, [f32]>> {
        let whole = self.truncate_dim.is_none() && matches!(self.tail, Tail::Nothing);
        if whole {
            let own = rows.len() * self.dimensions;
            return (*sizes == [texts, self.dimensions]).then(|| Cow::Borrowed(&values[..own]));
        }
        let mut out = Vec::with_capacity(rows.len() * self.dimensions);
        for (text, row) in rows.iter().enumerate() {
            let mut vector = match &self.tail {
                Tail::Pool { modes, width, steps } => {
                    if *sizes != [texts, tokens, *width] {
                        return None;
                    }
                    let hidden = &values[text * tokens * width..][..row.ids.len() * width];
                    let inside: Vec<bool> = (0..row.ids.len()).map(|at| at >= row.unpooled).collect();
                    let mut vector = Vec::new();
                    modes.iter().for_each(|mode| pooling::pool(*mode, hidden, *width, &inside, &mut vector));
                    for step in steps {
                        match step {
                            TailStep::Normalize => tail::normalize(&mut vector),
                            TailStep::Dense(dense, activation) => vector = tail::dense(dense, *activation, &vector),
                        }
                    }
                    vector
                }
                Tail::Nothing | Tail::Normalize => {
                    let [have, width] = *sizes else { return None };
                    if have != texts || width < self.dimensions {
                        return None;
                    }
                    let mut vector = values[text * width..(text + 1) * width].to_vec();
                    if matches!(self.tail, Tail::Normalize) {
                        tail::normalize(&mut vector);
                    }
                    vector
                }
            };
            if let Some((cut, unit)) = self.truncate_dim {
                vector.truncate(cut);
                if unit {
                    tail::normalize(&mut vector);
                }
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
    pub(super) fn session(&self, environment: &Environment, device: Device, profile: Option<&Path>) -> Result<Session> {
        // A graph built here has nothing in it that a card could not run.
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
            Self::Graph { bytes, weights, packed } => {
                // The graph is fused already, and where it is not, that is faster.
                let mut builder = step(builder.with_optimization_level(GraphOptimizationLevel::Level1))?;
                for (name, value) in weights {
                    builder = step(builder.with_external_initializer(name, Arc::clone(value)))?;
                    // Under its name a second time: the optimizer reads the one, the session runs on the other without
                    // a copy. A card has its own copy anyhow.
                    if device == Device::Cpu {
                        builder = step(builder.with_initializer(name, Arc::clone(value)))?;
                    }
                }
                if let Some(packed) = packed {
                    builder = step(builder.with_prepacked_weights(packed))?;
                }
                let message = "the graph built here is not taken by this ONNX Runtime".to_owned();
                builder.commit_from_memory(bytes).map_err(refused(message))
            }
        }
    }
}

/// Names of outputs that are vectors of texts.
const POOLED: [&str; 2] = ["sentence_embedding", "text_embeds"];

/// The output to take, by name and then by shape: its name, its axes, and its width where that is fixed.
fn output(outlets: &[Outlet]) -> Result<(String, usize, Option<usize>), String> {
    const NAMES: [&str; 4] = [POOLED[0], POOLED[1], "last_hidden_state", "token_embeddings"];
    let named = NAMES.iter().find_map(|name| outlets.iter().find(|outlet| outlet.name() == *name));
    let outlet = match (named, outlets) {
        (Some(outlet), _) | (None, [outlet]) => outlet,
        _ => {
            let names: Vec<&str> = outlets.iter().map(Outlet::name).collect();
            return Err(format!("has the outputs {}: none of {}", names.join(", "), NAMES.join(", ")));
        }
    };
    let ValueType::Tensor { shape, .. } = outlet.dtype() else {
        return Err(format!("has an output {} that is not a tensor", outlet.name()));
    };
    let width = shape.last().and_then(|&width| usize::try_from(width).ok()).filter(|&width| width > 0);
    Ok((outlet.name().to_owned(), shape.len(), width))
}
