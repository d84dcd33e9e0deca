//! Counts the tokens of a batch's texts, each at most once: [`Counting`].

use crate::{
    BadText, BadTextReason, Batch, Limits, TokenCount, Truncation,
    counted::{Counted, CountedBy, UNCOUNTED},
};

/// The tokens of a call: the sum of cheap bounds first. Exact counts replace the bounds one text at a time, until the sum
/// shows that the call is not too large, or no bound is left.
pub(crate) struct CallTokens {
    /// 128 bits hold the sum of any bounds.
    sum: u128,
    limit: u128,
    next: usize,
}

impl CallTokens {
    /// Begins with the bounds; `None` if tokens cannot be counted or a call has no limit of them.
    pub(crate) fn new(batch: &Batch<'_>, counting: &Counting<'_>) -> Option<Self> {
        let limit =
            counting.limits.tokens_per_call.filter(|_| matches!(counting.limits.tokens, TokenCount::Exact(_)))?;
        let sum = (0..batch.len()).map(|index| counting.at_most(batch, index) as u128).sum();
        Some(Self { sum, limit: limit as u128, next: 0 })
    }

    /// Counts the next text if the sum leaves it open whether the call is too large. Returns its index, or `None` once
    /// [`excess`](Self::excess) is known.
    pub(crate) fn count_next(&mut self, batch: &Batch<'_>, counting: &mut Counting<'_>) -> Option<usize> {
        if self.sum <= self.limit || self.next == batch.len() {
            return None;
        }
        let index = self.next;
        self.sum -= counting.at_most(batch, index) as u128;
        self.sum += counting.exact(batch, index) as u128;
        self.next += 1;
        Some(index)
    }

    /// Returns the call's tokens and their limit if they are above it.
    pub(crate) fn excess(&self) -> Option<(usize, usize)> {
        let number = |tokens: u128| usize::try_from(tokens).unwrap_or(usize::MAX);
        (self.sum > self.limit).then(|| (number(self.sum), number(self.limit)))
    }
}

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
        (self.tokens.len() == batch.len()).then_some(Counted { by: self.by, tokens: &self.tokens })
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

    /// Returns whether [`too_long`](Self::too_long) can find a text at all.
    pub(crate) fn finds_long(&self, batch: &Batch<'_>) -> bool {
        let is_error = batch.truncation() == Truncation::Error;
        is_error && self.by.limit.is_some() && matches!(self.limits.tokens, TokenCount::Exact(_))
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
