//! Writes rows as JSON lines.

use std::io::{self, Write};

use crate::{
    json_fields::{Field, Fields},
    window::{BadLine, RESERVED_FIELDS, TextLine},
};

/// Appends a row: the fields of the input as they were written, then `embedding` and `truncated`.
pub(crate) fn push_vector(text_line: &TextLine, vector: &[f32], truncated: bool, out: &mut Vec<u8>) -> io::Result<()> {
    match &text_line.object {
        Some(object) => out.extend(unclosed(object).as_bytes()),
        None => {
            out.extend(b"{\"text\":");
            serde_json::to_writer(&mut *out, &text_line.text)?;
        }
    }
    out.extend(b",\"embedding\":");
    // Serialized as f32, a component has the fewest digits that parse to the same value.
    serde_json::to_writer(&mut *out, vector)?;
    out.extend(if truncated { &b",\"truncated\":true}\n"[..] } else { b"}\n" });
    Ok(())
}

/// Appends the row of a bad line: `line` and `error`, then the fields of the input.
pub(crate) fn push_bad_line(bad_line: &BadLine, out: &mut Vec<u8>) -> io::Result<()> {
    write!(out, "{{\"line\":{},\"error\":", bad_line.line)?;
    serde_json::to_writer(&mut *out, &bad_line.reason)?;
    if let Some(object) = &bad_line.object {
        let fields = Fields::of(object)?;
        if fields.iter().any(is_own) {
            // A field must occur only once, and an old `embedding` must not pass for the text's.
            for Field { written_name, value, .. } in fields.iter().filter(|field| !is_own(field)) {
                write!(out, ",{written_name}:{value}")?;
            }
        } else {
            push_fields(object, out);
        }
    }
    out.extend(b"}\n");
    Ok(())
}

/// Returns whether a field has the name of one that is written here.
fn is_own(field: &Field<'_>) -> bool {
    field.name == "line" || RESERVED_FIELDS.contains(&&*field.name)
}

/// Appends the fields of a written object, if it has any, after others.
fn push_fields(object: &str, out: &mut Vec<u8>) {
    let fields = unclosed(object).trim_start_matches('{').trim_start();
    if !fields.is_empty() {
        out.push(b',');
        out.extend(fields.as_bytes());
    }
}

/// Returns a written object without its closing brace.
fn unclosed(object: &str) -> &str {
    object.strip_suffix('}').unwrap_or(object).trim_end()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::window::InputLine;

    fn json(item: &InputLine, vector: &[f32], truncated: bool) -> String {
        let mut out = Vec::new();
        match item {
            InputLine::Text(text_line) => {
                push_vector(text_line, vector, truncated, &mut out).expect("a vector takes everything")
            }
            InputLine::Bad(bad_line) => push_bad_line(bad_line, &mut out).expect("a vector takes everything"),
        }
        let row = String::from_utf8(out).expect("text");
        serde_json::from_str::<Value>(&row).expect("JSON");
        row
    }

    #[test]
    fn components_have_their_shortest_digits() {
        let row = json(&InputLine::text(1, "a \"b\"\t", None), &[0.1, -1.0, 1e-30, 0.333_333_34], false);
        assert_eq!(row, "{\"text\":\"a \\\"b\\\"\\t\",\"embedding\":[0.1,-1.0,1e-30,0.33333334]}\n");
    }

    #[test]
    fn fields_pass_through_as_written() {
        let object = r#"{"n": 123456789012345678901234567890, "text": "x", "e": 1.50 }"#;
        let row = json(&InputLine::text(1, "x", Some(object)), &[0.5], true);
        assert_eq!(
            row,
            "{\"n\": 123456789012345678901234567890, \"text\": \"x\", \"e\": 1.50,\"embedding\":[0.5],\"truncated\":true}\n"
        );
    }

    #[test]
    fn faults_say_the_line_and_keep_the_fields() {
        assert_eq!(
            json(&InputLine::bad(17, "the text is empty", None), &[], false),
            "{\"line\":17,\"error\":\"the text is empty\"}\n"
        );
        assert_eq!(
            json(&InputLine::bad(2, "no \"x\"", Some("{\"id\": 1.50}")), &[], false),
            "{\"line\":2,\"error\":\"no \\\"x\\\"\",\"id\": 1.50}\n"
        );
        assert_eq!(json(&InputLine::bad(3, "no", Some("{ }")), &[], false), "{\"line\":3,\"error\":\"no\"}\n");
        assert_eq!(
            json(&InputLine::bad(4, "no", Some("{\"line\":9,\"id\":1,\"embedding\":[1]}")), &[], false),
            "{\"line\":4,\"error\":\"no\",\"id\":1}\n"
        );
        // Escapes do not hide a name.
        assert_eq!(
            json(&InputLine::bad(4, "no", Some("{\"l\\u0069ne\":9,\"e\": 1.50,\"error\":{}}")), &[], false),
            "{\"line\":4,\"error\":\"no\",\"e\":1.50}\n"
        );
    }

    #[test]
    fn faults_keep_fields_of_any_size_and_depth() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for (object, fields) in [
            (format!("{{\"x\":1e400,\"y\":{deep}}}"), format!("\"x\":1e400,\"y\":{deep}")),
            (format!("{{\"line\":9,\"x\":1e400,\"y\":{deep}}}"), format!("\"x\":1e400,\"y\":{deep}")),
        ] {
            let mut out = Vec::new();
            let InputLine::Bad(bad_line) = InputLine::bad(1, "no", Some(&object)) else { unreachable!("a bad line") };
            push_bad_line(&bad_line, &mut out).expect("a vector takes everything");
            assert_eq!(String::from_utf8(out).expect("text"), format!("{{\"line\":1,\"error\":\"no\",{fields}}}\n"));
        }
    }
}
