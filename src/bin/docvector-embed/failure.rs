//! Defines the failure of a command, and prints it with its causes.

use std::{
    error::Error as StdError,
    fmt,
    io::{self, Write},
};

use crate::{command_words::in_command_words, signals::Signal, wording::without_controls};

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The reader of the output has closed it.
    ReaderGone,
    /// A signal, with what is left.
    Signal(Signal, String),
    /// Some lines got an error in place of a vector, as the user asked. All is written, and the summary says how many.
    Recorded,
    /// Anything else.
    Error(Box<dyn StdError + Send + Sync>),
}

impl Failure {
    /// Makes a failure without a cause.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Error(message.into().into())
    }

    /// Makes the failure of a command that a signal ends. `left` follows the word for the signal.
    pub(crate) fn signal(signal: Signal, left: impl fmt::Display) -> Self {
        Self::Signal(signal, format!("{}{left}", signal.what_it_did()))
    }

    /// Makes a failure with a cause.
    pub(crate) fn with_cause(message: impl Into<String>, source: impl StdError + Send + Sync + 'static) -> Self {
        Self::Error(Box::new(WithCause { message: message.into(), source: Box::new(source) }))
    }

    /// Makes the failure of a write to the output named `name`.
    pub(crate) fn writing(name: &str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::with_cause(format!("{name} cannot be written"), error),
        }
    }
}

impl From<docvector_embed::Error> for Failure {
    fn from(error: docvector_embed::Error) -> Self {
        Self::Error(Box::new(error))
    }
}

/// A message with its cause.
#[derive(Debug)]
struct WithCause {
    message: String,
    source: Box<dyn StdError + Send + Sync>,
}

impl fmt::Display for WithCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for WithCause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// Prints an error and, indented below it, its causes.
pub(crate) fn print(error: &(dyn StdError + 'static), out: &mut impl Write) -> io::Result<()> {
    let mut said = printable(error);
    writeln!(out, "error: {said}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = printable(error);
        // Some errors repeat the text of their cause.
        if !said.ends_with(&text) {
            writeln!(out, "  caused by: {text}")?;
        }
        (said, cause) = (text, error.source());
    }
    Ok(())
}

/// Returns a message in the words of the command. A name in it, such as that of a file, cannot control a terminal.
fn printable(error: &(dyn StdError + 'static)) -> String {
    let message = in_command_words(&error.to_string());
    message.lines().map(without_controls).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(failure: &Failure) -> String {
        let Failure::Error(error) = failure else { return String::new() };
        let mut out = Vec::new();
        print(&**error, &mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn prints_the_chain_of_causes() {
        let inner = io::Error::new(io::ErrorKind::NotFound, "no such thing");
        let failure = Failure::with_cause("the file cannot be read", inner);
        assert_eq!(printed(&failure), "error: the file cannot be read\n  caused by: no such thing\n");
        assert_eq!(printed(&Failure::new("alone")), "error: alone\n");
        assert_eq!(printed(&Failure::new("a\u{1b}[2Jb\nc")), "error: a\u{fffd}[2Jb\nc\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let gone = Failure::writing("standard output", io::ErrorKind::BrokenPipe.into());
        assert!(matches!(gone, Failure::ReaderGone));
        let full = Failure::writing("x.npy", io::ErrorKind::StorageFull.into());
        assert!(printed(&full).starts_with("error: x.npy cannot be written\n  caused by: "), "{full:?}");
    }
}
