//! Says what comes next of an input, and what is wrong with it: [`Next`], [`ReadError`].

use std::io;

use crate::failure::Failure;

/// The next part of an input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    Found(T),
    /// Nothing has come for a while. Ask again.
    Pause,
    End,
}

impl<T> Next<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Next<U> {
        match self {
            Self::Found(found) => Next::Found(change(found)),
            Self::Pause => Next::Pause,
            Self::End => Next::End,
        }
    }
}

/// Why an input cannot be read to its end. Nothing comes after it.
#[derive(Debug)]
pub(super) enum ReadError {
    Unreadable {
        /// The lines that were read.
        after_line: u64,
        error: io::Error,
    },
    /// The input is not what its format asks for, from some line on.
    Broken { line: u64, what: String },
    /// The input is nothing that is read here. The words follow its name.
    Refused(String),
}

impl ReadError {
    pub(super) fn broken(line: u64, what: impl Into<String>) -> Self {
        Self::Broken { line, what: what.into() }
    }

    /// Makes the failure of a command. `name` is that of the input.
    pub(super) fn into_failure(self, name: &str) -> Failure {
        match self {
            Self::Unreadable { after_line: 0, error } => Failure::with_cause(format!("{name} cannot be read"), error),
            Self::Unreadable { after_line, error } => {
                Failure::with_cause(format!("{name} cannot be read after line {after_line}"), error)
            }
            Self::Broken { line, what } => Failure::new(format!("{name}, line {line}: {what}")),
            Self::Refused(what) => Failure::new(format!("{name} {what}")),
        }
    }
}
