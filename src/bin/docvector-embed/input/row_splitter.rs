//! Finds the rows of CSV, whose cells may hold line ends: [`RowSplitter`].

use super::pieces::{Fault, Scan, Splitter};

/// Makes a piece of each row. A row ends at `\n` outside of quotes.
#[derive(Debug)]
pub(super) struct RowSplitter {
    delimiter: u8,
    place: Place,
}

/// The place of the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    CellStart,
    /// In a cell without quotes, where a quote is a character like any other.
    Plain,
    Quoted,
    /// After a quote in a quoted cell: a second one stands for one, and anything else goes on without quotes.
    AfterQuote,
}

impl RowSplitter {
    pub(super) const fn new(delimiter: u8) -> Self {
        Self { delimiter, place: Place::CellStart }
    }
}

impl Splitter for RowSplitter {
    fn scan(&mut self, bytes: &[u8]) -> Result<Scan, Fault> {
        for (at, &byte) in bytes.iter().enumerate() {
            self.place = match (self.place, byte) {
                (Place::Quoted, b'"') => Place::AfterQuote,
                (Place::Quoted, _) | (Place::CellStart | Place::AfterQuote, b'"') => Place::Quoted,
                (_, b'\n') => {
                    self.place = Place::CellStart;
                    return Ok(Scan { skipped: 0, taken: at + 1, ended: true });
                }
                (_, byte) if byte == self.delimiter => Place::CellStart,
                (_, _) => Place::Plain,
            };
        }
        Ok(Scan { skipped: 0, taken: bytes.len(), ended: false })
    }

    fn missing(&self) -> Option<&'static str> {
        (self.place == Place::Quoted).then_some("a quote that opens in this row is not closed to the end of the input")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pieces::testing::split, *};

    fn rows(bytes: &str) -> Vec<String> {
        split(|| RowSplitter::new(b','), bytes.as_bytes())
    }

    #[test]
    fn rows_end_outside_of_quotes() {
        assert_eq!(rows("a,b\r\nc,\"d\ne\"\n\n\"f\"\"\n\",g"), ["1: a,b", "2: c,\"d\ne\"", "4: ", "5: \"f\"\"\n\",g"]);
        // A quote opens at the beginning of a cell alone.
        assert_eq!(rows("a\",b \"c\nd\n"), ["1: a\",b \"c", "2: d"]);
        assert_eq!(rows("\"a\"b\"\nc\n"), ["1: \"a\"b\"", "2: c"]);
    }

    #[test]
    fn an_open_quote_is_named_by_its_row() {
        let found = rows("a,b\n\"c\nd\",e\nf,\"g\nh\n");
        assert_eq!(found[..2], ["1: a,b", "2: \"c\nd\",e"]);
        assert!(found[2].starts_with("broken on 4: a quote"), "{found:?}");
    }
}
