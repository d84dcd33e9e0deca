//! Checks, when a model is loaded, whether a text's vector depends on the other texts of its batch.

use std::{error::Error as _, path::Path, sync::Arc};

use ort::session::Session;

use super::{
    device::Device,
    json_file::config,
    model::Model,
    onnx_file::Rounding,
    runner::Runner,
    stages::{BatchFailure, ReadSoFar, TokenRow, Tokenize},
};
use crate::{Error, ErrorKind, InputKind, Result, Truncation, numerics::cosine, telemetry};

/// A short text, and a longer one of other words, so that both lengths and numbers of a batch differ.
const TEXTS: [&str; 2] = ["owl", "Rust 1.92 (2025): 3 < 4, but #[cfg(test)] needs 17 more commas, Élodie said; why?"];

/// Returns the least cosine of a text's vector alone to the same among others. The sums of a batch of another size
/// differ in their last bit, and rounding magnifies this.
const fn least_cosine(rounding: Rounding, device: Device) -> f64 {
    match (rounding, device) {
        // Files that quantize their inputs with fixed scales were at 0.998.
        (Rounding::EightBits, _) => 0.995,
        (Rounding::Full, Device::Cpu) => 0.9999,
        // In fp16 it was 0.99999 on a CPU. GPUs may multiply fp32 as TF32, which has as few digits.
        (Rounding::Half, _) | (Rounding::Full, Device::Cuda(_)) => 0.999,
    }
}

/// The tokens of two texts.
#[derive(Debug)]
pub(super) struct Probe([Vec<u32>; 2]);

impl Probe {
    pub(super) fn new(tokens: &dyn Tokenize) -> Result<Self> {
        let ids = |text: &str| -> Result<Vec<u32>> {
            let kind = InputKind::Document;
            let read = tokens.tokenize(kind, text, Truncation::Truncate, &mut ReadSoFar::default(), &mut |_| true);
            Ok(read.transpose()?.and_then(Result::ok).map_or_else(Vec::new, |text| text.ids))
        };
        let [shorter, longer] = TEXTS.map(ids);
        Ok(Self([shorter?, longer?]))
    }
}

/// Whether vectors of a batch are those of its texts alone.
#[derive(Debug)]
enum Mates {
    Independent,
    /// The cosine of a text's vector alone to the same among others.
    Dependent(f64),
    /// Two texts in one batch fail, one alone does not.
    Fail(Error),
}

impl Runner {
    /// Embeds a short text alone, and beside a longer one, which makes the short one be padded. It fails if the text
    /// alone does, or if the memory is too small.
    fn mates(&mut self, probe: &Probe) -> Result<Mates, BatchFailure> {
        let model = self.model();
        if model.most_texts() == Some(1) {
            return Ok(Mates::Independent);
        }
        let least = least_cosine(model.rounding, self.device);
        let width = model.dimensions;
        let [shorter, longer] = probe.0.each_ref().map(|ids| TokenRow { ids, unpooled: 0 });
        let mut first_row = |rows: &[TokenRow<'_>]| -> Result<Vec<f32>, BatchFailure> {
            let mut vector = Vec::new();
            self.run_two_texts(rows, &mut |rows| vector.extend_from_slice(&rows[..width.min(rows.len())]))?;
            Ok(vector)
        };
        let alone = first_row(&[shorter])?;
        let among = match first_row(&[shorter, longer]) {
            Err(BatchFailure { error, out_of_memory: false }) => return Ok(Mates::Fail(error)),
            among => among?,
        };
        let cosine = cosine(&alone, &among);
        // Vectors of 0 tell nothing.
        let nothing = alone.iter().chain(&among).all(|&component| component == 0.0);
        Ok(if nothing || cosine >= least { Mates::Independent } else { Mates::Dependent(cosine) })
    }

    /// Refuses a device on which vectors depend on their batch-mates: some kernel is wrong there.
    pub(super) fn refuse_mates(&mut self, probe: &Probe, device: Device) -> Result<()> {
        match self.mates(probe).map_err(|failure| failure.error)? {
            Mates::Independent => Ok(()),
            Mates::Fail(error) => Err(error),
            Mates::Dependent(cosine) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{device} cannot be used: a text's vector alone and among others has a cosine of {cosine:.4}, so \
                     this ONNX Runtime computes batches wrongly there: use another version of it"
                ),
            )),
        }
    }
}

/// Runs a file to see whether its batches change the vectors of their texts, or fail: if so, each text gets a batch of
/// its own.
pub(super) fn part_if_dependent(
    model: Model,
    session: Session,
    probe: &Probe,
    device: Device,
    file: &Path,
) -> Result<Model> {
    let model = Arc::new(model);
    let mut runner = Runner::new(Arc::clone(&model), session, device)?;
    let mates = runner.mates(probe).map_err(|BatchFailure { error, out_of_memory }| {
        // Other errors of the configuration say already what is wrong with the device.
        if out_of_memory || error.kind() == ErrorKind::Config {
            return error;
        }
        config(file, &format!("fails on a short text on {device}: take another .onnx file of the model"))
            .with_source(error)
    })?;
    drop(runner);
    let mut model = Arc::into_inner(model)
        .ok_or_else(|| Error::new(ErrorKind::Inference, "the model is still in use after its first run"))?;
    let why = match mates {
        Mates::Independent => return Ok(model),
        Mates::Dependent(cosine) => format!("a text's vector alone and among others has a cosine of {cosine:.5}"),
        Mates::Fail(error) => match error.source() {
            Some(source) => format!("two texts in one batch fail: {error}: {source}"),
            None => format!("two texts in one batch fail: {error}"),
        },
    };
    tracing::warn!(
        { telemetry::FILE } = %file.display(),
        { telemetry::WHY } = why,
        "each text gets a batch of its own, which is slow: export the model again, for batches of any size and with its \
         attention mask"
    );
    model.one_text_per_batch = true;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbedderExt;
    use crate::provider::onnx::{
        Onnx,
        graph::{Graph, GraphTarget},
        library,
        model_folder::ModelFolder,
        proto::Message,
        tiny_file::{OUTPUT, VECTORS, folder, int, ints, model, node, tensor},
        tokenizer::ModelTokenizer,
        weights::Weights,
    };

    /// See [`changed_a_little`].
    const LITTLE: f32 = 0.03;

    #[test]
    fn graphs_that_are_built_here_are_independent() {
        let (_, environment) = library::load(None).expect("the library");
        for name in ["bert-cls", "bert-multi", "bert-prompts", "xlm-roberta", "mpnet", "distilbert"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny").join(name);
            let folder = ModelFolder::read(&folder).expect("a folder");
            let mut weights = Weights::open(&folder.transformer.join("model.safetensors")).expect("weights");
            let graph = Graph::build(&folder, &mut weights, GraphTarget::Cpu).expect("a graph");
            let tokens = ModelTokenizer::read(&folder, Some(graph.vocabulary)).expect("a tokenizer");
            let model = Arc::new(Model::of_graph(graph, &folder, tokens.pad).expect("a model"));
            let probe = Probe::new(&tokens).expect("tokens");
            let mut runner = Runner::start(&model, &environment, Device::Cpu).expect("a session");
            let mates = runner.mates(&probe).expect("runs");
            assert!(matches!(mates, Mates::Independent), "{name}: {mates:?}");
        }
    }

    /// Files that no look into them could tell: one computes with the sum of the whole batch, one takes the mean of
    /// all tokens of a row and so of the padding.
    #[tokio::test]
    async fn a_file_whose_batches_change_vectors_gets_one_text_per_batch() {
        let sum = vec![
            node("ReduceSum", &[VECTORS], &["sum"], vec![int("keepdims", 0)]),
            node("Mul", &[VECTORS, "sum"], &["product"], Vec::new()),
            node("Sin", &["product"], &[OUTPUT], Vec::new()),
        ];
        let mean = vec![
            node("ReduceMean", &[VECTORS], &["mean"], vec![ints("axes", &[1])]),
            node("Mul", &[VECTORS, "mean"], &[OUTPUT], Vec::new()),
        ];
        let sound = vec![node("Tanh", &[VECTORS], &[OUTPUT], Vec::new())];
        for (name, nodes, dependent) in [("sum", sum, true), ("mean", mean, true), ("sound", sound, false)] {
            let folder = folder(&model(nodes, Vec::new(), [None, None]));
            let embedder = Onnx::builder(folder.path()).with_threads(1).build().expect("loads");
            assert_eq!(embedder.0.model.one_text_per_batch, dependent, "{name}");
            let texts = ["a", "b c d e f g", "h i", "j k l m"];
            let together = embedder.embed_documents(&texts).await.expect("embeds");
            for (index, text) in texts.iter().enumerate() {
                let alone = embedder.embed_documents(&[text]).await.expect("embeds");
                assert!(cosine(alone.row(0), together.row(index)) > 0.99999, "{name}: {text}");
            }
        }
    }

    /// Makes a file that adds a little of the whole batch to each text, in fp32 or partly in fp16.
    fn changed_a_little(half: bool) -> Vec<u8> {
        let little = Message::default().string(1, "value").message(5, tensor("", &[], &[LITTLE])).int(20, 4);
        let nodes = vec![
            node("Constant", &[], &["little"], vec![little]),
            node("ReduceSum", &[VECTORS], &["sum"], vec![int("keepdims", 0)]),
            node("Sin", &["sum"], &["sine"], Vec::new()),
            node("Mul", &["sine", "little"], &["change"], Vec::new()),
            node("Add", &[VECTORS, "change"], &["changed"], Vec::new()),
            node("Cast", &["changed"], &["narrow"], vec![int("to", if half { 10 } else { 1 })]),
            node("Cast", &["narrow"], &[OUTPUT], vec![int("to", 1)]),
        ];
        model(nodes, Vec::new(), [None, None])
    }

    /// What rounding to 16 bits explains, fp32 does not.
    #[test]
    fn the_least_cosine_is_that_of_the_rounding() {
        for half in [false, true] {
            let folder = folder(&changed_a_little(half));
            let embedder = Onnx::builder(folder.path()).with_threads(1).build().expect("loads");
            let inner = &embedder.0;
            let mut runner = Runner::start(&inner.model, &inner.environment, Device::Cpu).expect("a session");
            let probe = Probe::new(&*inner.tokens).expect("tokens");
            let [shorter, longer] = probe.0.each_ref().map(|ids| TokenRow { ids, unpooled: 0 });
            let mut first = |rows: &[TokenRow<'_>]| {
                let mut all = Vec::new();
                runner.run_two_texts(rows, &mut |rows| all.extend_from_slice(&rows[..16])).expect("runs");
                all
            };
            let cosine = cosine(&first(&[shorter]), &first(&[shorter, longer]));
            assert!((0.9992..0.9998).contains(&cosine), "the file must be between both limits: {cosine}");
            assert_eq!(inner.model.one_text_per_batch, !half, "{half}: {cosine}");
        }
    }

    /// Makes a node that gives `VECTORS` this shape, and the constant of the shape.
    fn reshaped(shape: [i64; 3], output: &str) -> Vec<Message> {
        let bytes: Vec<u8> = shape.into_iter().flat_map(i64::to_le_bytes).collect();
        let tensor = Message::default().int(1, 3).int(2, 7).bytes(9, &bytes);
        let value = Message::default().string(1, "value").message(5, tensor).int(20, 4);
        vec![
            node("Constant", &[], &["shape"], vec![value]),
            node("Reshape", &[VECTORS, "shape"], &[output], Vec::new()),
        ]
    }

    /// Exports may fix one text per batch inside, and not in the shape of the input: the output has another shape then,
    /// or a node fails.
    #[tokio::test]
    async fn a_file_whose_batches_fail_gets_one_text_per_batch() {
        let mut fails = reshaped([1, -1, 16], "reshaped");
        fails.push(node("Add", &[VECTORS, "reshaped"], &[OUTPUT], Vec::new()));
        for (name, nodes) in [("another shape", reshaped([1, -1, 16], OUTPUT)), ("fails", fails)] {
            let folder = folder(&model(nodes, Vec::new(), [None, None]));
            let embedder = Onnx::builder(folder.path()).with_threads(1).build().expect(name);
            assert!(embedder.0.model.one_text_per_batch, "{name}");
            let texts = ["a", "b c d e f g", "h i"];
            let together = embedder.embed_documents(&texts).await.expect(name);
            let alone = embedder.embed_documents(&texts[1..2]).await.expect(name);
            assert_eq!(alone.row(0), together.row(1), "{name}");
        }
    }

    #[test]
    fn a_file_that_fails_on_one_text_is_named() {
        let folder = folder(&model(reshaped([1, 1000, 16], OUTPUT), Vec::new(), [None, None]));
        let error = Onnx::builder(folder.path()).with_threads(1).build().expect_err("no text has 1000 tokens");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let says = format!("{} fails on a short text on cpu", folder.path().join("model.onnx").display());
        assert!(error.to_string().contains(&says), "{error}");
        assert!(error.source().is_some());
    }

    /// A fixed length is told before a text is run, which may be longer.
    #[tokio::test]
    async fn a_file_of_a_fixed_length_needs_texts_that_are_not_longer() {
        let nodes = || vec![node("Tanh", &[VECTORS], &[OUTPUT], Vec::new())];
        let folder = folder(&model(nodes(), Vec::new(), [None, Some(16)]));
        let load = || Onnx::builder(folder.path()).with_threads(1);
        for builder in [load(), load().with_max_tokens(17)] {
            let error = builder.build().expect_err("longer texts are allowed");
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            let says = "takes texts of exactly 16 tokens: set with_max_tokens (--max-tokens) to at most 16";
            assert!(error.to_string().contains(says), "{error}");
        }
        let embedder = load().with_max_tokens(16).build().expect("loads");
        assert!(!embedder.0.model.one_text_per_batch);
        assert_eq!(embedder.embed_documents(&["a", "b c"]).await.expect("embeds").len(), 2);
    }
}
