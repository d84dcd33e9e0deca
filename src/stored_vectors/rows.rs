//! Collects the rows of texts, in any order: [`Rows`].

use super::entry;
use crate::{Charges, Embeddings, Error, Partial, Result, Space, cache::Key};

/// The rows of some texts, as far as they are there.
///
/// [`RowCollector`](crate::RowCollector) does the same for whole results. This one also reads entries, straight into
/// the matrix: a hit is one copy.
pub(crate) struct Rows {
    width: usize,
    /// Reaches to the last row that is there.
    components: Vec<f32>,
    done: Vec<bool>,
    /// The number of missing rows.
    left: usize,
    truncated: Vec<usize>,
    /// The number of rows that came from the store.
    pub(crate) hits: u64,
}

impl Rows {
    pub(crate) fn new(texts: usize, width: usize) -> Self {
        Self {
            width,
            components: Vec::with_capacity(texts * width),
            done: vec![false; texts],
            left: texts,
            truncated: Vec::new(),
            hits: 0,
        }
    }

    /// Whether there is such a place, and its row is missing.
    pub(crate) fn is_missing(&self, place: usize) -> bool {
        self.done.get(place).is_some_and(|done| !done)
    }

    /// Returns the number of missing rows.
    pub(crate) const fn left(&self) -> usize {
        self.left
    }

    /// Iterates over the places whose row is missing.
    pub(crate) fn missing(&self) -> impl Iterator<Item = usize> {
        (0..self.done.len()).filter(|&place| !self.done[place])
    }

    /// Returns the row of a place, or `None` if it is missing.
    #[cfg(feature = "openai")]
    #[allow(dead_code)]
    pub(crate) fn row(&self, place: usize) -> Option<&[f32]> {
        let is_there = self.done.get(place).is_some_and(|done| *done);
        is_there.then(|| &self.components[place * self.width..(place + 1) * self.width])
    }

    /// Returns the places whose text was truncated, in any order.
    #[cfg(feature = "openai")]
    #[allow(dead_code)]
    pub(crate) fn truncated(&self) -> &[usize] {
        &self.truncated
    }

    /// Takes a row from an entry; returns `false` if the entry is damaged.
    pub(crate) fn read(&mut self, place: usize, key: &Key, value: &[u8]) -> bool {
        let (start, end) = (place * self.width, (place + 1) * self.width);
        let read = if self.components.len() == start {
            entry::append(value, key, &mut self.components, self.width)
        } else {
            // The matrix grows as rows come, not at once: so each part of it passes the processor's caches once.
            self.components.resize(self.components.len().max(end), 0.0);
            entry::read(value, key, &mut self.components[start..end])
        };
        if let Some(cut) = read {
            self.done[place] = true;
            self.left -= 1;
            self.hits += 1;
            self.truncated.extend(cut.then_some(place));
        }
        read.is_some()
    }

    /// Takes row `row` of `rows`, which lie in the same space.
    pub(crate) fn place(&mut self, place: usize, rows: &Embeddings, row: usize) {
        let (start, end) = (place * self.width, (place + 1) * self.width);
        if self.components.len() == start {
            self.components.extend_from_slice(rows.row(row));
        } else {
            self.components.resize(self.components.len().max(end), 0.0);
            self.components[start..end].copy_from_slice(rows.row(row));
        }
        if !std::mem::replace(&mut self.done[place], true) {
            self.left -= 1;
            self.truncated.extend(rows.is_truncated(row).then_some(place));
        }
    }

    /// Returns all rows. Missing rows are zero.
    pub(crate) fn into_embeddings(mut self, space: &Space, charges: impl Into<Charges>) -> Result<Embeddings> {
        self.components.resize(self.done.len() * self.width, 0.0);
        let rows = Embeddings::of_finite(self.done.len(), space, self.components, charges)?;
        Ok(rows.with_truncated(self.truncated))
    }

    /// Adds the rows that are there to an error, with their charges.
    pub(crate) fn fail(self, error: Error, space: &Space, charges: Charges) -> Error {
        match self.into_partial(space, charges.clone()) {
            Ok(Some(partial)) => error.with_partial(partial),
            Ok(None) => error.with_charges(&charges),
            Err(broken) => broken,
        }
    }

    /// Returns the rows that are there, or `None` if there is none.
    fn into_partial(self, space: &Space, charges: Charges) -> Result<Option<Partial>> {
        let there: Vec<usize> = (0..self.done.len()).filter(|&place| self.done[place]).collect();
        if there.is_empty() {
            return Ok(None);
        }
        let rows = self.into_embeddings(space, charges)?.select(&there);
        Partial::new(there, rows).map(Some)
    }
}
