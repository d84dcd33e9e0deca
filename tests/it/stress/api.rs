//! Holds the parts of a usage that are compared: [`Bill`].

use docvector_embed::Usage;

/// The parts of a usage that are compared: all except the texts that were saved.
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
