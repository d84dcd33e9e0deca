//! Collects the lines that make a run fail, and lists them.

use std::io::{self, Write};

use crate::window::BadLine;

/// The most bad lines that are listed; the others are only counted.
const MAX_LISTED: usize = 100;

/// Lines that make a run fail: the first ones, and how many there are.
#[derive(Debug, Default)]
pub(crate) struct BadLines {
    listed: Vec<(u64, String)>,
    pub(crate) count: u64,
}

impl BadLines {
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds further bad lines.
    pub(crate) fn extend(&mut self, bad_lines: Vec<BadLine>) {
        self.count += bad_lines.len() as u64;
        let room = MAX_LISTED - self.listed.len();
        self.listed.extend(bad_lines.into_iter().take(room).map(|bad_line| (bad_line.line, bad_line.reason)));
    }

    /// Prints the lines that are kept, and how many more there are.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for (line, why) in &self.listed {
            writeln!(out, "line {line}: {why}")?;
        }
        match self.count - self.listed.len() as u64 {
            0 => Ok(()),
            more => writeln!(out, "and {more} more lines"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_the_first_hundred() {
        let bad_line = |line| BadLine { line, reason: "the text is empty".to_owned(), object: None };
        let printed = |bad_lines: &BadLines| {
            let mut out = Vec::new();
            bad_lines.print(&mut out).expect("a vector takes everything");
            String::from_utf8(out).expect("text")
        };
        let mut bad_lines = BadLines::default();
        assert!(bad_lines.is_empty());
        bad_lines.extend((1..=99).map(bad_line).collect());
        bad_lines.extend(vec![bad_line(100)]);
        assert!(printed(&bad_lines).starts_with("line 1: the text is empty\nline 2: "));
        assert!(printed(&bad_lines).ends_with("\nline 100: the text is empty\n"));
        bad_lines.extend((101..=103).map(bad_line).collect());
        assert!(printed(&bad_lines).ends_with("\nline 100: the text is empty\nand 3 more lines\n"));
        assert_eq!(bad_lines.count, 103);
    }
}
