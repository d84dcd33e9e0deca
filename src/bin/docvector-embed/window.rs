//! Defines what goes through `embed`: a window of lines, and its rows.

use docvector_embed::{Embeddings, Usage};
use serde_json::Value;

/// Fields that the output adds to those of the input.
pub(crate) const RESERVED: [&str; 3] = ["embedding", "error", "truncated"];

/// A line of the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Text(Record),
    Bad(Fault),
}

/// A text to embed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its line, from 1.
    pub(crate) line: u64,
    pub(crate) text: String,
    /// The object that it came in, as it was written: numbers that no machine type holds pass through unharmed.
    pub(crate) object: Option<String>,
}

impl Record {
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
pub(crate) struct Fault {
    pub(crate) line: u64,
    /// What is wrong, as in `line 17: the text is empty`.
    pub(crate) why: String,
    /// The object, if the line held one.
    pub(crate) object: Option<String>,
}

/// Consecutive lines.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) items: Vec<Item>,
    /// Bytes of input that it came from.
    pub(crate) bytes: u64,
}

impl Window {
    /// The texts that can be embedded.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.items.iter().filter_map(|item| match item {
            Item::Text(record) => Some(record),
            Item::Bad(_) => None,
        })
    }

    /// The lines that cannot be embedded.
    pub(crate) fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.items.iter().filter_map(|item| match item {
            Item::Text(_) => None,
            Item::Bad(fault) => Some(fault),
        })
    }

    pub(crate) fn push(&mut self, item: Item, bytes: u64) {
        self.items.push(item);
        self.bytes += bytes;
    }
}

/// The lines of a window and what became of them.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) items: Vec<Item>,
    /// A row for each item that is a text; `None` where there is none.
    pub(crate) embeddings: Option<Embeddings>,
    pub(crate) usage: Usage,
}
