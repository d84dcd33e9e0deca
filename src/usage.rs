//! Counts what a result cost: [`Usage`], which every wrapper conserves.

use std::{
    iter::Sum,
    ops::{Add, AddAssign},
};

/// The tokens and requests that embedding some texts took. Usages can be added; the default is no usage.
///
/// ```
/// use docvector_embed::Usage;
/// let a = Usage::of_request(Some(7));
/// let b = Usage::of_request(Some(5));
/// assert_eq!((a + b).tokens, 12);
/// assert_eq!((a + b).requests, 2);
/// // A request with unknown tokens does not hide the tokens of the others, and it does not count as free.
/// let c = a + b + Usage::of_request(None);
/// assert_eq!((c.tokens, c.unreported), (12, 1));
/// assert_eq!(c.exact_tokens(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Usage {
    /// Tokens that the providers are known to have processed, and to have billed if they bill.
    pub tokens: u64,
    /// Calls made to providers.
    pub requests: u64,
    /// Answered calls, counted in `requests`, whose tokens the provider did not report.
    pub unreported: u64,
    /// Calls given up without an answer (a time limit passed, a connection broke). They are counted in `requests` if a
    /// request was begun. The provider may have billed them all the same, and nobody can say how much.
    pub unanswered: u64,
    /// Texts that a cache answered instead of a provider.
    pub cached: u64,
    /// Texts that got the row of an equal text, of the same call or of another call under way.
    pub deduplicated: u64,
}

impl Usage {
    /// No tokens, no requests, nothing saved.
    pub const ZERO: Self = Self { tokens: 0, requests: 0, unreported: 0, unanswered: 0, cached: 0, deduplicated: 0 };

    /// Returns the usage of one request that took `tokens`, or whose reply did not report them.
    pub const fn of_request(tokens: Option<u64>) -> Self {
        match tokens {
            Some(tokens) => Self { tokens, requests: 1, ..Self::ZERO },
            None => Self { requests: 1, unreported: 1, ..Self::ZERO },
        }
    }

    /// Returns the usage of one request that got no answer: no tokens are known, and some may have been billed.
    pub const fn of_unanswered() -> Self {
        Self { requests: 1, unanswered: 1, ..Self::ZERO }
    }

    /// Returns the usage of a call that was given up, if nobody knows whether it came to a request.
    pub const fn of_given_up() -> Self {
        Self { unanswered: 1, ..Self::ZERO }
    }

    /// Returns the tokens if every reply reported them, and `None` if one did not.
    pub const fn exact_tokens(&self) -> Option<u64> {
        if self.unreported == 0 { Some(self.tokens) } else { None }
    }

    /// Returns this usage with `texts` more that a cache answered.
    #[must_use]
    pub const fn with_cached(mut self, texts: u64) -> Self {
        self.cached = self.cached.saturating_add(texts);
        self
    }

    /// Returns this usage with `texts` more that got the row of an equal text.
    #[must_use]
    pub const fn with_deduplicated(mut self, texts: u64) -> Self {
        self.deduplicated = self.deduplicated.saturating_add(texts);
        self
    }

    /// Returns the part that a provider may bill: without the texts that were saved.
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
        // Every field by name, so that a new one cannot be forgotten here.
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
