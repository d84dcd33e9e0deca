//! Does what a graph leaves undone: pooling, Dense and Normalize.

use super::{activation::Activation, modules::DenseWeights};
use crate::Pooling;

/// What is left to do behind the graph.
#[derive(Debug)]
pub(super) enum Tail {
    /// The graph gives the vector.
    Nothing,
    /// The graph gives a vector that has to be unit length.
    Normalize,
    /// The graph gives a vector a token.
    Pool { modes: Vec<Pooling>, width: usize, steps: Vec<TailStep> },
}

#[derive(Debug)]
pub(super) enum TailStep {
    Dense(Box<DenseWeights>, Activation),
    Normalize,
}

/// Applies a Dense module to one vector.
pub(super) fn dense(dense: &DenseWeights, activation: Activation, vector: &[f32]) -> Vec<f32> {
    let outputs = dense.weight.shape[1];
    let mut out = dense.bias.as_ref().map_or_else(|| vec![0.0; outputs], |bias| bias.data.clone());
    for (value, row) in vector.iter().zip(dense.weight.data.chunks_exact(outputs)) {
        out.iter_mut().zip(row).for_each(|(total, weight)| *total += value * weight);
    }
    out.iter_mut().for_each(|value| *value = activation.apply(*value));
    out
}

/// Scales a vector to length 1, in double precision; a vector of no length stays.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}
