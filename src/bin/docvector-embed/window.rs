//! Defines what the stages of `embed` hand on: a window of lines, and its rows.

use docvector_embed::{Embeddings, Usage};
use serde_json::Value;

/// Fields that the output adds to those of the input.
pub(crate) const RESERVED_FIELDS: [&str; 3] = ["embedding", "error", "truncated"];

/// A line of the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InputLine {
    Text(TextLine),
    Bad(BadLine),
}

/// A text to embed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TextLine {
    /// The number of its line, from 1.
    pub(crate) line: u64,
    pub(crate) text: String,
    /// Its JSON object as it was written, so that numbers of any size and form are kept.
    pub(crate) object: Option<String>,
}

/// Shorter ways to write lines in tests.
#[cfg(test)]
impl InputLine {
    pub(crate) fn text(line: u64, text: &str, object: Option<&str>) -> Self {
        Self::Text(TextLine { line, text: text.to_owned(), object: object.map(str::to_owned) })
    }

    pub(crate) fn bad(line: u64, reason: &str, object: Option<&str>) -> Self {
        Self::Bad(BadLine { line, reason: reason.to_owned(), object: object.map(str::to_owned) })
    }
}

impl TextLine {
    /// Returns whether this is the first line of plain text and looks like a JSON line.
    pub(crate) fn looks_like_json(&self) -> bool {
        self.line == 1
            && self.object.is_none()
            && self.text.starts_with('{')
            && serde_json::from_str::<Value>(&self.text).is_ok_and(|object| object.get("text").is_some())
    }
}

/// A line that cannot be embedded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    pub(crate) line: u64,
    /// The fault, as in `line 17: the text is empty`.
    pub(crate) reason: String,
    /// The object, if the line held one.
    pub(crate) object: Option<String>,
}

/// Consecutive lines.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) lines: Vec<InputLine>,
    /// Its size in the input, in bytes.
    pub(crate) bytes: u64,
}

impl Window {
    /// Returns the texts that can be embedded.
    pub(crate) fn text_lines(&self) -> impl Iterator<Item = &TextLine> {
        self.lines.iter().filter_map(|item| match item {
            InputLine::Text(text_line) => Some(text_line),
            InputLine::Bad(_) => None,
        })
    }

    /// Returns the lines that cannot be embedded.
    pub(crate) fn bad_lines(&self) -> impl Iterator<Item = &BadLine> {
        self.lines.iter().filter_map(|item| match item {
            InputLine::Text(_) => None,
            InputLine::Bad(bad_line) => Some(bad_line),
        })
    }

    pub(crate) fn push(&mut self, item: InputLine, bytes: u64) {
        self.lines.push(item);
        self.bytes += bytes;
    }
}

/// The lines of a window and their vectors.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) lines: Vec<InputLine>,
    /// One row for each line that is a text; `None` if no line is.
    pub(crate) embeddings: Option<Embeddings>,
    pub(crate) usage: Usage,
}
