//! Says what a provider still allows: [`Allowance`], read from its replies, for who paces calls.

use std::time::Duration;

/// What a provider said, with a reply, that it still allows.
///
/// ```
/// use docvector_embed::{Allowance, Quota};
/// let allowance = Allowance::default().with_requests(Quota::new(3000).with_remaining(2999));
/// assert_eq!(allowance.requests.and_then(|requests| requests.remaining), Some(2999));
/// assert_eq!(allowance.tokens, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowance {
    /// Requests, where the provider says.
    pub requests: Option<Quota>,
    /// Tokens, where the provider says.
    pub tokens: Option<Quota>,
}

impl Allowance {
    /// Sets what is allowed in requests.
    #[must_use]
    pub const fn with_requests(mut self, requests: Quota) -> Self {
        self.requests = Some(requests);
        self
    }

    /// Sets what is allowed in tokens.
    #[must_use]
    pub const fn with_tokens(mut self, tokens: Quota) -> Self {
        self.tokens = Some(tokens);
        self
    }
}

/// A limit of so much in a provider's window, usually a minute, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// The most in a window.
    pub limit: u64,
    /// What is left now.
    pub remaining: Option<u64>,
    /// How long until all of it is there again.
    pub reset: Option<Duration>,
}

impl Quota {
    /// So much in a window.
    pub const fn new(limit: u64) -> Self {
        Self { limit, remaining: None, reset: None }
    }

    /// Sets what is left.
    #[must_use]
    pub const fn with_remaining(mut self, remaining: u64) -> Self {
        self.remaining = Some(remaining);
        self
    }

    /// Sets how long until all of it is there again.
    #[must_use]
    pub const fn with_reset(mut self, reset: Duration) -> Self {
        self.reset = Some(reset);
        self
    }
}
