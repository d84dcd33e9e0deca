//! Writes the log of the library: [`log_warnings`].

use std::io::{self, IsTerminal};

/// Writes warnings of the library to stderr.
pub(crate) fn log_warnings() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    // A program has one log, and this is its beginning.
    let _ = subscriber.try_init();
}
