//! Measures calls and groups: [`Size`].

use crate::{Batch, Limits};

/// The size of a call or of a group, or the most that a group may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) texts: usize,
    pub(super) bytes: usize,
    /// An upper bound on the tokens; 0 if nothing is known of them.
    pub(super) tokens: usize,
}

impl Size {
    pub(super) const NONE: Self = Self { texts: 0, bytes: 0, tokens: 0 };

    /// Measures a batch without looking at its tokens.
    pub(super) fn of(batch: &Batch<'_>) -> Self {
        let bytes = batch.texts().iter().map(|text| text.len()).sum();
        Self { texts: batch.len(), bytes, tokens: 0 }
    }

    /// Returns the most that one call of these limits may have, with at most `texts` texts.
    pub(super) fn most(texts: usize, limits: &Limits) -> Self {
        Self {
            texts: limits.texts.map_or(texts, |limit| limit.min(texts)),
            bytes: limits.bytes.unwrap_or(usize::MAX),
            tokens: limits.tokens_per_call.unwrap_or(usize::MAX),
        }
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            texts: self.texts.saturating_add(other.texts),
            bytes: self.bytes.saturating_add(other.bytes),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            texts: self.texts.saturating_sub(other.texts),
            bytes: self.bytes.saturating_sub(other.bytes),
            tokens: self.tokens.saturating_sub(other.tokens),
        }
    }

    /// Returns `true` if no part is above the most.
    pub(super) const fn fits(self, most: Self) -> bool {
        self.texts <= most.texts && self.bytes <= most.bytes && self.tokens <= most.tokens
    }

    /// Returns `true` if some part has reached the most, so that nothing more fits.
    pub(super) const fn fills(self, most: Self) -> bool {
        self.texts >= most.texts || self.bytes >= most.bytes || self.tokens >= most.tokens
    }
}
