//! Reads lines, each of which is a text or a JSON object with a text: [`TextLines`], [`JsonLines`].

use memchr::memchr;

use super::{
    items::{Item, Items},
    json_object::{Objects, Place},
    next::{Next, ReadError},
    pieces::{Fault, Piece, Pieces, Scan, Splitter, TextReader},
};
use crate::window::{BadLine, InputLine, TextLine};

/// Ends pieces at `\n`.
pub(super) struct LineSplitter;

impl Splitter for LineSplitter {
    fn scan(&mut self, bytes: &[u8]) -> Result<Scan, Fault> {
        let end = memchr(b'\n', bytes);
        Ok(Scan { skipped: 0, taken: end.map_or(bytes.len(), |at| at + 1), ended: end.is_some() })
    }

    fn missing(&self) -> Option<&'static str> {
        None
    }
}

/// Reads one text per line.
pub(super) struct TextLines(Pieces<LineSplitter>);

impl TextLines {
    pub(super) fn new(reader: TextReader, max_bytes: usize) -> Self {
        Self(Pieces::new(reader, LineSplitter, max_bytes))
    }
}

impl Items for TextLines {
    fn next_item(&mut self) -> Result<Next<Item>, ReadError> {
        Ok(self.0.next_piece()?.map(|piece| Item { bytes: piece.bytes, line: text_line(piece) }))
    }
}

fn text_line(piece: Piece) -> InputLine {
    let line = piece.line;
    let bad = |reason: &str| InputLine::Bad(BadLine { line, reason: reason.to_owned(), object: None });
    match piece.into_text("line") {
        Ok(text) if text.is_empty() => bad("the text is empty"),
        Ok(text) if text.contains('\0') => bad("the text holds a NUL byte, so this is no text file"),
        Ok(text) => InputLine::Text(TextLine { line, text, object: None }),
        Err(reason) => bad(&reason),
    }
}

/// Reads one JSON object per line.
pub(super) struct JsonLines {
    pieces: Pieces<LineSplitter>,
    objects: Objects,
}

impl JsonLines {
    pub(super) fn new(reader: TextReader, column: &str, max_bytes: usize) -> Self {
        Self { pieces: Pieces::new(reader, LineSplitter, max_bytes), objects: Objects::new(column, Place::Line) }
    }

    fn line(&self, piece: Piece) -> InputLine {
        let line = piece.line;
        let bad = |reason: String| InputLine::Bad(BadLine { line, reason, object: None });
        match piece.into_text("line") {
            Ok(written) => match written.trim_matches([' ', '\t', '\r']) {
                "" => bad("the line is empty, not a JSON object".to_owned()),
                written => self.objects.read(line, written),
            },
            Err(reason) => bad(reason),
        }
    }
}

impl Items for JsonLines {
    fn next_item(&mut self) -> Result<Next<Item>, ReadError> {
        let next = self.pieces.next_piece()?;
        Ok(next.map(|piece| Item { bytes: piece.bytes, line: self.line(piece) }))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            items::testing::{all, shown},
            pieces::testing::{in_parts, split},
        },
        *,
    };

    fn texts(bytes: &[u8]) -> Vec<String> {
        let (lines, end) = all(&mut TextLines::new(in_parts(bytes, 3), 1 << 30));
        assert_eq!(end, None);
        lines.iter().map(shown).collect()
    }

    #[test]
    fn lines_end_as_everywhere() {
        assert_eq!(texts(b""), [""; 0]);
        assert_eq!(texts(b"one\ntwo\n"), ["1: one", "2: two"]);
        assert_eq!(texts(b"one\r\ntwo"), ["1: one", "2: two"]);
        assert_eq!(texts(b"one\r"), ["1: one\r"]);
        assert_eq!(texts(b"a\rb\n"), ["1: a\rb"]);
        assert_eq!(texts(b" \n\t\n"), ["1:  ", "2: \t"]);
        assert_eq!(texts(b"one\n\ntwo\n\n"), ["1: one", "2! the text is empty", "3: two", "4! the text is empty"]);
        assert_eq!(texts(b"\r\n"), ["1! the text is empty"]);
    }

    #[test]
    fn parts_of_any_size_give_the_same_lines() {
        let lines = ["1: one", "2: ", "3: ", "4: two", "5: three ", "6: ", "7: 4"];
        assert_eq!(split(|| LineSplitter, b"one\r\n\n\ntwo\nthree \n\r\n4"), lines);
    }

    #[test]
    fn no_text_holds_a_nul() {
        let bad = "2! the text holds a NUL byte, so this is no text file";
        assert_eq!(texts(b"one\nt\0wo\nthree"), ["1: one", bad, "3: three"]);
    }

    #[test]
    fn invalid_utf8_is_named_by_line_and_byte() {
        let bad = "2! the line is not valid UTF-8 (from byte 3 on): convert it to UTF-8";
        assert_eq!(texts(b"one\ntw\xFFo\nthree"), ["1: one", bad, "3: three"]);
    }

    #[test]
    fn endless_lines_are_passed_over() {
        let bytes = b"12345678\n12345678\r\n123456789\n1234567890123\nend";
        let (lines, end) = all(&mut TextLines::new(in_parts(bytes, 3), 8));
        assert_eq!(end, None);
        let bad = "the line is longer than 8 bytes: split it";
        let lines: Vec<String> = lines.iter().map(shown).collect();
        assert_eq!(lines, ["1: 12345678", "2: 12345678", &format!("3! {bad}"), &format!("4! {bad}"), "5: end"]);
    }

    #[test]
    fn objects_are_read_without_the_space_around_them() {
        let bytes = b" {\"text\":\"a\"}\t\r\n\n{\"text\":\"b\"}\n\"c\"\n";
        let (lines, _) = all(&mut JsonLines::new(in_parts(bytes, 3), "text", 1 << 30));
        assert_eq!(lines[0], InputLine::text(1, "a", Some("{\"text\":\"a\"}")));
        assert_eq!(lines[1], InputLine::bad(2, "the line is empty, not a JSON object", None));
        assert_eq!(lines[2], InputLine::text(3, "b", Some("{\"text\":\"b\"}")));
        assert_eq!(lines[3], InputLine::bad(4, "the line is JSON, but not an object", None));
        assert_eq!(lines.len(), 4);
    }
}
