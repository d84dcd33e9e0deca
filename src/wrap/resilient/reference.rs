//! Keeps the vectors that members are compared with: [`Reference`].

use crate::{Embeddings, numerics::cosine};

/// The vectors of the probe texts, as documents and as queries.
#[derive(Clone, Debug)]
pub(super) struct Reference([Embeddings; 2]);

impl Reference {
    pub(super) const fn new(documents: Embeddings, queries: Embeddings) -> Self {
        Self([documents, queries])
    }

    /// Returns the least cosine of two vectors of one text.
    pub(super) fn least_cosine(&self, other: &Self) -> f32 {
        let pairs = self.0.iter().zip(&other.0);
        let cosines = pairs.flat_map(|(a, b)| a.rows().zip(b.rows()).map(|(a, b)| cosine(a, b) as f32));
        cosines.fold(1.0, f32::min)
    }
}
