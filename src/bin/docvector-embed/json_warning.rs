//! Warns of JSON lines that are read as texts: [`warn_of_json`].

use std::io::{self, Write};

/// Warns that a line looks like a JSON line and is embedded as it stands.
pub(crate) fn warn_of_json(line: u64) {
    // A failed warning does not change the exit status.
    let _ = writeln!(
        io::stderr().lock(),
        "warning: line {line} looks like a JSON line, and is embedded as it stands: --input-format jsonl takes its text, \
         --input-format lines ends this warning"
    );
}
