//! Reads an input in pieces of bounded size (lines, rows, elements) and counts its lines: [`Pieces`].

use std::io::{BufRead, ErrorKind};

use memchr::memchr_iter;

use super::next::{Next, ReadError};

/// Reads the text of an input. It fails with [`ErrorKind::WouldBlock`] if nothing has come for a while.
pub(super) type TextReader = Box<dyn BufRead + Send>;

/// The most bytes of a line end, which does not count for the size of a piece.
const LINE_END_BYTES: usize = 2;

/// Finds where pieces begin and end. It remembers what it has seen, so that bytes may come in parts of any size.
pub(super) trait Splitter {
    /// Looks at the next bytes, of which there is at least one.
    fn scan(&mut self, bytes: &[u8]) -> Result<Scan, Fault>;

    /// Says what is missing if the input ends here.
    fn missing(&self) -> Option<&'static str>;
}

/// The part of a piece that some bytes hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Bytes before the piece, which belong to none.
    pub(super) skipped: usize,
    /// Bytes of the piece, which follow.
    pub(super) taken: usize,
    /// Whether the piece ends there. If not, all bytes were looked at.
    pub(super) ended: bool,
}

/// A byte that must not be where it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

/// Reads pieces one after the other.
pub(super) struct Pieces<S> {
    reader: TextReader,
    splitter: S,
    /// The most bytes of a piece that is kept.
    max_bytes: usize,
    /// The number of the line that the reader is on, from 1.
    line: u64,
    begun: Option<Begun>,
}

/// The beginning of a piece.
struct Begun {
    line: u64,
    /// `None` if it is too long.
    content: Option<Vec<u8>>,
    bytes: u64,
}

/// A piece, without the line end behind it.
#[derive(Debug)]
pub(super) struct Piece {
    /// The number of the line on which it begins.
    pub(super) line: u64,
    /// `None` if it is too long.
    pub(super) content: Option<Vec<u8>>,
    /// Its size in the input.
    pub(super) bytes: u64,
    max_bytes: usize,
}

impl<S: Splitter> Pieces<S> {
    pub(super) fn new(reader: TextReader, splitter: S, max_bytes: usize) -> Self {
        Self { reader, splitter, max_bytes, line: 1, begun: None }
    }

    /// Reads on to the end of a piece. If there is a pause before, the next call goes on.
    pub(super) fn next_piece(&mut self) -> Result<Next<Piece>, ReadError> {
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => return Ok(Next::Pause),
                    _ => return Err(ReadError::Unreadable { after_line: self.line - 1, error }),
                },
            };
            if bytes.is_empty() {
                return self.last_piece();
            }
            let scan = match self.splitter.scan(bytes) {
                Ok(scan) => scan,
                Err(Fault { at, what }) => return Err(ReadError::broken(self.line + line_ends(&bytes[..at]), what)),
            };
            let (skipped, rest) = bytes.split_at(scan.skipped);
            self.line += line_ends(skipped);
            let part = &rest[..scan.taken];
            if !part.is_empty() {
                let line = self.line;
                self.begun.get_or_insert_with(|| Begun::on(line)).add(part, self.max_bytes);
                self.line += line_ends(part);
            }
            self.reader.consume(scan.skipped + scan.taken);
            if scan.ended
                && let Some(begun) = self.begun.take()
            {
                return Ok(Next::Found(begun.complete(self.max_bytes)));
            }
        }
    }

    fn last_piece(&mut self) -> Result<Next<Piece>, ReadError> {
        if let Some(what) = self.splitter.missing() {
            let line = self.begun.as_ref().map_or(self.line, |begun| begun.line);
            return Err(ReadError::broken(line, what));
        }
        Ok(match self.begun.take() {
            Some(begun) => Next::Found(begun.complete(self.max_bytes)),
            None => Next::End,
        })
    }
}

impl Begun {
    fn on(line: u64) -> Self {
        Self { line, content: Some(Vec::new()), bytes: 0 }
    }

    fn add(&mut self, part: &[u8], max_bytes: usize) {
        self.bytes += part.len() as u64;
        if self.bytes > (max_bytes + LINE_END_BYTES) as u64 {
            // Free the memory before the rest is passed over.
            self.content = None;
        } else if let Some(content) = &mut self.content {
            content.extend_from_slice(part);
        }
    }

    fn complete(self, max_bytes: usize) -> Piece {
        let Self { line, content, bytes } = self;
        let content = content.map(without_line_end).filter(|content| content.len() <= max_bytes);
        Piece { line, content, bytes, max_bytes }
    }
}

impl Piece {
    /// Returns the text of the piece, or why it is none. `noun` names the piece.
    pub(super) fn into_text(self, noun: &str) -> Result<String, String> {
        let Some(content) = self.content else {
            return Err(format!("the {noun} is longer than {} bytes: split it", self.max_bytes));
        };
        String::from_utf8(content).map_err(|error| {
            let at = error.utf8_error().valid_up_to() + 1;
            format!("the {noun} is not valid UTF-8 (from byte {at} on): convert it to UTF-8")
        })
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

fn without_line_end(mut content: Vec<u8>) -> Vec<u8> {
    if content.last() == Some(&b'\n') {
        content.pop();
        if content.last() == Some(&b'\r') {
            content.pop();
        }
    }
    content
}

/// Helpers of tests of splitters.
#[cfg(test)]
pub(super) mod testing {
    use std::io::{BufReader, Cursor};

    use super::*;

    /// Returns a reader that gives so many bytes at a time.
    pub(in crate::input) fn in_parts(bytes: &[u8], size: usize) -> TextReader {
        Box::new(BufReader::with_capacity(size, Cursor::new(bytes.to_vec())))
    }

    /// Returns the pieces as text with their lines, and what ends them if they do not end well. The same comes out
    /// whatever the parts are that the bytes come in.
    pub(in crate::input) fn split<S: Splitter>(splitter: impl Fn() -> S, bytes: &[u8]) -> Vec<String> {
        let whole = split_in_parts(splitter(), bytes, bytes.len().max(1));
        for size in 1..bytes.len().min(20) {
            assert_eq!(split_in_parts(splitter(), bytes, size), whole, "in parts of {size}");
        }
        whole
    }

    fn split_in_parts<S: Splitter>(splitter: S, bytes: &[u8], size: usize) -> Vec<String> {
        let mut pieces = Pieces::new(in_parts(bytes, size), splitter, bytes.len());
        let mut found = Vec::new();
        loop {
            match pieces.next_piece() {
                Ok(Next::Found(piece)) => {
                    let line = piece.line;
                    found.push(format!("{line}: {}", piece.into_text("piece").expect("UTF-8, and short")));
                }
                Ok(Next::End) => return found,
                Ok(Next::Pause) => {}
                Err(ReadError::Broken { line, what }) => {
                    found.push(format!("broken on {line}: {what}"));
                    return found;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
