//! Reads safetensors files, tensor by tensor, as fp32.

use std::{
    borrow::Cow,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::{Dtype, tensor::Metadata};

use super::json_file::config;
use crate::Result;

/// The most bytes that a header may have: the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// Bytes that are read at once: a multiple of the size of all numbers.
const PART: usize = 1 << 18;

/// An open file of weights. Only the header is held in memory.
#[derive(Debug)]
pub(super) struct Weights {
    path: PathBuf,
    file: File,
    header: Metadata,
    /// The offset of the tensors' bytes.
    data: u64,
    hash: blake3::Hash,
}

/// A matrix or vector of weights, row-major.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f32>,
}

impl Tensor {
    /// Swaps the axes of a matrix: torch stores a linear layer as outputs by inputs, and ONNX needs inputs by outputs.
    pub(super) fn transposed(self) -> Self {
        /// Rows and columns per block, so that both sides stay in the cache.
        const BLOCK: usize = 32;
        let [rows, columns] = self.shape[..] else { return self };
        let mut data = vec![0.0; self.data.len()];
        for top in (0..rows).step_by(BLOCK) {
            for left in (0..columns).step_by(BLOCK) {
                for row in top..(top + BLOCK).min(rows) {
                    for column in left..(left + BLOCK).min(columns) {
                        data[column * rows + row] = self.data[row * columns + column];
                    }
                }
            }
        }
        Self { shape: vec![columns, rows], data }
    }

    /// Puts vectors, or matrices of the same number of rows, side by side.
    pub(super) fn side_by_side(parts: Vec<Self>) -> Self {
        let rows = parts.first().map_or(0, |part| if part.shape.len() == 2 { part.shape[0] } else { 1 });
        let widths: Vec<usize> = parts.iter().map(|part| part.shape.last().copied().unwrap_or(0)).collect();
        let width: usize = widths.iter().sum();
        let mut data = Vec::with_capacity(rows * width);
        for row in 0..rows {
            for (part, width) in parts.iter().zip(&widths) {
                data.extend_from_slice(&part.data[row * width..(row + 1) * width]);
            }
        }
        let vectors = parts.iter().all(|part| part.shape.len() == 1);
        Self { shape: if vectors { vec![width] } else { vec![rows, width] }, data }
    }
}

impl Weights {
    /// Opens the file, checks it from end to end, and hashes it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let wrong = |message: String| config(path, &message);
        let io = |error: std::io::Error| wrong("cannot be read".into()).with_source(error);
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut hasher = blake3::Hasher::new();
        let mut size = [0; 8];
        let cut_short = |what: &str| wrong(format!("is cut short in its {what} ({length} bytes): fetch it again"));
        if length < 8 {
            return Err(cut_short("first field"));
        }
        file.read_exact(&mut size).map_err(io)?;
        let header_size = u64::from_le_bytes(size);
        if header_size > MAX_HEADER {
            // Git LFS leaves a text of this beginning where a file was not fetched.
            let what = match &size {
                b"version " => "is a pointer of Git LFS and not the file: run `git lfs pull` in its repository",
                _ => "is not a safetensors file: its header's size makes no sense",
            };
            return Err(wrong(what.into()));
        }
        if length - 8 < header_size {
            return Err(cut_short("header"));
        }
        let mut start = size.to_vec();
        start.resize(8 + header_size as usize, 0);
        file.read_exact(&mut start[8..]).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&start[8..])
            .map_err(|error| wrong("is not a safetensors file: its header makes no sense".into()).with_source(error))?;
        let data = start.len() as u64;
        if length - data != header.data_len() as u64 {
            let (have, want) = (length - data, header.data_len());
            return Err(wrong(format!("has {have} bytes of data, its header says {want}: fetch it again")));
        }
        hasher.update(&start);
        hasher.update_reader(&mut file).map_err(io)?;
        Ok(Self { path: path.to_owned(), file, header, data, hash: hasher.finalize() })
    }

    /// Returns the hash of the whole file.
    pub(super) const fn hash(&self) -> blake3::Hash {
        self.hash
    }

    /// The names and shapes of all tensors.
    #[cfg(fuzzing)]
    pub(super) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.header.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// Returns the name that the file has for a tensor. In old checkpoints, the weight and the bias of a LayerNorm are
    /// gamma and beta.
    fn stored_name<'n>(&self, name: &'n str) -> Result<Cow<'n, str>> {
        match old_name(name).filter(|old| self.has(old)) {
            None => Ok(name.into()),
            Some(old) if self.has(name) => {
                let message = format!("has both {name} and {old}, which are two names of one tensor: remove one");
                Err(config(&self.path, &message))
            }
            Some(old) => Ok(old.into()),
        }
    }

    /// Reads one tensor, which must have this shape.
    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let wrong = |message: String| config(&self.path, &message);
        let name = &*self.stored_name(name)?;
        let Some(entry) = self.header.info(name) else {
            return Err(wrong(format!("has no tensor {name}")));
        };
        if entry.shape != shape {
            let message =
                format!("tensor {name} has the shape {:?}, but the configuration asks for {shape:?}", entry.shape);
            return Err(wrong(message));
        }
        let (size, decode): (usize, fn(&[u8]) -> f32) = match entry.dtype {
            Dtype::F32 => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Dtype::F16 => (2, |b| f16::from_le_bytes([b[0], b[1]]).to_f32()),
            Dtype::BF16 => (2, |b| bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            other => return Err(wrong(format!("tensor {name} is {other:?}, not F32, F16 or BF16"))),
        };
        let (start, end) = entry.data_offsets;
        let io = |error: std::io::Error| wrong(format!("cannot be read at tensor {name}")).with_source(error);
        self.file.seek(SeekFrom::Start(self.data + start as u64)).map_err(io)?;
        let mut data = Vec::with_capacity((end - start) / size);
        // In parts, so that the largest tensor is not in memory twice.
        let mut part = vec![0; PART.min(end - start)];
        for from in (start..end).step_by(PART) {
            let part = &mut part[..PART.min(end - from)];
            self.file.read_exact(part).map_err(io)?;
            data.extend(part.chunks_exact(size).map(decode));
        }
        if let Some(at) = data.iter().position(|value| !value.is_finite()) {
            return Err(wrong(format!("tensor {name} has {} at {at}: weights must be finite", data[at])));
        }
        Ok(Tensor { shape: shape.to_vec(), data })
    }
}

/// Returns the name that old checkpoints have for a part of a LayerNorm.
fn old_name(name: &str) -> Option<String> {
    let (norm, part) = name.rsplit_once('.')?;
    let old = match part {
        "weight" => "gamma",
        "bias" => "beta",
        _ => return None,
    };
    (norm.ends_with("LayerNorm") || norm.ends_with("layer_norm")).then(|| format!("{norm}.{old}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_beyond_a_block() {
        let (rows, columns) = (45, 70);
        let data: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let turned = Tensor { shape: vec![rows, columns], data: data.clone() }.transposed();
        assert_eq!(turned.shape, [columns, rows]);
        assert!((0..rows).all(|r| (0..columns).all(|c| turned.data[c * rows + r] == data[r * columns + c])));
    }

    #[test]
    fn puts_matrices_side_by_side() {
        let a = Tensor { shape: vec![2, 1], data: vec![1., 2.] };
        let b = Tensor { shape: vec![2, 2], data: vec![3., 4., 5., 6.] };
        let both = Tensor::side_by_side(vec![a, b]);
        assert_eq!((both.shape, both.data), (vec![2, 3], vec![1., 3., 4., 2., 5., 6.]));
    }
}
