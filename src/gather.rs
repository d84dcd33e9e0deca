//! Puts the rows of several calls together: [`Gather`].

use crate::{Charges, Embeddings, Error, ErrorKind, Partial, Result, Space};

/// Puts the rows of several calls together in the caller's order, in one matrix.
#[derive(Debug)]
pub(crate) struct Gather {
    rows: usize,
    /// Empty until the first rows arrive and tell the space.
    components: Vec<f32>,
    space: Option<Space>,
    done: Vec<bool>,
    charges: Charges,
    truncated: Vec<usize>,
}

impl Gather {
    pub(crate) fn new(rows: usize) -> Self {
        let (components, truncated) = (Vec::new(), Vec::new());
        Self { rows, components, space: None, done: vec![false; rows], charges: Charges::NONE, truncated }
    }

    /// Puts row `r` of `part` at index `indices(r)`.
    pub(crate) fn put(&mut self, part: &Embeddings, indices: impl Fn(usize) -> usize) -> Result<()> {
        if let Some(index) = (0..part.len()).map(&indices).find(|&index| index >= self.rows) {
            return Err(Error::new(ErrorKind::Protocol, format!("a row for text {index} of {}", self.rows)));
        }
        let space = self.space.get_or_insert_with(|| part.space().clone());
        if space != part.space() {
            let message = format!("the calls of one batch were answered in {space} and in {}", part.space());
            return Err(Error::new(ErrorKind::SpaceMismatch, message));
        }
        let width = space.dimensions();
        if self.components.is_empty() {
            self.components = vec![0.0; self.rows * width];
        }
        for (r, row) in part.rows().enumerate() {
            let index = indices(r);
            self.components[index * width..(index + 1) * width].copy_from_slice(row);
            self.done[index] = true;
        }
        self.charges += part.charges();
        self.truncated.extend(part.truncated().iter().map(|&row| indices(row)));
        Ok(())
    }

    /// The whole, when every row is there.
    pub(crate) fn finish(self) -> Result<Embeddings> {
        let missing = self.done.iter().filter(|done| !**done).count();
        match self.space {
            Some(space) if missing == 0 => {
                Ok(Embeddings::new(self.rows, &space, self.components, self.charges)?.with_truncated(self.truncated))
            }
            _ => Err(Error::new(ErrorKind::Protocol, format!("{missing} of {} rows never came", self.rows))),
        }
    }

    /// What is there: the rows in the caller's order, which texts have one, and what it all cost.
    pub(crate) fn into_done(self) -> (Option<Embeddings>, Vec<bool>, Charges) {
        let indices: Vec<usize> = (0..self.rows).filter(|&index| self.done[index]).collect();
        let rows = self.space.filter(|_| !indices.is_empty()).and_then(|space| {
            let all = Embeddings::new(self.rows, &space, self.components, self.charges.clone()).ok()?;
            Some(all.with_truncated(self.truncated).select(&indices))
        });
        (rows, self.done, self.charges)
    }

    /// What is there, with the error that ended the rest.
    pub(crate) fn fail(self, error: Error) -> Error {
        let (rows, done, charges) = self.into_done();
        let Some(embeddings) = rows else { return error.with_charges(&charges) };
        let indices = (0..done.len()).filter(|&index| done[index]).collect();
        match Partial::new(indices, embeddings) {
            Ok(partial) => {
                let others = error.clone().into_partials();
                error.with_partial(partial).with_more_partials(others)
            }
            Err(_) => error,
        }
    }
}
