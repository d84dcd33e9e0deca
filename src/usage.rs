//! Counts what a result cost: [`Usage`], conserved by every wrapper.

use std::{
    iter::Sum,
    ops::{Add, AddAssign},
};

/// What embedding some texts took. Adds up; the default is nothing at all.
///
/// ```
/// use docvector_embed::Usage;
/// let a = Usage::of_request(Some(7));
/// let b = Usage::of_request(Some(5));
/// assert_eq!((a + b).tokens, 12);
/// assert_eq!((a + b).requests, 2);
/// // A request whose tokens are not known does not hide those of the others, and is never taken for free.
/// let c = a + b + Usage::of_request(None);
/// assert_eq!((c.tokens, c.unreported), (12, 1));
/// assert_eq!(c.exact_tokens(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Usage {
    /// Tokens that the providers are known to have processed, and billed, where they bill.
    pub tokens: u64,
    /// Calls made to providers.
    pub requests: u64,
    /// Answered calls, counted in `requests`, whose tokens the provider did not say.
    pub unreported: u64,
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
    pub const ZERO: Self = Self { tokens: 0, requests: 0, unreported: 0, unanswered: 0, cached: 0, deduplicated: 0 };

    /// The usage of one request that took `tokens`, or did not say.
    pub const fn of_request(tokens: Option<u64>) -> Self {
        match tokens {
            Some(tokens) => Self { tokens, requests: 1, ..Self::ZERO },
            None => Self { requests: 1, unreported: 1, ..Self::ZERO },
        }
    }

    /// The usage of one request that got no answer: no tokens are known, and some may have been billed.
    pub const fn of_unanswered() -> Self {
        Self { requests: 1, unanswered: 1, ..Self::ZERO }
    }

    /// The usage of a call that was given up, where nobody knows whether it came to a request.
    pub const fn of_given_up() -> Self {
        Self { unanswered: 1, ..Self::ZERO }
    }

    /// The tokens, where all requests that were answered said how many they took; `None` where one did not.
    pub const fn exact_tokens(&self) -> Option<u64> {
        if self.unreported == 0 { Some(self.tokens) } else { None }
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

    /// The part that a provider may bill: nothing that was saved.
    pub(crate) const fn billable(self) -> Self {
        Self { cached: 0, deduplicated: 0, ..self }
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
        // Every field by name: a new one cannot be forgotten here.
        let Self { tokens, requests, unreported, unanswered, cached, deduplicated } = other;
        Self {
            tokens: self.tokens.saturating_add(tokens),
            requests: self.requests.saturating_add(requests),
            unreported: self.unreported.saturating_add(unreported),
            unanswered: self.unanswered.saturating_add(unanswered),
            cached: self.cached.saturating_add(cached),
            deduplicated: self.deduplicated.saturating_add(deduplicated),
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
