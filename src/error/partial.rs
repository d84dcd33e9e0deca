//! Holds the rows that were finished before a call failed: [`Partial`].

use super::{Error, ErrorKind, Result};
use crate::Embeddings;

/// The rows that were finished before a call failed, and whose they are.
#[derive(Clone, Debug)]
pub struct Partial {
    pub(super) indices: Vec<usize>,
    pub(super) embeddings: Embeddings,
}

impl Partial {
    /// Says that row `r` of `embeddings` belongs to the caller's text `indices[r]`.
    ///
    /// # Errors
    /// [`Protocol`](ErrorKind::Protocol) where there is not one index a row, or they do not ascend.
    pub fn new(indices: Vec<usize>, embeddings: Embeddings) -> Result<Self> {
        if indices.len() != embeddings.len() || !indices.is_sorted_by(|a, b| a < b) {
            let message = format!("{} indices for {} finished rows, or not ascending", indices.len(), embeddings.len());
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        Ok(Self { indices, embeddings })
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
