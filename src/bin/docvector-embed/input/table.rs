//! Reads CSV and TSV, whose first row names the columns: [`Table`].

use super::{
    cells::Cells,
    header::Header,
    items::{Item, Items},
    next::{Next, ReadError},
    pieces::{Piece, Pieces, TextReader},
    row_splitter::RowSplitter,
};
use crate::{
    cli::input::InputOptions,
    window::{BadLine, InputLine, TextLine},
};

/// The most bytes of the row with the names: each row is passed on with all of them.
const HEADER_BYTES: u64 = 64 << 10;

/// Reads one text per row. The row is passed on as a JSON object of strings.
pub(super) struct Table {
    pieces: Pieces<RowSplitter>,
    cells: Cells,
    options: InputOptions,
    /// `None` until it is read.
    header: Option<Header>,
}

impl Table {
    pub(super) fn new(reader: TextReader, delimiter: u8, options: &InputOptions, max_bytes: usize) -> Self {
        let pieces = Pieces::new(reader, RowSplitter::new(delimiter), max_bytes);
        Self { pieces, cells: Cells::new(delimiter), options: options.clone(), header: None }
    }

    /// Reads the next row that is not empty.
    fn next_row(&mut self) -> Result<Next<Piece>, ReadError> {
        loop {
            match self.pieces.next_piece()? {
                Next::Found(piece) if piece.content.as_ref().is_some_and(Vec::is_empty) => {}
                next => return Ok(next),
            }
        }
    }

    fn read_header(&mut self, row: Piece) -> Result<Header, ReadError> {
        let line = row.line;
        if row.bytes > HEADER_BYTES {
            let what = format!("the row of column names has {} bytes, and at most {HEADER_BYTES} are read", row.bytes);
            return Err(ReadError::broken(line, what));
        }
        let cells = row.into_text("row of column names").and_then(|row| self.cells.of(row));
        let header = cells.and_then(|names| Header::of(&names, &self.options));
        header.map_err(|what| ReadError::broken(line, what))
    }
}

/// Reads a row below a header.
fn line(row: Piece, header: &Header, cells: &mut Cells) -> InputLine {
    let line = row.line;
    let bad = |reason, object| InputLine::Bad(BadLine { line, reason, object });
    let cells = match row.into_text("row").and_then(|row| cells.of(row)) {
        Ok(cells) => cells,
        Err(reason) => return bad(reason, None),
    };
    match header.read(&cells) {
        Ok(("", object)) => bad("the text is empty".to_owned(), Some(object)),
        Ok((text, object)) if text.contains('\0') => {
            bad("the text holds a NUL byte, so this is no text file".to_owned(), Some(object))
        }
        Ok((text, object)) => InputLine::Text(TextLine { line, text: text.to_owned(), object: Some(object) }),
        Err(reason) => bad(reason, None),
    }
}

impl Items for Table {
    fn next_item(&mut self) -> Result<Next<Item>, ReadError> {
        loop {
            let row = match self.next_row()? {
                Next::Found(row) => row,
                Next::End if self.header.is_none() => {
                    return Err(ReadError::broken(1, "the row with the names of the columns is missing"));
                }
                Next::End => return Ok(Next::End),
                Next::Pause => return Ok(Next::Pause),
            };
            let Some(header) = &self.header else {
                self.header = Some(self.read_header(row)?);
                continue;
            };
            let bytes = row.bytes;
            let line = line(row, header, &mut self.cells);
            // An object repeats the names of the columns, so it may be much larger than its row.
            return Ok(Next::Found(Item { bytes: bytes.max(line.bytes()), line }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            items::testing::{all, shown},
            pieces::testing::in_parts,
        },
        *,
    };
    use crate::cli::input::InputFormat;

    fn read(bytes: &[u8], delimiter: u8, column: &str) -> (Vec<InputLine>, Option<String>) {
        let options = InputOptions::by_name(InputFormat::Csv).with_column(column);
        let read = |size| all(&mut Table::new(in_parts(bytes, size), delimiter, &options, 40));
        let whole = read(bytes.len().max(1));
        for size in 1..20 {
            assert_eq!(read(size), whole, "in parts of {size}");
        }
        whole
    }

    #[test]
    fn rows_are_texts_with_their_other_cells() {
        let csv = b"id,text\r\n1,one\r\n\r\n2,\"two\r\nlines, \"\"quoted\"\"\"\r\n3,\xC3\xA4";
        let expected = [
            InputLine::text(2, "one", Some(r#"{"id":"1","text":"one"}"#)),
            InputLine::text(4, "two\r\nlines, \"quoted\"", Some(r#"{"id":"2","text":"two\r\nlines, \"quoted\""}"#)),
            InputLine::text(6, "\u{e4}", Some("{\"id\":\"3\",\"text\":\"\u{e4}\"}")),
        ];
        let (lines, end) = read(csv, b',', "text");
        assert_eq!((lines.as_slice(), end), (&expected[..], None));
        let (lines, _) = read(b"a\tb\nx\t1,2\n", b'\t', "b");
        assert_eq!(lines, [InputLine::text(2, "1,2", Some(r#"{"a":"x","b":"1,2"}"#))]);
        assert_eq!(read(b"text", b',', "text"), (Vec::new(), None));
    }

    #[test]
    fn rows_that_are_wrong_are_bad_lines() {
        let csv = b"id,text\n1\n2,\n3,a,b\n4,\xff\n5,0123456789012345678901234567890123456789\n6,g";
        let (lines, end) = read(csv, b',', "text");
        assert_eq!(end, None);
        let expected = [
            "2! the row has 1 cell, and the header has 2 columns",
            "3! the text is empty",
            "4! the row has 3 cells, and the header has 2 columns",
            "5! the row is not valid UTF-8 (from byte 3 on): convert it to UTF-8",
            "6! the row is longer than 40 bytes: split it",
            "7: g",
        ];
        assert_eq!(lines.iter().map(shown).collect::<Vec<_>>(), expected);
        assert_eq!(lines[1], InputLine::bad(3, "the text is empty", Some(r#"{"id":"2","text":""}"#)));
    }

    #[test]
    fn faults_of_the_table_end_it() {
        for (csv, end) in [
            (&b""[..], "line 1: the row with the names of the columns is missing"),
            (b"\n\r\n", "line 1: the row with the names of the columns is missing"),
            (b"\na,b\n1,2\n", "line 2: there is no column `text`: the columns are `a` and `b`; "),
            (b"text,\n1,2\n", "line 1: column 2 has no name: "),
            (b"text,\xff\n", "line 1: the row of column names is not valid UTF-8 (from byte 6 on)"),
            (b"text\n\"a\nb\n", "line 2: a quote that opens in this row is not closed"),
        ] {
            let (lines, said) = read(csv, b',', "text");
            assert!(lines.is_empty());
            assert!(said.as_ref().is_some_and(|said| said.starts_with(end)), "{said:?}");
        }
    }
}
