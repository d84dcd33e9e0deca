//! Says which text cannot be embedded, and why: [`BadText`].

use std::fmt;

/// A text that cannot be embedded, and why.
///
/// Listed by [`Error::bad_texts`](crate::Error::bad_texts).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadText {
    /// The text's position among the caller's texts, from 0.
    pub index: usize,
    /// The reason why it cannot be embedded.
    pub reason: BadTextReason,
}

impl BadText {
    /// Names the text at `index` and the reason why it cannot be embedded.
    pub const fn new(index: usize, reason: BadTextReason) -> Self {
        Self { index, reason }
    }
}

/// The reason why a text cannot be embedded.
///
/// Part of a [`BadText`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadTextReason {
    /// The text has no bytes. (Whitespace is a text.)
    Empty,
    /// The text has more tokens than the model takes, and truncation was not asked for.
    TooLong {
        /// The text's tokens, prompt and special tokens included; a lower bound if counting stopped early.
        tokens: usize,
        /// The most that the model takes.
        limit: usize,
    },
    /// The text has more bytes than one call can hold.
    TooLarge {
        /// The text's bytes.
        bytes: usize,
        /// The most that a call can hold.
        limit: usize,
    },
    /// The provider refused the text without a more exact reason.
    Rejected,
    /// The provider returned a vector that no text can have: all zeros, or with a component that is not a finite
    /// number.
    Unusable,
}

impl BadTextReason {
    /// Returns the reason's name for programs: `empty`, `too_long`, `too_large`, `rejected` or `unusable`. A code never
    /// changes.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong { .. } => "too_long",
            Self::TooLarge { .. } => "too_large",
            Self::Rejected => "rejected",
            Self::Unusable => "unusable",
        }
    }
}

impl fmt::Display for BadTextReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            // What to do is said once, at the end of the error: `advice`.
            Self::TooLong { tokens, limit } => write!(f, "has at least {tokens} tokens, the limit is {limit}"),
            Self::TooLarge { bytes, limit } => write!(f, "has {bytes} bytes, a call holds at most {limit}"),
            Self::Rejected => f.write_str("was refused by the provider"),
            Self::Unusable => {
                f.write_str("got a vector that is all zeros or has a component that is not a finite number")
            }
        }
    }
}

/// Returns what to do with all these texts together, if they can be embedded at all in another way.
pub(super) fn advice(bad: &[BadText]) -> Option<&'static str> {
    let any = |is: fn(&BadTextReason) -> bool| bad.iter().any(|bad| is(&bad.reason));
    if any(|reason| matches!(reason, BadTextReason::TooLong { .. })) {
        Some(
            "split the over-long texts, or embed their beginnings: \
             `embedder.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate))`",
        )
    } else if any(|reason| matches!(reason, BadTextReason::TooLarge { .. })) {
        Some("split the texts that are too large")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs hold these, like the codes of kinds. Add to the table; change nothing in it.
    #[test]
    fn codes_stay_as_they_are() {
        let reasons = [
            (BadTextReason::Empty, "empty"),
            (BadTextReason::TooLong { tokens: 2, limit: 1 }, "too_long"),
            (BadTextReason::TooLarge { bytes: 2, limit: 1 }, "too_large"),
            (BadTextReason::Rejected, "rejected"),
            (BadTextReason::Unusable, "unusable"),
        ];
        for (reason, code) in reasons {
            assert_eq!(reason.as_str(), code);
        }
    }
}
