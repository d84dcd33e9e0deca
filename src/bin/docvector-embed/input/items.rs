//! Defines what the formats of an input yield: [`Items`].

use super::next::{Next, ReadError};
use crate::window::InputLine;

/// A line, row or element of an input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) line: InputLine,
    /// Its size in the input, after it was decompressed.
    pub(super) bytes: u64,
}

/// Reads an input of some format.
pub(super) trait Items {
    /// Reads the next item. If there is a pause, the next call goes on. After an error, nothing comes.
    fn next_item(&mut self) -> Result<Next<Item>, ReadError>;
}

/// Helpers of tests of formats.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Reads all items, and how they end if they do not end well.
    pub(in crate::input) fn all(items: &mut dyn Items) -> (Vec<InputLine>, Option<String>) {
        let mut lines = Vec::new();
        loop {
            match items.next_item() {
                Ok(Next::Found(item)) => lines.push(item.line),
                Ok(Next::Pause) => {}
                Ok(Next::End) => return (lines, None),
                Err(ReadError::Broken { line, what }) => return (lines, Some(format!("line {line}: {what}"))),
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    /// Writes a line as a test compares it: its number, then the text or, after a `!`, why there is none.
    pub(in crate::input) fn shown(line: &InputLine) -> String {
        match line {
            InputLine::Text(text_line) => format!("{}: {}", text_line.line, text_line.text),
            InputLine::Bad(bad_line) => format!("{}! {}", bad_line.line, bad_line.reason),
        }
    }
}
