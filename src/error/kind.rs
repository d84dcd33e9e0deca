//! Names what kind of failure it was, for people and for programs: [`ErrorKind`].

use std::fmt;

use crate::named::coded;

/// The kind of a failure, which tells a caller what to do about it.
///
/// ```
/// use docvector_embed::ErrorKind;
/// # fn main() -> docvector_embed::Result<()> {
/// // For people, and for programs.
/// assert_eq!(ErrorKind::RateLimited.to_string(), "rate limited");
/// assert_eq!(ErrorKind::RateLimited.as_str(), "rate_limited");
/// assert_eq!("rate_limited".parse::<ErrorKind>()?, ErrorKind::RateLimited);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The key is missing, wrong, or not allowed to do this.
    Auth,
    /// A cache could not be opened or used.
    Cache,
    /// The embedder cannot be built or used as configured: a file, a variable or an option is wrong.
    Config,
    /// The batch's [deadline](crate::Batch::with_deadline) passed. Trying again or elsewhere cannot be in time.
    DeadlinePassed,
    /// The model failed on this machine.
    Inference,
    /// The texts or the batch are not acceptable; [`Error::bad_texts`](crate::Error::bad_texts) says which and why.
    InvalidInput,
    /// A queue of this process or of a service is full, and the call was not sent any further. Waiting helps.
    Overloaded,
    /// The reply is malformed or does not match the request.
    Protocol,
    /// The account's quota or money is used up. Waiting does not help.
    QuotaExhausted,
    /// Too many requests at the moment. Waiting helps.
    RateLimited,
    /// The vectors lie, or would lie, in another space than the wanted one.
    SpaceMismatch,
    /// The call took longer than allowed.
    Timeout,
    /// The provider cannot be reached or is down.
    Unavailable,
}

coded! {
    /// All kinds, in the order of their codes. Later versions have more.
    pub ALL;
    /// Returns the kind's code for programs: for wire formats, metrics and files.
    ErrorKind, "the code of an error",
    Auth = "auth",
    Cache = "cache",
    Config = "config",
    DeadlinePassed = "deadline_passed",
    Inference = "inference",
    InvalidInput = "invalid_input",
    Overloaded = "overloaded",
    Protocol = "protocol",
    QuotaExhausted = "quota",
    RateLimited = "rate_limited",
    SpaceMismatch = "space_mismatch",
    Timeout = "timeout",
    Unavailable = "unavailable",
}

impl ErrorKind {
    /// Returns `true` if a call that several callers share may have failed because of another caller: because of its
    /// deadline, or of its texts.
    ///
    /// `names_own` says whether the error names texts of this caller; `None` if it names no text at all.
    pub(crate) fn may_be_fault_of_another(self, names_own: Option<bool>) -> bool {
        match (self, names_own) {
            (Self::DeadlinePassed, _) => true,
            (_, Some(names_own)) => !names_own,
            (kind, None) => kind == Self::InvalidInput,
        }
    }

    /// Returns the kind in lower-case words, for people: error messages begin with them. Programs use
    /// [`as_str`](Self::as_str), which can be parsed again.
    const fn words(self) -> &'static str {
        match self {
            Self::Auth => "not authorized",
            Self::Cache => "cache failed",
            Self::Config => "wrong configuration",
            Self::DeadlinePassed => "deadline passed",
            Self::Inference => "inference failed",
            Self::InvalidInput => "invalid input",
            Self::Overloaded => "overloaded",
            Self::Protocol => "unusable answer",
            Self::QuotaExhausted => "quota used up",
            Self::RateLimited => "rate limited",
            Self::SpaceMismatch => "vector spaces differ",
            Self::Timeout => "timed out",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs, files and other machines hold these: a code that is changed or taken for another kind breaks them. Add
    /// to the table; change nothing in it.
    #[test]
    fn codes_stay_as_they_are() {
        use ErrorKind::*;
        let table = [
            (Auth, "auth"),
            (Cache, "cache"),
            (Config, "config"),
            (DeadlinePassed, "deadline_passed"),
            (Inference, "inference"),
            (InvalidInput, "invalid_input"),
            (Overloaded, "overloaded"),
            (Protocol, "protocol"),
            (QuotaExhausted, "quota"),
            (RateLimited, "rate_limited"),
            (SpaceMismatch, "space_mismatch"),
            (Timeout, "timeout"),
            (Unavailable, "unavailable"),
        ];
        let codes: Vec<(ErrorKind, &str)> = ErrorKind::ALL.iter().map(|kind| (*kind, kind.as_str())).collect();
        assert_eq!(codes, table);
    }

    #[test]
    fn all_kinds_are_listed() {
        // Fails to compile if a kind is new: add it to `ALL`, to the table above, and to this count.
        let number = |kind: ErrorKind| match kind {
            ErrorKind::Auth => 0,
            ErrorKind::Cache => 1,
            ErrorKind::Config => 2,
            ErrorKind::DeadlinePassed => 3,
            ErrorKind::Inference => 4,
            ErrorKind::InvalidInput => 5,
            ErrorKind::Overloaded => 6,
            ErrorKind::Protocol => 7,
            ErrorKind::QuotaExhausted => 8,
            ErrorKind::RateLimited => 9,
            ErrorKind::SpaceMismatch => 10,
            ErrorKind::Timeout => 11,
            ErrorKind::Unavailable => 12,
        };
        let numbers: Vec<usize> = ErrorKind::ALL.iter().map(|&kind| number(kind)).collect();
        assert_eq!(numbers, (0..13).collect::<Vec<_>>());
        assert!(ErrorKind::ALL.is_sorted_by_key(|kind| kind.as_str()));
    }

    #[test]
    fn codes_are_read_back() {
        for &kind in ErrorKind::ALL {
            assert_eq!(kind.as_str().parse::<ErrorKind>().expect("a code"), kind);
            assert!(kind.as_str().bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{}", kind.as_str());
        }
        // Neither the words for people, nor anything near a code.
        for given in ["", "rate limited", "Auth", "auth ", "rate-limited", "timed out", "auth,cache"] {
            let error = given.parse::<ErrorKind>().expect_err(given);
            assert_eq!(crate::Error::from(error.clone()).kind(), ErrorKind::Config);
            assert!(error.message().starts_with(&format!("{given:?} as ")), "{error}");
            assert!(error.message().ends_with("space_mismatch, timeout, unavailable"), "{error}");
        }
        let error = "x".repeat(1 << 20).parse::<ErrorKind>().expect_err("no code");
        assert!(error.message().len() < 500, "{error}");
    }

    #[test]
    fn a_shared_call_fails_its_callers_for_their_own_reasons_only() {
        for &kind in ErrorKind::ALL {
            let late = kind == ErrorKind::DeadlinePassed;
            assert_eq!(kind.may_be_fault_of_another(Some(true)), late, "{kind}: this caller's texts are named");
            assert!(kind.may_be_fault_of_another(Some(false)), "{kind}: only texts of others are named");
            let unnamed = late || kind == ErrorKind::InvalidInput;
            assert_eq!(kind.may_be_fault_of_another(None), unnamed, "{kind}: no text is named");
        }
    }

    #[test]
    fn what_each_kind_asks_of_a_caller() {
        for &kind in ErrorKind::ALL {
            use ErrorKind::*;
            let error = crate::Error::new(kind, "as told");
            assert_eq!(
                error.is_retryable(),
                matches!(kind, Overloaded | RateLimited | Timeout | Unavailable),
                "{kind}"
            );
            let elsewhere = !matches!(kind, DeadlinePassed | InvalidInput | SpaceMismatch);
            assert_eq!(error.should_fall_back(), elsewhere, "{kind}");
        }
    }
}
