//! Holds vectors: [`Embeddings`], one contiguous matrix with its space, its cost, and what was truncated.

mod new;

use std::{ops::Index, slice::ChunksExact};

use ndarray::{Array2, ArrayView2};

use crate::{Charges, Payee, RateLimitStatus, Space, Usage};

/// The vectors of some texts: row `i` belongs to text `i`.
///
/// ```
/// use docvector_embed::{EmbedderExt, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let embeddings = Fake::new(8).embed_documents(&["one", "two"]).await?;
/// assert_eq!(embeddings.vectors().shape(), [2, 8]);
/// let cosine: f32 = embeddings.row(0).iter().zip(embeddings.row(1)).map(|(a, b)| a * b).sum();
/// assert!(cosine < 0.99);
/// # Ok(()) }) }
/// ```
///
/// Built only through [`new`](Self::new), which checks: every row has the space's width and only finite components.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    vectors: Array2<f32>,
    space: Space,
    charges: Charges,
    truncated: Vec<usize>,
    rate_limit_status: Option<RateLimitStatus>,
}

impl Embeddings {
    /// Makes a matrix of components that are known to be finite; `None` unless they are `rows` rows of the space's width.
    pub(crate) fn matrix(
        rows: usize,
        space: &Space,
        components: Vec<f32>,
        charges: impl Into<Charges>,
    ) -> Option<Self> {
        debug_assert!(not_finite(&components).is_none());
        let vectors = Array2::from_shape_vec((rows, space.dimensions()), components).ok()?;
        let charges = charges.into();
        Some(Self { vectors, space: space.clone(), charges, truncated: Vec::new(), rate_limit_status: None })
    }

    /// The vectors of no texts, at no cost.
    pub fn empty(space: &Space) -> Self {
        let vectors = Array2::from_elem((0, space.dimensions()), 0.0);
        Self { vectors, space: space.clone(), charges: Charges::NONE, truncated: Vec::new(), rate_limit_status: None }
    }

    /// Names the texts, by index, of which only the beginning was embedded. Indices past the last row are ignored.
    #[must_use]
    pub fn with_truncated(mut self, mut indices: Vec<usize>) -> Self {
        indices.sort_unstable();
        indices.dedup();
        indices.retain(|&index| index < self.len());
        self.truncated = indices;
        self
    }

    /// Adds to what they cost. Called twice, it counts twice.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.charges += usage;
        self
    }

    /// Adds charges to what they cost.
    #[must_use]
    pub fn with_charges(mut self, charges: &Charges) -> Self {
        self.charges += charges;
        self
    }

    /// Says who is paid for them, where nobody is named yet: what a provider does with each result.
    #[must_use]
    pub fn with_payee(mut self, payee: &Payee) -> Self {
        self.charges = self.charges.attributed_to(payee);
        self
    }

    /// Adds what the provider said, with these rows, that it still allows.
    #[must_use]
    pub const fn with_rate_limit_status(mut self, rate_limit_status: RateLimitStatus) -> Self {
        self.rate_limit_status = Some(rate_limit_status);
        self
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.vectors.nrows()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Components of a row.
    pub fn dimensions(&self) -> usize {
        self.vectors.ncols()
    }

    /// The vector of text `i`.
    ///
    /// # Panics
    /// Where `i` is not below [`len`](Self::len), as indexing a slice does; [`rows`](Self::rows) does not.
    pub fn row(&self, i: usize) -> &[f32] {
        let width = self.dimensions();
        &self.as_slice()[i * width..(i + 1) * width]
    }

    /// The vectors, in the order of the texts.
    pub fn rows(&self) -> ChunksExact<'_, f32> {
        self.as_slice().chunks_exact(self.dimensions())
    }

    /// All components, row after row.
    pub fn as_slice(&self) -> &[f32] {
        // Standard layout is an invariant: every constructor builds the matrix from a row-major vector.
        self.vectors.as_slice().unwrap_or_default()
    }

    /// The matrix: texts by dimensions, row-major.
    pub fn vectors(&self) -> ArrayView2<'_, f32> {
        self.vectors.view()
    }

    /// Takes the matrix.
    pub fn into_vectors(self) -> Array2<f32> {
        self.vectors
    }

    /// The space that the rows lie in.
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// What the rows cost.
    pub const fn usage(&self) -> Usage {
        self.charges.usage()
    }

    /// What they cost, by who is to be paid.
    pub const fn charges(&self) -> &Charges {
        &self.charges
    }

    /// The texts, by index and ascending, of which only the beginning was embedded.
    pub fn truncated(&self) -> &[usize] {
        &self.truncated
    }

    /// What the provider said, with these rows, that it still allows; `None` where it did not, or where the rows are
    /// those of several calls.
    pub const fn rate_limit_status(&self) -> Option<RateLimitStatus> {
        self.rate_limit_status
    }

    /// Puts the rows of several one after the other; `None` where there are none or they lie in several spaces.
    pub(crate) fn concat<'e>(parts: impl Iterator<Item = &'e Self> + Clone) -> Option<Self> {
        let space = &parts.clone().next()?.space;
        if parts.clone().any(|part| part.space != *space) {
            return None;
        }
        let rows = parts.clone().map(Self::len).sum();
        let charges: Charges = parts.clone().map(Self::charges).sum();
        let components = parts.clone().flat_map(|part| part.as_slice().iter().copied()).collect();
        let mut first = 0;
        let truncated = parts.flat_map(|part| {
            let before = first;
            first += part.len();
            part.truncated.iter().map(move |index| before + index)
        });
        let truncated = truncated.collect();
        Some(Self::matrix(rows, space, components, charges)?.with_truncated(truncated))
    }

    /// Copies the rows named, in the order named, repetitions allowed; the usage stays that of the whole.
    ///
    /// # Panics
    /// Where an index is not below [`len`](Self::len).
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut vectors = Array2::from_elem((rows.len(), self.dimensions()), 0.0);
        for (mut slot, &row) in vectors.rows_mut().into_iter().zip(rows) {
            slot.assign(&self.vectors.row(row));
        }
        let truncated = (0..rows.len()).filter(|&row| self.truncated.binary_search(&rows[row]).is_ok()).collect();
        let (space, charges, rate_limit_status) = (self.space.clone(), self.charges.clone(), self.rate_limit_status);
        Self { vectors, space, charges, truncated, rate_limit_status }
    }
}

impl Index<usize> for Embeddings {
    type Output = [f32];

    /// Does what [`row`](Self::row) does.
    fn index(&self, i: usize) -> &[f32] {
        self.row(i)
    }
}

/// Goes over the [rows](Embeddings::rows).
impl<'e> IntoIterator for &'e Embeddings {
    type Item = &'e [f32];
    type IntoIter = ChunksExact<'e, f32>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows()
    }
}

impl AsRef<[f32]> for Embeddings {
    /// Returns all components, row after row.
    fn as_ref(&self) -> &[f32] {
        self.as_slice()
    }
}

impl From<Embeddings> for Array2<f32> {
    /// Takes the matrix: texts by dimensions, row-major.
    fn from(embeddings: Embeddings) -> Self {
        embeddings.into_vectors()
    }
}

/// Finds the first component that is not a finite number: in blocks, each added up without a branch, which compilers
/// turn into vector instructions.
pub(crate) fn not_finite(components: &[f32]) -> Option<usize> {
    const BLOCK: usize = 1024;
    // A number times zero is zero; an infinity or NaN times zero is NaN.
    let bad = |block: &[f32]| {
        let mut sums = [0.0_f32; 16];
        let chunks = block.chunks_exact(16);
        let rest: f32 = chunks.remainder().iter().map(|component| component * 0.0).sum();
        for chunk in chunks {
            for (sum, component) in sums.iter_mut().zip(chunk) {
                *sum += component * 0.0;
            }
        }
        (rest + sums.iter().sum::<f32>()).is_nan()
    };
    let block = components.chunks(BLOCK).position(bad)?;
    let start = block * BLOCK;
    components[start..].iter().position(|component| !component.is_finite()).map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        Space::builder("test", 2).build().expect("a valid space")
    }

    #[test]
    fn selects_rows_with_their_marks() {
        let all = Embeddings::new(3, &space(), vec![0., 0., 1., 1., 2., 2.], Usage::ZERO).expect("valid");
        let some = all.with_truncated(vec![2, 9]).select(&[2, 0, 2]);
        assert_eq!(some.as_slice(), [2., 2., 0., 0., 2., 2.]);
        assert_eq!(some.truncated(), [0, 2]);
    }
}
