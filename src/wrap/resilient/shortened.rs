//! Truncates texts to the limit that all members share: [`Shortened`].

use crate::{Batch, Embeddings, Error, Limits, Partial, Result, TokenCount, Truncation};

/// The texts of a batch, the over-long ones truncated.
///
/// A member that takes longer texts than another one would truncate them elsewhere, and the same text would have two
/// vectors in one space. So texts are truncated before any member sees them, where members differ.
pub(super) struct Shortened<'a> {
    texts: Vec<&'a str>,
    /// The indices of the texts that are truncated, ascending.
    truncated: Vec<usize>,
}

impl<'a> Shortened<'a> {
    /// Truncates the texts that are over the limit; `None` if there is none, if over-long texts are an error, or if tokens
    /// cannot be counted.
    pub(super) fn of(batch: &Batch<'a>, limits: &Limits) -> Option<Self> {
        let (TokenCount::Exact(counter), Some(limit)) = (&limits.tokens, limits.tokens_of_one_text()) else {
            return None;
        };
        if batch.truncation() != Truncation::Truncate {
            return None;
        }
        let kind = batch.kind();
        let is_long = |text: &str| counter.at_most(kind, text) > limit && counter.count_to(kind, text, limit) > limit;
        let truncated: Vec<usize> = (0..batch.len()).filter(|&index| is_long(batch.texts()[index])).collect();
        if truncated.is_empty() {
            return None;
        }
        let mut texts = batch.texts().to_vec();
        for &index in &truncated {
            let cut = counter.truncate(kind, texts[index], limit);
            // A limit below the tokens of a prompt leaves nothing: the member truncates it in its own way.
            texts[index] = if cut.is_empty() { texts[index] } else { cut };
        }
        Some(Self { texts, truncated })
    }

    /// Returns the batch with these texts.
    pub(super) fn batch<'s>(&'s self, batch: &Batch<'a>) -> Batch<'s>
    where
        'a: 's,
    {
        batch.with_texts(&self.texts)
    }

    /// Marks the rows of these texts as truncated, in the result or in the finished rows of an error.
    pub(super) fn mark(&self, result: Result<Embeddings>) -> Result<Embeddings> {
        let mark = |rows: Embeddings, text_of: &dyn Fn(usize) -> usize| {
            let own = |row: &usize| self.truncated.binary_search(&text_of(*row)).is_ok() || rows.is_truncated(*row);
            let marks: Vec<usize> = (0..rows.len()).filter(own).collect();
            rows.with_truncated(marks)
        };
        match result {
            Ok(rows) => Ok(mark(rows, &|row| row)),
            Err(error) => {
                let marked = |partial: Partial| {
                    let (indices, rows) = partial.into_parts();
                    let rows = mark(rows, &|row| indices[row]);
                    Partial::new(indices, rows).ok()
                };
                let partials = error.clone().into_partials().into_iter().filter_map(marked).collect();
                Err::<Embeddings, Error>(error.without_partial().with_more_partials(partials))
            }
        }
    }
}
