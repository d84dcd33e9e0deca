//! Holds the tokens that were counted for the texts of a batch: [`Counted`].

use std::sync::Arc;

use crate::{Limits, TokenCount};

/// Stands for the token count of a text that was not counted.
pub(crate) const UNCOUNTED: u32 = u32::MAX;

/// The token counts of a batch's texts, as a planner made them: `UNCOUNTED` for each text that it did not have to
/// count.
#[derive(Clone, Copy)]
pub(crate) struct Counted<'a> {
    pub(crate) by: CountedBy,
    pub(crate) tokens: &'a [u32],
}

impl<'a> Counted<'a> {
    /// Takes up counts again after the batch that carried them is gone. They must have been made by the same limits,
    /// and so by the same counter.
    pub(crate) fn by(limits: &Limits, tokens: &'a [u32]) -> Self {
        Self { by: CountedBy::of(limits), tokens }
    }

    /// Returns the counts at their places in a larger batch: count `i` at `places[i]` of `len`.
    pub(crate) fn scatter(&self, places: &[usize], len: usize) -> Vec<u32> {
        let mut tokens = vec![UNCOUNTED; len];
        places.iter().zip(self.tokens).for_each(|(&place, &count)| tokens[place] = count);
        tokens
    }
}

/// The counter that made the counts, and the limit up to which it counted. Counts by another counter, or up to another
/// limit, say nothing about a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountedBy {
    counter: usize,
    pub(crate) limit: Option<usize>,
}

impl CountedBy {
    /// Identifies the counter of these limits by its address, and its limit.
    pub(crate) fn of(limits: &Limits) -> Self {
        let counter = match &limits.tokens {
            TokenCount::Exact(counter) => Arc::as_ptr(counter).cast::<()>() as usize,
            _ => 0,
        };
        Self { counter, limit: limits.tokens_of_one_text() }
    }
}
