//! Takes rows of CSV apart into their cells: [`Cells`].

use std::io::{self, Read};

use csv::{ReaderBuilder, StringRecord, Terminator};

/// Reads the cells of one row after the other.
pub(super) struct Cells {
    reader: csv::Reader<Row>,
    /// The bytes of all rows so far, as a check.
    bytes: u64,
}

/// The row that is read, with its end. The reader stops there, so that it never meets the end of the bytes.
#[derive(Default)]
struct Row {
    content: Vec<u8>,
    /// Bytes that were read.
    read: usize,
}

impl Read for Row {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut rest = &self.content[self.read..];
        let count = rest.read(into)?;
        self.read += count;
        Ok(count)
    }
}

impl Cells {
    pub(super) fn new(delimiter: u8) -> Self {
        let mut builder = ReaderBuilder::new();
        // A row is compared with the header elsewhere, and where it ends is known.
        builder.has_headers(false).flexible(true).delimiter(delimiter).terminator(Terminator::Any(b'\n'));
        Self { reader: builder.from_reader(Row::default()), bytes: 0 }
    }

    /// Returns the cells of a row, or why it has none.
    pub(super) fn of(&mut self, row: String) -> Result<StringRecord, String> {
        let mut content = row.into_bytes();
        content.push(b'\n');
        self.bytes += content.len() as u64;
        *self.reader.get_mut() = Row { content, read: 0 };
        let mut cells = StringRecord::new();
        match self.reader.read_record(&mut cells) {
            Ok(true) if self.reader.position().byte() == self.bytes => Ok(cells),
            Ok(_) => Err("the row ends in two places: this is a bug".to_owned()),
            Err(error) => Err(format!("the row cannot be read: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            next::Next,
            pieces::{Pieces, testing::in_parts},
            row_splitter::RowSplitter,
        },
        *,
    };

    fn strings(cells: &StringRecord) -> Vec<String> {
        cells.iter().map(str::to_owned).collect()
    }

    fn cells(row: &str) -> Vec<String> {
        strings(&Cells::new(b',').of(row.to_owned()).expect("a row"))
    }

    #[test]
    fn quotes_are_taken_off() {
        assert_eq!(cells("a,,\"b,\"\"c\"\"\n\", d "), ["a", "", "b,\"c\"\n", " d "]);
        assert_eq!(cells("\"\""), [""]);
        let mut tabs = Cells::new(b'\t');
        for _ in 0..3 {
            assert_eq!(strings(&tabs.of("a,b\tc".to_owned()).expect("a row")), ["a,b", "c"]);
        }
    }

    #[test]
    fn a_row_longer_than_any_buffer_is_whole() {
        let long = "x".repeat(100_000);
        assert_eq!(cells(&format!("{long},\"{long}\n{long}\"")), [long.clone(), format!("{long}\n{long}")]);
        assert_eq!(cells(&",".repeat(9_999)), vec![""; 10_000]);
    }

    /// Reads all rows as `csv` alone does.
    fn expected(bytes: &[u8]) -> Vec<Vec<String>> {
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).terminator(Terminator::Any(b'\n'));
        builder.from_reader(bytes).into_records().map(|record| strings(&record.expect("UTF-8"))).collect()
    }

    /// Reads rows that are found first and then taken apart, and whether the last quote is closed.
    fn found(bytes: &[u8], all: &mut Cells) -> (Vec<Vec<String>>, bool) {
        let mut pieces = Pieces::new(in_parts(bytes, 2), RowSplitter::new(b','), 100);
        let mut found = Vec::new();
        loop {
            match pieces.next_piece() {
                Ok(Next::Found(piece)) => match piece.into_text("row").expect("text") {
                    row if row.is_empty() => {}
                    row => found.push(strings(&all.of(row).expect("a row"))),
                },
                Ok(_) => return (found, true),
                Err(_) => return (found, false),
            }
        }
    }

    #[test]
    fn rows_are_those_of_one_reader_whatever_the_bytes() {
        const BYTES: &[u8] = b"a\",\n";
        let mut all = Cells::new(b',');
        for number in 0..4_usize.pow(6) {
            let bytes: Vec<u8> = (0..6).map(|place| BYTES[number / 4_usize.pow(place) % 4]).collect();
            let (found, is_closed) = found(&bytes, &mut all);
            let mut expected = expected(&bytes);
            if !is_closed {
                // One reader takes the end of the bytes for the end of a quote.
                expected.pop();
            }
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
