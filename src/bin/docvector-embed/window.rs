//! Defines what goes through `embed`: a window of lines, and its rows.

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
    /// Its line, from 1.
    pub(crate) line: u64,
    pub(crate) text: String,
    /// The object that it came in, as it was written: numbers that no machine type holds pass through unharmed.
    pub(crate) object: Option<String>,
}

impl TextLine {
    /// Whether this is the first line of plain text, and is what a JSON line would be.
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
    /// What is wrong, as in `line 17: the text is empty`.
    pub(crate) reason: String,
    /// The object, if the line held one.
    pub(crate) object: Option<String>,
}

/// Consecutive lines.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) lines: Vec<InputLine>,
    /// Bytes of input that it came from.
    pub(crate) bytes: u64,
}

impl Window {
    /// The texts that can be embedded.
    pub(crate) fn text_lines(&self) -> impl Iterator<Item = &TextLine> {
        self.lines.iter().filter_map(|item| match item {
            InputLine::Text(text_line) => Some(text_line),
            InputLine::Bad(_) => None,
        })
    }

    /// The lines that cannot be embedded.
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

/// The lines of a window and what became of them.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) lines: Vec<InputLine>,
    /// A row for each item that is a text; `None` where there is none.
    pub(crate) embeddings: Option<Embeddings>,
    pub(crate) usage: Usage,
}
