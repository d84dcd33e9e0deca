//! Puts the rows of several calls together: [`RowCollector`].

use crate::{Charges, Embeddings, Error, ErrorKind, Partial, Result, Space};

/// Puts the rows of several calls together in one matrix, in the caller's order. For routers, and for wrappers that
/// make several inner calls for one.
///
/// ```
/// use docvector_embed::{
///     Batch, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, Limits, Result, RowCollector, Space, async_trait,
///     provider::Fake,
/// };
///
/// /// Makes two inner calls for one.
/// #[derive(Debug)]
/// struct Halves<E>(E);
///
/// impl<E: std::fmt::Display> std::fmt::Display for Halves<E> {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, "Halves({})", self.0)
///     }
/// }
///
/// #[async_trait]
/// impl<E: Embedder> Embedder for Halves<E> {
///     async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
///         batch.check(self.spaces(), &self.limits())?;
///         if batch.is_empty() {
///             return self.0.embed(batch).await;
///         }
///         let mut rows = RowCollector::new(batch.len());
///         let (first, second) = batch.texts().split_at(batch.len() / 2);
///         for (start, texts) in [(0, first), (first.len(), second)] {
///             // `embed_all` also checks the answer of the inner embedder.
///             let result = self.0.embed_all(batch.with_texts(texts)).await;
///             let put = match result {
///                 Ok(part) => rows.put(&part, |row| start + row),
///                 // A bad text that occurs twice is named at both places, even if only one of them was sent.
///                 Err(error) => Err(error.map_indices(|index| {
///                     let text = texts.get(index);
///                     (0..batch.len()).filter(move |&at| batch.texts().get(at) == text)
///                 })),
///             };
///             if let Err(error) = put {
///                 // The error returns the rows of the other half, and their cost.
///                 return Err(rows.fail(error));
///             }
///         }
///         rows.finish()
///     }
///     fn spaces(&self) -> &[Space] {
///         self.0.spaces()
///     }
///     fn limits(&self) -> Limits {
///         self.0.limits()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let fake = Fake::new(8);
/// fake.succeed_next();
/// fake.fail_next(Error::new(ErrorKind::QuotaExhausted, "as scripted"));
/// let error = Halves(fake.clone()).embed_documents(&["a", "b", "c", "d"]).await.expect_err("the second half fails");
/// assert_eq!(error.partial().map(|partial| partial.indices().to_vec()), Some(vec![0, 1]));
/// assert_eq!(error.total_usage(), fake.charged());
/// docvector_embed::conformance::wrapper(Halves).await?;
/// # Ok(()) }
/// ```
///
/// # Charges
/// The charges of the whole are the sum of the charges of all parts, per payee. [`finish`](Self::finish) and
/// [`fail`](Self::fail) return them, so that none is lost and none is reported twice. A part that [`put`](Self::put)
/// refuses is not counted: the error carries its charges.
///
/// # Cost
/// One matrix for all rows, allocated when the first part arrives, and one copy of each row.
#[derive(Debug)]
pub struct RowCollector {
    rows: usize,
    /// Empty until the first part arrives, which tells the space.
    components: Vec<f32>,
    space: Option<Space>,
    done: Vec<bool>,
    charges: Charges,
    truncated: Vec<usize>,
}

impl RowCollector {
    /// Makes an empty collector for the rows of this many texts.
    ///
    /// For a call without texts, return [`Embeddings::empty`] or call the inner embedder: a collector knows no space
    /// until a part arrives.
    pub fn new(rows: usize) -> Self {
        let (components, truncated) = (Vec::new(), Vec::new());
        Self { rows, components, space: None, done: vec![false; rows], charges: Charges::NONE, truncated }
    }

    /// Puts row `r` of `part` at index `indices(r)`, with its mark if its text was truncated, and adds the cost of the
    /// part.
    ///
    /// Parts may come in any order. A row that is already there is replaced.
    ///
    /// Put the finished rows of a failed call in the same way: `put(partial.embeddings(), |row|
    /// partial.indices()[row])`.
    ///
    /// # Errors
    /// [`Protocol`](ErrorKind::Protocol) if an index is not that of a text, and
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) if the rows lie in another space than those before. Then nothing of
    /// the part is taken. The error carries the part's charges, because somebody was paid for it.
    pub fn put(&mut self, part: &Embeddings, indices: impl Fn(usize) -> usize) -> Result<()> {
        if let Some(index) = (0..part.len()).map(&indices).find(|&index| index >= self.rows) {
            let message = format!("a part has a row for text {index}, but there are only {} texts", self.rows);
            return Err(Error::new(ErrorKind::Protocol, message).with_charges(part.charges()));
        }
        let space = self.space.get_or_insert_with(|| part.space().clone());
        if space != part.space() {
            let message = format!("the calls of one batch returned rows of two spaces, {space} and {}", part.space());
            return Err(Error::new(ErrorKind::SpaceMismatch, message).with_charges(part.charges()));
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

    /// Returns the whole, if every row is there.
    ///
    /// # Errors
    /// [`Protocol`](ErrorKind::Protocol) if a row is missing, because a part had fewer rows than it should. The error
    /// says how many are missing, and carries the charges of all parts.
    pub fn finish(self) -> Result<Embeddings> {
        let missing = self.missing().count();
        if missing > 0 || self.space.is_none() {
            let message = format!("{missing} of {} rows are missing: no part had them", self.rows);
            return Err(Error::new(ErrorKind::Protocol, message).with_charges(&self.charges));
        }
        // A part without rows is enough for no texts: it tells the space.
        let (rows, ..) = self.into_rows();
        rows.ok_or_else(|| Error::new(ErrorKind::Protocol, "the rows do not make a matrix"))
    }

    /// Returns the rows that are there in the caller's order, which texts have one, and the cost of all parts.
    pub(crate) fn into_done(self) -> (Option<Embeddings>, Vec<bool>, Charges) {
        let (rows, done, charges) = self.into_rows();
        (rows.filter(|rows| !rows.is_empty()), done, charges)
    }

    /// Does the same; the rows may be none. `None` if no part has told the space.
    fn into_rows(mut self) -> (Option<Embeddings>, Vec<bool>, Charges) {
        let rows = self.space.take().and_then(|space| self.take_rows(&space));
        (rows, self.done, self.charges)
    }

    /// Makes a matrix of the rows that are there. No row is scanned again, because every part
    /// was checked when it was made. No row is copied again, because the parts were put into this very matrix; rows
    /// move up only if rows before them are missing.
    fn take_rows(&mut self, space: &Space) -> Option<Embeddings> {
        let width = space.dimensions();
        let mut components = std::mem::take(&mut self.components);
        let indices: Vec<usize> = (0..self.rows).filter(|&index| self.done[index]).collect();
        for (row, &index) in indices.iter().enumerate().filter(|(row, index)| row != *index) {
            components.copy_within(index * width..(index + 1) * width, row * width);
        }
        components.truncate(indices.len() * width);
        let truncated = self.truncated.iter().filter_map(|index| indices.binary_search(index).ok()).collect();
        Some(Embeddings::matrix(indices.len(), space, components, self.charges.clone())?.with_truncated(truncated))
    }

    /// Adds what is there to the error that ended the rest: the rows as [partial results](Error::partials), with the
    /// cost of all parts. If there is no row, the charges are added to the error's own.
    ///
    /// The error's indices must be the caller's: see [`Error::map_indices`]. Rows that came with the error are kept.
    /// Rows of the same space join the others; rows of another space stay beside them. A text that has a row is not
    /// [named as bad](Error::bad_texts).
    #[must_use]
    pub fn fail(mut self, mut error: Error) -> Error {
        error = self.take(error);
        let others = error.clone().into_partials();
        let (rows, done, charges) = self.into_done();
        let Some(embeddings) = rows else { return error.with_charges(&charges) };
        let indices = (0..done.len()).filter(|&index| done[index]).collect();
        match Partial::new(indices, embeddings) {
            Ok(partial) => error.with_partial(partial).with_more_partials(others),
            // This cannot happen: there is one index per row, and they ascend.
            Err(_) => error.with_charges(&charges),
        }
    }

    /// Takes the rows that came with an error, and their cost. The error's indices must be the caller's. Rows of
    /// another space do not fit, and stay with the error.
    pub(crate) fn take(&mut self, error: Error) -> Error {
        if error.partial().is_none() {
            return error;
        }
        let mut does_not_fit =
            |partial: &&Partial| self.put(partial.embeddings(), |row| partial.indices()[row]).is_err();
        let others = error.partials().filter(&mut does_not_fit).cloned().collect();
        error.without_partial().with_more_partials(others)
    }

    /// Iterates over the indices, ascending, of the texts without a row.
    pub(crate) fn missing(&self) -> impl Iterator<Item = usize> {
        (0..self.rows).filter(|&index| !self.done[index])
    }

    /// Returns the cost of all parts so far.
    pub(crate) const fn charges(&self) -> &Charges {
        &self.charges
    }

    /// Returns `true` if this text has a row.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.done[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BadText, BadTextReason, Payee, Tier, Usage};

    fn part(model: &str, payee: &str, first: f32, rows: usize) -> Embeddings {
        let space = Space::builder(model, 2).build().expect("a valid space");
        let components = (0..rows * 2).map(|i| first + (i / 2) as f32).collect();
        let payee = Payee::new("test", payee, Tier::Standard);
        let usage = Charges::of(&payee, Usage::of_request(Some(rows as u64)));
        Embeddings::new(rows, &space, components, usage).expect("valid")
    }

    #[test]
    fn parts_in_any_order_make_the_whole_with_marks_and_payees() {
        let mut rows = RowCollector::new(3);
        rows.put(&part("one", "a", 1.0, 2).with_truncated(vec![1]), |row| [2, 1][row]).expect("fits");
        rows.put(&part("one", "b", 5.0, 1), |_| 0).expect("fits");
        let all = rows.finish().expect("complete");
        assert_eq!(all.as_slice(), [5., 5., 2., 2., 1., 1.]);
        assert_eq!(all.truncated(), [1]);
        let paid: Vec<(&str, u64)> =
            all.charges().iter().map(|charge| (charge.payee.model(), charge.usage.tokens)).collect();
        assert_eq!(paid, [("a", 2), ("b", 1)]);
    }

    #[test]
    fn a_part_without_rows_is_the_whole_of_no_texts() {
        let mut rows = RowCollector::new(0);
        rows.put(&part("one", "a", 0.0, 0).with_usage(Usage::of_unanswered()), |row| row).expect("fits");
        let all = rows.finish().expect("complete");
        assert_eq!((all.len(), all.usage().unanswered), (0, 1));
        assert!(RowCollector::new(0).finish().is_err(), "no part has told the space");
    }

    #[test]
    fn what_is_refused_is_not_taken_and_its_charges_are_told() {
        let mut rows = RowCollector::new(2);
        rows.put(&part("one", "a", 1.0, 1), |_| 0).expect("fits");
        let foreign = rows.put(&part("one", "a", 7.0, 2), |row| row + 1).expect_err("there is no text 2");
        assert_eq!((foreign.kind(), foreign.usage().tokens), (ErrorKind::Protocol, 2));
        let other = rows.put(&part("two", "b", 7.0, 1), |_| 1).expect_err("another space");
        assert_eq!((other.kind(), other.usage().tokens), (ErrorKind::SpaceMismatch, 1));
        let missing = rows.finish().expect_err("text 1 has no row");
        assert_eq!((missing.kind(), missing.usage().tokens), (ErrorKind::Protocol, 1));
    }

    #[test]
    fn a_failure_comes_with_all_rows_of_each_space() {
        let mut rows = RowCollector::new(5);
        rows.put(&part("one", "a", 3.0, 1), |_| 3).expect("fits");
        let own = Partial::new(vec![1], part("one", "a", 1.0, 1)).expect("valid");
        let other = Partial::new(vec![0, 4], part("two", "b", 8.0, 2)).expect("valid");
        let bad = [1, 2, 3].map(|index| BadText::new(index, BadTextReason::Rejected)).to_vec();
        let error = Error::invalid_texts(bad).with_partial(own).with_more_partials(vec![other]);
        let failed = rows.fail(error.with_usage(Usage::of_request(None)));
        let have: Vec<(&[usize], &[f32])> =
            failed.partials().map(|partial| (partial.indices(), partial.embeddings().as_slice())).collect();
        assert_eq!(have, [(&[1, 3][..], &[1., 1., 3., 3.][..]), (&[0, 4], &[8., 8., 9., 9.])]);
        let named: Vec<usize> = failed.bad_texts().iter().map(|bad| bad.index).collect();
        assert_eq!(named, [2]);
        let (total, spent) = (failed.total_usage(), failed.usage());
        assert_eq!((total.tokens, total.requests, total.unreported), (4, 4, 1));
        assert_eq!((spent.tokens, spent.requests), (0, 1));
    }

    #[test]
    fn without_a_row_the_error_carries_what_was_paid() {
        let mut rows = RowCollector::new(2);
        rows.put(&part("one", "a", 0.0, 0).with_usage(Usage::of_unanswered()), |row| row).expect("no rows fit");
        let failed = rows.fail(Error::new(ErrorKind::QuotaExhausted, "no more"));
        assert!(failed.partial().is_none());
        assert_eq!((failed.usage().requests, failed.usage().unanswered), (2, 1));
    }
}
