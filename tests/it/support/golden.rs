//! Models and golden data: where they are, how they are read, and how far vectors are from them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use docvector_embed::{
    Pooling,
    ndarray::Array2,
    provider::{Onnx, OnnxBuilder},
};
use serde_json::Value;

use super::{assets, root};

/// all-MiniLM-L6-v2 with its weights.
pub(crate) fn minilm() -> PathBuf {
    let folder = assets().join("all-MiniLM-L6-v2");
    assert!(folder.is_dir(), "{} is missing: run scripts/fetch-assets", folder.display());
    folder
}

/// The same model as an `.onnx` file.
pub(crate) fn minilm_int8() -> PathBuf {
    assets().join("all-MiniLM-L6-v2-int8")
}

pub(crate) fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

/// A builder of a tiny model. The one without `modules.json` is meant to be pooled by mean.
pub(crate) fn tiny(name: &str) -> OnnxBuilder {
    let folder = golden("tiny").join(name);
    let bare = !folder.join("modules.json").exists();
    let builder = Onnx::builder(folder);
    if bare { builder.with_pooling([Pooling::Mean]) } else { builder }
}

/// Texts with their ids.
pub(crate) fn texts(file: &Path) -> Vec<(String, String)> {
    let read = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let field = |line: &Value, name: &str| line[name].as_str().expect("a string").to_owned();
    let lines = read.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|line| (field(&line, "id"), field(&line, "text"))).collect()
}

/// A JSON file.
pub(crate) fn json(file: &Path) -> Value {
    let read = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&read).expect("JSON")
}

/// An npy file of two axes and `<f4`.
pub(crate) fn npy(file: &Path) -> Array2<f32> {
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).expect("ASCII");
    assert!(header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split("'shape': (").nth(1).and_then(|rest| rest.split(')').next()).expect("a shape");
    let sizes: Vec<usize> = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let data =
        bytes[10 + length..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four bytes")));
    Array2::from_shape_vec((sizes[0], sizes[1]), data.collect()).expect("the shape fits")
}

/// How far vectors are from those they should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance {
    pub(crate) cosine_min: f64,
    pub(crate) cosine_mean: f64,
    pub(crate) difference_max: f64,
    /// The row with the least cosine.
    pub(crate) worst: usize,
}

pub(crate) fn distance<'a>(
    have: impl IntoIterator<Item = &'a [f32]>,
    want: impl IntoIterator<Item = &'a [f32]>,
) -> Distance {
    let mut found = Distance { cosine_min: f64::MAX, cosine_mean: 0.0, difference_max: 0.0, worst: 0 };
    let mut rows = 0;
    for (row, (have, want)) in have.into_iter().zip(want).enumerate() {
        assert_eq!(have.len(), want.len());
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let cosine = dot(have, want) / (dot(have, have) * dot(want, want)).sqrt();
        if cosine < found.cosine_min {
            (found.cosine_min, found.worst) = (cosine, row);
        }
        found.cosine_mean += cosine;
        let difference = have.iter().zip(want).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        found.difference_max = found.difference_max.max(difference);
        rows += 1;
    }
    found.cosine_mean /= f64::from(rows);
    found
}
