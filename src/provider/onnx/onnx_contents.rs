//! Reads what an `.onnx` file holds: the files with its weights, and how it quantizes.
//!
//! Field numbers are those of ONNX's `onnx.proto`. Functions and the graphs of attributes are read like the main graph.

use std::collections::HashMap;

use super::proto::{Fields, Malformed, Value};

/// Numbers of ONNX's element types.
const UINT8: i64 = 2;
const INT8: i64 = 3;
const FLOAT16: i64 = 10;
const BFLOAT16: i64 = 16;

/// The most messages that may lie in each other. It is protobuf's own limit, so ONNX Runtime reads no deeper file.
const MOST_NESTED: usize = 100;

/// What was found in a file.
#[derive(Debug, Default)]
pub(super) struct FileContents {
    /// The files with the main graph's weights.
    pub(super) external: Vec<ExternalFile>,
    /// The files that attributes, sparse weights and the graphs in graphs name.
    pub(super) external_elsewhere: Vec<ExternalFile>,
    /// Whether it computes in 8 bits.
    pub(super) int8: bool,
    /// Whether it computes in 16 bits.
    pub(super) half: bool,
    /// Whether it quantizes by the range of the numbers in the batch.
    pub(super) dynamic: bool,
    /// Whether it makes numbers of 8 bits of computed ones, without an operator that is made for it.
    narrows: bool,
}

/// A file with weights, and how many bytes of it are needed.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExternalFile {
    pub(super) file: String,
    pub(super) end: u64,
}

/// Where a file keeps a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    MainWeights,
    Elsewhere,
}

/// The reason that a file cannot be read: the end of a sentence that begins with its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("has graphs inside graphs, deeper than the {MOST_NESTED} levels that protobuf reads: export it again")]
    TooDeep,
}

/// What a name in a graph or a function stands for.
#[derive(Clone, Copy, Debug, Default)]
struct Meaning {
    /// Whether it stands for the same numbers in all runs.
    fixed: bool,
    /// Whether it is a large tensor of bytes, which may be weights or a mask.
    bytes: bool,
}

/// The names in a graph or a function.
#[derive(Debug, Default)]
struct Scope<'a> {
    names: HashMap<&'a [u8], Meaning>,
    outer: Option<&'a Self>,
}

impl Scope<'_> {
    /// Returns what the name stands for. An empty name is an input that is left out.
    fn meaning(&self, name: &[u8]) -> Meaning {
        if name.is_empty() {
            return Meaning { fixed: true, bytes: false };
        }
        let outside = || self.outer.map(|outer| outer.meaning(name));
        self.names.get(name).copied().or_else(outside).unwrap_or_default()
    }
}

/// The parts of an attribute that say something about its node.
#[derive(Clone, Copy, Debug, Default)]
struct Attribute {
    /// Whether it holds a graph, which may use names from outside.
    graph: bool,
    /// Whether it may be the type `to` of 8 bits.
    to_8_bits: bool,
    /// Whether it is the type `to` of 16 bits.
    to_16_bits: bool,
    /// Whether it holds a large tensor of bytes.
    bytes: bool,
}

impl FileContents {
    /// Reads a ModelProto, and returns the number of its graphs.
    pub(super) fn model(&mut self, bytes: &[u8]) -> Result<usize, Unreadable> {
        let mut graphs = 0;
        for field in Fields::of(bytes) {
            match field? {
                (7, Value::Bytes(graph)) => {
                    graphs += 1;
                    self.graph(graph, 1, None)?;
                }
                (25, Value::Bytes(function)) => self.function(function)?,
                _ => {}
            }
        }
        // Numbers in 8 bits that nothing multiplies as such may be masks.
        self.dynamic |= self.narrows && self.int8;
        Ok(graphs)
    }

    fn graph(&mut self, bytes: &[u8], depth: usize, outer: Option<&Scope<'_>>) -> Result<(), Unreadable> {
        if depth > MOST_NESTED {
            return Err(Unreadable::TooDeep);
        }
        let mut scope = Scope { outer, ..Scope::default() };
        let mut inputs = Vec::new();
        let place = if outer.is_none() { Place::MainWeights } else { Place::Elsewhere };
        // Weights may stand after the nodes that use them.
        for field in Fields::of(bytes) {
            match field? {
                (5, Value::Bytes(tensor)) => {
                    let (name, bytes) = self.tensor(tensor, place)?;
                    scope.names.insert(name, Meaning { fixed: true, bytes });
                }
                (11, Value::Bytes(input)) => inputs.push(text_field(input, 1)?),
                (15, Value::Bytes(tensor)) => {
                    let (name, bytes) = self.sparse_tensor(tensor)?;
                    scope.names.insert(name, Meaning { fixed: true, bytes });
                }
                _ => {}
            }
        }
        // The weights are the defaults of inputs of the same names. The main graph gets no such inputs from us; a loop
        // gives them to its body.
        if outer.is_some() {
            scope.names.extend(inputs.into_iter().map(|name| (name, Meaning::default())));
        }
        for field in Fields::of(bytes) {
            if let (1, Value::Bytes(node)) = field? {
                self.node(node, depth + 1, &mut scope)?;
            }
        }
        Ok(())
    }

    /// Reads a FunctionProto. Its inputs count as computed: each call may give it others.
    fn function(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let mut scope = Scope::default();
        for field in Fields::of(bytes) {
            match field? {
                (7, Value::Bytes(node)) => self.node(node, 2, &mut scope)?,
                (11, Value::Bytes(default)) => {
                    self.attribute(default, 2, &scope)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn node<'a>(&mut self, bytes: &'a [u8], depth: usize, scope: &mut Scope<'a>) -> Result<(), Unreadable> {
        let (mut inputs, mut outputs, mut op) = (Vec::new(), Vec::new(), &b""[..]);
        let mut about = Attribute::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(name)) => inputs.push(name),
                (2, Value::Bytes(name)) => outputs.push(name),
                (4, Value::Bytes(name)) => op = name,
                (5, Value::Bytes(attribute)) => {
                    let one = self.attribute(attribute, depth + 1, scope)?;
                    about.graph |= one.graph;
                    about.to_8_bits |= one.to_8_bits;
                    about.to_16_bits |= one.to_16_bits;
                    about.bytes |= one.bytes;
                }
                _ => {}
            }
        }
        let computed = |name: &&[u8]| !scope.meaning(name).fixed;
        let fixed = !about.graph && !inputs.iter().any(&computed);
        // Its inputs after the first are the scale and the zero point.
        let by_hand = op == b"QuantizeLinear" && inputs.iter().skip(1).any(computed);
        let dynamic = op.starts_with(b"Dynamic") || by_hand;
        self.dynamic |= dynamic;
        let reads_bytes = inputs.iter().any(|name| scope.meaning(name).bytes);
        let quantized = reads_bytes && (op == b"DequantizeLinear" || op.starts_with(b"QLinear"));
        self.int8 |= dynamic || quantized || op == b"MatMulInteger";
        self.half |= op == b"Cast" && about.to_16_bits;
        self.narrows |= op == b"Cast" && about.to_8_bits && !fixed;
        let bytes = about.bytes || (reads_bytes && matches!(op, b"Identity" | b"Reshape" | b"Transpose"));
        scope.names.extend(outputs.into_iter().map(|name| (name, Meaning { fixed, bytes })));
        Ok(())
    }

    fn attribute(&mut self, bytes: &[u8], depth: usize, scope: &Scope<'_>) -> Result<Attribute, Unreadable> {
        let (mut about, mut name, mut number, mut refers) = (Attribute::default(), &b""[..], 0, false);
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(text)) => name = text,
                (3, value) => number = value.int().unwrap_or(0),
                (5 | 10, Value::Bytes(tensor)) => {
                    about.bytes |= self.tensor(tensor, Place::Elsewhere)?.1;
                }
                (22 | 23, Value::Bytes(tensor)) => {
                    about.bytes |= self.sparse_tensor(tensor)?.1;
                }
                // The name of an attribute of the function around it, whose value each call gives.
                (21, Value::Bytes(outer)) => refers = !outer.is_empty(),
                (6 | 11, Value::Bytes(graph)) => {
                    about.graph = true;
                    self.graph(graph, depth + 1, Some(scope))?;
                }
                _ => {}
            }
        }
        about.to_8_bits = name == b"to" && (refers || matches!(number, INT8 | UINT8));
        about.to_16_bits = name == b"to" && matches!(number, FLOAT16 | BFLOAT16);
        Ok(about)
    }

    /// Reads a SparseTensorProto, and returns what [`tensor`](Self::tensor) does of its values.
    fn sparse_tensor<'a>(&mut self, bytes: &'a [u8]) -> Result<(&'a [u8], bool), Malformed> {
        let mut read = (&b""[..], false);
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(values)) => read = self.tensor(values, Place::Elsewhere)?,
                (2, Value::Bytes(indices)) => {
                    self.tensor(indices, Place::Elsewhere)?;
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// Reads a TensorProto, and returns its name, and whether it holds many bytes of which only their use tells whether
    /// they are weights.
    fn tensor<'a>(&mut self, bytes: &'a [u8], place: Place) -> Result<(&'a [u8], bool), Malformed> {
        let (mut kind, mut elements, mut outside, mut name) = (0, 1_i64, false, &b""[..]);
        let mut external = ExternalData::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Int(dim)) => elements = elements.saturating_mul(dim as i64),
                // The same dimensions in packed form.
                (1, Value::Bytes(mut dims)) => {
                    while let Some((dim, rest)) = packed(dims) {
                        elements = elements.saturating_mul(dim);
                        dims = rest;
                    }
                }
                (2, value) => kind = value.int().unwrap_or(0),
                (8, Value::Bytes(text)) => name = text,
                (14, value) => outside = value.int() == Some(1),
                (13, Value::Bytes(entry)) => external.read(entry)?,
                _ => {}
            }
        }
        if outside {
            let end = u64::saturating_add(external.offset, external.length);
            let files = match place {
                Place::MainWeights => &mut self.external,
                Place::Elsewhere => &mut self.external_elsewhere,
            };
            files.push(ExternalFile { file: external.location, end });
        }
        self.half |= matches!(kind, FLOAT16 | BFLOAT16);
        // Scales and zero points are small; weights are not.
        let large = elements >= 1024;
        // A mask is in bytes too, if a Constant holds it.
        let bytes = large && kind == UINT8 && place == Place::Elsewhere;
        self.int8 |= large && matches!(kind, INT8 | UINT8) && !bytes;
        Ok((name, bytes))
    }
}

/// Returns a field of a message that is a string or bytes; the last one counts.
fn text_field(bytes: &[u8], number: u32) -> Result<&[u8], Malformed> {
    let mut text = &b""[..];
    for field in Fields::of(bytes) {
        if let (at, Value::Bytes(found)) = field?
            && at == number
        {
            text = found;
        }
    }
    Ok(text)
}

/// The place of a tensor's data: the entries of its field `external_data`.
#[derive(Debug, Default)]
struct ExternalData {
    location: String,
    offset: u64,
    length: u64,
}

impl ExternalData {
    /// Reads one entry, a key and a value.
    fn read(&mut self, entry: &[u8]) -> Result<(), Malformed> {
        let (mut key, mut text) = ("", "");
        for field in Fields::of(entry) {
            match field? {
                (1, value) => key = value.text().unwrap_or_default(),
                (2, value) => text = value.text().unwrap_or_default(),
                _ => {}
            }
        }
        match key {
            "location" => self.location = text.to_owned(),
            "offset" => self.offset = text.parse().unwrap_or(0),
            "length" => self.length = text.parse().unwrap_or(0),
            _ => {}
        }
        Ok(())
    }
}

/// Returns the first of packed varints, and the bytes after it.
fn packed(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let value = bytes[..end.min(9)].iter().rev().fold(0_u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value as i64, &bytes[end..]))
}

#[cfg(test)]
mod tests;
