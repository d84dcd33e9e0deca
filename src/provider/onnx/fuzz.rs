//! Opens the readers of model files to `tests/fuzz`.
#![allow(missing_docs)]

use std::path::Path;

use super::{
    model_folder::ModelFolder,
    onnx_file::OnnxFile,
    stages::{ReadSoFar, Tokenize as _},
    tokenizer::ModelTokenizer,
    weights::Weights,
};
use crate::{CountTokens, InputKind, Result, Truncation};

/// The tokens of a text.
#[derive(Debug)]
pub struct Tokens {
    pub ids: Vec<u32>,
    pub truncated: bool,
    /// The tokens of the whole text.
    pub counted: usize,
}

/// Opens a safetensors file and reads every tensor that is in a supported format: its shape and numbers.
pub fn read_weights(path: &Path) -> Result<Vec<(Vec<usize>, Vec<f32>)>> {
    let mut weights = Weights::open(path)?;
    let read = weights.tensors().into_iter().filter_map(|(name, shape)| weights.read(&name, &shape).ok());
    Ok(read.map(|tensor| (tensor.shape, tensor.data)).collect())
}

/// Reads an `.onnx` file.
pub fn read_onnx_file(path: &Path) -> Result<()> {
    OnnxFile::inspect(path).map(drop)
}

/// Reads a model's folder and tokenizes texts with it: the most tokens of a text, and what each text becomes.
pub fn read_folder(root: &Path, vocabulary: usize, texts: &[&str]) -> Result<(usize, Vec<Tokens>)> {
    let folder = ModelFolder::read(root)?;
    let tokenizer = ModelTokenizer::read(&folder, Some(vocabulary))?;
    let mut all = Vec::new();
    for text in texts {
        let counted = tokenizer.counter.count(InputKind::Document, text);
        let mut so_far = ReadSoFar::default();
        let tokens = tokenizer.tokenize(InputKind::Document, text, Truncation::Truncate, &mut so_far, &mut |_| true);
        if let Some(Ok(text)) = tokens.transpose()? {
            all.push(Tokens { ids: text.ids, truncated: text.truncated, counted });
        }
    }
    Ok((tokenizer.max, all))
}
