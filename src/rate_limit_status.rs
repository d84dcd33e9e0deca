//! Says what a provider still allows: [`RateLimitStatus`], read from its replies, for code that paces calls.

use std::time::Duration;

/// The rate limits of a provider, and what is left of them, as a reply of it said.
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
    /// The limit on requests, if the provider named it.
    pub requests: Option<RateLimitWindow>,
    /// The limit on tokens, if the provider named it.
    pub tokens: Option<RateLimitWindow>,
}

impl RateLimitStatus {
    /// Sets the limit on requests.
    #[must_use]
    pub const fn with_requests(mut self, requests: RateLimitWindow) -> Self {
        self.requests = Some(requests);
        self
    }

    /// Sets the limit on tokens.
    #[must_use]
    pub const fn with_tokens(mut self, tokens: RateLimitWindow) -> Self {
        self.tokens = Some(tokens);
        self
    }
}

/// A limit within a provider's window, usually a minute, and what is left of it.
///
/// Part of a [`RateLimitStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitWindow {
    /// The most that the provider allows within a window.
    pub limit: u64,
    /// The rest that is left now.
    pub remaining: Option<u64>,
    /// The time until the whole limit is available again.
    pub reset: Option<Duration>,
}

impl RateLimitWindow {
    /// Makes a window with this limit. Nothing is known of what is left.
    pub const fn new(limit: u64) -> Self {
        Self { limit, remaining: None, reset: None }
    }

    /// Sets what is left now.
    #[must_use]
    pub const fn with_remaining(mut self, remaining: u64) -> Self {
        self.remaining = Some(remaining);
        self
    }

    /// Sets the time until the whole limit is available again.
    #[must_use]
    pub const fn with_reset(mut self, reset: Duration) -> Self {
        self.reset = Some(reset);
        self
    }
}
