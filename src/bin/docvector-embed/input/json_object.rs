//! Takes the text from a JSON object, which is passed on as it was written: [`Objects`].

use serde_json::value::RawValue;

use crate::{
    json_fields::Fields,
    window::{BadLine, InputLine, RESERVED_FIELDS, TextLine},
};

/// The place of the JSON that holds a text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Line,
    /// An element of an array, which may go over several lines.
    Element,
}

impl Place {
    /// Says why something is no JSON, without its content.
    pub(super) fn not_json(self, line: u64, error: &serde_json::Error) -> String {
        let what = without_place(error);
        match self {
            // The parser saw one line alone, so that its own line number says nothing.
            Self::Line => format!("the line is not JSON: {what}, at column {}", error.column()),
            Self::Element => {
                let line = line + (error.line() as u64).saturating_sub(1);
                format!("the element is not JSON: {what}, on line {line}")
            }
        }
    }

    /// Says why something is no object.
    pub(super) fn no_object(self, line: u64, written: &str) -> String {
        match (serde_json::from_str::<&RawValue>(written), self) {
            (Err(error), _) => self.not_json(line, &error),
            (Ok(_), Self::Line) => "the line is JSON, but not an object".to_owned(),
            (Ok(_), Self::Element) => "the element is JSON, but neither a string nor an object".to_owned(),
        }
    }
}

/// Reads objects with a text.
pub(super) struct Objects {
    /// The name of the field with the text.
    column: String,
    place: Place,
}

impl Objects {
    pub(super) fn new(column: &str, place: Place) -> Self {
        Self { column: column.to_owned(), place }
    }

    /// Reads the object that begins on a line.
    pub(super) fn read(&self, line: u64, written: &str) -> InputLine {
        let bad = |reason, object: Option<&str>| {
            let object = object.map(in_one_line);
            InputLine::Bad(BadLine { line, reason, object })
        };
        if !written.starts_with('{') {
            return bad(self.place.no_object(line, written), None);
        }
        let fields = match Fields::of(written) {
            Ok(fields) => fields,
            Err(error) => return bad(self.place.not_json(line, &error), None),
        };
        match self.text(&fields) {
            Ok(text) => InputLine::Text(TextLine { line, text, object: Some(in_one_line(written)) }),
            Err(reason) => bad(reason, Some(written)),
        }
    }

    /// Returns the text, or why there is none.
    fn text(&self, fields: &Fields<'_>) -> Result<String, String> {
        if let Some(name) = RESERVED_FIELDS.iter().find(|name| fields.get(name).is_some()) {
            return Err(format!("the object has a field `{name}` already"));
        }
        let column = &self.column;
        let value = fields.get(column).ok_or_else(|| format!("the object has no field `{column}`"))?;
        if !value.get().starts_with('"') {
            return Err(format!("the field `{column}` is not a string"));
        }
        match serde_json::from_str::<String>(value.get()) {
            Ok(text) if text.is_empty() => Err("the text is empty".to_owned()),
            Ok(text) => Ok(text),
            Err(error) => Err(format!("the field `{column}` is no text: {}", without_place(&error))),
        }
    }
}

/// Returns the parser's message without the place.
fn without_place(error: &serde_json::Error) -> String {
    error.to_string().split(" at line ").next().unwrap_or_default().to_owned()
}

/// Makes one line of JSON that goes over several. In valid JSON, line ends only stand where a space may stand.
fn in_one_line(written: &str) -> String {
    written.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &str) -> InputLine {
        Objects::new("text", Place::Line).read(1, written)
    }

    fn reason(written: &str) -> String {
        match read(written) {
            InputLine::Bad(bad_line) => bad_line.reason,
            InputLine::Text(text_line) => format!("{text_line:?}"),
        }
    }

    #[test]
    fn objects_give_their_text_and_stay_as_written() {
        let written = r#"{"id": 1.50, "big": 123456789012345678901234567890, "text": "a \"b\"", "tags": []}"#;
        assert_eq!(read(written), InputLine::text(1, "a \"b\"", Some(written)));
        let written = "{\"text\":\n\t\"a\",\r\n \"b\":1}";
        assert_eq!(read(written), InputLine::text(1, "a", Some("{\"text\": \t\"a\",   \"b\":1}")));
    }

    #[test]
    fn the_text_may_be_in_another_field() {
        let object = "{\"body\":\"a\",\"text\":7}";
        assert_eq!(Objects::new("body", Place::Line).read(1, object), InputLine::text(1, "a", Some(object)));
        let missing = InputLine::bad(1, "the object has no field `title`", Some(object));
        assert_eq!(Objects::new("title", Place::Line).read(1, object), missing);
    }

    #[test]
    fn says_what_is_wrong_with_an_object() {
        assert_eq!(reason("{\"text\":\"\"}"), "the text is empty");
        assert_eq!(reason("{\"title\":\"x\"}"), "the object has no field `text`");
        assert_eq!(reason("{\"text\":7}"), "the field `text` is not a string");
        assert_eq!(reason("{\"text\":\"x\",\"embedding\":[]}"), "the object has a field `embedding` already");
        assert_eq!(reason("{\"text\":\"x\",\"error\":null}"), "the object has a field `error` already");
        assert_eq!(reason("[\"text\"]"), "the line is JSON, but not an object");
        let broken = reason("{\"text\": secret}");
        assert!(broken.starts_with("the line is not JSON: expected value, at column "), "{broken}");
        assert!(!broken.contains("secret"), "{broken}");
        let cut = reason("{\"text\": \"x\"");
        assert!(cut.contains("EOF while parsing an object"), "{cut}");
        let half = reason("{\"text\": \"\\ud800\"}");
        assert!(half.starts_with("the field `text` is no text: ") && !half.contains("at line"), "{half}");
    }

    #[test]
    fn elements_name_the_line_of_a_fault() {
        let element = |written| match Objects::new("text", Place::Element).read(7, written) {
            InputLine::Bad(bad_line) => bad_line.reason,
            InputLine::Text(text_line) => format!("{text_line:?}"),
        };
        let broken = element("{\"text\":\n\"a\",\n\"b\" 1}");
        assert!(broken.starts_with("the element is not JSON: ") && broken.ends_with(", on line 9"), "{broken}");
        assert_eq!(element("[1]"), "the element is JSON, but neither a string nor an object");
        // A line end in a string is no JSON, and must not become a space.
        assert!(element("{\"text\":\"a\nb\"}").starts_with("the element is not JSON: control character"));
    }

    #[test]
    fn the_last_of_two_fields_counts() {
        assert_eq!(reason("{\"text\":\"a\",\"text\":7}"), "the field `text` is not a string");
    }

    #[test]
    fn numbers_of_any_size_and_values_of_any_depth_pass() {
        for value in ["1e400".to_owned(), format!("{}1{}", "{\"a\":[".repeat(50_000), "]}".repeat(50_000))] {
            let object = format!("{{\"x\":{value},\"text\":\"a\"}}");
            assert_eq!(read(&object), InputLine::text(1, "a", Some(&object)));
        }
    }

    #[test]
    fn bad_objects_are_kept_for_their_row() {
        let object = "{\"id\":7,\"text\":\"\"}";
        assert_eq!(read(object), InputLine::bad(1, "the text is empty", Some(object)));
        assert!(matches!(read("{\"id\":7"), InputLine::Bad(bad_line) if bad_line.object.is_none()));
    }
}
