//! Holds the tokens that were counted for the texts of a batch: [`Counted`].

use std::sync::Arc;

use crate::{Limits, TokenCount};

/// Stands for the tokens of a text that nobody had to count.
pub(crate) const UNCOUNTED: u32 = u32::MAX;

/// Tokens of a batch's texts as a planner left them: `UNCOUNTED` where it did not have to count.
#[derive(Clone, Copy)]
pub(crate) struct Counted<'a> {
    pub(crate) by: Option<CountedBy>,
    pub(crate) tokens: &'a [u32],
}

impl<'a> Counted<'a> {
    /// Counts that a batch had which is no more; by the same limits, so by the same counter.
    pub(crate) fn by(limits: &Limits, tokens: &'a [u32]) -> Self {
        Self { by: Some(CountedBy::of(limits)), tokens }
    }

    /// The same counts in the places of a larger batch's texts: count `i` at `places[i]` of `len`.
    pub(crate) fn scatter(&self, places: &[usize], len: usize) -> Vec<u32> {
        let mut tokens = vec![UNCOUNTED; len];
        places.iter().zip(self.tokens).for_each(|(&place, &count)| tokens[place] = count);
        tokens
    }
}

/// Whose counts they are: another counter's, or those up to another limit, say nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountedBy {
    counter: usize,
    pub(crate) limit: Option<usize>,
}

impl CountedBy {
    pub(crate) fn of(limits: &Limits) -> Self {
        let counter = match &limits.tokens {
            TokenCount::Exact(counter) => Arc::as_ptr(counter).cast::<()>() as usize,
            _ => 0,
        };
        Self { counter, limit: limits.tokens_of_one_text() }
    }
}
