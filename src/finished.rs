//! Keeps the rows that earlier attempts of a call finished before they failed: [`Finished`].

use crate::{Batch, Charges, Embeddings, Error, ErrorKind, Partial, Result, batch::Picked, gather::RowCollector};

/// The rows that earlier attempts finished before they failed. Nearly all calls have none, and then nothing is copied.
///
/// A finished row is paid for. So it is kept, its text is not sent again, and it comes out with the result or with the
/// final error.
#[derive(Default)]
pub(crate) struct Finished {
    /// The finished rows of one space, at the caller's indices.
    rows: Option<RowCollector>,
    /// Finished rows of other spaces, as a router may return them. A result has one space, so these rows cannot be in
    /// it, and their texts are asked for again. The rows are kept for the final error, and their cost for the result.
    others: Vec<Partial>,
}

impl Finished {
    /// Returns the texts that have no row yet.
    pub(crate) fn rest<'a>(&self, batch: &Batch<'a>) -> Rest<'a> {
        Rest(self.missing().map(|todo| (batch.pick(&todo), todo)))
    }

    /// Returns the texts without a row; `None` if these are all texts.
    pub(crate) fn missing(&self) -> Option<Vec<usize>> {
        self.rows.as_ref().map(|rows| rows.missing().collect())
    }

    /// Keeps the rows that an attempt finished before it failed. The error's indices are the caller's already.
    pub(crate) fn keep(&mut self, texts: usize, error: Error) {
        if error.partial().is_some() {
            let rows = self.rows.get_or_insert_with(|| RowCollector::new(texts));
            // `take` collects the rows that fit. Rows of another space stay with the error.
            self.others.extend(rows.take(error).into_partials());
        }
    }

    /// Takes the rows of the whole batch, if all are finished.
    pub(crate) fn whole(&mut self) -> Option<Embeddings> {
        let rows = self.rows.take_if(|rows| rows.missing().next().is_none())?;
        let all = rows.finish().ok()?;
        Some(self.settle(all))
    }

    /// Puts the rows so far aside, because the next attempt will be in another space: all texts are asked for again.
    pub(crate) fn begin_again(&mut self) {
        if let Some(rows) = self.rows.take() {
            let nothing = Error::new(ErrorKind::SpaceMismatch, "another space is next");
            self.others.extend(rows.fail(nothing).into_partials());
        }
    }

    /// Adds the rows of the [missing](Self::missing) texts. Returns those of the whole batch.
    ///
    /// # Errors
    /// That of [`RowCollector::put`] if they lie in another space. Then the rows so far are still here.
    pub(crate) fn complete(&mut self, rest: Embeddings) -> Result<Embeddings> {
        let Some(mut rows) = self.rows.take() else { return Ok(self.settle(rest)) };
        let missing: Vec<usize> = rows.missing().collect();
        if let Err(error) = rows.put(&rest, |row| missing[row]) {
            self.rows = Some(rows);
            return Err(error);
        }
        rows.finish().map(|all| self.settle(all))
    }

    /// Returns the cost of all rows that are kept here.
    pub(crate) fn cost(&self) -> Charges {
        let others = self.others.iter().map(|other| other.embeddings().charges());
        self.rows.iter().map(RowCollector::charges).chain(others).sum()
    }

    /// Puts all finished rows into the error that ends the call.
    pub(crate) fn give_back(self, error: Error) -> Error {
        match self.rows {
            Some(rows) => rows.fail(error).with_more_partials(self.others),
            None => error.with_more_partials(self.others),
        }
    }

    /// Adds the cost of the rows that are not in the result.
    fn settle(&mut self, all: Embeddings) -> Embeddings {
        self.others.drain(..).fold(all, |all, other| all.with_charges(other.embeddings().charges()))
    }
}

/// The texts of a batch that have no row yet: all, or those at some places.
pub(crate) struct Rest<'a>(Option<(Picked<'a>, Vec<usize>)>);

impl<'a> Rest<'a> {
    /// Returns a batch of these texts.
    pub(crate) fn batch<'r>(&'r self, whole: &Batch<'a>) -> Batch<'r>
    where
        'a: 'r,
    {
        self.0.as_ref().map_or(*whole, |(picked, _)| picked.batch())
    }

    /// Takes the result of an attempt for these texts. Returns the rows of the whole batch, or the attempt's error with
    /// the caller's indices.
    pub(crate) fn end(self, finished: &mut Finished, result: Result<Embeddings>) -> Result<Embeddings> {
        finished.complete(result.map_err(|error| self.own(error))?)
    }

    /// Gives an error of an attempt the caller's indices: the rest is a smaller batch, with indices of its own.
    pub(crate) fn own(self, error: Error) -> Error {
        match self.0 {
            Some((_, todo)) => error.map_indices(|index| todo.get(index).copied()),
            None => error,
        }
    }
}
