//! Counts what a result cost: [`Usage`], conserved by every wrapper.

use std::{
    iter::Sum,
    ops::{Add, AddAssign},
};

/// What embedding some texts cost. Adds up; the default is nothing at all.
///
/// ```
/// use docvector_embed::Usage;
/// let a = Usage::of_request(Some(7));
/// let b = Usage::of_request(Some(5));
/// assert_eq!((a + b).tokens, Some(12));
/// assert_eq!((a + b).requests, 2);
/// // A total with an unknown part is unknown, never a guess.
/// assert_eq!((a + Usage::of_request(None)).tokens, None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens that the providers processed (and billed, where they bill); `None` where one of them did not say.
    pub tokens: Option<u64>,
    /// Calls made to providers.
    pub requests: u64,
    /// Calls given up without an answer (a time limit passed, a connection broke), counted in `requests` where a
    /// request was begun: the provider may have billed them all the same, and nobody can say how much.
    pub unanswered: u64,
    /// Texts that a cache answered instead of a provider.
    pub cached: u64,
    /// Texts that were equal to another, of the same call or of one under way, and answered by its row.
    pub deduplicated: u64,
}

impl Usage {
    /// No tokens, no requests, nothing saved.
    pub const ZERO: Self = Self { tokens: Some(0), requests: 0, unanswered: 0, cached: 0, deduplicated: 0 };

    /// The usage of one request that took `tokens`, or did not say.
    pub const fn of_request(tokens: Option<u64>) -> Self {
        Self { tokens, requests: 1, ..Self::ZERO }
    }

    /// The usage of one request that got no answer: no tokens are known, and some may have been billed.
    pub const fn of_unanswered() -> Self {
        Self { requests: 1, unanswered: 1, ..Self::ZERO }
    }

    /// The same with `texts` more answered by a cache.
    #[must_use]
    pub const fn with_cached(mut self, texts: u64) -> Self {
        self.cached = self.cached.saturating_add(texts);
        self
    }

    /// The same with `texts` more answered by the row of an equal text.
    #[must_use]
    pub const fn with_deduplicated(mut self, texts: u64) -> Self {
        self.deduplicated = self.deduplicated.saturating_add(texts);
        self
    }
}

impl Default for Usage {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.zip(other.tokens).map(|(a, b)| a.saturating_add(b)),
            requests: self.requests.saturating_add(other.requests),
            unanswered: self.unanswered.saturating_add(other.unanswered),
            cached: self.cached.saturating_add(other.cached),
            deduplicated: self.deduplicated.saturating_add(other.deduplicated),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, Add::add)
    }
}
