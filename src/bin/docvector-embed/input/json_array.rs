//! Reads one JSON array, whose elements are texts or objects with a text: [`JsonArray`].

use super::{
    element_splitter::ElementSplitter,
    items::{Item, Items},
    json_object::{Objects, Place},
    next::{Next, ReadError},
    pieces::{Piece, Pieces, TextReader},
};
use crate::window::{BadLine, InputLine, TextLine};

/// Reads one element after the other, so that the array may be larger than the memory.
pub(super) struct JsonArray {
    pieces: Pieces<ElementSplitter>,
    objects: Objects,
}

impl JsonArray {
    pub(super) fn new(reader: TextReader, column: &str, max_bytes: usize) -> Self {
        let pieces = Pieces::new(reader, ElementSplitter::default(), max_bytes);
        Self { pieces, objects: Objects::new(column, Place::Element) }
    }

    fn line(&self, piece: Piece) -> InputLine {
        let line = piece.line;
        let bad = |reason| InputLine::Bad(BadLine { line, reason, object: None });
        match piece.into_text("element") {
            Ok(written) if written.starts_with('"') => match serde_json::from_str::<String>(&written) {
                Ok(text) if text.is_empty() => bad("the text is empty".to_owned()),
                Ok(text) => InputLine::Text(TextLine { line, text, object: None }),
                Err(error) => bad(Place::Element.not_json(line, &error)),
            },
            Ok(written) => self.objects.read(line, &written),
            Err(reason) => bad(reason),
        }
    }
}

impl Items for JsonArray {
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
            pieces::testing::in_parts,
        },
        *,
    };

    fn read(bytes: &[u8], max_bytes: usize) -> (Vec<InputLine>, Option<String>) {
        all(&mut JsonArray::new(in_parts(bytes, 3), "text", max_bytes))
    }

    #[test]
    fn strings_are_texts_and_objects_have_one() {
        let array = b"[\"a\", \"\\u00e4\\n\",\n  {\"id\": 1e400, \"text\": \"b\"},\n  {\n    \"text\": \"c\"\n  }\n]";
        let (lines, end) = read(array, 1 << 20);
        assert_eq!(end, None);
        let expected = [
            InputLine::text(1, "a", None),
            InputLine::text(1, "\u{e4}\n", None),
            InputLine::text(2, "b", Some("{\"id\": 1e400, \"text\": \"b\"}")),
            InputLine::text(3, "c", Some("{     \"text\": \"c\"   }")),
        ];
        assert_eq!(lines, expected);
        assert_eq!(read(b"[]", 1), (Vec::new(), None));
    }

    #[test]
    fn other_elements_are_bad_lines() {
        let elements: [&[u8]; 9] = [
            b"1",
            b"\"\"",
            b"[\"a\"]",
            b"{\"text\":\"\"}",
            b"{\"a\" 1}",
            b"nul",
            b"\"\xff\"",
            b"\"\\x\"",
            b"\"0123456789a\"",
        ];
        let array = [b"[\n", elements.join(&b",\n"[..]).as_slice(), b"]"].concat();
        let (lines, end) = read(&array, 12);
        assert_eq!(end, None);
        let shown: Vec<String> = lines.iter().map(shown).collect();
        let neither = "the element is JSON, but neither a string nor an object";
        assert_eq!(shown[0], format!("2! {neither}"));
        assert_eq!(shown[1], "3! the text is empty");
        assert_eq!(shown[2], format!("4! {neither}"));
        assert_eq!(shown[3], "5! the text is empty");
        assert!(shown[4].starts_with("6! the element is not JSON: expected `:`, on line 6"), "{}", shown[4]);
        assert!(shown[5].starts_with("7! the element is not JSON: "), "{}", shown[5]);
        assert_eq!(shown[6], "8! the element is not valid UTF-8 (from byte 2 on): convert it to UTF-8");
        assert!(shown[7].starts_with("9! the element is not JSON: invalid escape, on line 9"), "{}", shown[7]);
        assert_eq!(shown[8], "10! the element is longer than 12 bytes: split it");
        assert_eq!(shown.len(), 9);
    }

    #[test]
    fn what_is_before_a_fault_is_read() {
        let (lines, end) = read(b"[\"a\"\n\"b\"]", 1 << 20);
        assert_eq!(lines, [InputLine::text(1, "a", None)]);
        assert!(end.is_some_and(|end| end.starts_with("line 2: `,` or `]` is missing")));
    }
}
