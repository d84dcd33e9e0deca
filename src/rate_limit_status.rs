//! Says what a provider still allows: [`RateLimitStatus`], read from its replies, for who paces calls.

use std::time::Duration;

/// What a provider said, with a reply, that it still allows.
///
/// ```
/// use docvector_embed::{RateLimitStatus, RateLimitWindow};
/// let rate_limit_status = RateLimitStatus::default().with_requests(RateLimitWindow::new(3000).with_remaining(2999));
/// assert_eq!(rate_limit_status.requests.and_then(|requests| requests.remaining), Some(2999));
/// assert_eq!(rate_limit_status.tokens, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitStatus {
    /// Requests, where the provider says.
    pub requests: Option<RateLimitWindow>,
    /// Tokens, where the provider says.
    pub tokens: Option<RateLimitWindow>,
}

impl RateLimitStatus {
    /// Sets what is allowed in requests.
    #[must_use]
    pub const fn with_requests(mut self, requests: RateLimitWindow) -> Self {
        self.requests = Some(requests);
        self
    }

    /// Sets what is allowed in tokens.
    #[must_use]
    pub const fn with_tokens(mut self, tokens: RateLimitWindow) -> Self {
        self.tokens = Some(tokens);
        self
    }
}

/// A limit of so much in a provider's window, usually a minute, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitWindow {
    /// The most in a window.
    pub limit: u64,
    /// What is left now.
    pub remaining: Option<u64>,
    /// How long until all of it is there again.
    pub reset: Option<Duration>,
}

impl RateLimitWindow {
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
