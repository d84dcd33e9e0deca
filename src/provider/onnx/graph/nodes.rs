//! Adds nodes, weights and constants to a graph, and writes it as a model file.

use half::f16;

use super::{
    names::{ENDS, OUTPUT, SEGMENTS},
    weight_bits::WeightBits,
};
use crate::{
    Error, ErrorKind, Result,
    provider::onnx::{
        proto::Message,
        weights::{Tensor, Weights},
    },
};

/// ONNX's numbers for element types.
pub(in crate::provider::onnx) const FLOAT: i64 = 1;
pub(super) const UINT8: i64 = 2;
pub(super) const INT8: i64 = 3;
pub(super) const INT32: i64 = 6;
pub(in crate::provider::onnx) const INT64: i64 = 7;
pub(super) const BOOL: i64 = 9;
pub(super) const FLOAT16: i64 = 10;
/// The operator set before reductions took their axes as an input.
pub(super) const OPSET: i64 = 17;
/// Goes with operator set 17.
pub(super) const IR_VERSION: i64 = 8;
/// The domain of ONNX Runtime's own operators.
pub(super) const FUSED: &str = "com.microsoft";

/// The device and precision that a graph is built for. The vectors of `Cpu` and `Cuda` lie in one space, those of
/// `Int8` in one for each number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider::onnx) enum GraphTarget {
    /// fp32 throughout.
    Cpu,
    /// Weights of the layers in 8 bits with one scale per column; their inputs in 8 bits with one scale per token, so
    /// that a vector does not depend on the other texts of its batch.
    Int8(WeightBits),
    /// fp16 up to the last layer, fp32 after it: pooling sums hundreds of numbers, and the least divisors are below
    /// what fp16 can hold.
    Cuda,
}

/// Weights that all sessions share.
#[derive(Debug)]
pub(in crate::provider::onnx) struct SharedWeights {
    pub(in crate::provider::onnx) shape: Vec<usize>,
    pub(in crate::provider::onnx) data: WeightData,
}

/// Weights as a session takes them.
#[derive(Debug)]
pub(in crate::provider::onnx) enum WeightData {
    F32(Vec<f32>),
    F16(Vec<f16>),
    I8(Vec<i8>),
}

impl WeightData {
    const fn kind(&self) -> i64 {
        match self {
            Self::F32(_) => FLOAT,
            Self::F16(_) => FLOAT16,
            Self::I8(_) => INT8,
        }
    }
}

/// The nodes, weights and constants of a graph that is being built.
pub(super) struct GraphBuilder<'a> {
    pub(super) weights: &'a mut Weights,
    pub(super) prefix: &'static str,
    pub(super) target: GraphTarget,
    /// The input that tells attention what is padding.
    pub(super) mask: &'static str,
    pub(super) nodes: Vec<Message>,
    pub(super) shared: Vec<(String, SharedWeights)>,
    pub(super) given: Option<(String, SharedWeights)>,
    pub(super) constants: Vec<Message>,
}

pub(super) fn float(name: &str, value: f32) -> Message {
    Message::default().string(1, name).float(2, value).int(20, 1)
}

pub(in crate::provider::onnx) fn int(name: &str, value: i64) -> Message {
    Message::default().string(1, name).int(3, value).int(20, 2)
}

pub(in crate::provider::onnx) fn ints(name: &str, values: &[i64]) -> Message {
    values.iter().fold(Message::default().string(1, name), |message, &value| message.int(8, value)).int(20, 7)
}

impl GraphBuilder<'_> {
    /// Adds a node, and returns its output's name.
    pub(super) fn node(
        &mut self,
        op: &str,
        domain: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<Message>,
    ) -> String {
        self.node_with_outputs(op, domain, inputs, &[output], attributes);
        output.to_owned()
    }

    pub(super) fn node_with_outputs(
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

    pub(super) fn op(&mut self, op: &str, inputs: &[&str], output: &str) -> String {
        self.node(op, "", inputs, output, Vec::new())
    }

    /// Adds weights under a name, in the precision of the target. Each session gets them from outside the graph.
    pub(super) fn share(&mut self, name: &str, tensor: Tensor) -> Result<String> {
        let data = match self.target {
            GraphTarget::Cpu | GraphTarget::Int8(_) => WeightData::F32(tensor.data),
            GraphTarget::Cuda => {
                let data: Vec<f16> = tensor.data.iter().map(|&weight| f16::from_f32(weight)).collect();
                if let Some(at) = data.iter().position(|weight| !weight.is_finite()) {
                    let message = format!("tensor {name} has {} at {at}, which fp16 cannot hold", tensor.data[at]);
                    return Err(Error::new(ErrorKind::Config, message));
                }
                WeightData::F16(data)
            }
        };
        Ok(self.share_numbers(name, tensor.shape, data))
    }

    pub(super) fn share_numbers(&mut self, name: &str, shape: Vec<usize>, data: WeightData) -> String {
        self.shared.push((name.to_owned(), SharedWeights { shape, data }));
        name.to_owned()
    }

    pub(super) fn constant(&mut self, name: &str, kind: i64, dims: &[i64], bytes: &[u8]) -> String {
        let tensor = dims.iter().fold(Message::default(), |message, &dim| message.int(1, dim));
        self.constants.push(tensor.int(2, kind).string(8, name).bytes(9, bytes));
        name.to_owned()
    }

    pub(super) fn constant_float(&mut self, name: &str, value: f32) -> String {
        self.constant(name, FLOAT, &[], &value.to_le_bytes())
    }

    pub(super) fn constant_ints(&mut self, name: &str, values: &[i64]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, INT64, &[values.len() as i64], &bytes)
    }

    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.read(&format!("{}{name}", self.prefix), shape)
    }

    pub(super) fn share_read(&mut self, name: &str, shape: &[usize]) -> Result<String> {
        let tensor = self.read(name, shape)?;
        self.share(name, tensor)
    }

    /// Adds the table of token vectors. On a CPU each batch gets it as an input: ONNX Runtime copies all weights while
    /// it makes a session, and the table is half of a small model, and most of a multilingual one. A GPU must hold it.
    pub(super) fn give_or_share(&mut self, name: &str, tensor: Tensor) -> Result<String> {
        if self.target == GraphTarget::Cuda {
            return self.share(name, tensor);
        }
        self.given = Some((name.to_owned(), SharedWeights { shape: tensor.shape, data: WeightData::F32(tensor.data) }));
        Ok(name.to_owned())
    }

    /// Writes the model file without the shared weights, which it names as stored outside.
    pub(super) fn write_model(&self, inputs: &[&str], dimensions: usize) -> Vec<u8> {
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
        if let Some((name, table)) = &self.given {
            let axes: Vec<(&str, i64)> = table.shape.iter().map(|&size| ("", size as i64)).collect();
            graph = graph.message(11, value(name, table.data.kind(), &axes));
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
