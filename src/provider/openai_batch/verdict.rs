//! Judges a line that was not answered as a whole: [`Verdict`].

use crate::{Error, ErrorKind};

/// Codes of lines that a batch did not come to. They cost nothing and say nothing of the texts.
const NOT_BEGUN: [&str; 2] = ["batch_expired", "batch_cancelled"];

/// The fate of the texts of a line.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// Their rows are kept, or they have failed.
    Settled,
    /// They are sent again: the batch did not come to them.
    NotBegun,
    /// They are sent again, and not for ever: the provider failed at them.
    Again,
    /// They are sent again, each in a line of its own: one of them may be bad.
    Apart,
    /// The same, and not for ever: the whole batch failed because of the line.
    Invalid,
    /// They are sent again once somebody has seen to the account or the settings.
    Account(Error),
    /// They fail.
    Failed(Error),
}

impl Verdict {
    /// Judges the error of a line with so many texts.
    pub(super) fn of(error: Error, texts: usize) -> Self {
        if error.provider_code().is_some_and(|code| NOT_BEGUN.contains(&code)) {
            return Self::NotBegun;
        }
        match error.kind() {
            ErrorKind::QuotaExhausted | ErrorKind::Auth | ErrorKind::Config => Self::Account(error),
            ErrorKind::InvalidInput if texts > 1 => Self::Apart,
            // A vector that cannot be used was billed: another one would be billed again.
            ErrorKind::InvalidInput | ErrorKind::Protocol => Self::Failed(error),
            _ => Self::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_condemned_only_for_what_they_are() {
        let of = |kind: ErrorKind, code: &str, texts| {
            Verdict::of(Error::new(kind, "a reason").with_provider_code(code), texts)
        };
        assert!(matches!(of(ErrorKind::Unavailable, "batch_expired", 4), Verdict::NotBegun));
        assert!(matches!(of(ErrorKind::InvalidInput, "batch_cancelled", 1), Verdict::NotBegun));
        assert!(matches!(of(ErrorKind::InvalidInput, "", 2), Verdict::Apart));
        assert!(matches!(of(ErrorKind::InvalidInput, "", 1), Verdict::Failed(_)));
        assert!(matches!(of(ErrorKind::Protocol, "", 2), Verdict::Failed(_)));
        assert!(matches!(of(ErrorKind::QuotaExhausted, "insufficient_quota", 1), Verdict::Account(_)));
        for kind in [ErrorKind::Auth, ErrorKind::Config] {
            assert!(matches!(of(kind, "", 4), Verdict::Account(_)));
        }
        for kind in [ErrorKind::RateLimited, ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Inference] {
            assert!(matches!(of(kind, "server_error", 1), Verdict::Again));
        }
    }
}
