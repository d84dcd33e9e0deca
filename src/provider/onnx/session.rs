//! Runs batches of token ids through ONNX Runtime.

use std::{borrow::Cow, sync::Arc};

use half::f16;
use ort::{
    environment::Environment,
    session::{
        OutputSelector, RunOptions, Session, SessionInputValue,
        builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder},
    },
    value::{DynValue, Outlet, Tensor, TensorElementType, ValueType},
};

use super::{
    folder::{Activation, Dense, Folder, Step, positions_after},
    graph::{self, Graph},
    model_file::ModelFile,
    pool,
};
use crate::{Error, ErrorKind, Pooling, Result};

/// A model that sessions can be made of, any number of them sharing its weights.
#[derive(Debug)]
pub(super) struct Model {
    source: Source,
    inputs: Vec<Input>,
    output: String,
    tail: Tail,
    pub(super) dimensions: usize,
    /// What the vectors are cut to after everything else, and whether they are scaled again then.
    cut: Option<(usize, bool)>,
    /// Sizes that the graph insists on.
    pub(super) fixed_texts: Option<usize>,
    pub(super) fixed_tokens: Option<usize>,
    /// Whether a vector depends on its batch-mates, so that each text needs a batch of its own.
    pub(super) alone: bool,
    pad: u32,
    /// What the vectors are made with behind the weights, in words, for the space's identity.
    pub(super) facts: String,
}

enum Source {
    /// A graph made here, the weights that go with it by name, and what sessions make of them.
    Graph {
        bytes: Vec<u8>,
        weights: Vec<(String, Arc<DynValue>)>,
        packed: PrepackedWeights,
    },
    File(std::path::PathBuf),
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

#[derive(Clone, Debug)]
struct Input {
    name: String,
    role: Role,
    wide: bool,
}

/// What an input of a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ids,
    Mask,
    /// The mask without the prompt's tokens.
    PoolingMask,
    /// Always 0: texts are not pairs.
    Types,
    /// 0, 1, 2, ..
    Places,
    /// Numbered from behind this padding id, which other tokens of the same id do not advance.
    PlacesAfter(u32),
}

/// What is left to do behind the graph.
#[derive(Debug)]
enum Tail {
    /// The graph gives the vector.
    Nothing,
    /// The graph gives a vector that has to be unit length.
    Normalize,
    /// The graph gives a vector a token.
    Pool { modes: Vec<Pooling>, width: usize, steps: Vec<TailStep> },
}

#[derive(Debug)]
enum TailStep {
    Dense(Box<Dense>, Activation),
    Normalize,
}

/// Texts of one batch: ids, and how many of them at the beginning do not take part in pooling.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    pub(super) ids: &'a [&'a [u32]],
    pub(super) unpooled: usize,
}

fn failed(what: &str) -> impl FnOnce(ort::Error) -> Error {
    move |error| Error::new(ErrorKind::Inference, what).with_source(error)
}

impl Model {
    /// Takes a graph that was built here.
    pub(super) fn of_graph(graph: Graph, folder: &Folder, cut: Option<usize>, pad: u32) -> Result<Self> {
        let mut weights = Vec::with_capacity(graph.weights.len());
        for (name, tensor) in graph.weights {
            let value =
                Tensor::from_array((tensor.shape, tensor.data)).map_err(failed("weights cannot be handed over"))?;
            weights.push((name, Arc::new(value.into_dyn())));
        }
        let input = |name: &str, role| Input { name: name.to_owned(), role, wide: false };
        let mut inputs = vec![input(graph::IDS, Role::Ids), input(graph::MASK, Role::Mask)];
        inputs.extend((!folder.pool_prompt).then(|| input(graph::POOLING_MASK, Role::PoolingMask)));
        inputs.extend(graph.positions_after.map(|pad| input(graph::POSITIONS, Role::PlacesAfter(pad))));
        let mut model = Self {
            source: Source::Graph { bytes: graph.model, weights, packed: PrepackedWeights::new() },
            inputs,
            output: graph::OUTPUT.to_owned(),
            tail: Tail::Nothing,
            dimensions: graph.dimensions,
            cut: None,
            fixed_texts: None,
            fixed_tokens: None,
            alone: false,
            pad,
            facts: graph.facts,
        };
        model.cut_to(cut, folder)?;
        Ok(model)
    }

    /// Takes a file as it is: finds out, with a session, what it wants and gives.
    pub(super) fn of_file(
        file: &ModelFile,
        folder: &Folder,
        environment: &Environment,
        cut: Option<usize>,
        pad: u32,
    ) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Config, format!("{} {message}", file.path.display()));
        let source = Source::File(file.path.clone());
        let session = source.session(environment)?;
        let mut inputs = Vec::new();
        let after = positions_after(&folder.config)?;
        let (mut fixed_texts, mut fixed_tokens) = (None, None);
        for outlet in session.inputs() {
            let role = match outlet.name() {
                "input_ids" => Role::Ids,
                "attention_mask" => Role::Mask,
                "token_type_ids" => Role::Types,
                "position_ids" => after.map_or(Role::Places, |pad| Role::PlacesAfter(pad as u32)),
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
        if inputs.iter().all(|input| input.role != Role::Ids) {
            return Err(wrong("has no input input_ids".into()));
        }
        let (output, rank, width) = output(session.outputs()).map_err(&wrong)?;
        if rank == 2 {
            // What is left of the folder's pipeline must be in the file, or the vectors are not what the folder says.
            let dense = folder.tail.iter().rev().find_map(|step| match step {
                Step::Dense { outputs, .. } => Some(*outputs),
                Step::Normalize => None,
            });
            let whole = POOLED.contains(&output.as_str()) && dense.is_none_or(|outputs| width == Some(outputs));
            if !whole || !folder.pool_prompt {
                return Err(wrong(format!(
                    "has a pooled output {output}, which may not be all that the folder describes"
                )));
            }
        }
        let normalizes = folder.tail.iter().any(|step| matches!(step, Step::Normalize));
        let mut facts = output.clone();
        let (tail, dimensions) = match (rank, width) {
            (2, Some(width)) if normalizes => (Tail::Normalize, width),
            (2, Some(width)) => (Tail::Nothing, width),
            (3, Some(width)) => {
                let mut dimensions = width * folder.pooling.len();
                let mut steps = Vec::new();
                for step in &folder.tail {
                    steps.push(match step {
                        Step::Normalize => {
                            facts.push_str(" normalize");
                            TailStep::Normalize
                        }
                        Step::Dense { activation, outputs, .. } => {
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
            cut: None,
            fixed_texts,
            fixed_tokens,
            alone: file.dynamic,
            pad,
            facts,
        };
        model.cut_to(cut, folder)?;
        Ok(model)
    }

    fn cut_to(&mut self, cut: Option<usize>, folder: &Folder) -> Result<()> {
        let Some(cut) = cut else { return Ok(()) };
        if cut == 0 || cut > self.dimensions {
            let message = format!("vectors of {} dimensions cannot be cut to {cut}", self.dimensions);
            return Err(Error::new(ErrorKind::Config, message));
        }
        let unit = matches!(folder.tail.last(), Some(Step::Normalize));
        self.cut = (cut < self.dimensions).then_some((cut, unit));
        self.dimensions = cut;
        Ok(())
    }

    /// Makes a session of its own, with one thread, on the shared weights.
    pub(super) fn session(&self, environment: &Environment) -> Result<Session> {
        self.source.session(environment)
    }

    /// Gives the vectors of a batch, row after row.
    pub(super) fn run(&self, session: &mut Session, rows: &Rows<'_>) -> Result<Vec<f32>> {
        let texts = self.fixed_texts.unwrap_or(rows.ids.len()).max(rows.ids.len());
        let longest = rows.ids.iter().map(|ids| ids.len()).max().unwrap_or(0).max(1);
        let tokens = self.fixed_tokens.unwrap_or(longest);
        let shape = [texts, tokens];
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let mut numbers = vec![if input.role == Role::Ids { i64::from(self.pad) } else { 0 }; texts * tokens];
            for (row, ids) in numbers.chunks_exact_mut(tokens).zip(rows.ids) {
                input.role.fill(row, ids, rows.unpooled);
            }
            let value: SessionInputValue<'_> = if input.wide {
                Tensor::from_array((shape, numbers)).map_err(failed("the batch cannot be handed over"))?.into()
            } else {
                let numbers: Vec<i32> = numbers.into_iter().map(|number| number as i32).collect();
                Tensor::from_array((shape, numbers)).map_err(failed("the batch cannot be handed over"))?.into()
            };
            values.push((Cow::Borrowed(&input.name), value));
        }
        let options = RunOptions::new().map_err(failed("the run cannot be set up"))?;
        let options = options.with_outputs(OutputSelector::no_default().with(&self.output));
        let outputs = session.run_with_options(values, &options).map_err(failed("the model failed on a batch"))?;
        let output = outputs.get(&self.output);
        let output = output.ok_or_else(|| Error::new(ErrorKind::Inference, "the model gave no output"))?;
        let (shape, values): (_, Cow<'_, [f32]>) = match output.try_extract_tensor::<f32>() {
            Ok((shape, values)) => (shape, Cow::Borrowed(values)),
            Err(_) => {
                let (shape, values) =
                    output.try_extract_tensor::<f16>().map_err(failed("the model's output is neither f32 nor f16"))?;
                (shape, Cow::Owned(values.iter().map(|value| value.to_f32()).collect()))
            }
        };
        let sizes: Vec<usize> = shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
        let vectors = self.finish(&values, &sizes, (texts, tokens), rows);
        vectors.ok_or_else(|| Error::new(ErrorKind::Inference, format!("the model's output has the shape {sizes:?}")))
    }

    /// Does what is left to do behind the graph; `None` where the output is not what was announced.
    fn finish(
        &self,
        values: &[f32],
        sizes: &[usize],
        (texts, tokens): (usize, usize),
        rows: &Rows<'_>,
    ) -> Option<Vec<f32>> {
        let count = rows.ids.len();
        let whole = self.cut.is_none() && matches!(self.tail, Tail::Nothing);
        if whole {
            return (*sizes == [texts, self.dimensions]).then(|| values[..count * self.dimensions].to_vec());
        }
        let mut out = Vec::with_capacity(count * self.dimensions);
        for (text, ids) in rows.ids.iter().enumerate() {
            let mut vector = match &self.tail {
                Tail::Pool { modes, width, steps } => {
                    if *sizes != [texts, tokens, *width] {
                        return None;
                    }
                    let hidden = &values[text * tokens * width..][..ids.len() * width];
                    let inside: Vec<bool> = (0..ids.len()).map(|at| at >= rows.unpooled).collect();
                    let mut vector = Vec::new();
                    modes.iter().for_each(|mode| pool::pool(*mode, hidden, *width, &inside, &mut vector));
                    for step in steps {
                        match step {
                            TailStep::Normalize => pool::normalize(&mut vector),
                            TailStep::Dense(dense, activation) => vector = pool::dense(dense, *activation, &vector),
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
                        pool::normalize(&mut vector);
                    }
                    vector
                }
            };
            if let Some((cut, unit)) = self.cut {
                vector.truncate(cut);
                if unit {
                    pool::normalize(&mut vector);
                }
            }
            if vector.len() != self.dimensions {
                return None;
            }
            out.extend_from_slice(&vector);
        }
        Some(out)
    }
}

impl Role {
    /// Fills one text's row, whose padding is there already.
    fn fill(self, row: &mut [i64], ids: &[u32], unpooled: usize) {
        let mut seen = 0;
        for (at, (slot, &id)) in row.iter_mut().zip(ids).enumerate() {
            *slot = match self {
                Self::Ids => i64::from(id),
                Self::Mask => 1,
                Self::PoolingMask => i64::from(at >= unpooled),
                Self::Types => 0,
                Self::Places => at as i64,
                Self::PlacesAfter(pad) if id == pad => i64::from(pad),
                Self::PlacesAfter(pad) => {
                    seen += 1;
                    i64::from(pad) + seen
                }
            };
        }
    }
}

impl Source {
    fn session(&self, environment: &Environment) -> Result<Session> {
        let what = "a session cannot be set up";
        let step = |built: ort::session::builder::BuilderResult| built.map_err(|error| failed(what)(error.into()));
        let builder = SessionBuilder::new(environment).map_err(failed(what))?;
        let builder = step(builder.with_intra_threads(1))?;
        let builder = step(builder.with_inter_threads(1))?;
        match self {
            Self::File(path) => {
                let mut builder = step(builder.with_optimization_level(GraphOptimizationLevel::All))?;
                let message = format!("{} cannot be loaded by ONNX Runtime", path.display());
                builder
                    .commit_from_file(path)
                    .map_err(|error| Error::new(ErrorKind::Config, message).with_source(error))
            }
            Self::Graph { bytes, weights, packed } => {
                // The graph is fused already.
                let mut builder = step(builder.with_optimization_level(GraphOptimizationLevel::Level1))?;
                // Under its name twice: the optimiser reads the one, the session runs on the other without a copy, and
                // what it packs for its matrix products goes into the container that all sessions use.
                for (name, value) in weights {
                    builder = step(builder.with_external_initializer(name, Arc::clone(value)))?;
                    builder = step(builder.with_initializer(name, Arc::clone(value)))?;
                }
                builder = step(builder.with_prepacked_weights(packed))?;
                builder
                    .commit_from_memory(bytes)
                    .map_err(failed("the graph built here is not taken by this ONNX Runtime"))
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
