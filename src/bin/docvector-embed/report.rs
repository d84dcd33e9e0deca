//! Lays out what a command found: two columns, and tables below them.

use std::{
    array,
    fmt::{self, Display},
    io::Write,
};

use crate::failure::Failure;

/// The width of the left column.
const LEFT: usize = 19;

/// Two columns.
pub(crate) struct Report<W> {
    out: W,
}

impl<W: Write> Report<W> {
    pub(crate) const fn new(out: W) -> Self {
        Self { out }
    }

    /// What something is.
    pub(crate) fn line(&mut self, what: &str, value: impl Display) -> Result<(), Failure> {
        self.text(format_args!("{what:LEFT$}{value}"))
    }

    /// A line that is not in columns.
    pub(crate) fn text(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(|error| Failure::writing("standard output", error))
    }

    /// Rows whose cells end in the same place, below an empty line.
    pub(crate) fn table<const N: usize>(&mut self, rows: &[[String; N]]) -> Result<(), Failure> {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = array::from_fn(width);
        self.text("")?;
        for row in rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("  {cell:>width$}"));
            self.text(cells.collect::<String>())?;
        }
        Ok(())
    }
}

/// A number of bytes, for people.
pub(crate) struct Bytes(pub(crate) u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
        let (mut number, mut unit) = (self.0 as f64, None);
        // What would be rounded to 1024.0 is 1.0 of the next.
        while number >= 1023.95 {
            let Some(larger) = units.next() else { break };
            (number, unit) = (number / 1024.0, Some(larger));
        }
        match unit {
            Some(unit) => write!(f, "{number:.1} {unit}"),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// A text from outside, so that it stays on its line and cannot steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut report = Report::new(Vec::new());
        report.line("a", 1).expect("written");
        report.line("reference vectors", "two").expect("written");
        assert_eq!(report.out, b"a                  1\nreference vectors  two\n");
    }

    #[test]
    fn tables_are_aligned() {
        let mut report = Report::new(Vec::new());
        let row = |cells: [&str; 2]| cells.map(str::to_owned);
        report.table(&[row(["width", "n"]), row(["8", "1000"]), row(["1536", "7"])]).expect("written");
        assert_eq!(String::from_utf8_lossy(&report.out), "\n  width     n\n      8  1000\n   1536     7\n");
    }

    #[test]
    fn bytes_have_a_unit() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (61 << 20, "61.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), shown);
        }
    }

    #[test]
    fn texts_from_outside_stay_on_their_line() {
        assert_eq!(plain("a\nb\u{1b}[2Jc é"), "a\u{fffd}b\u{fffd}[2Jc é");
    }
}
