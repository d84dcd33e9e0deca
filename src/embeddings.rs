//! Holds vectors: [`Embeddings`], one contiguous matrix with its space, its cost, and marks for truncated texts.

mod append;
mod new;

use std::{
    ops::{Index, Range},
    slice::ChunksExact,
};

use ndarray::{Array2, ArrayView2, Axis, Slice};

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
/// Components become embeddings only through [`new`](Self::new), which checks them: every row has the space's width and
/// only finite components.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    vectors: Array2<f32>,
    space: Space,
    charges: Charges,
    truncated: Vec<usize>,
    rate_limit_status: Option<RateLimitStatus>,
}

impl Embeddings {
    /// Makes a matrix of components that are known to be finite; `None` if they are not `rows` rows of the space's
    /// width.
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

    /// Returns the vectors of no texts, at no cost.
    pub fn empty(space: &Space) -> Self {
        let vectors = Array2::from_elem((0, space.dimensions()), 0.0);
        Self { vectors, space: space.clone(), charges: Charges::NONE, truncated: Vec::new(), rate_limit_status: None }
    }

    /// Marks the texts, by index, of which only the beginning was embedded. Indices past the last row are ignored.
    #[must_use]
    pub fn with_truncated(mut self, mut indices: Vec<usize>) -> Self {
        indices.sort_unstable();
        indices.dedup();
        indices.retain(|&index| index < self.len());
        self.truncated = indices;
        self
    }

    /// Adds to the cost of the rows. A second call adds again.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.charges += usage;
        self
    }

    /// Adds charges to the cost of the rows.
    #[must_use]
    pub fn with_charges(mut self, charges: &Charges) -> Self {
        self.charges += charges;
        self
    }

    /// Names the payee of all usage that has none yet. A provider does this to each result.
    #[must_use]
    pub fn with_payee(mut self, payee: &Payee) -> Self {
        self.charges = self.charges.attributed_to(payee);
        self
    }

    /// Adds what the provider still allows, as it said with these rows.
    #[must_use]
    pub const fn with_rate_limit_status(mut self, rate_limit_status: RateLimitStatus) -> Self {
        self.rate_limit_status = Some(rate_limit_status);
        self
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.vectors.nrows()
    }

    /// Returns `true` if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of components of a row.
    pub fn dimensions(&self) -> usize {
        self.vectors.ncols()
    }

    /// Returns the vector of text `i`.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len), as when a slice is indexed. [`rows`](Self::rows) does not panic.
    pub fn row(&self, i: usize) -> &[f32] {
        let width = self.dimensions();
        &self.as_slice()[i * width..(i + 1) * width]
    }

    /// Iterates over the vectors, in the order of the texts.
    pub fn rows(&self) -> ChunksExact<'_, f32> {
        self.as_slice().chunks_exact(self.dimensions())
    }

    /// Returns all components, row after row.
    pub fn as_slice(&self) -> &[f32] {
        // Standard layout is an invariant: every constructor builds the matrix from a row-major vector.
        self.vectors.as_slice().unwrap_or_default()
    }

    /// Returns the matrix: texts by dimensions, row-major.
    pub fn vectors(&self) -> ArrayView2<'_, f32> {
        self.vectors.view()
    }

    /// Takes the matrix out.
    pub fn into_vectors(self) -> Array2<f32> {
        self.vectors
    }

    /// Returns the space that the rows lie in.
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// Returns the cost of the rows.
    pub const fn usage(&self) -> Usage {
        self.charges.usage()
    }

    /// Returns the cost of the rows, per payee.
    pub const fn charges(&self) -> &Charges {
        &self.charges
    }

    /// Returns the indices, ascending, of the texts of which only the beginning was embedded.
    pub fn truncated(&self) -> &[usize] {
        &self.truncated
    }

    /// Returns `true` if only the beginning of text `i` was embedded.
    pub fn is_truncated(&self, i: usize) -> bool {
        self.truncated.binary_search(&i).is_ok()
    }

    /// Returns what the provider still allows, as it said with these rows; `None` if it did not say, or if the rows
    /// come from several calls.
    pub const fn rate_limit_status(&self) -> Option<RateLimitStatus> {
        self.rate_limit_status
    }

    /// Joins the rows of several parts, one part after the other; `None` if there is no part or they lie in several
    /// spaces.
    pub(crate) fn concat<'e>(parts: impl Iterator<Item = &'e Self> + Clone) -> Option<Self> {
        let mut all = Self::empty(&parts.clone().next()?.space);
        for part in parts {
            all.append(part).ok()?;
        }
        Some(all)
    }

    /// Copies the rows in this range, with their marks. Their cost is given, because that of the whole is divided.
    ///
    /// # Panics
    /// If the range ends past the last row.
    pub(crate) fn part(&self, rows: Range<usize>, charges: Charges) -> Self {
        let vectors = self.vectors.slice_axis(Axis(0), Slice::from(rows.clone())).to_owned();
        let marks = self.truncated.partition_point(|&row| row < rows.start)..;
        let truncated = self.truncated[marks].iter().take_while(|&&row| row < rows.end).map(|row| row - rows.start);
        let (truncated, space) = (truncated.collect(), self.space.clone());
        Self { vectors, space, charges, truncated, rate_limit_status: self.rate_limit_status }
    }

    /// Copies the rows with these indices, in this order; an index may occur more than once. The usage stays that of
    /// the whole.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut vectors = Array2::from_elem((rows.len(), self.dimensions()), 0.0);
        for (mut slot, &row) in vectors.rows_mut().into_iter().zip(rows) {
            slot.assign(&self.vectors.row(row));
        }
        let truncated = (0..rows.len()).filter(|&row| self.is_truncated(rows[row])).collect();
        let (space, charges, rate_limit_status) = (self.space.clone(), self.charges.clone(), self.rate_limit_status);
        Self { vectors, space, charges, truncated, rate_limit_status }
    }
}

impl Index<usize> for Embeddings {
    type Output = [f32];

    /// Returns the vector of text `i`, as [`row`](Self::row) does.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len).
    fn index(&self, i: usize) -> &[f32] {
        self.row(i)
    }
}

/// Iterates over the [rows](Embeddings::rows).
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
    /// Takes the matrix out: texts by dimensions, row-major.
    fn from(embeddings: Embeddings) -> Self {
        embeddings.into_vectors()
    }
}

/// Finds the first component that is not a finite number. The components of a block are added up without a branch, so
/// that compilers make vector instructions of the loop.
pub(crate) fn not_finite(components: &[f32]) -> Option<usize> {
    const BLOCK: usize = 1024;
    // A finite number times zero is zero; an infinity or NaN times zero is NaN, and a sum with a NaN is NaN.
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
