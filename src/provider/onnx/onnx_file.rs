//! Inspects an `.onnx` file: the files that it needs beside it, and the precision of its arithmetic.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    json_file::{config, stays_below},
    onnx_contents::{ExternalFile, FileContents},
};
use crate::{Precision, Result};

/// The places of the `.onnx` file in a repository, in order of preference.
const PLACES: [&str; 2] = ["model.onnx", "onnx/model.onnx"];

/// An `.onnx` file, and what was found in it.
#[derive(Debug)]
pub(super) struct OnnxFile {
    pub(super) path: PathBuf,
    pub(super) precision: Precision,
    pub(super) rounding: Rounding,
    /// Whether it quantizes by the range of numbers in the batch: then a vector depends on the other texts of its
    /// batch.
    pub(super) dynamic: bool,
    pub(super) hash: blake3::Hash,
}

/// How far the numbers are rounded that a model computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// To 32 bits.
    Full,
    /// To 16 bits, at some places at least.
    Half,
    /// To 8 bits, at some places at least.
    EightBits,
}

/// Finds the `.onnx` file of a folder, if it has one in a usual place.
pub(super) fn find(root: &Path) -> Option<PathBuf> {
    PLACES.iter().map(|place| root.join(place)).find(|path| path.is_file())
}

/// Finds `.onnx` files of other names in the folder and in its folder `onnx`, as paths in the folder, in order.
pub(super) fn others(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [Path::new(""), Path::new("onnx")] {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let names = entries.map(|entry| folder.join(entry.file_name()));
        found.extend(names.filter(|name| name.extension().is_some_and(|end| end == "onnx")));
    }
    found.sort();
    found
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
        let check = |ExternalFile { file, end }: &ExternalFile| {
            let beside = external(path, file).map_err(&wrong)?;
            let have = fs::metadata(&beside).map_err(|error| {
                wrong(format!("keeps weights in {file}, which is not beside it: fetch it too")).with_source(error)
            })?;
            if have.len() < *end {
                let message = format!("keeps weights in {file}, which is cut short: {} of {end} bytes", have.len());
                return Err(wrong(message));
            }
            Ok(beside)
        };
        // The hash keeps to the main graph's weights: it is a part of the ids of spaces that exist.
        found.external_elsewhere.iter().try_for_each(|one| check(one).map(drop))?;
        found.external.sort();
        found.external.dedup_by(|later, first| {
            let same = later.file == first.file;
            first.end = if same { first.end.max(later.end) } else { first.end };
            same
        });
        for one in &found.external {
            let read = fs::File::open(check(one)?).and_then(|file| hasher.update_reader(file).map(drop));
            read.map_err(|error| {
                wrong(format!("keeps weights in {}, which cannot be read", one.file)).with_source(error)
            })?;
        }
        let (precision, rounding) = match (found.int8, found.half) {
            (true, _) => (Precision::Int8, Rounding::EightBits),
            (false, true) => (Precision::Full, Rounding::Half),
            (false, false) => (Precision::Full, Rounding::Full),
        };
        Ok(Self { path: path.to_owned(), precision, rounding, dynamic: found.dynamic, hash: hasher.finalize() })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::onnx::proto::Message;

    /// Makes a tensor whose data are the first 4 bytes of a file.
    fn outside(file: &str) -> Message {
        let place = |key: &str, value: &str| Message::default().string(1, key).string(2, value);
        let tensor = Message::default().int(1, 1).int(2, 1).int(14, 1);
        tensor.messages(13, [place("location", file), place("length", "4")])
    }

    /// The hash is a part of the ids of spaces that exist, and was made of these bytes from the first.
    #[test]
    fn the_hash_is_that_of_the_file_and_of_the_main_graphs_weights() {
        let value = Message::default().string(1, "value").message(5, outside("constant"));
        let constant = Message::default().string(2, "c").string(4, "Constant").message(5, value);
        let inner = Message::default().string(1, "body").message(6, Message::default().message(5, outside("inner")));
        let nodes = [constant, Message::default().string(4, "Loop").message(5, inner)];
        let graph = Message::default().messages(1, nodes).message(5, outside("weights"));
        let bytes = Message::default().message(7, graph).into_bytes();
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("written");
        let inspect = || OnnxFile::inspect(&folder.path().join("model.onnx"));
        write("model.onnx", &bytes);
        write("weights", b"1234");
        for name in ["constant", "inner"] {
            let refused = || inspect().expect_err("a file is not whole").to_string();
            assert!(refused().contains(&format!("keeps weights in {name}, which is not beside it")));
            write(name, b"567");
            assert!(refused().contains(&format!("keeps weights in {name}, which is cut short: 3 of 4 bytes")));
            write(name, b"5678");
        }
        let hash = blake3::hash(&[&bytes[..], b"1234"].concat());
        assert_eq!(inspect().expect("whole").hash, hash);
        write("constant", b"other");
        assert_eq!(inspect().expect("whole").hash, hash);
        write("weights", b"4321");
        assert_ne!(inspect().expect("whole").hash, hash);
    }

    #[test]
    fn files_outside_the_folder_are_refused() {
        assert!(external(Path::new("m/model.onnx"), "../../etc/passwd").is_err());
        assert!(external(Path::new("m/model.onnx"), "/etc/passwd").is_err());
        assert_eq!(external(Path::new("m/model.onnx"), "model.onnx_data"), Ok(PathBuf::from("m/model.onnx_data")));
    }
}
