//! Runs batches through a session: from memory of its own on a CPU, from pinned memory on a GPU.

use std::{borrow::Cow, sync::Arc};

use half::f16;
use ort::{
    environment::Environment,
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue, SessionOutputs},
    value::{DynValue, Tensor},
};

use super::{
    device::Device,
    graph,
    inputs::{Input, InputBuffer, InputNumber},
    model::{Model, Source},
    runtime_messages::{failed, says_out_of_memory},
    session::cuda,
    stages::{BatchFailure, RunBatch, TokenRow},
    tail::GraphOutput,
};
use crate::{Error, ErrorKind, Result};

/// A session of a model, and the memory that its batches are made in.
pub(super) struct Runner {
    model: Arc<Model>,
    pub(super) session: Session,
    pub(super) device: Device,
    options: RunOptions<HasSelectedOutputs>,
    buffers: Vec<InputBuffer>,
    pinned: Option<Pinned>,
}

/// Memory that a GPU reads and writes without a copy in between.
struct Pinned {
    inputs: Allocator,
    output: MemoryInfo<'static>,
}

impl Pinned {
    fn new(session: &Session, number: u16) -> Result<Self> {
        // Some versions of ONNX Runtime number a GPU's pinned memory as the GPU, others always 0.
        let numbered = Self::numbered(session, number);
        if number == 0 { numbered } else { numbered.or_else(|_| Self::numbered(session, 0)) }
    }

    fn numbered(session: &Session, number: u16) -> Result<Self> {
        let info = |kind| {
            MemoryInfo::new(AllocationDevice::CUDA_PINNED, number.into(), AllocatorType::Device, kind)
                .map_err(failed("pinned memory cannot be described"))
        };
        let inputs = Allocator::new(session, info(MemoryType::CPUInput)?);
        let inputs = inputs.map_err(failed("pinned memory cannot be allocated"))?;
        Ok(Self { inputs, output: info(MemoryType::CPUOutput)? })
    }

    /// Copies a buffer into a tensor in pinned memory.
    fn value(&self, buffer: &InputBuffer, shape: Vec<usize>) -> ort::Result<DynValue> {
        fn copied<N: InputNumber>(allocator: &Allocator, numbers: &[N], shape: Vec<usize>) -> ort::Result<DynValue> {
            let mut tensor = Tensor::<N>::new(allocator, shape)?;
            tensor.extract_tensor_mut().1.copy_from_slice(numbers);
            Ok(tensor.into_dyn())
        }
        match buffer {
            InputBuffer::Narrow(numbers) => copied(&self.inputs, numbers, shape),
            InputBuffer::Wide(numbers) => copied(&self.inputs, numbers, shape),
        }
    }
}

impl Runner {
    /// Makes a session with one thread on the shared weights, and runs it once on a GPU.
    pub(super) fn start(model: &Arc<Model>, environment: &Environment, device: Device) -> Result<Self> {
        let session = model.source.session(environment, device, None)?;
        let mut runner = Self::new(Arc::clone(model), session, device)?;
        // A library that a GPU needs may be missed only when a session first runs.
        if device != Device::Cpu {
            runner.warm_up().map_err(|failure| failure.error)?;
        }
        Ok(runner)
    }

    pub(super) fn new(model: Arc<Model>, session: Session, device: Device) -> Result<Self> {
        let options = RunOptions::new().map_err(failed("the run cannot be set up"))?;
        let options = options.with_outputs(OutputSelector::no_default().with(&model.output));
        let buffer =
            |input: &Input| if input.wide { InputBuffer::Wide(Vec::new()) } else { InputBuffer::Narrow(Vec::new()) };
        let buffers = model.inputs.iter().map(buffer).collect();
        let pinned = match device {
            Device::Cpu => None,
            Device::Cuda(number) => Some(Pinned::new(&session, number)?),
        };
        Ok(Self { model, session, device, options, buffers, pinned })
    }

    /// Runs two texts of unequal length, or as much of them as the model takes at once; their tokens do not matter.
    pub(super) fn warm_up(&mut self) -> Result<(), BatchFailure> {
        let model = &self.model;
        let longest = model.most_tokens().min(5);
        let ids = vec![model.padding_id; longest];
        let rows = [TokenRow { ids: &ids, unpooled: 0 }, TokenRow { ids: &ids[..longest.min(3)], unpooled: 0 }];
        let texts = model.most_texts().map_or(rows.len(), |most| most.min(rows.len()));
        self.run_two_texts(&rows[..texts], &mut |_| {})
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// Runs one or two short texts, with an error that says so.
    pub(super) fn run_two_texts(
        &mut self,
        rows: &[TokenRow<'_>],
        place: &mut dyn FnMut(&[f32]),
    ) -> Result<(), BatchFailure> {
        let device = self.device;
        self.run_on(rows, place, |error| match device {
            Device::Cpu => failed("the model failed on one or two short texts")(error),
            Device::Cuda(_) => cuda::unusable(device, error),
        })
    }

    fn run_on(
        &mut self,
        rows: &[TokenRow<'_>],
        place: &mut dyn FnMut(&[f32]),
        refused: impl Fn(ort::Error) -> Error,
    ) -> Result<(), BatchFailure> {
        let model = &*self.model;
        let texts = model.fixed_texts.unwrap_or(rows.len()).max(rows.len());
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0).max(1);
        let shape = [texts, model.fixed_tokens.unwrap_or_else(|| padded_tokens(model, longest, self.device))];
        for (input, buffer) in model.inputs.iter().zip(&mut self.buffers) {
            buffer.fill(input.role, rows, shape, model.padding_id);
        }
        let inputs = model.inputs.iter().zip(&self.buffers);
        let failure = |error: ort::Error| {
            let out_of_memory = says_out_of_memory(error.message());
            BatchFailure { error: refused(error), out_of_memory }
        };
        if let Some(pinned) = &self.pinned {
            // Each batch needs a new binding: a binding that is used again keeps the last batch's output.
            let bound = self.session.create_binding().and_then(|mut binding| {
                for (input, buffer) in inputs {
                    binding.bind_input(&input.name, &pinned.value(buffer, input.role.shape(shape))?)?;
                }
                binding.bind_output_to_device(&model.output, &pinned.output)?;
                Ok(binding)
            });
            let binding = bound.map_err(failure)?;
            let ran = self.session.run_binding(&binding).map_err(failure)?;
            return deliver(model, &ran, shape, rows, place);
        }
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(model.inputs.len() + 1);
        for (input, buffer) in inputs {
            values.push((Cow::Borrowed(&input.name), buffer.value(input.role.shape(shape))?));
        }
        values.extend(model.source.given().map(|(name, table)| (Cow::Borrowed(name.as_str()), table.into())));
        let outputs = self.session.run_with_options(values, &self.options).map_err(failure)?;
        deliver(model, &outputs, shape, rows, place)
    }
}

impl RunBatch for Runner {
    fn run_batch(&mut self, rows: &[TokenRow<'_>], place: &mut dyn FnMut(&[f32])) -> Result<(), BatchFailure> {
        self.run_on(rows, place, |error| failed("the model failed on a batch")(error))
    }
}

/// Gives a batch's vectors to `place`.
fn deliver(
    model: &Model,
    outputs: &SessionOutputs<'_>,
    shape: [usize; 2],
    rows: &[TokenRow<'_>],
    place: &mut dyn FnMut(&[f32]),
) -> Result<(), BatchFailure> {
    let output = outputs.get(&model.output);
    let output = output.ok_or_else(|| Error::new(ErrorKind::Inference, "the model returned no output"))?;
    let (sizes, values): (_, Cow<'_, [f32]>) = match output.try_extract_tensor::<f32>() {
        Ok((sizes, values)) => (sizes, Cow::Borrowed(values)),
        Err(_) => {
            let (sizes, values) =
                output.try_extract_tensor::<f16>().map_err(failed("the model's output is neither f32 nor f16"))?;
            (sizes, Cow::Owned(values.iter().map(|value| value.to_f32()).collect()))
        }
    };
    let sizes: Vec<usize> = sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
    let [texts, tokens] = shape;
    let vectors = model.vectors(GraphOutput { values: &values, sizes: &sizes, texts, tokens }, rows);
    let unknown = || {
        Error::new(
            ErrorKind::Inference,
            format!("the model's output has the shape {sizes:?}, which is not what the model announced"),
        )
    };
    place(&vectors.ok_or_else(unknown)?);
    Ok(())
}

/// Returns the tokens that rows are padded to on a GPU: a multiple of [`graph::STEP`], which its fast kernels need, but
/// no more than the model has positions for.
fn padded(longest: usize, positions: Option<usize>) -> usize {
    longest.next_multiple_of(graph::STEP).min(positions.unwrap_or(usize::MAX).max(longest))
}

/// Returns the tokens that the rows of a batch are padded to.
fn padded_tokens(model: &Model, longest: usize, device: Device) -> usize {
    // A file tells the length of a text and not of a row, so its rows are never made longer than the longest text.
    match (device, &model.source) {
        (Device::Cpu, _) | (_, Source::File(_)) => longest,
        (Device::Cuda(_), Source::Graph { .. }) => padded(longest, model.positions),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        numerics::cosine,
        provider::onnx::{library, model_folder::ModelFolder, weights::Weights},
    };

    #[test]
    fn rows_on_a_gpu_are_padded_to_eight_but_not_beyond_the_positions() {
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

    /// The graph for CUDA, as far as a CPU can tell. A CPU has no kernels for fp16, so the same graph runs in fp32
    /// between casts. It understands the input of attention on a GPU if there is one text.
    #[test]
    fn the_graph_for_cuda_gives_the_same_vectors() {
        let (_, environment) = library::load(None).expect("the library");
        for name in ["bert-cls", "bert-multi", "bert-dense", "bert-tanh", "xlm-roberta", "mpnet", "distilbert"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny").join(name);
            let mut folder = ModelFolder::read(&folder).expect("a folder");
            if name == "bert-tanh" {
                // It has no modules.json.
                folder.pooling = vec![crate::Pooling::Mean];
            }
            let vectors = |target| {
                let file = folder.transformer.join("model.safetensors");
                let mut weights = Weights::open(&file).expect("weights");
                let graph = graph::Graph::build(&folder, &mut weights, target).expect("a graph");
                let model = Arc::new(Model::of_graph(graph, &folder, 0).expect("a model"));
                let mut runner = Runner::start(&model, &environment, Device::Cpu).expect("a session");
                let mut vectors = Vec::new();
                for ids in [&[2_u32, 7, 9, 11, 3][..], &[2, 5, 3], &[2, 9, 9, 9, 30, 31, 12, 3]] {
                    let rows = [TokenRow { ids, unpooled: 1 }];
                    runner.run_batch(&rows, &mut |vector| vectors.push(vector.to_vec())).expect("runs");
                }
                vectors
            };
            for (narrow, wide) in vectors(graph::GraphTarget::Cuda).iter().zip(&vectors(graph::GraphTarget::Cpu)) {
                let cosine = cosine(narrow, wide);
                assert!(narrow.len() == wide.len() && cosine >= 0.9999, "{name}: {cosine}");
                assert_ne!(narrow, wide, "{name} is not in fp16");
            }
        }
    }
}
