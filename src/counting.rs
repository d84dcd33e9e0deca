//! Counts the tokens of a batch's texts, each at most once: [`Counting`].

use crate::{
    BadText, BadTextReason, Batch, Limits, TokenCount, Truncation,
    counted::{Counted, CountedBy, UNCOUNTED},
};

/// Counts the tokens of a batch's texts, each at most once, and only those that are asked for.
pub(crate) struct Counting<'l> {
    limits: &'l Limits,
    by: CountedBy,
    /// Empty until something is counted.
    tokens: Vec<u32>,
}

impl<'l> Counting<'l> {
    /// Begins with what is counted already.
    pub(crate) fn new(batch: &Batch<'_>, limits: &'l Limits) -> Self {
        let tokens = batch.counted_by(limits).map(<[u32]>::to_vec).unwrap_or_default();
        Self { limits, by: CountedBy::of(limits), tokens }
    }

    /// What was counted, to go with the batch.
    pub(crate) fn counted(&self, batch: &Batch<'_>) -> Option<Counted<'_>> {
        (self.tokens.len() == batch.len()).then_some(Counted { by: Some(self.by), tokens: &self.tokens })
    }

    /// The text's tokens, not counted beyond the limit of a text and never above it; 0 where they cannot be counted.
    pub(crate) fn exact(&mut self, batch: &Batch<'_>, index: usize) -> usize {
        let tokens = match &self.limits.tokens {
            TokenCount::Exact(_) => self.count(batch, index),
            _ => return self.at_most(batch, index),
        };
        self.by.limit.map_or(tokens, |limit| tokens.min(limit))
    }

    /// The least that is known not to be exceeded by the text's tokens, without counting; 0 where nothing is known.
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

    /// Whether the text is longer than a text may be, which must be an error; counted only if its bytes leave it open.
    pub(crate) fn too_long(&mut self, batch: &Batch<'_>, index: usize) -> Option<BadText> {
        let limit = self.by.limit.filter(|_| batch.truncation() == Truncation::Error)?;
        let tokens = self.over(batch, index, limit)?;
        Some(BadText::new(index, BadTextReason::TooLong { tokens, limit }))
    }

    /// Whether the text is to be cut.
    pub(crate) fn is_over(&mut self, batch: &Batch<'_>, index: usize) -> bool {
        self.by.limit.is_some_and(|limit| self.over(batch, index, limit).is_some())
    }

    fn over(&mut self, batch: &Batch<'_>, index: usize, limit: usize) -> Option<usize> {
        let TokenCount::Exact(counter) = &self.limits.tokens else { return None };
        let text = batch.texts()[index];
        if text.is_empty() || counter.at_most(batch.kind(), text) <= limit {
            return None;
        }
        Some(self.count(batch, index)).filter(|&tokens| tokens > limit)
    }

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
            *slot = u32::try_from(tokens).unwrap_or(UNCOUNTED).min(UNCOUNTED - 1);
        }
        *slot as usize
    }
}
