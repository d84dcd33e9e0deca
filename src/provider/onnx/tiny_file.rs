//! Writes small `.onnx` files for tests: the vectors of the tokens out of a table, and what a test puts behind them.

use std::{fs, path::Path};

use tempfile::TempDir;

pub(super) use super::graph::nodes::{FLOAT, INT64, int, ints};
use super::proto::Message;

/// The tokens and components of the model whose folder the files are put into.
pub(super) const VOCABULARY: usize = 228;
pub(super) const WIDTH: usize = 16;

/// The name of the vectors that [`model`] looks up, and of those that its nodes must make of them.
pub(super) const VECTORS: &str = "vectors";
pub(super) const OUTPUT: &str = "last_hidden_state";

pub(super) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<Message>) -> Message {
    let node = inputs.iter().fold(Message::default(), |node, name| node.string(1, name));
    let node = outputs.iter().fold(node, |node, name| node.string(2, name));
    node.string(4, op).messages(5, attributes)
}

/// Makes a tensor of fp32.
pub(super) fn tensor(name: &str, dims: &[usize], values: &[f32]) -> Message {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = dims.iter().fold(Message::default(), |tensor, &dim| tensor.int(1, dim as i64));
    tensor.int(2, FLOAT).string(8, name).bytes(9, &bytes)
}

/// Makes a graph of nodes, with the names of its outputs and without weights, for an attribute.
pub(super) fn subgraph(nodes: Vec<Message>, outputs: &[&str]) -> Message {
    let value = |name: &&str| value(name, FLOAT, &[Dim::Any, Dim::Any, Dim::Is(WIDTH)]);
    Message::default().messages(1, nodes).string(2, "inner").messages(12, outputs.iter().map(value))
}

/// A dimension of an input or an output.
#[derive(Clone, Copy)]
pub(super) enum Dim {
    Any,
    Is(usize),
}

pub(super) fn value(name: &str, kind: i64, dims: &[Dim]) -> Message {
    let dim = |dim: &Dim| match *dim {
        Dim::Any => Message::default(),
        Dim::Is(size) => Message::default().int(1, size as i64),
    };
    let shape = Message::default().messages(1, dims.iter().map(dim));
    let tensor = Message::default().int(1, kind).message(2, shape);
    Message::default().string(1, name).message(2, Message::default().message(1, tensor))
}

/// Makes a model file: [`VECTORS`] of the input `input_ids`, then these nodes. The shape is the number of texts in a
/// batch and of tokens in a text, where the file fixes them.
pub(super) fn model(nodes: Vec<Message>, functions: Vec<Message>, shape: [Option<usize>; 2]) -> Vec<u8> {
    // Each token has another range, so that the range of a batch depends on its texts.
    let number = |at: usize| ((at * 7919 % 1009) as f32 / 500.0 - 1.0) * (1 + at / WIDTH % 13) as f32;
    let table: Vec<f32> = (0..VOCABULARY * WIDTH).map(number).collect();
    let look_up = node("Gather", &["table", "input_ids"], &[VECTORS], Vec::new());
    let [texts, tokens] = shape.map(|size| size.map_or(Dim::Any, Dim::Is));
    let graph = Message::default()
        .message(1, look_up)
        .messages(1, nodes)
        .string(2, "tiny")
        .message(5, tensor("table", &[VOCABULARY, WIDTH], &table))
        .message(11, value("input_ids", INT64, &[texts, tokens]))
        .message(12, value(OUTPUT, FLOAT, &[texts, tokens, Dim::Is(WIDTH)]));
    file(graph, functions)
}

/// Makes a model file of a graph and the functions that its nodes call.
pub(super) fn file(graph: Message, functions: Vec<Message>) -> Vec<u8> {
    let opset = |domain: &str, version: i64| Message::default().string(1, domain).int(2, version);
    Message::default()
        .int(1, 8)
        .message(7, graph)
        .messages(8, [opset("", 17), opset("local", 1)])
        .messages(25, functions)
        .into_bytes()
}

/// Makes a model's folder around a file: mean pooling and normalization follow it.
pub(super) fn folder(file: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/distilbert");
    for name in ["config.json", "modules.json", "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json"] {
        let to = folder.path().join(name);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(from.join(name), to).expect("copied");
    }
    fs::write(folder.path().join("model.onnx"), file).expect("written");
    folder
}
