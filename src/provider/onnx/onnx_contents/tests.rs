//! What is seen in an `.onnx` file, and that a file which quantizes by the batch gives a text the same vector in any
//! batch.

use std::slice;

use proptest::prelude::*;

use super::*;
use crate::{
    Batch, Embedder, Truncation,
    provider::onnx::{
        Onnx,
        device::Device,
        proto::Message,
        runner::Runner,
        stages::{RunBatch, TokenRow},
        tiny_file::{OUTPUT, VECTORS, folder, int, model, node, subgraph, tensor},
    },
};

/// Reads a file that must be a model with one graph.
fn read(file: &[u8]) -> FileContents {
    let mut found = FileContents::default();
    assert_eq!(found.model(file), Ok(1));
    found
}

/// Makes nodes that quantize `VECTORS` by their range, and turn them back into `output`.
fn by_range(output: &str) -> Vec<Message> {
    let parts = ["narrow", "scale", "zero"];
    vec![
        node("DynamicQuantizeLinear", &[VECTORS], &parts, Vec::new()),
        node("DequantizeLinear", &parts, &[output], Vec::new()),
    ]
}

fn graph_attribute(name: &str, graph: Message) -> Message {
    Message::default().string(1, name).message(6, graph).int(20, 5)
}

fn tensor_attribute(name: &str, tensor: Message) -> Message {
    Message::default().string(1, name).message(5, tensor).int(20, 4)
}

fn constant(name: &str, value: f32) -> Message {
    node("Constant", &[], &[name], vec![tensor_attribute("value", tensor("", &[], &[value]))])
}

/// Makes a call of a function that quantizes, and the function.
fn in_a_function() -> Vec<u8> {
    let function = Message::default().string(1, "Rounded").string(4, VECTORS).string(5, "rounded");
    let function = function.messages(7, by_range("rounded")).string(10, "local");
    let function = function.message(9, Message::default().string(1, "").int(2, 17));
    let call = node("Rounded", &[VECTORS], &[OUTPUT], Vec::new()).string(7, "local");
    model(vec![call], vec![function], [None; 2])
}

/// Makes a branch that quantizes.
fn in_a_branch() -> Vec<u8> {
    let yes = Message::default().int(2, 9).bytes(9, &[1]);
    let yes = node("Constant", &[], &["yes"], vec![tensor_attribute("value", yes)]);
    let branch = |name: &str, output: &str| graph_attribute(name, subgraph(by_range(output), &[output]));
    let branches = vec![branch("then_branch", "then"), branch("else_branch", "else")];
    model(vec![yes, node("If", &["yes"], &[OUTPUT], branches)], Vec::new(), [None; 2])
}

/// Makes a scale of the range of all numbers, out of ordinary nodes.
fn scale_by_hand() -> Vec<Message> {
    vec![
        node("Abs", &[VECTORS], &["sizes"], Vec::new()),
        node("ReduceMax", &["sizes"], &["size"], vec![int("keepdims", 0)]),
        constant("steps", 127.0),
        node("Div", &["size", "steps"], &["scale"], Vec::new()),
    ]
}

fn by_hand() -> Vec<u8> {
    let mut nodes = scale_by_hand();
    let zero = Message::default().int(2, 3).bytes(9, &[0]);
    nodes.push(node("Constant", &[], &["zero"], vec![tensor_attribute("value", zero)]));
    let parts = ["narrow", "scale", "zero"];
    nodes.push(node("QuantizeLinear", &[VECTORS, "scale", "zero"], &["narrow"], Vec::new()));
    nodes.push(node("DequantizeLinear", &parts, &[OUTPUT], Vec::new()));
    model(nodes, Vec::new(), [None; 2])
}

/// Makes a file that rounds by a scale of the range, casts to 8 bits, and multiplies these as whole numbers.
fn by_hand_with_a_cast() -> Vec<u8> {
    let mut nodes = scale_by_hand();
    let one: Vec<u8> = (0..256).map(|at| u8::from(at % 17 == 0)).collect();
    let one = Message::default().int(1, 16).int(1, 16).int(2, 3).bytes(9, &one);
    nodes.extend([
        node("Constant", &[], &["identity"], vec![tensor_attribute("value", one)]),
        node("Div", &[VECTORS, "scale"], &["whole"], Vec::new()),
        node("Round", &["whole"], &["rounded"], Vec::new()),
        node("Cast", &["rounded"], &["narrow"], vec![int("to", 3)]),
        node("MatMulInteger", &["narrow", "identity"], &["product"], Vec::new()),
        node("Cast", &["product"], &["wide"], vec![int("to", 1)]),
        node("Mul", &["wide", "scale"], &[OUTPUT], Vec::new()),
    ]);
    model(nodes, Vec::new(), [None; 2])
}

/// Makes a file whose scale is made of constants, so it is the same in each batch.
fn with_a_constant_scale() -> Vec<u8> {
    let parts = ["narrow", "scale"];
    let nodes = vec![
        constant("size", 14.0),
        constant("steps", 127.0),
        node("Div", &["size", "steps"], &["exact"], Vec::new()),
        node("Identity", &["exact"], &["scale"], Vec::new()),
        node("QuantizeLinear", &[VECTORS, "scale", ""], &["narrow"], Vec::new()),
        node("DequantizeLinear", &parts, &[OUTPUT], Vec::new()),
    ];
    model(nodes, Vec::new(), [None; 2])
}

#[test]
fn dynamic_quantization_is_seen() {
    let plain = |op: &str| model(vec![node(op, &[VECTORS], &[OUTPUT], Vec::new())], Vec::new(), [None; 2]);
    for (what, file, dynamic) in [
        ("DynamicQuantizeLinear", plain("DynamicQuantizeLinear"), true),
        ("DynamicQuantizeMatMul", plain("DynamicQuantizeMatMul"), true),
        ("MatMul", plain("MatMul"), false),
        ("a function", in_a_function(), true),
        ("a branch", in_a_branch(), true),
        ("by hand", by_hand(), true),
        ("by hand with a cast", by_hand_with_a_cast(), true),
        ("a constant scale", with_a_constant_scale(), false),
    ] {
        let found = read(&file);
        assert_eq!((found.dynamic, found.int8), (dynamic, dynamic), "{what}");
    }
}

/// A cast to 8 bits alone may be that of a mask.
#[test]
fn a_mask_in_8_bits_is_not_quantization() {
    let cast = node("Cast", &[VECTORS], &["mask"], vec![int("to", 2)]);
    let found = read(&model(vec![cast], Vec::new(), [None; 2]));
    assert_eq!((found.dynamic, found.int8), (false, false));
}

/// A function may leave the type of a cast to its calls.
#[test]
fn a_cast_whose_type_each_call_gives_may_be_to_8_bits() {
    let to = |outer: &str| Message::default().string(1, "to").string(21, outer).int(20, 2);
    let file = |attribute: Message| {
        let function = Message::default().string(1, "Narrow").string(4, "in").string(5, "out").string(10, "local");
        let function = function.message(7, node("Cast", &["in"], &["out"], vec![attribute]));
        let product = node("MatMulInteger", &["narrow", "narrow"], &["product"], Vec::new());
        let call = node("Narrow", &[VECTORS], &["narrow"], vec![int("type", 3)]).string(7, "local");
        model(vec![call, product], vec![function], [None; 2])
    };
    assert!(read(&file(to("type"))).dynamic);
    assert!(!read(&file(int("to", 1))).dynamic);
}

#[test]
fn numbers_of_16_bits_are_seen() {
    let cast = |to| read(&model(vec![node("Cast", &[VECTORS], &[OUTPUT], vec![int("to", to)])], Vec::new(), [None; 2]));
    let weights = |kind| {
        let graph = Message::default().message(5, Message::default().int(1, 4).int(2, kind).string(8, "w"));
        read(&Message::default().message(7, graph).into_bytes())
    };
    for (kind, half) in [(FLOAT16, true), (BFLOAT16, true), (1, false)] {
        assert_eq!((cast(kind).half, weights(kind).half), (half, half), "{kind}");
    }
}

/// The scale of a branch may come from outside, and a name of a loop's body may hide one from outside.
#[test]
fn names_of_the_outer_graph_are_known_in_a_subgraph() {
    let quantize = || node("QuantizeLinear", &[VECTORS, "scale"], &["narrow"], Vec::new());
    let body = |graph: Message| node("If", &["yes"], &[OUTPUT], vec![graph_attribute("then_branch", graph)]);
    let file = |graph: Message| model(vec![constant("scale", 0.1), body(graph)], Vec::new(), [None; 2]);
    let plain = Message::default().message(1, quantize());
    assert!(!read(&file(plain)).dynamic);
    let hidden = Message::default().message(11, Message::default().string(1, "scale")).message(1, quantize());
    assert!(read(&file(hidden)).dynamic);
}

#[test]
fn weights_in_attributes_and_sparse_weights_are_read() {
    let place = |key: &str, value: &str| Message::default().string(1, key).string(2, value);
    let outside = |file: &str| {
        let tensor = tensor("w", &[2], &[]).int(14, 1).message(13, place("location", file));
        tensor.message(13, place("offset", "8")).message(13, place("length", "100"))
    };
    let constant = |tensor| node("Constant", &[], &["w"], vec![tensor_attribute("value", tensor)]);
    let list = Message::default().string(1, "all").message(10, outside("b"));
    let sparse = Message::default().message(1, outside("c")).message(2, outside("d"));
    let nodes = vec![constant(outside("a")), node("Op", &[], &["x"], vec![list])];
    let graph = Message::default().messages(1, nodes).message(15, sparse);
    let found = read(&Message::default().message(7, graph).into_bytes());
    assert_eq!(found.external, []);
    let files: Vec<_> = found.external_elsewhere.iter().map(|one| (one.file.as_str(), one.end)).collect();
    // A graph's weights are read before its nodes.
    assert_eq!(files, [("c", 108), ("d", 108), ("a", 108), ("b", 108)]);
    let narrow = |elements: usize| Message::default().int(1, elements as i64).int(2, INT8);
    for (elements, int8) in [(1024, true), (16, false)] {
        let found = read(&model(vec![constant(narrow(elements))], Vec::new(), [None; 2]));
        assert_eq!((found.int8, found.dynamic), (int8, false), "{elements}");
    }
}

/// A mask in bytes is no weight: as a space says its precision, its id would change. How a node reads them tells.
#[test]
fn bytes_in_an_attribute_are_weights_if_they_are_read_as_such() {
    let bytes = |elements: i64| Message::default().int(1, elements).int(2, UINT8);
    let constant = |elements| node("Constant", &[], &["w"], vec![tensor_attribute("value", bytes(elements))]);
    let read_by = |ops: &[&str], elements| {
        let names = ["w", "x", "y"];
        let reads =
            ops.iter().enumerate().map(|(at, op)| node(op, &names[at..=at], &names[at + 1..at + 2], Vec::new()));
        read(&model([constant(elements)].into_iter().chain(reads).collect(), Vec::new(), [None; 2])).int8
    };
    for (ops, int8) in [
        (&[][..], false),
        (&["Where"], false),
        (&["Cast", "DequantizeLinear"], false),
        (&["DequantizeLinear"], true),
        (&["QLinearMatMul"], true),
        (&["MatMulInteger"], true),
        (&["Transpose", "DequantizeLinear"], true),
    ] {
        assert_eq!(read_by(ops, 1024), int8, "{ops:?}");
    }
    assert!(!read_by(&["DequantizeLinear"], 1023), "scales and zero points are small");
    // The main graph's weights are weights.
    let graph = Message::default().message(5, bytes(1024).string(8, "w"));
    assert!(read(&Message::default().message(7, graph).into_bytes()).int8);
}

#[test]
fn graphs_in_graphs_are_read_as_deep_as_protobuf_does() {
    let nested = |graphs: usize| {
        let inner = (1..graphs).fold(Message::default(), |inner, _| {
            Message::default().message(1, node("If", &[], &["x"], vec![graph_attribute("then_branch", inner)]))
        });
        Message::default().message(7, inner).into_bytes()
    };
    // Each graph in a graph is three messages deeper: node, attribute, graph.
    assert_eq!(FileContents::default().model(&nested(34)), Ok(1));
    assert_eq!(FileContents::default().model(&nested(35)), Err(Unreadable::TooDeep));
    assert_eq!(FileContents::default().model(&nested(1000)), Err(Unreadable::TooDeep));
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// ONNX Runtime itself runs these files. Two texts in one batch change each other, so each text needs its own.
#[tokio::test]
async fn a_text_has_the_same_vector_alone_and_among_others() {
    let texts: Vec<String> = (0..61).map(|at| format!("text {at} of many {}", "about owls ".repeat(at % 5))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (what, file) in [
        ("a function", in_a_function()),
        ("a branch", in_a_branch()),
        ("by hand", by_hand()),
        ("by hand with a cast", by_hand_with_a_cast()),
    ] {
        let folder = folder(&file);
        let embedder = Onnx::builder(folder.path()).with_threads(1).build().expect(what);
        let embed = |texts| embedder.embed(Batch::documents(texts).with_truncation(Truncation::Truncate));
        let alone = embed(slice::from_ref(&texts[0])).await.expect(what);
        let among = embed(&texts[..]).await.expect(what);
        let far = farthest(alone.row(0), among.row(0));
        assert!(far <= 1e-6, "{what}: {far}");

        let mut runner = Runner::start(&embedder.0.model, &embedder.0.environment, Device::Cpu).expect(what);
        let mut first = |rows: &[TokenRow<'_>]| {
            let mut all = Vec::new();
            runner.run_batch(rows, &mut |vectors| all = vectors.to_vec()).expect(what);
            all
        };
        let rows = [&[2, 20, 3][..], &[2, 12, 25, 3]].map(|ids| TokenRow { ids, unpooled: 0 });
        let far = farthest(&first(&rows[..1])[..16], &first(&rows)[..16]);
        assert!(far > 1e-4, "{what}: this file does not quantize by the batch: {far}");
    }
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = FileContents::default().model(&bytes);
    }
}
