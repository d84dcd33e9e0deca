//! Prints the report of a command: two columns, and tables below them.

use std::{
    array,
    fmt::Display,
    io::{self, Write},
};

use crate::failure::Failure;

/// The width of the left column.
const LABEL_WIDTH: usize = 19;

/// A report in two columns. Once its reader is gone, nothing more is printed; the work goes on, and the exit status tells
/// how it went.
pub(crate) struct Report<W> {
    out: W,
    is_read: bool,
}

impl<W: Write> Report<W> {
    pub(crate) const fn new(out: W) -> Self {
        Self { out, is_read: true }
    }

    /// Prints a label and its value.
    pub(crate) fn line(&mut self, what: &str, value: impl Display) -> Result<(), Failure> {
        self.text(format_args!("{what:LABEL_WIDTH$}{value}"))
    }

    /// Prints a line without columns.
    pub(crate) fn text(&mut self, text: impl Display) -> Result<(), Failure> {
        if !self.is_read {
            return Ok(());
        }
        match writeln!(self.out, "{text}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.is_read = false,
            written => written.map_err(|error| Failure::writing("standard output", error))?,
        }
        Ok(())
    }

    /// Prints an empty line, then rows with their cells aligned to the right.
    pub(crate) fn table<const N: usize>(&mut self, rows: &[[String; N]]) -> Result<(), Failure> {
        self.text("")?;
        self.rows(rows)
    }

    /// Prints rows with their cells aligned to the right.
    pub(crate) fn rows<const N: usize>(&mut self, rows: &[[String; N]]) -> Result<(), Failure> {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = array::from_fn(width);
        for row in rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("  {cell:>width$}"));
            self.text(cells.collect::<String>())?;
        }
        Ok(())
    }
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
    fn a_reader_that_is_gone_does_not_end_the_work() {
        struct Gone(usize);
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut report = Report::new(Gone(0));
        report.line("a", 1).expect("nobody reads it");
        report.line("b", 2).expect("nobody reads it");
        assert_eq!(report.out.0, 1);
    }

    #[test]
    fn tables_are_aligned() {
        let mut report = Report::new(Vec::new());
        let row = |cells: [&str; 2]| cells.map(str::to_owned);
        report.table(&[row(["width", "n"]), row(["8", "1000"]), row(["1536", "7"])]).expect("written");
        assert_eq!(String::from_utf8_lossy(&report.out), "\n  width     n\n      8  1000\n   1536     7\n");
    }
}
