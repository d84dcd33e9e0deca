//! Holds the rows that were finished before a call failed: [`Partial`].

use crate::Embeddings;

/// The rows that were finished before a call failed, and whose they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    pub(super) indices: Vec<usize>,
    pub(super) embeddings: Embeddings,
}

impl Partial {
    /// Pairs row `r` with the caller's text `indices[r]`; `None` unless there is one index per row and they ascend.
    pub(super) fn pair(indices: Vec<usize>, embeddings: Embeddings) -> Option<Self> {
        let pairs = indices.len() == embeddings.len() && indices.is_sorted_by(|a, b| a < b);
        pairs.then_some(Self { indices, embeddings })
    }

    /// The caller's index of each row's text, ascending.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The finished rows, with the usage that they, and failed calls beside them, are known to have cost.
    pub const fn embeddings(&self) -> &Embeddings {
        &self.embeddings
    }

    /// Takes the indices and the rows.
    pub fn into_parts(self) -> (Vec<usize>, Embeddings) {
        (self.indices, self.embeddings)
    }
}
