//! Names in one place each what the crate's next API calls otherwise.

use docvector_embed::{Embedder, Error, Usage, wrap::Cached};

/// The usage of one answered request; `None` where the provider does not tell its tokens.
pub(super) fn request(tokens: Option<u64>) -> Usage {
    Usage::of_request(tokens)
}

/// What an error cost, with the rows that it carries.
pub(super) fn total_usage(error: &Error) -> Usage {
    error.usage() + error.partial().map_or(Usage::ZERO, |partial| partial.embeddings().usage())
}

/// What a cache paid for and could tell nobody. The crate does not count it yet.
pub(super) fn untold<E: Embedder>(_: &Cached<E>) -> Usage {
    Usage::ZERO
}

/// The part of a usage that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bill {
    /// The tokens; `None` where a part of the sum is unknown.
    pub(super) tokens: Option<u64>,
    /// Answered requests whose tokens are unknown. The crate does not count them yet.
    pub(super) unreported: u64,
    pub(super) requests: u64,
    pub(super) unanswered: u64,
}

pub(super) fn bill(usage: Usage) -> Bill {
    Bill { tokens: usage.tokens, unreported: 0, requests: usage.requests, unanswered: usage.unanswered }
}
