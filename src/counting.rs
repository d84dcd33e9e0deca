//! Counts the tokens of a batch's texts, each at most once: [`Counting`].

use crate::{
    BadText, BadTextReason, Batch, Limits, TokenCount, Truncation,
    counted::{Counted, CountedBy, UNCOUNTED},
};

/// Counts the tokens of a batch's texts, each at most once, and only those that are asked for.
pub(crate) struct Counting<'l> {
    pub(crate) limits: &'l Limits,
    by: CountedBy,
    /// Empty until something is counted.
    tokens: Vec<u32>,
}

impl<'l> Counting<'l> {
    /// Begins with the counts that the batch carries.
    pub(crate) fn new(batch: &Batch<'_>, limits: &'l Limits) -> Self {
        let tokens = batch.counted_by(limits).map(<[u32]>::to_vec).unwrap_or_default();
        Self { limits, by: CountedBy::of(limits), tokens }
    }

    /// Returns the counts made so far, to go with the batch; `None` if nothing was counted.
    pub(crate) fn counted(&self, batch: &Batch<'_>) -> Option<Counted<'_>> {
        (self.tokens.len() == batch.len()).then_some(Counted { by: Some(self.by), tokens: &self.tokens })
    }

    /// Returns the text's tokens, at most the limit of one text. If tokens cannot be counted, returns the bound of
    /// [`at_most`](Self::at_most).
    pub(crate) fn exact(&mut self, batch: &Batch<'_>, index: usize) -> usize {
        let tokens = match &self.limits.tokens {
            TokenCount::Exact(_) => self.count(batch, index),
            _ => return self.at_most(batch, index),
        };
        self.by.limit.map_or(tokens, |limit| tokens.min(limit))
    }

    /// Returns the lowest upper bound on the text's tokens that is known without counting, at most the limit of one
    /// text. Returns 0 if nothing is known.
    pub(crate) fn at_most(&self, batch: &Batch<'_>, index: usize) -> usize {
        let text = batch.texts()[index];
        let tokens = match (&self.limits.tokens, self.tokens.get(index)) {
            (TokenCount::Unknown, _) => 0,
            (TokenCount::AtMostBytes, _) => text.len(),
            (TokenCount::Exact(_), Some(&tokens)) if tokens != UNCOUNTED => tokens as usize,
            (TokenCount::Exact(counter), _) => counter.at_most(batch.kind(), text),
        };
        self.by.limit.map_or(tokens, |limit| tokens.min(limit))
    }

    /// Returns the text as a bad one if it has more tokens than a text may have and over-long texts are an error.
    /// Counts only if the cheap bound leaves it open.
    pub(crate) fn too_long(&mut self, batch: &Batch<'_>, index: usize) -> Option<BadText> {
        let limit = self.by.limit.filter(|_| batch.truncation() == Truncation::Error)?;
        let tokens = self.over(batch, index, limit)?;
        Some(BadText::new(index, BadTextReason::TooLong { tokens, limit }))
    }

    /// Returns `true` if the text has more tokens than a text may have.
    pub(crate) fn is_over(&mut self, batch: &Batch<'_>, index: usize) -> bool {
        self.by.limit.is_some_and(|limit| self.over(batch, index, limit).is_some())
    }

    /// Returns the text's tokens if they are above `limit`. Counts only if the cheap bound leaves it open.
    fn over(&mut self, batch: &Batch<'_>, index: usize, limit: usize) -> Option<usize> {
        let TokenCount::Exact(counter) = &self.limits.tokens else { return None };
        let text = batch.texts()[index];
        // An empty text is bad for another reason: `Batch::bad_texts` finds it.
        if text.is_empty() || counter.at_most(batch.kind(), text) <= limit {
            return None;
        }
        Some(self.count(batch, index)).filter(|&tokens| tokens > limit)
    }

    /// Returns the text's tokens, counted once and then remembered. Counts only as far as the limit of one text.
    fn count(&mut self, batch: &Batch<'_>, index: usize) -> usize {
        let TokenCount::Exact(counter) = &self.limits.tokens else { return 0 };
        if self.tokens.is_empty() {
            self.tokens = vec![UNCOUNTED; batch.len()];
        }
        let slot = &mut self.tokens[index];
        if *slot == UNCOUNTED {
            let text = batch.texts()[index];
            let tokens = match self.by.limit {
                Some(limit) => counter.count_to(batch.kind(), text, limit),
                None => counter.count(batch.kind(), text),
            };
            // The highest value stands for a text that was not counted.
            *slot = u32::try_from(tokens).unwrap_or(UNCOUNTED).min(UNCOUNTED - 1);
        }
        *slot as usize
    }
}
