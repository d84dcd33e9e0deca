//! Holds the rows that were finished before a call failed: [`Partial`].

use crate::Embeddings;

/// The rows that were finished before a call failed, and the texts that they belong to.
///
/// Carried by an error: see [`Error::into_partial`](crate::Error::into_partial).
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    pub(super) indices: Vec<usize>,
    pub(super) embeddings: Embeddings,
}

impl Partial {
    /// Pairs row `r` with the caller's text `indices[r]`; `None` if there is not one index per row, or if the indices
    /// do not ascend.
    pub(super) fn pair(indices: Vec<usize>, embeddings: Embeddings) -> Option<Self> {
        let pairs = indices.len() == embeddings.len() && indices.is_sorted_by(|a, b| a < b);
        pairs.then_some(Self { indices, embeddings })
    }

    /// Returns the caller's index of each row's text, ascending.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Returns the finished rows, with their known usage and that of failed calls beside them.
    pub const fn embeddings(&self) -> &Embeddings {
        &self.embeddings
    }

    /// Takes the indices and the rows.
    pub fn into_parts(self) -> (Vec<usize>, Embeddings) {
        (self.indices, self.embeddings)
    }
}
