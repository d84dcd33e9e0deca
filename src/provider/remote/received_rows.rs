//! Makes the result of numbers that a reply holds: [`result_of`] checks them once.

use crate::{
    Embeddings, Normalization, Result, Space, Usage,
    error::Error,
    provider::unusable_rows::{is_unusable, unusable_rows},
};

/// The most that the length of a vector may differ from 1 in a space whose vectors have length 1. Rounding to 16 bits
/// takes less than this, and a vector that was not scaled is far off.
const LENGTH_TOLERANCE: f32 = 0.01;

/// Makes a result of `rows` rows of the space's width. `numbers` has so many components.
///
/// # Errors
/// [`Protocol`](crate::ErrorKind::Protocol) names the rows that no text can have, and has the other ones.
pub(super) fn result_of(rows: usize, space: &Space, mut numbers: Vec<f32>, usage: Usage) -> Result<Embeddings> {
    let mut unusable = Vec::new();
    for (index, row) in numbers.chunks_exact_mut(space.dimensions()).enumerate() {
        if is_unusable(row) {
            unusable.push(index);
            row.fill(0.0);
        }
    }
    let embeddings = Embeddings::of_finite(rows, space, numbers, usage).map_err(|error| error.with_usage(usage))?;
    if unusable.is_empty() { Ok(embeddings) } else { Err(unusable_rows(&unusable, &embeddings)) }
}

/// Checks that the vectors have length 1 if the space says so.
pub(super) fn check_lengths(embeddings: Embeddings) -> Result<Embeddings> {
    if embeddings.space().normalization() != Normalization::L2 {
        return Ok(embeddings);
    }
    let lengths = embeddings.rows().map(|row| row.iter().map(|number| number * number).sum::<f32>().sqrt());
    let wrong = lengths.enumerate().find(|(_, length)| (length - 1.0).abs() > LENGTH_TOLERANCE);
    let Some((row, length)) = wrong else { return Ok(embeddings) };
    let message = format!(
        "row {row} has length {length:.3}, but the vectors of this space have length 1: the server does not scale them, so \
         give the right space by `with_space`"
    );
    Err(Error::new(crate::ErrorKind::Protocol, message).with_usage(embeddings.usage()).of_whole_reply())
}
