//! Inspects an `.onnx` file: the files that it needs beside it, and the precision of its arithmetic.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    json_file::{config, stays_below},
    proto::{Fields, Malformed, Value},
};
use crate::{Precision, Result};

/// The places of the `.onnx` file in a repository, in order of preference.
const PLACES: [&str; 2] = ["model.onnx", "onnx/model.onnx"];

/// Numbers of ONNX's element types.
const UINT8: i64 = 2;
const INT8: i64 = 3;

/// An `.onnx` file, and what was found in it.
#[derive(Debug)]
pub(super) struct OnnxFile {
    pub(super) path: PathBuf,
    pub(super) precision: Precision,
    /// Whether it quantizes by the range of numbers in the batch: then a vector depends on the other texts of its
    /// batch.
    pub(super) dynamic: bool,
    pub(super) hash: blake3::Hash,
}

/// Finds the `.onnx` file of a folder, if it has one in a usual place.
pub(super) fn find(root: &Path) -> Option<PathBuf> {
    PLACES.iter().map(|place| root.join(place)).find(|path| path.is_file())
}

impl OnnxFile {
    /// Reads the file from end to end, and checks and hashes the files that its weights are in.
    pub(super) fn inspect(path: &Path) -> Result<Self> {
        let wrong = |message: String| config(path, &message);
        let bytes = fs::read(path).map_err(|error| wrong("cannot be read".into()).with_source(error))?;
        let mut found = FileContents::default();
        let graphs = found.model(&bytes).map_err(|error| wrong(error.to_string()))?;
        if graphs == 0 {
            return Err(wrong("is cut short or is not an ONNX model: it has no graph".into()));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        found.external.sort();
        found.external.dedup_by(|later, first| {
            let same = later.file == first.file;
            first.end = if same { first.end.max(later.end) } else { first.end };
            same
        });
        for ExternalFile { file, end } in &found.external {
            let beside = external(path, file).map_err(&wrong)?;
            let have = fs::metadata(&beside).map_err(|error| {
                wrong(format!("keeps weights in {file}, which is not beside it: fetch it too")).with_source(error)
            })?;
            if have.len() < *end {
                let message = format!("keeps weights in {file}, which is cut short: {} of {end} bytes", have.len());
                return Err(wrong(message));
            }
            let read = fs::File::open(&beside).and_then(|file| hasher.update_reader(file).map(drop));
            read.map_err(|error| wrong(format!("keeps weights in {file}, which cannot be read")).with_source(error))?;
        }
        let precision = if found.int8 { Precision::Int8 } else { Precision::Full };
        Ok(Self { path: path.to_owned(), precision, dynamic: found.dynamic, hash: hasher.finalize() })
    }
}

/// Returns the path of a file that a model names, which must be below the model's own folder.
fn external(model: &Path, file: &str) -> Result<PathBuf, String> {
    let named = Path::new(file);
    if file.is_empty() || !stays_below(named) {
        return Err(format!("keeps weights in {file}, which is not below its folder"));
    }
    Ok(model.parent().unwrap_or(Path::new("")).join(named))
}

#[derive(Debug, Default)]
struct FileContents {
    external: Vec<ExternalFile>,
    int8: bool,
    dynamic: bool,
}

/// A file with weights, and how many bytes of it are needed.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ExternalFile {
    file: String,
    end: u64,
}

impl FileContents {
    /// Reads a ModelProto, and returns the number of its graphs.
    fn model(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut graphs = 0;
        for field in Fields::of(bytes) {
            if let (7, Value::Bytes(graph)) = field? {
                graphs += 1;
                self.graph(graph)?;
            }
        }
        Ok(graphs)
    }

    fn graph(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(node)) => self.node(node)?,
                (5, Value::Bytes(tensor)) => self.tensor(tensor)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        for field in Fields::of(bytes) {
            if let (4, Value::Bytes(op)) = field? {
                self.dynamic |= op.starts_with(b"Dynamic");
                self.int8 |= op.starts_with(b"Dynamic") || op == b"MatMulInteger";
            }
        }
        Ok(())
    }

    fn tensor(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let (mut kind, mut elements, mut outside) = (0, 1_i64, false);
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
                (14, value) => outside = value.int() == Some(1),
                (13, Value::Bytes(entry)) => external.read(entry)?,
                _ => {}
            }
        }
        if outside {
            let end = u64::saturating_add(external.offset, external.length);
            self.external.push(ExternalFile { file: external.location, end });
        }
        // Scales and zero points are small; weights are not.
        self.int8 |= matches!(kind, INT8 | UINT8) && elements >= 1024;
        Ok(())
    }
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_outside_the_folder_are_refused() {
        assert!(external(Path::new("m/model.onnx"), "../../etc/passwd").is_err());
        assert!(external(Path::new("m/model.onnx"), "/etc/passwd").is_err());
        assert_eq!(external(Path::new("m/model.onnx"), "model.onnx_data"), Ok(PathBuf::from("m/model.onnx_data")));
    }

    #[test]
    fn dynamic_quantization_is_seen() {
        use super::super::proto::Message;
        let model = |op: &str| {
            let node = Message::default().string(1, "x").string(4, op);
            Message::default().message(7, Message::default().message(1, node)).into_bytes()
        };
        for (op, dynamic) in [("DynamicQuantizeLinear", true), ("DynamicQuantizeMatMul", true), ("MatMul", false)] {
            let mut found = FileContents::default();
            assert_eq!(found.model(&model(op)), Ok(1));
            assert_eq!((found.dynamic, found.int8), (dynamic, dynamic), "{op}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = FileContents::default().model(&bytes);
        }
    }
}
