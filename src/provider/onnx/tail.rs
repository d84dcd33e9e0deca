//! Does what a graph leaves undone: pooling, Dense, Normalize, and fewer dimensions.

use super::{
    activation::Activation,
    family::hidden_size,
    file_signature::FileOutput,
    model_folder::ModelFolder,
    modules::{DenseWeights, TailModule},
    pooling,
    stages::TokenRow,
};
use crate::{Error, ErrorKind, Pooling, Result};

/// The steps that are left to do after the graph.
#[derive(Debug)]
pub(super) enum Tail {
    /// The graph gives the vector.
    Nothing,
    /// The graph gives a vector that has to be scaled to length 1.
    Normalize,
    /// The graph gives one vector per token.
    Pool { modes: Vec<Pooling>, width: usize, steps: Vec<TailStep> },
}

/// A module that follows pooling, with its weights.
#[derive(Debug)]
pub(super) enum TailStep {
    Dense(Box<DenseWeights>, Activation),
    Normalize,
}

/// The output of a graph for a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct GraphOutput<'a> {
    pub(super) values: &'a [f32],
    /// The shape of the values.
    pub(super) sizes: &'a [usize],
    /// Texts of the batch, with those that only fill it up.
    pub(super) texts: usize,
    /// Tokens of each text, padding included.
    pub(super) tokens: usize,
}

/// The tail of a file, and what is known of the vectors that it makes.
#[derive(Debug)]
pub(super) struct TailOfFile {
    pub(super) tail: Tail,
    pub(super) dimensions: usize,
    /// The output and the steps in words, for the space's identity.
    pub(super) facts: String,
}

impl TailOfFile {
    /// Finds what a file leaves undone of what its folder describes. `wrong` makes an error that names the file.
    pub(super) fn read(folder: &ModelFolder, output: &FileOutput, wrong: &dyn Fn(String) -> Error) -> Result<Self> {
        let FileOutput { name, axes, width } = output;
        let mut facts = name.clone();
        if output.is_pooled() {
            check_pooled(folder, output, wrong)?;
        }
        let normalizes = folder.tail.iter().any(|step| matches!(step, TailModule::Normalize));
        match (axes, width) {
            (2, &Some(dimensions)) => {
                let tail = if normalizes { Tail::Normalize } else { Tail::Nothing };
                Ok(Self { tail, dimensions, facts })
            }
            (3, &Some(width)) => {
                check_width(folder, name, width, wrong)?;
                let mut dimensions = width * folder.pooling.len();
                let mut steps = Vec::new();
                for module in &folder.tail {
                    steps.push(TailStep::read(module, &mut dimensions, &mut facts)?);
                }
                Ok(Self { tail: Tail::Pool { modes: folder.pooling.clone(), width, steps }, dimensions, facts })
            }
            _ => {
                let width = width.map_or("no fixed width".into(), |width| format!("width {width}"));
                Err(wrong(format!(
                    "has an output {name} of {axes} axes and {width}: 2 or 3 axes and a fixed width are needed"
                )))
            }
        }
    }
}

/// Refuses vectors of tokens that are wider or narrower than those of the model's layers.
fn check_width(folder: &ModelFolder, name: &str, width: usize, wrong: &dyn Fn(String) -> Error) -> Result<()> {
    match hidden_size(&folder.config) {
        Some(hidden) if hidden != width => Err(wrong(format!(
            "has an output {name} of {width} numbers per token, but config.json says that the model's vectors have \
             {hidden}: they are scores of words (a language model, SPLADE) or projections (ColBERT). Take a file of an \
             embedder"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a pooled output that may lack some of the folder's modules, so that its vectors would differ from the
/// folder's.
fn check_pooled(folder: &ModelFolder, output: &FileOutput, wrong: &dyn Fn(String) -> Error) -> Result<()> {
    if folder.restated {
        return Err(wrong(format!(
            "gives one vector per text ({}), which other pooling, or no normalization, cannot be had from: leave out \
             with_pooling and with_normalization, or take a file with the output last_hidden_state",
            output.name
        )));
    }
    let dense = folder.tail.iter().rev().find_map(|step| match step {
        TailModule::Dense { outputs, .. } => Some(*outputs),
        TailModule::Normalize => None,
    });
    let whole = output.is_pooled_by_name() && dense.is_none_or(|outputs| output.width == Some(outputs));
    if whole && folder.pool_prompt {
        return Ok(());
    }
    Err(wrong(format!(
        "has a pooled output {}, which may lack modules that the folder describes: take a file with the output \
         last_hidden_state or sentence_embedding",
        output.name
    )))
}

impl TailStep {
    /// Reads a module that takes vectors of `dimensions` components, and sets `dimensions` to what it returns.
    fn read(module: &TailModule, dimensions: &mut usize, facts: &mut String) -> Result<Self> {
        Ok(match module {
            TailModule::Normalize => {
                facts.push_str(" normalize");
                Self::Normalize
            }
            TailModule::Dense { activation, outputs, .. } => {
                let dense = module.read_dense(*dimensions)?;
                *dimensions = *outputs;
                facts.push_str(&format!(" dense {} {}", activation.as_str(), dense.hash));
                Self::Dense(Box::new(dense), *activation)
            }
        })
    }

    fn apply(&self, mut vector: Vec<f32>) -> Vec<f32> {
        match self {
            Self::Normalize => {
                normalize(&mut vector);
                vector
            }
            Self::Dense(weights, activation) => dense(weights, *activation, &vector),
        }
    }
}

impl Tail {
    /// Makes the vector of one text of a batch; `None` if the output's shape is not the announced one.
    pub(super) fn apply(&self, output: GraphOutput<'_>, text: usize, row: &TokenRow<'_>) -> Option<Vec<f32>> {
        match self {
            Self::Nothing => output.vector(text),
            Self::Normalize => {
                let mut vector = output.vector(text)?;
                normalize(&mut vector);
                Some(vector)
            }
            Self::Pool { modes, width, steps } => {
                let hidden = output.token_vectors(text, row.ids.len(), *width)?;
                let inside: Vec<bool> = (0..row.ids.len()).map(|at| at >= row.unpooled).collect();
                let mut vector = Vec::new();
                modes.iter().for_each(|mode| pooling::pool(*mode, hidden, *width, &inside, &mut vector));
                Some(steps.iter().fold(vector, |vector, step| step.apply(vector)))
            }
        }
    }
}

impl<'a> GraphOutput<'a> {
    /// Returns the vector of a text, if the output has one vector per text.
    fn vector(&self, text: usize) -> Option<Vec<f32>> {
        let [texts, width] = *self.sizes else { return None };
        (texts == self.texts).then(|| self.values[text * width..(text + 1) * width].to_vec())
    }

    /// Returns the vectors of a text's tokens without its padding, if the output has one vector per token and no fewer
    /// tokens.
    fn token_vectors(&self, text: usize, tokens: usize, width: usize) -> Option<&'a [f32]> {
        let announced = *self.sizes == [self.texts, self.tokens, width];
        (announced && tokens <= self.tokens).then(|| &self.values[text * self.tokens * width..][..tokens * width])
    }
}

/// The dimensions that vectors are truncated to, after all modules.
#[derive(Clone, Copy, Debug)]
pub(super) struct TruncateDim {
    dimensions: usize,
    /// Whether they are scaled to length 1 again.
    normalize: bool,
}

impl TruncateDim {
    /// Checks the number of dimensions; returns `None` if vectors of `have` dimensions stay as they are.
    pub(super) fn new(folder: &ModelFolder, dimensions: usize, have: usize) -> Result<Option<Self>> {
        if dimensions == 0 || dimensions > have {
            let message = format!("vectors of {have} dimensions cannot be truncated to {dimensions}: set 1 to {have}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let normalize = matches!(folder.tail.last(), Some(TailModule::Normalize));
        Ok((dimensions < have).then_some(Self { dimensions, normalize }))
    }

    pub(super) fn apply(self, vector: &mut Vec<f32>) {
        vector.truncate(self.dimensions);
        if self.normalize {
            normalize(vector);
        }
    }
}

/// Applies a Dense module to one vector.
fn dense(dense: &DenseWeights, activation: Activation, vector: &[f32]) -> Vec<f32> {
    let outputs = dense.weight.shape[1];
    let mut out = dense.bias.as_ref().map_or_else(|| vec![0.0; outputs], |bias| bias.data.clone());
    for (value, row) in vector.iter().zip(dense.weight.data.chunks_exact(outputs)) {
        out.iter_mut().zip(row).for_each(|(total, weight)| *total += value * weight);
    }
    out.iter_mut().for_each(|value| *value = activation.apply(*value));
    out
}

/// Scales a vector to length 1, in double precision. A vector of zeros stays as it is.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_longer_than_the_output_has_no_vectors() {
        let output = GraphOutput { values: &[1.0, 2.0, 3.0, 4.0], sizes: &[2, 2, 1], texts: 2, tokens: 2 };
        assert_eq!(output.token_vectors(1, 1, 1), Some(&[3.0][..]));
        assert_eq!(output.token_vectors(1, 2, 1), Some(&[3.0, 4.0][..]));
        assert_eq!(output.token_vectors(1, 3, 1), None);
        assert_eq!(output.token_vectors(0, 3, 1), None, "the third token is another text's");
    }
}
