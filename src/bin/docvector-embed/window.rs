//! Defines what the stages of `embed` hand on: a window of lines, and its rows.

use std::mem;

use docvector_embed::{BadText, Charges, Embeddings, Error};

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

impl InputLine {
    /// Returns the bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        let (text, object) = match self {
            Self::Text(TextLine { text, object, .. }) => (text, object),
            Self::Bad(BadLine { reason, object, .. }) => (reason, object),
        };
        (text.len() + object.as_ref().map_or(0, String::len)) as u64
    }
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

/// A line that cannot be embedded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    pub(crate) line: u64,
    /// The fault, as in `line 17: the text is empty`.
    pub(crate) reason: String,
    /// The object, if the line held one.
    pub(crate) object: Option<String>,
}

/// Returns why a text is bad.
pub(crate) fn reason(bad: &BadText) -> String {
    format!("the text {}", bad.reason)
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

    /// Returns the texts that can be embedded, without their lines.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.text_lines().map(|text_line| text_line.text.as_str()).collect()
    }

    /// Returns the lines of the texts that an error blames.
    pub(crate) fn blamed(&self, error: &Error) -> Vec<BadLine> {
        let lines: Vec<u64> = self.text_lines().map(|text_line| text_line.line).collect();
        let bad_line =
            |bad: &BadText| Some(BadLine { line: *lines.get(bad.index)?, reason: reason(bad), object: None });
        error.bad_texts().iter().filter_map(bad_line).collect()
    }

    /// Takes out the lines that cannot be embedded.
    pub(crate) fn into_bad_lines(self) -> Vec<BadLine> {
        let bad_line = |line| match line {
            InputLine::Bad(bad_line) => Some(bad_line),
            InputLine::Text(_) => None,
        };
        self.lines.into_iter().filter_map(bad_line).collect()
    }

    /// Returns the lines that cannot be embedded.
    pub(crate) fn bad_lines(&self) -> impl Iterator<Item = &BadLine> {
        self.lines.iter().filter_map(|item| match item {
            InputLine::Text(_) => None,
            InputLine::Bad(bad_line) => Some(bad_line),
        })
    }

    /// Returns the bytes that its lines hold.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.lines.iter().map(InputLine::bytes).sum()
    }

    /// Cuts it into windows whose lines hold at most so many bytes, or one line. Each has its share of the window's bytes.
    pub(crate) fn cut(self, most: u64) -> Vec<Self> {
        let (all, bytes) = (self.lines.len() as u64, self.bytes);
        let (mut parts, mut part, mut held) = (Vec::new(), Vec::new(), 0);
        for line in self.lines {
            let line_bytes = line.bytes();
            if !part.is_empty() && held + line_bytes > most {
                parts.push(mem::take(&mut part));
                held = 0;
            }
            held += line_bytes;
            part.push(line);
        }
        parts.extend(Some(part).filter(|part| !part.is_empty()));
        let mut done = 0;
        let share = |lines: Vec<InputLine>| {
            let before = bytes * done / all;
            done += lines.len() as u64;
            Self { lines, bytes: bytes * done / all - before }
        };
        parts.into_iter().map(share).collect()
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
    pub(crate) charges: Charges,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_window_is_the_same_lines_and_bytes() {
        for (lines, bytes, most) in
            [(0, 0, 3), (1, 10, 3), (3, 10, 3), (10, 100, 3), (10, 7, 3), (10, 7, 0), (10, 7, 100)]
        {
            let mut window = Window::default();
            (0..lines).for_each(|line| window.push(InputLine::text(line, "a", None), 0));
            window.bytes = bytes;
            let parts = window.cut(most);
            assert!(parts.iter().all(|window| (1..=most.max(1)).contains(&(window.lines.len() as u64))));
            assert_eq!(parts.iter().map(|window| window.bytes).sum::<u64>(), bytes);
            let numbers = parts.iter().flat_map(|window| window.text_lines().map(|text_line| text_line.line));
            assert!(numbers.eq(0..lines));
        }
    }
}
