//! Collects the lines that make a run fail, and lists them.

use std::io::{self, Write};

use crate::window::Fault;

/// Bad lines that are listed; the others are counted.
const LISTED: usize = 100;

/// Lines that make a run fail: the first ones, and how many there are.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    listed: Vec<(u64, String)>,
    pub(crate) count: u64,
}

impl Faults {
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds the faults of the next lines.
    pub(crate) fn extend(&mut self, faults: Vec<Fault>) {
        self.count += faults.len() as u64;
        let room = LISTED - self.listed.len();
        self.listed.extend(faults.into_iter().take(room).map(|fault| (fault.line, fault.why)));
    }

    /// Prints them, one a line.
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
        let fault = |line| Fault { line, why: "the text is empty".to_owned(), object: None };
        let printed = |faults: &Faults| {
            let mut out = Vec::new();
            faults.print(&mut out).expect("a vector takes everything");
            String::from_utf8(out).expect("text")
        };
        let mut faults = Faults::default();
        assert!(faults.is_empty());
        faults.extend((1..=99).map(fault).collect());
        faults.extend(vec![fault(100)]);
        assert!(printed(&faults).starts_with("line 1: the text is empty\nline 2: "));
        assert!(printed(&faults).ends_with("\nline 100: the text is empty\n"));
        faults.extend((101..=103).map(fault).collect());
        assert!(printed(&faults).ends_with("\nline 100: the text is empty\nand 3 more lines\n"));
        assert_eq!(faults.count, 103);
    }
}
