//! Says what became of one line of a batch: [`Outcome`].

use std::sync::Arc;

use super::line_script::Fate;

/// What became of a line.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Answered,
    /// The endpoint refused the line's body.
    Refused,
    Scripted(Arc<Fate>),
    NoCredit,
    /// The completion window ended before the line's turn.
    Expired,
    /// The batch was cancelled before the line's turn.
    Cancelled,
}

impl Outcome {
    pub(super) fn is_billed(&self) -> bool {
        match self {
            Self::Answered => true,
            Self::Scripted(fate) => matches!(**fate, Fate::Twice | Fate::ReversedRows | Fate::Raw(_)),
            _ => false,
        }
    }

    /// Returns whether the line counts as completed (true) or failed (false); `None` if it was not tried.
    pub(super) fn is_completed(&self) -> Option<bool> {
        match self {
            Self::Expired | Self::Cancelled => None,
            other => Some(!other.is_error()),
        }
    }

    /// Returns `true` if the line stands in the error file.
    pub(super) fn is_error(&self) -> bool {
        match self {
            Self::Answered => false,
            Self::Refused | Self::NoCredit | Self::Expired | Self::Cancelled => true,
            Self::Scripted(fate) => match &**fate {
                Fate::Status(error) => error.status >= 400,
                Fate::Error { .. } => true,
                Fate::Missing | Fate::Twice | Fate::ReversedRows | Fate::Raw(_) => false,
            },
        }
    }

    /// Returns how often the line stands in its file.
    pub(super) fn copies(&self) -> usize {
        match self {
            Self::Scripted(fate) => match **fate {
                Fate::Missing => 0,
                Fate::Twice => 2,
                _ => 1,
            },
            _ => 1,
        }
    }
}
