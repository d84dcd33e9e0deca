//! Puts what is compared of a usage into one form: [`Bill`].

use docvector_embed::Usage;

/// The part of a usage that is compared: all but what was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bill {
    pub(super) tokens: u64,
    /// Answered requests whose tokens are unknown.
    pub(super) unreported: u64,
    pub(super) requests: u64,
    pub(super) unanswered: u64,
}

pub(super) fn bill(usage: Usage) -> Bill {
    let Usage { tokens, unreported, requests, unanswered, .. } = usage;
    Bill { tokens, unreported, requests, unanswered }
}
