//! Builds the ONNX graph of a BERT-like model from its configuration and weights, pooling and normalisation included.
//!
//! Families: BERT, RoBERTa (XLM-RoBERTa, CamemBERT), DistilBERT, MPNet. The graph uses ONNX Runtime's own fused
//! operators (domain `com.microsoft`), so there is nothing to be fused at load time; the weights stay outside the
//! graph's bytes, so that all sessions share one copy and no model is too large for protobuf. Its [`Form`] is what the
//! device runs fastest: fp32 or int8 on a CPU, fp16 on CUDA.

mod int8;
mod shape;

use half::f16;

use self::shape::{Family, LayerNames, Shape};
use super::{
    folder::{Activation, Folder, Step},
    proto::Message,
    weights::{Tensor, Weights},
};
use crate::{Error, ErrorKind, Pooling, Result};

pub(super) const IDS: &str = "input_ids";
pub(super) const MASK: &str = "attention_mask";
/// The mask of the tokens that take part in pooling; an input only where that is not [`MASK`].
pub(super) const POOLING_MASK: &str = "pooling_mask";
/// The rows of the position table; an input only in families that number tokens by what they are.
pub(super) const POSITIONS: &str = "position_ids";
/// Each text's tokens and where its row begins, in place of [`MASK`], as ONNX Runtime's memory-efficient attention on
/// CUDA takes them; an input only in the form for CUDA.
pub(super) const SEGMENTS: &str = "segments";
/// Twice the tokens of a row, to cut MPNet's biases; an input only in the form for CUDA, where computing it in the graph
/// would go to the CPU and back.
pub(super) const ENDS: &str = "ends";
pub(super) const OUTPUT: &str = "sentence_embedding";

/// ONNX's numbers for element types.
const FLOAT: i64 = 1;
const UINT8: i64 = 2;
const INT8: i64 = 3;
const INT32: i64 = 6;
const INT64: i64 = 7;
const BOOL: i64 = 9;
const FLOAT16: i64 = 10;
/// The operator set before reductions took their axes as an input.
const OPSET: i64 = 17;
/// Goes with operator set 17.
const IR_VERSION: i64 = 8;
/// What fast kernels of cards want sizes to be a multiple of: 16 bytes of fp16.
pub(super) const STEP: usize = 8;
/// The domain of ONNX Runtime's own operators.
const FUSED: &str = "com.microsoft";

/// What a graph is made for. The vectors of `Cpu` and `Cuda` lie in one space, those of `Int8` in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// fp32 throughout.
    Cpu,
    /// Weights of the layers in 8 bits with a scale a column; their inputs in 8 bits with a scale a token, so that a
    /// vector does not depend on what else is in its batch.
    Int8,
    /// fp16 up to the last layer, fp32 behind it: pooling sums hundreds of numbers, and the floors of divisions are
    /// below what fp16 can hold.
    Cuda,
}

/// Weights that all sessions share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) shape: Vec<usize>,
    pub(super) data: Numbers,
}

/// Weights as a session takes them.
#[derive(Debug)]
pub(super) enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    I8(Vec<i8>),
}

impl Numbers {
    const fn kind(&self) -> i64 {
        match self {
            Self::F32(_) => FLOAT,
            Self::F16(_) => FLOAT16,
            Self::I8(_) => INT8,
        }
    }
}

/// A model file without its weights, and the weights by the names that the file gives them.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) model: Vec<u8>,
    pub(super) weights: Vec<(String, Shared)>,
    /// The inputs by name.
    pub(super) inputs: Vec<&'static str>,
    pub(super) dimensions: usize,
    /// Rows of the table of token vectors: ids must be below.
    pub(super) vocabulary: usize,
    /// The padding's id, where positions are numbered from behind it and are an input of the graph.
    pub(super) positions_after: Option<u32>,
    /// The graph's size in words: what it was built from, for the space's identity.
    pub(super) facts: String,
}

impl Graph {
    pub(super) fn build(folder: &Folder, weights: &mut Weights, form: Form) -> Result<Self> {
        let shape = Shape::read(&folder.config)?;
        let prefix = shape.prefix(weights);
        let biased = shape.family == Family::Mpnet;
        let segments = form == Form::Cuda && takes_segments(shape.hidden / shape.heads, biased.then(|| shape.length()));
        let mask = if segments { SEGMENTS } else { MASK };
        let (nodes, shared, constants) = (Vec::new(), Vec::new(), Vec::new());
        let mut builder = Builder { weights, prefix, form, mask, nodes, shared, constants };
        let mut hidden = builder.embed(&shape)?;
        let bias = biased.then(|| builder.relative_bias(&shape)).transpose()?;
        let names = shape.layer_names();
        if form == Form::Int8 {
            hidden = builder.int8_layers(&shape, &names, &hidden, bias.as_deref())?;
        } else {
            for layer in 0..shape.layers {
                hidden = builder.layer(&shape, &names, layer, &hidden, bias.as_deref())?;
            }
        }
        if form == Form::Cuda {
            hidden = builder.node("Cast", "", &[&hidden], "hidden.wide", vec![int("to", FLOAT)]);
        }
        // What follows is in fp32 whatever the form.
        builder.form = Form::Cpu;
        let (mut vector, mut dimensions) = builder.pool(folder, &hidden, shape.hidden);
        // The form for CUDA makes vectors of the same space.
        let facts = if form == Form::Int8 { "int8 a token, 7-bit weights a column, " } else { "" };
        let mut facts = format!(
            "{facts}{} layers {} heads {} epsilon {} {} positions {} types {}",
            shape.family.as_str(),
            shape.layers,
            shape.heads,
            shape.epsilon,
            shape.activation.as_str(),
            shape.positions_after.map_or(0, |pad| pad + 1),
            shape.token_types.min(1)
        );
        for (at, step) in folder.tail.iter().enumerate() {
            (vector, dimensions) = builder.step(at, step, vector, dimensions, &mut facts)?;
        }
        builder.node("Identity", "", &[&vector], OUTPUT, Vec::new());
        let mut inputs = vec![IDS];
        inputs.extend((!segments || folder.pool_prompt).then_some(MASK));
        inputs.extend(segments.then_some(SEGMENTS));
        inputs.extend((!folder.pool_prompt).then_some(POOLING_MASK));
        inputs.extend(shape.positions_after.map(|_| POSITIONS));
        inputs.extend((form == Form::Cuda && biased).then_some(ENDS));
        Ok(Self {
            model: builder.model(&inputs, dimensions),
            weights: builder.shared,
            inputs,
            dimensions,
            vocabulary: shape.vocabulary,
            positions_after: shape.positions_after.map(|pad| pad as u32),
            facts,
        })
    }
}

struct Builder<'a> {
    weights: &'a mut Weights,
    prefix: &'static str,
    form: Form,
    /// The input that tells attention what is padding.
    mask: &'static str,
    nodes: Vec<Message>,
    shared: Vec<(String, Shared)>,
    constants: Vec<Message>,
}

fn float(name: &str, value: f32) -> Message {
    Message::default().string(1, name).float(2, value).int(20, 1)
}

fn int(name: &str, value: i64) -> Message {
    Message::default().string(1, name).int(3, value).int(20, 2)
}

fn ints(name: &str, values: &[i64]) -> Message {
    values.iter().fold(Message::default().string(1, name), |message, &value| message.int(8, value)).int(20, 7)
}

impl Builder<'_> {
    /// Adds a node and gives its output's name back.
    fn node(&mut self, op: &str, domain: &str, inputs: &[&str], output: &str, attributes: Vec<Message>) -> String {
        self.node_with_outputs(op, domain, inputs, &[output], attributes);
        output.to_owned()
    }

    fn node_with_outputs(
        &mut self,
        op: &str,
        domain: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<Message>,
    ) {
        let texts = |message: Message, field: u32, texts: &[&str]| {
            texts.iter().fold(message, |message, text| message.string(field, text))
        };
        let node = texts(texts(Message::default(), 1, inputs), 2, outputs);
        let name = outputs.first().copied().unwrap_or(op);
        self.nodes.push(node.string(3, name).string(4, op).messages(5, attributes).string(7, domain));
    }

    fn op(&mut self, op: &str, inputs: &[&str], output: &str) -> String {
        self.node(op, "", inputs, output, Vec::new())
    }

    /// Adds weights under a name, to be given to each session from outside, in the precision of the form.
    fn share(&mut self, name: &str, tensor: Tensor) -> Result<String> {
        let data = match self.form {
            Form::Cpu | Form::Int8 => Numbers::F32(tensor.data),
            Form::Cuda => {
                let data: Vec<f16> = tensor.data.iter().map(|&weight| f16::from_f32(weight)).collect();
                if let Some(at) = data.iter().position(|weight| !weight.is_finite()) {
                    let message = format!("tensor {name} has {} at {at}, beyond what fp16 holds", tensor.data[at]);
                    return Err(Error::new(ErrorKind::Config, message));
                }
                Numbers::F16(data)
            }
        };
        Ok(self.share_numbers(name, tensor.shape, data))
    }

    fn share_numbers(&mut self, name: &str, shape: Vec<usize>, data: Numbers) -> String {
        self.shared.push((name.to_owned(), Shared { shape, data }));
        name.to_owned()
    }

    fn constant(&mut self, name: &str, kind: i64, dims: &[i64], bytes: &[u8]) -> String {
        let tensor = dims.iter().fold(Message::default(), |message, &dim| message.int(1, dim));
        self.constants.push(tensor.int(2, kind).string(8, name).bytes(9, bytes));
        name.to_owned()
    }

    fn constant_float(&mut self, name: &str, value: f32) -> String {
        self.constant(name, FLOAT, &[], &value.to_le_bytes())
    }

    fn constant_ints(&mut self, name: &str, values: &[i64]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, INT64, &[values.len() as i64], &bytes)
    }

    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.read(&format!("{}{name}", self.prefix), shape)
    }

    fn share_read(&mut self, name: &str, shape: &[usize]) -> Result<String> {
        let tensor = self.read(name, shape)?;
        self.share(name, tensor)
    }

    /// The weights of a linear layer, inputs by outputs, and its bias.
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<(String, String)> {
        let weight = self.read(&format!("{name}.weight"), &[outputs, inputs])?.transposed();
        let weight = self.share(&format!("{name}.weight"), weight)?;
        Ok((weight, self.share_read(&format!("{name}.bias"), &[outputs])?))
    }

    /// The weights of a layer's queries, keys and values side by side, inputs by outputs, and their biases.
    fn read_qkv(&mut self, names: &LayerNames, name: &dyn Fn(&str) -> String, hidden: usize) -> Result<[Tensor; 2]> {
        let read_all = |builder: &mut Self, what: &str, axes: &[usize]| -> Result<Vec<Tensor>> {
            names.qkv.iter().map(|part| builder.read(&format!("{}.{what}", name(part)), axes)).collect()
        };
        let weights = read_all(self, "weight", &[hidden, hidden])?.into_iter().map(Tensor::transposed).collect();
        let biases = read_all(self, "bias", &[hidden])?;
        Ok([Tensor::side_by_side(weights), Tensor::side_by_side(biases)])
    }

    fn norm(&mut self, name: &str, shape: &Shape) -> Result<(String, String)> {
        let scale = self.share_read(&format!("{name}.weight"), &[shape.hidden])?;
        Ok((scale, self.share_read(&format!("{name}.bias"), &[shape.hidden])?))
    }

    /// Token, position and type vectors, summed and normalised. All tokens are of type 0, so its vector is added to the
    /// position table once, here. Positions are 0, 1, 2, .. unless they are an input.
    fn embed(&mut self, shape: &Shape) -> Result<String> {
        let words = self.share_read("embeddings.word_embeddings.weight", &[shape.vocabulary, shape.hidden])?;
        let mut positions = self.read("embeddings.position_embeddings.weight", &[shape.positions, shape.hidden])?;
        if shape.token_types > 0 {
            let types = self.read("embeddings.token_type_embeddings.weight", &[shape.token_types, shape.hidden])?;
            for row in positions.data.chunks_exact_mut(shape.hidden) {
                row.iter_mut().zip(&types.data).for_each(|(position, kind)| *position += kind);
            }
        }
        let positions = self.share("embeddings.position_embeddings.weight", positions)?;
        let (scale, bias) = self.norm("embeddings.LayerNorm", shape)?;
        let mut inputs = vec![IDS, "", &words, &positions, "", &scale, &bias];
        if shape.positions_after.is_some() {
            inputs.extend(["", POSITIONS]);
        }
        let epsilon = vec![float("epsilon", shape.epsilon)];
        // The second output is not optional and not used.
        let outputs = ["embeddings", "embeddings.mask_index"];
        self.node_with_outputs("EmbedLayerNormalization", FUSED, &inputs, &outputs, epsilon);
        Ok("embeddings".to_owned())
    }

    fn layer(&mut self, shape: &Shape, names: &LayerNames, n: usize, x: &str, bias: Option<&str>) -> Result<String> {
        let (hidden, inner) = (shape.hidden, shape.inner);
        let name = |part: &str| format!("{}.{n}.{part}", names.layer);
        let [weights, biases] = self.read_qkv(names, &name, hidden)?;
        let weights = self.share(&name("qkv.weight"), weights)?;
        let biases = self.share(&name("qkv.bias"), biases)?;
        let mut inputs = vec![x, &weights, &biases, self.mask];
        inputs.extend(bias.map(|bias| ["", bias]).into_iter().flatten());
        let heads = vec![int("num_heads", shape.heads as i64)];
        let attended = self.node("Attention", FUSED, &inputs, &name("attention"), heads);

        let (weight, bias) = self.linear(&name(names.attention_output), hidden, hidden)?;
        let projected = self.op("MatMul", &[&attended, &weight], &name("attention.projected"));
        let x = self.skip_norm(&projected, x, &bias, &name(names.attention_norm), shape)?;

        let (weight, bias) = self.linear(&name(names.inner), hidden, inner)?;
        let product = self.op("MatMul", &[&x, &weight], &name("inner.product"));
        let active = self.activate(shape.activation, &product, Some(&bias), &name("inner"));
        let (weight, bias) = self.linear(&name(names.output), inner, hidden)?;
        let product = self.op("MatMul", &[&active, &weight], &name("output.product"));
        self.skip_norm(&product, &x, &bias, &name(names.output_norm), shape)
    }

    /// Adds the bias and the layer's input, and normalises.
    fn skip_norm(&mut self, x: &str, skip: &str, bias: &str, name: &str, shape: &Shape) -> Result<String> {
        let (scale, shift) = self.norm(name, shape)?;
        let epsilon = vec![float("epsilon", shape.epsilon)];
        let output = format!("{name}.output");
        if self.form == Form::Cuda {
            let inputs = [x, skip, &scale, &shift, bias];
            return Ok(self.node("SkipLayerNormalization", FUSED, &inputs, &output, epsilon));
        }
        // On a CPU the fused operator divides once a number, and takes three times as long as its parts.
        let biased = self.op("Add", &[x, bias], &format!("{name}.biased"));
        let sum = self.op("Add", &[&biased, skip], &format!("{name}.sum"));
        Ok(self.node("LayerNormalization", "", &[&sum, &scale, &shift], &output, epsilon))
    }

    fn activate(&mut self, activation: Activation, x: &str, bias: Option<&str>, name: &str) -> String {
        let output = format!("{name}.active");
        match (activation, bias) {
            (Activation::Gelu, Some(bias)) => return self.node("BiasGelu", FUSED, &[x, bias], &output, Vec::new()),
            (Activation::GeluTanh, Some(bias)) => return self.node("FastGelu", FUSED, &[x, bias], &output, Vec::new()),
            _ => {}
        }
        let x = match bias {
            Some(bias) => self.op("Add", &[x, bias], &format!("{name}.biased")),
            None => x.to_owned(),
        };
        match activation {
            Activation::Identity => x,
            Activation::Gelu => self.node("Gelu", FUSED, &[&x], &output, Vec::new()),
            Activation::GeluTanh => self.node("FastGelu", FUSED, &[&x], &output, Vec::new()),
            Activation::Relu => self.op("Relu", &[&x], &output),
            Activation::Tanh => self.op("Tanh", &[&x], &output),
            Activation::Silu => {
                let gate = self.op("Sigmoid", &[&x], &format!("{name}.gate"));
                self.op("Mul", &[&x, &gate], &output)
            }
        }
    }

    /// MPNet's bias by the distance of two tokens, for all positions, cut to the length of the batch.
    fn relative_bias(&mut self, shape: &Shape) -> Result<String> {
        const BUCKETS: usize = 32;
        let rows = self.read("encoder.relative_attention_bias.weight", &[BUCKETS, shape.heads])?;
        let length = shape.length();
        let mut data = Vec::with_capacity(shape.heads * length * length);
        for head in 0..shape.heads {
            for query in 0..length {
                data.extend((0..length).map(|key| rows.data[bucket(key, query, BUCKETS) * shape.heads + head]));
            }
        }
        let table = Tensor { shape: vec![1, shape.heads, length, length], data };
        let table = self.share("relative_attention_bias", table)?;
        let ends = if self.form == Form::Cuda {
            ENDS.to_owned()
        } else {
            let size = self.op("Shape", &[IDS], "input.shape");
            let second = self.constant_ints("constant.second", &[1]);
            let length = self.node("Gather", "", &[&size, &second], "input.length", vec![int("axis", 0)]);
            self.node("Concat", "", &[&length, &length], "input.lengths", vec![int("axis", 0)])
        };
        let starts = self.constant_ints("constant.starts", &[0, 0]);
        let axes = self.constant_ints("constant.axes", &[2, 3]);
        Ok(self.op("Slice", &[&table, &starts, &ends, &axes], "relative_attention_bias.cut"))
    }

    /// One vector a text, of all poolings side by side.
    fn pool(&mut self, folder: &Folder, hidden: &str, width: usize) -> (String, usize) {
        let mask = if folder.pool_prompt { MASK } else { POOLING_MASK };
        let mask = self.node("Cast", "", &[mask], "pool.mask", vec![int("to", FLOAT)]);
        let last_axis = self.constant_ints("constant.last", &[-1]);
        let middle_axis = self.constant_ints("constant.middle", &[1]);
        let floor = self.constant_float("constant.floor", 1e-9);
        // 1, 2, 3, .. for every text.
        let zero = self.constant_float("constant.zero", 0.0);
        let one = self.constant_float("constant.one", 1.0);
        let axis = self.constant("constant.axis", INT64, &[], &1_i64.to_le_bytes());

        let mut parts = Vec::new();
        for &mode in &folder.pooling {
            let name = |part: &str| format!("pool.{mode}.{part}");
            let sum_by = |builder: &mut Self, weights: &str| {
                let row = builder.op("Unsqueeze", &[weights, &middle_axis], &name("weights"));
                let sum = builder.op("MatMul", &[&row, hidden], &name("products"));
                let sum = builder.op("Squeeze", &[&sum, &middle_axis], &name("sum"));
                let count =
                    builder.node("ReduceSum", "", &[weights, &last_axis], &name("count"), vec![int("keepdims", 1)]);
                (sum, builder.op("Max", &[&count, &floor], &name("divisor")))
            };
            let positions = |builder: &mut Self| {
                let ones = builder.op("Mul", &[&mask, &zero], &name("zeros"));
                let ones = builder.op("Add", &[&ones, &one], &name("ones"));
                let positions = builder.op("CumSum", &[&ones, &axis], &name("positions"));
                builder.op("Mul", &[&positions, &mask], &name("masked_positions"))
            };
            let pick = |builder: &mut Self, scores: &str| {
                let at = vec![int("axis", 1), int("keepdims", 1)];
                let at = builder.node("ArgMax", "", &[scores], &name("at"), at);
                builder.node("GatherND", "", &[hidden, &at], &name("vector"), vec![int("batch_dims", 1)])
            };
            parts.push(match mode {
                Pooling::Mean => {
                    let (sum, divisor) = sum_by(self, &mask);
                    self.op("Div", &[&sum, &divisor], &name("vector"))
                }
                Pooling::MeanSqrtLen => {
                    let (sum, divisor) = sum_by(self, &mask);
                    let divisor = self.op("Sqrt", &[&divisor], &name("root"));
                    self.op("Div", &[&sum, &divisor], &name("vector"))
                }
                Pooling::WeightedMean => {
                    let weights = positions(self);
                    let (sum, divisor) = sum_by(self, &weights);
                    self.op("Div", &[&sum, &divisor], &name("vector"))
                }
                // The first and the last token that take part.
                Pooling::Cls => pick(self, &mask),
                Pooling::LastToken => {
                    let scores = positions(self);
                    pick(self, &scores)
                }
                Pooling::Max => {
                    let inside = self.op("Unsqueeze", &[&mask, &last_axis], &name("inside"));
                    let inside = self.node("Cast", "", &[&inside], &name("is_inside"), vec![int("to", BOOL)]);
                    let lowest = self.constant_float("constant.lowest", f32::MIN);
                    let masked = self.op("Where", &[&inside, hidden, &lowest], &name("masked"));
                    let axes = vec![ints("axes", &[1]), int("keepdims", 0)];
                    self.node("ReduceMax", "", &[&masked], &name("vector"), axes)
                }
            });
        }
        let vector = match parts.as_slice() {
            [one] => one.clone(),
            all => {
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                self.node("Concat", "", &all, "pool.vector", vec![int("axis", -1)])
            }
        };
        (vector, parts.len() * width)
    }

    fn step(&mut self, at: usize, step: &Step, x: String, width: usize, facts: &mut String) -> Result<(String, usize)> {
        let name = format!("tail.{at}");
        match step {
            Step::Normalize => {
                facts.push_str(" normalize");
                let axes = vec![ints("axes", &[-1]), int("keepdims", 1)];
                let length = self.node("ReduceL2", "", &[&x], &format!("{name}.length"), axes);
                let floor = self.constant_float(&format!("{name}.floor"), 1e-12);
                let length = self.op("Max", &[&length, &floor], &format!("{name}.divisor"));
                Ok((self.op("Div", &[&x, &length], &format!("{name}.unit")), width))
            }
            Step::Dense { activation, .. } => {
                let dense = step.read_dense(width)?;
                facts.push_str(&format!(" dense {} {}", activation.as_str(), dense.hash));
                let outputs = dense.weight.shape[1];
                let weight = self.share(&format!("{name}.weight"), dense.weight)?;
                let bias = dense.bias.map(|bias| self.share(&format!("{name}.bias"), bias)).transpose()?;
                let product = self.op("MatMul", &[&x, &weight], &format!("{name}.product"));
                Ok((self.activate(*activation, &product, bias.as_deref(), &name), outputs))
            }
        }
    }

    /// The whole model file but for the shared weights, which it names as stored outside.
    fn model(&self, inputs: &[&str], dimensions: usize) -> Vec<u8> {
        let dims = |dims: &[(&str, i64)]| {
            let dim = |&(name, size): &(&str, i64)| match size {
                0 => Message::default().string(2, name),
                size => Message::default().int(1, size),
            };
            Message::default().messages(1, dims.iter().map(dim))
        };
        let value = |name: &str, kind: i64, axes: &[(&str, i64)]| {
            let tensor = Message::default().int(1, kind).message(2, dims(axes));
            Message::default().string(1, name).message(2, Message::default().message(1, tensor))
        };
        let mut graph = Message::default();
        for node in &self.nodes {
            graph = graph.bytes(1, node.as_bytes());
        }
        graph = graph.string(2, "docvector-embed");
        for constant in &self.constants {
            graph = graph.bytes(5, constant.as_bytes());
        }
        for (name, tensor) in &self.shared {
            let external = Message::default().string(1, "location").string(2, name);
            let message = tensor.shape.iter().fold(Message::default(), |message, &dim| message.int(1, dim as i64));
            let kind = tensor.data.kind();
            graph = graph.message(5, message.int(2, kind).string(8, name).message(13, external).int(14, 1));
        }
        for &name in inputs {
            let input = match name {
                SEGMENTS => value(name, INT32, &[("segments", 0)]),
                ENDS => value(name, INT64, &[("axes", 2)]),
                _ => value(name, INT32, &[("texts", 0), ("tokens", 0)]),
            };
            graph = graph.message(11, input);
        }
        graph = graph.message(12, value(OUTPUT, FLOAT, &[("texts", 0), ("dimensions", dimensions as i64)]));
        let opset = |domain: &str, version: i64| Message::default().string(1, domain).int(2, version);
        Message::default()
            .int(1, IR_VERSION)
            .string(2, "docvector-embed")
            .message(7, graph)
            .messages(8, [opset("", OPSET), opset(FUSED, 1)])
            .into_bytes()
    }
}

/// Whether attention on a card runs in the kernels that understand [`SEGMENTS`], for heads so wide and, where there is a
/// bias, texts so long: others would misread them, and get a mask, which says the same.
const fn takes_segments(head: usize, biased: Option<usize>) -> bool {
    let rows = match biased {
        Some(length) => length.is_multiple_of(STEP),
        None => true,
    };
    head.is_multiple_of(STEP) && rows
}

/// Which of MPNet's bias rows belongs to a pair of tokens: exact distances first, then logarithmic ones up to 128, keys
/// behind the query in the first half and keys ahead of it in the second.
fn bucket(key: usize, query: usize, buckets: usize) -> usize {
    // In single precision, as the model was trained: at the edges of the buckets the rounding decides.
    const FAR: f32 = 128.0;
    let half = buckets / 2;
    let side = if key > query { half } else { 0 };
    let distance = key.abs_diff(query);
    let exact = half / 2;
    let within = if distance < exact {
        distance
    } else {
        let scale = (distance as f32 / exact as f32).ln() / (FAR / exact as f32).ln();
        (exact + (scale * (half - exact) as f32) as usize).min(half - 1)
    };
    side + within
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

    /// Heads of 8 components, and of 4 with a bias.
    #[test]
    fn the_form_for_cuda_takes_segments_or_a_mask() {
        for (name, segments) in [("bert-cls", true), ("mpnet", false)] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny").join(name);
            let folder = Folder::read(&folder).expect("a folder");
            let inputs = |form| {
                let mut weights = Weights::open(&folder.transformer.join("model.safetensors")).expect("weights");
                Graph::build(&folder, &mut weights, form).expect("a graph").inputs
            };
            assert_eq!(inputs(Form::Cuda).contains(&SEGMENTS), segments, "{name}");
            assert_eq!(inputs(Form::Cuda).contains(&ENDS), name == "mpnet", "{name}");
            for form in [Form::Cpu, Form::Int8] {
                assert!(inputs(form).contains(&MASK) && !inputs(form).contains(&SEGMENTS), "{name}");
                assert!(!inputs(form).contains(&ENDS), "{name}");
            }
        }
    }
}
