//! Runs batches of token ids through ONNX Runtime: models, and the sessions made of them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use half::f16;
use ort::{
    environment::Environment,
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{
        HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue, SessionOutputs,
        builder::{BuilderResult, GraphOptimizationLevel, PrepackedWeights},
    },
    value::{DynValue, Outlet, PrimitiveTensorElementType, Tensor, TensorElementType, TensorRef, ValueType},
};

use super::{
    device::{self, Device},
    folder::{Activation, Dense, Folder, Step, positions_after},
    graph::{self, Graph, Numbers, Shared},
    model_file::ModelFile,
    pool,
    scheduler::{Failure, Row, Run},
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
    /// Tokens of a text that the model has positions for.
    positions: Option<usize>,
    /// What the vectors are made with behind the weights, in words, for the space's identity.
    pub(super) facts: String,
}

enum Source {
    /// A graph made here, the weights that go with it by name, and what sessions pack them into for matrix products,
    /// which they share where they can.
    Graph {
        bytes: Vec<u8>,
        weights: Vec<(String, Arc<DynValue>)>,
        packed: Option<PrepackedWeights>,
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
    /// See [`graph::SEGMENTS`].
    Segments,
    /// See [`graph::ENDS`].
    Ends,
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

fn failed(what: &str) -> impl FnOnce(ort::Error) -> Error {
    move |error| Error::new(ErrorKind::Inference, what).with_source(error)
}

impl Model {
    /// Takes a graph that was built here.
    pub(super) fn of_graph(graph: Graph, folder: &Folder, cut: Option<usize>, pad: u32) -> Result<Self> {
        let mut weights = Vec::with_capacity(graph.weights.len());
        // fp16 is for cards, which pack nothing; on a CPU some operators would, in a way that cannot be shared.
        let narrow = graph.weights.iter().any(|(_, weights)| matches!(weights.data, Numbers::F16(_)));
        let packed = (!narrow).then(PrepackedWeights::new);
        for (name, Shared { shape, data }) in graph.weights {
            let value = match data {
                Numbers::F32(data) => Tensor::from_array((shape, data)).map(Tensor::into_dyn),
                Numbers::F16(data) => Tensor::from_array((shape, data)).map(Tensor::into_dyn),
                Numbers::I8(data) => Tensor::from_array((shape, data)).map(Tensor::into_dyn),
            };
            weights.push((name, Arc::new(value.map_err(failed("weights cannot be handed over"))?)));
        }
        let input = |&name: &&str| {
            let role = match name {
                graph::MASK => Role::Mask,
                graph::SEGMENTS => Role::Segments,
                graph::POOLING_MASK => Role::PoolingMask,
                graph::POSITIONS => graph.positions_after.map_or(Role::Places, Role::PlacesAfter),
                graph::ENDS => Role::Ends,
                _ => Role::Ids,
            };
            Input { name: name.to_owned(), role, wide: role == Role::Ends }
        };
        let inputs = graph.inputs.iter().map(input).collect();
        let mut model = Self {
            source: Source::Graph { bytes: graph.model, weights, packed },
            inputs,
            output: graph::OUTPUT.to_owned(),
            tail: Tail::Nothing,
            dimensions: graph.dimensions,
            cut: None,
            fixed_texts: None,
            fixed_tokens: None,
            alone: false,
            pad,
            positions: folder.positions,
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
        device: Device,
        cut: Option<usize>,
        pad: u32,
    ) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Config, format!("{} {message}", file.path.display()));
        let source = Source::File(file.path.clone());
        let session = source.session(environment, device, None)?;
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
            positions: folder.positions,
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

    /// Makes a session, with one thread, on the shared weights.
    pub(super) fn runner(self: &Arc<Self>, environment: &Environment, device: Device) -> Result<Runner> {
        let session = self.source.session(environment, device, None)?;
        let mut runner = Runner::new(Arc::clone(self), session, device)?;
        // Some of what a card needs is only missed when it is first used.
        if device != Device::Cpu {
            runner.warm_up().map_err(|failure| failure.error)?;
        }
        Ok(runner)
    }

    /// Runs two short texts and tells how many of the graph's nodes each of ONNX Runtime's providers ran.
    pub(super) fn placement(self: &Arc<Self>, environment: &Environment, device: Device) -> Result<Vec<NodeShare>> {
        let profile = Profile::new()?;
        let session = self.source.session(environment, device, Some(&profile.0.join("run")))?;
        let mut runner = Runner::new(Arc::clone(self), session, device)?;
        runner.warm_up().map_err(|failure| failure.error)?;
        let file = runner.session.end_profiling().map_err(failed("the profile cannot be written"))?;
        let unread = |why: String| Error::new(ErrorKind::Inference, format!("the profile {file} {why}"));
        let bytes = fs::read(&file).map_err(|error| unread("cannot be read".into()).with_source(error))?;
        shares(&bytes).ok_or_else(|| unread("is not what this ONNX Runtime is known to write".into()))
    }

    /// What the rows of a batch are padded to.
    fn tokens_a_row(&self, longest: usize, device: Device) -> usize {
        // How long a row a file takes is only known of what it says of texts.
        match (device, &self.source) {
            (Device::Cpu, _) | (_, Source::File(_)) => longest,
            (Device::Cuda(_), Source::Graph { .. }) => padded(longest, self.positions),
        }
    }

    /// Does what is left to do behind the graph; `None` where the output is not what was announced.
    fn finish<'v>(
        &self,
        values: &'v [f32],
        sizes: &[usize],
        (texts, tokens): (usize, usize),
        rows: &[Row<'_>],
    ) -> Option<Cow<'v, [f32]>> {
        let whole = self.cut.is_none() && matches!(self.tail, Tail::Nothing);
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
        Some(Cow::Owned(out))
    }
}

impl Role {
    /// The shape of the input for a batch of texts by tokens.
    fn shape(self, [texts, tokens]: [usize; 2]) -> Vec<usize> {
        match self {
            Self::Segments => vec![3 * texts + 2],
            Self::Ends => vec![2],
            _ => vec![texts, tokens],
        }
    }

    /// Fills the whole input.
    fn fill<N: Number>(self, buffer: &mut Vec<N>, rows: &[Row<'_>], [texts, tokens]: [usize; 2], pad: u32) {
        buffer.clear();
        match self {
            Self::Ends => buffer.extend([N::from_u32(tokens as u32); 2]),
            Self::Segments => {
                // The lengths; then where the texts begin as queries, with the end; then the same as keys.
                let lengths = rows.iter().map(|row| row.ids.len()).chain(std::iter::repeat(0)).take(texts);
                let starts = || (0..=texts).map(|text| text * tokens);
                buffer.extend(lengths.chain(starts()).chain(starts()).map(|number| N::from_u32(number as u32)));
            }
            _ => {
                buffer.resize(texts * tokens, N::from_u32(if self == Self::Ids { pad } else { 0 }));
                buffer.chunks_exact_mut(tokens).zip(rows).for_each(|(slots, row)| self.fill_row(slots, row));
            }
        }
    }

    /// Fills one text's row, whose padding is there already.
    fn fill_row<N: Number>(self, slots: &mut [N], row: &Row<'_>) {
        let mut seen = 0;
        for (at, (slot, &id)) in slots.iter_mut().zip(row.ids).enumerate() {
            *slot = N::from_u32(match self {
                Self::Ids => id,
                Self::Mask => 1,
                Self::PoolingMask => u32::from(at >= row.unpooled),
                // Those two are not by texts and tokens, and not filled here.
                Self::Types | Self::Segments | Self::Ends => 0,
                Self::Places => at as u32,
                Self::PlacesAfter(pad) if id == pad => pad,
                Self::PlacesAfter(pad) => {
                    seen += 1;
                    pad + seen
                }
            });
        }
    }
}

/// What graphs take ids as.
trait Number: PrimitiveTensorElementType + Copy + std::fmt::Debug {
    fn from_u32(number: u32) -> Self;
}

impl Number for i32 {
    fn from_u32(number: u32) -> Self {
        number as Self
    }
}

impl Number for i64 {
    fn from_u32(number: u32) -> Self {
        number.into()
    }
}

/// The memory of one input, kept from batch to batch.
#[derive(Debug)]
enum Buffer {
    Narrow(Vec<i32>),
    Wide(Vec<i64>),
}

impl Buffer {
    fn fill(&mut self, role: Role, rows: &[Row<'_>], shape: [usize; 2], pad: u32) {
        match self {
            Self::Narrow(buffer) => role.fill(buffer, rows, shape, pad),
            Self::Wide(buffer) => role.fill(buffer, rows, shape, pad),
        }
    }

    fn value(&self, shape: Vec<usize>) -> Result<SessionInputValue<'_>> {
        let what = "the batch cannot be handed over";
        Ok(match self {
            Self::Narrow(buffer) => TensorRef::from_array_view((shape, &buffer[..])).map_err(failed(what))?.into(),
            Self::Wide(buffer) => TensorRef::from_array_view((shape, &buffer[..])).map_err(failed(what))?.into(),
        })
    }
}

/// How many of a model's nodes ran on a provider of ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeShare {
    /// The provider, by ONNX Runtime's name: `CPUExecutionProvider`, `CUDAExecutionProvider`.
    pub provider: String,
    /// Nodes of the graph as it is run.
    pub nodes: usize,
}

/// Reads out of a profile which provider ran how many nodes.
fn shares(profile: &[u8]) -> Option<Vec<NodeShare>> {
    let events: serde_json::Value = serde_json::from_slice(profile).ok()?;
    let mut nodes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in events.as_array()?.iter().filter(|event| event["cat"] == "Node") {
        let (Some(name), Some(provider)) = (event["name"].as_str(), event["args"]["provider"].as_str()) else {
            continue;
        };
        if let Some(name) = name.strip_suffix("_kernel_time") {
            nodes.entry(provider).or_default().insert(name);
        }
    }
    let share =
        |(provider, names): (&str, BTreeSet<&str>)| NodeShare { provider: provider.to_owned(), nodes: names.len() };
    Some(nodes.into_iter().map(share).collect())
}

/// A folder for a profile, gone when dropped.
struct Profile(PathBuf);

impl Profile {
    fn new() -> Result<Self> {
        let name = format!("docvector-embed-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).map_err(|error| {
            let message = format!("the folder {} for a profile cannot be made", folder.display());
            Error::new(ErrorKind::Config, message).with_source(error)
        })?;
        Ok(Self(folder))
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // It lies among other temporary files: what cannot be removed does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A session of a model, and what its batches are made in.
pub(super) struct Runner {
    model: Arc<Model>,
    session: Session,
    device: Device,
    options: RunOptions<HasSelectedOutputs>,
    buffers: Vec<Buffer>,
    pinned: Option<Pinned>,
}

/// Memory that a card reads and writes without a copy in between.
struct Pinned {
    inputs: Allocator,
    output: MemoryInfo<'static>,
}

impl Pinned {
    fn new(session: &Session, number: u16) -> Result<Self> {
        let info = |kind| {
            MemoryInfo::new(AllocationDevice::CUDA_PINNED, number.into(), AllocatorType::Device, kind)
                .map_err(failed("pinned memory cannot be described"))
        };
        let inputs = Allocator::new(session, info(MemoryType::CPUInput)?);
        let inputs = inputs.map_err(failed("pinned memory cannot be had"))?;
        Ok(Self { inputs, output: info(MemoryType::CPUOutput)? })
    }

    /// A tensor like this one in pinned memory.
    fn value(&self, buffer: &Buffer, shape: Vec<usize>) -> ort::Result<DynValue> {
        fn copied<N: Number>(allocator: &Allocator, numbers: &[N], shape: Vec<usize>) -> ort::Result<DynValue> {
            let mut tensor = Tensor::<N>::new(allocator, shape)?;
            tensor.extract_tensor_mut().1.copy_from_slice(numbers);
            Ok(tensor.into_dyn())
        }
        match buffer {
            Buffer::Narrow(numbers) => copied(&self.inputs, numbers, shape),
            Buffer::Wide(numbers) => copied(&self.inputs, numbers, shape),
        }
    }
}

impl Runner {
    fn new(model: Arc<Model>, session: Session, device: Device) -> Result<Self> {
        let options = RunOptions::new().map_err(failed("the run cannot be set up"))?;
        let options = options.with_outputs(OutputSelector::no_default().with(&model.output));
        let buffer = |input: &Input| if input.wide { Buffer::Wide(Vec::new()) } else { Buffer::Narrow(Vec::new()) };
        let buffers = model.inputs.iter().map(buffer).collect();
        let pinned = match device {
            Device::Cpu => None,
            Device::Cuda(number) => Some(Pinned::new(&session, number)?),
        };
        Ok(Self { model, session, device, options, buffers, pinned })
    }

    /// Runs two texts of unequal length, whose words do not matter.
    fn warm_up(&mut self) -> Result<(), Failure> {
        let ids = [self.model.pad; 5];
        let rows = [Row { ids: &ids, unpooled: 0 }, Row { ids: &ids[..3], unpooled: 0 }];
        let (device, rows) = (self.device, if self.model.alone { &rows[..1] } else { &rows[..] });
        self.run_on(rows, &mut |_| {}, |error| match device {
            Device::Cpu => failed("the model failed on two short texts")(error),
            Device::Cuda(_) => device::cuda::unusable(device, error),
        })
    }

    fn run_on(
        &mut self,
        rows: &[Row<'_>],
        take: &mut dyn FnMut(&[f32]),
        refused: impl Fn(ort::Error) -> Error,
    ) -> Result<(), Failure> {
        let model = &*self.model;
        let texts = model.fixed_texts.unwrap_or(rows.len()).max(rows.len());
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0).max(1);
        let shape = [texts, model.fixed_tokens.unwrap_or_else(|| model.tokens_a_row(longest, self.device))];
        for (input, buffer) in model.inputs.iter().zip(&mut self.buffers) {
            buffer.fill(input.role, rows, shape, model.pad);
        }
        let inputs = model.inputs.iter().zip(&self.buffers);
        let failure = |error: ort::Error| {
            let out_of_memory = says_out_of_memory(error.message());
            Failure { error: refused(error), out_of_memory }
        };
        let outputs = if let Some(pinned) = &self.pinned {
            // Made anew for each batch: one that is used again would keep the last batch's output.
            let bound = self.session.create_binding().and_then(|mut binding| {
                for (input, buffer) in inputs {
                    binding.bind_input(&input.name, &pinned.value(buffer, input.role.shape(shape))?)?;
                }
                binding.bind_output_to_device(&model.output, &pinned.output)?;
                Ok(binding)
            });
            let binding = bound.map_err(failure)?;
            let ran = self.session.run_binding(&binding).map_err(failure)?;
            return deliver(model, &ran, shape, rows, take);
        } else {
            let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(model.inputs.len());
            for (input, buffer) in inputs {
                values.push((Cow::Borrowed(&input.name), buffer.value(input.role.shape(shape))?));
            }
            self.session.run_with_options(values, &self.options).map_err(failure)?
        };
        deliver(model, &outputs, shape, rows, take)
    }
}

impl Run for Runner {
    fn run(&mut self, rows: &[Row<'_>], take: &mut dyn FnMut(&[f32])) -> Result<(), Failure> {
        self.run_on(rows, take, |error| failed("the model failed on a batch")(error))
    }
}

/// Gives a batch's vectors to `take`.
fn deliver(
    model: &Model,
    outputs: &SessionOutputs<'_>,
    shape: [usize; 2],
    rows: &[Row<'_>],
    take: &mut dyn FnMut(&[f32]),
) -> Result<(), Failure> {
    let output = outputs.get(&model.output);
    let output = output.ok_or_else(|| Error::new(ErrorKind::Inference, "the model gave no output"))?;
    let (sizes, values): (_, Cow<'_, [f32]>) = match output.try_extract_tensor::<f32>() {
        Ok((sizes, values)) => (sizes, Cow::Borrowed(values)),
        Err(_) => {
            let (sizes, values) =
                output.try_extract_tensor::<f16>().map_err(failed("the model's output is neither f32 nor f16"))?;
            (sizes, Cow::Owned(values.iter().map(|value| value.to_f32()).collect()))
        }
    };
    let sizes: Vec<usize> = sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
    let vectors = model.finish(&values, &sizes, (shape[0], shape[1]), rows);
    let unknown = || Error::new(ErrorKind::Inference, format!("the model's output has the shape {sizes:?}"));
    take(&vectors.ok_or_else(unknown)?);
    Ok(())
}

/// What rows are padded to for the fast kernels of cards, which want a multiple of that; but to no more than the model
/// has positions for.
fn padded(longest: usize, positions: Option<usize>) -> usize {
    longest.next_multiple_of(graph::STEP).min(positions.unwrap_or(usize::MAX).max(longest))
}

/// Whether the runtime had too little memory for a batch, so that a smaller one may do. It has no code for that: these
/// are the words of its arena, of CUDA, and of the libraries on it.
pub(super) fn says_out_of_memory(message: &str) -> bool {
    const SIGNS: [&str; 9] = [
        "Failed to allocate memory for requested buffer of size",
        "is smaller than requested bytes of",
        "CUDA failure 2:",
        "cudaErrorMemoryAllocation",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "out of memory",
        "bad_alloc",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

impl Source {
    fn session(&self, environment: &Environment, device: Device, profile: Option<&Path>) -> Result<Session> {
        let what = "a session cannot be set up";
        let step = |built: BuilderResult| built.map_err(|error| failed(what)(error.into()));
        // A graph built here has nothing in it that a card could not run.
        let mut builder = device.session(environment, matches!(self, Self::Graph { .. }))?;
        if let Some(profile) = profile {
            builder = step(builder.with_profiling(profile))?;
        }
        let refused = |message: String| {
            move |error: ort::Error| match device {
                Device::Cpu => Error::new(ErrorKind::Config, message).with_source(error),
                Device::Cuda(_) => device::cuda::unusable(device, error),
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
                    // Under its name a second time: the optimiser reads the one, the session runs on the other without
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_running_out_of_memory() {
        for message in [
            "Non-zero status code returned while running EmbedLayerNormalization node. Name:'x' Status Message: \
             BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 3221225472",
            "Available memory of 41712640 is smaller than requested bytes of 3221225472",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
            "CUDA failure 2: out of memory ; GPU=0",
            "Exception during initialization: std::bad_alloc",
        ] {
            assert!(says_out_of_memory(message), "{message}");
        }
        for message in [
            "CUDA failure 700: an illegal memory access was encountered",
            "CUDA failure 20: x",
            "Got invalid dimensions for input: input_ids",
            "cuDNN is unavailable for CUDA Execution Provider",
        ] {
            assert!(!says_out_of_memory(message), "{message}");
        }
    }

    #[test]
    fn reads_shares_out_of_a_profile() {
        let event = |name: &str, category: &str, provider: &str| {
            format!(r#"{{"cat":"{category}","name":"{name}","args":{{"provider":"{provider}"}}}}"#)
        };
        let events = [
            event("a_kernel_time", "Node", "CPUExecutionProvider"),
            event("a_kernel_time", "Node", "CPUExecutionProvider"),
            event("a_fence_before", "Node", "CPUExecutionProvider"),
            event("b_kernel_time", "Node", "CUDAExecutionProvider"),
            event("c_kernel_time", "Node", "CPUExecutionProvider"),
            event("model_run", "Session", ""),
        ];
        let shares = shares(format!("[{}]", events.join(",")).as_bytes()).expect("a profile");
        let shares: Vec<_> = shares.iter().map(|share| (share.provider.as_str(), share.nodes)).collect();
        assert_eq!(shares, [("CPUExecutionProvider", 2), ("CUDAExecutionProvider", 1)]);
        assert_eq!(super::shares(b"{"), None);
    }

    #[test]
    fn rows_on_a_card_are_padded_to_eight_but_not_beyond_the_positions() {
        for (longest, positions, tokens) in [
            (1, Some(512), 8),
            (8, Some(512), 8),
            (9, Some(512), 16),
            (509, Some(512), 512),
            (512, Some(512), 512),
            (509, Some(510), 510),
            (510, Some(510), 510),
            (9, None, 16),
        ] {
            assert_eq!(padded(longest, positions), tokens, "{longest} of {positions:?}");
        }
    }

    #[test]
    fn fills_what_attention_on_a_card_takes() {
        let rows = [Row { ids: &[7, 8, 9], unpooled: 0 }, Row { ids: &[7], unpooled: 0 }];
        let (mut segments, mut ends, mut mask) = (Vec::<i32>::new(), Vec::<i64>::new(), Vec::<i32>::new());
        Role::Segments.fill(&mut segments, &rows, [2, 8], 0);
        assert_eq!(segments, [3, 1, 0, 8, 16, 0, 8, 16]);
        assert_eq!(Role::Segments.shape([2, 8]), [segments.len()]);
        Role::Ends.fill(&mut ends, &rows, [2, 8], 0);
        assert_eq!(ends, [8, 8]);
        Role::Mask.fill(&mut mask, &rows, [2, 4], 0);
        assert_eq!(mask, [1, 1, 1, 0, 1, 0, 0, 0]);
    }

    /// The form for CUDA, as far as a CPU can tell: it has no kernels for fp16, so the same graph runs in fp32 between
    /// casts; and it understands what attention on a card takes where there is one text.
    #[test]
    fn the_form_for_cuda_gives_the_same_vectors() {
        let (_, environment) = super::super::library::load(None, None).expect("the library");
        for name in ["bert-cls", "bert-multi", "bert-dense", "bert-tanh", "xlm-roberta", "mpnet", "distilbert"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny").join(name);
            let folder = Folder::read(&folder).expect("a folder");
            let vectors = |form| {
                let file = folder.transformer.join("model.safetensors");
                let mut weights = super::super::weights::Weights::open(&file).expect("weights");
                let graph = Graph::build(&folder, &mut weights, form).expect("a graph");
                let model = Arc::new(Model::of_graph(graph, &folder, None, 0).expect("a model"));
                let mut runner = model.runner(&environment, Device::Cpu).expect("a session");
                let mut vectors = Vec::new();
                for ids in [&[2_u32, 7, 9, 11, 3][..], &[2, 5, 3], &[2, 9, 9, 9, 30, 31, 12, 3]] {
                    let rows = [Row { ids, unpooled: 1 }];
                    runner.run(&rows, &mut |vector| vectors.push(vector.to_vec())).expect("runs");
                }
                vectors
            };
            for (narrow, wide) in vectors(graph::Form::Cuda).iter().zip(&vectors(graph::Form::Cpu)) {
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                let cosine = dot(narrow, wide) / (dot(narrow, narrow) * dot(wide, wide)).sqrt();
                assert!(narrow.len() == wide.len() && cosine >= 0.9999, "{name}: {cosine}");
                assert_ne!(narrow, wide, "{name} is not in fp16");
            }
        }
    }
}
