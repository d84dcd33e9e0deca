//! Reads texts from lines or JSON lines, in windows of bounded size, and says what is wrong with each bad line.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use serde_json::Value;

use crate::{
    failure::Failure,
    paths::is_standard,
    window::{BadLine, InputLine, RESERVED_FIELDS, TextLine, Window},
};

/// The most texts and bytes of input in a window; a longer line is a window of its own.
const WINDOW_TEXTS: usize = 1024;
const WINDOW_BYTES: u64 = 1 << 20;

/// The most bytes of a line. No text is this long, but a file without line ends may be, and must not fill the memory.
const LINE_BYTES: u64 = 16 << 20;

const READ_AHEAD: usize = 64 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An open input, which yields its windows in order.
pub(crate) struct Input<R = BufReader<Box<dyn Read + Send>>> {
    lines: LineReader<R>,
    jsonl: bool,
    name: String,
    size: Option<u64>,
    /// The line that did not fit into the last window, and its bytes.
    carried_over: Option<(InputLine, u64)>,
    ended: bool,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    pub(crate) fn open(path: &Path, jsonl: bool) -> Result<Self, Failure> {
        if is_standard(path) {
            let reader: Box<dyn Read + Send> = Box::new(io::stdin());
            return Ok(Self::new(reader, jsonl, "standard input".to_owned(), None));
        }
        let name = path.display().to_string();
        let cannot = |error| Failure::with_cause(format!("{name} cannot be read"), error);
        let about = fs::metadata(path).map_err(cannot)?;
        if about.is_dir() {
            return Err(Failure::new(format!("{name} is a folder, not a file of texts")));
        }
        let reader: Box<dyn Read + Send> = Box::new(File::open(path).map_err(cannot)?);
        Ok(Self::new(reader, jsonl, name, about.is_file().then_some(about.len())))
    }

    /// Reads an open file from its current position.
    pub(crate) fn of(file: File, jsonl: bool, name: &str) -> Self {
        Self::new(Box::new(file), jsonl, name.to_owned(), None)
    }

    fn new(reader: Box<dyn Read + Send>, jsonl: bool, name: String, size: Option<u64>) -> Self {
        let lines = LineReader::new(BufReader::with_capacity(READ_AHEAD, reader), LINE_BYTES);
        Self { lines, jsonl, name, size, carried_over: None, ended: false }
    }

    /// Returns the size in bytes, if it is known.
    pub(crate) const fn size(&self) -> Option<u64> {
        self.size
    }
}

impl<R: BufRead> Iterator for Input<R> {
    type Item = Result<Window, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut window = Window::default();
        if let Some((item, bytes)) = self.carried_over.take() {
            window.push(item, bytes);
        }
        while !self.ended && window.lines.len() < WINDOW_TEXTS && window.bytes < WINDOW_BYTES {
            let line = match self.lines.read() {
                Ok(Some(line)) => line,
                Ok(None) => {
                    self.ended = true;
                    break;
                }
                Err(error) => {
                    self.ended = true;
                    let message = format!("{} cannot be read after line {}", self.name, self.lines.number);
                    return Some(Err(Failure::with_cause(message, error)));
                }
            };
            let bytes = line.bytes;
            let item = line.parse(self.jsonl);
            if !window.lines.is_empty() && window.bytes + bytes > WINDOW_BYTES {
                self.carried_over = Some((item, bytes));
                break;
            }
            window.push(item, bytes);
        }
        (!window.lines.is_empty()).then_some(Ok(window))
    }
}

/// Splits bytes into lines at `\n` or `\r\n`.
struct LineReader<R> {
    reader: R,
    /// Lines read so far.
    number: u64,
    max_bytes: u64,
}

/// A line as bytes, without its end.
struct RawLine {
    number: u64,
    /// `None` if the line is too long.
    content: Option<Vec<u8>>,
    /// Bytes of input, with the line's end.
    bytes: u64,
    max_bytes: u64,
}

impl<R: BufRead> LineReader<R> {
    const fn new(reader: R, max_bytes: u64) -> Self {
        Self { reader, number: 0, max_bytes }
    }

    fn read(&mut self) -> io::Result<Option<RawLine>> {
        let mut content = Vec::new();
        // Two more bytes for the line's end.
        let mut bytes = self.reader.by_ref().take(self.max_bytes + 2).read_until(b'\n', &mut content)? as u64;
        let ended = content.last() == Some(&b'\n');
        if ended {
            content.pop();
            if content.last() == Some(&b'\r') {
                content.pop();
            }
        }
        if self.number == 0 && content.starts_with(BYTE_ORDER_MARK) {
            content.drain(..BYTE_ORDER_MARK.len());
        }
        if content.is_empty() && !ended {
            return Ok(None);
        }
        self.number += 1;
        let fits = content.len() as u64 <= self.max_bytes;
        if !fits {
            // Free the memory before the rest is skipped.
            content = Vec::new();
            if !ended {
                bytes += self.reader.skip_until(b'\n')? as u64;
            }
        }
        let content = fits.then_some(content);
        Ok(Some(RawLine { number: self.number, content, bytes, max_bytes: self.max_bytes }))
    }
}

impl RawLine {
    fn parse(self, jsonl: bool) -> InputLine {
        let line = self.number;
        let bad = |reason: String| InputLine::Bad(BadLine { line, reason, object: None });
        let Some(content) = self.content else {
            return bad(format!("the line is longer than {} bytes: split it", self.max_bytes));
        };
        match String::from_utf8(content) {
            Ok(object) if jsonl => parse_object(line, &object),
            Ok(text) if text.is_empty() => bad("the text is empty".to_owned()),
            Ok(text) => InputLine::Text(TextLine { line, text, object: None }),
            Err(error) => {
                let at = error.utf8_error().valid_up_to() + 1;
                bad(format!("the line is not valid UTF-8 (from byte {at} on)"))
            }
        }
    }
}

/// Takes the text from an object. The object itself is passed on as it was written.
fn parse_object(line: u64, written: &str) -> InputLine {
    let written = written.trim_matches([' ', '\t', '\r']);
    let bad = |reason: &str, object: Option<&str>| {
        InputLine::Bad(BadLine { line, reason: reason.to_owned(), object: object.map(str::to_owned) })
    };
    let mut fields = match serde_json::from_str(written) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return bad("the line is JSON, but not an object", None),
        Err(_) if written.is_empty() => return bad("the line is empty, not a JSON object", None),
        Err(error) => {
            // Leave out the line in the parser's message: it is always 1, because each line is parsed alone.
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            return bad(&format!("the line is not JSON: {what}, at column {}", error.column()), None);
        }
    };
    if let Some(name) = RESERVED_FIELDS.iter().find(|&&name| fields.contains_key(name)) {
        return bad(&format!("the object has a field `{name}` already"), Some(written));
    }
    match fields.remove("text") {
        Some(Value::String(text)) if text.is_empty() => bad("the text is empty", Some(written)),
        Some(Value::String(text)) => InputLine::Text(TextLine { line, text, object: Some(written.to_owned()) }),
        Some(_) => bad("the field `text` is not a string", Some(written)),
        None => bad("the object has no field `text`", Some(written)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8], jsonl: bool, max_bytes: u64) -> Input<BufReader<&[u8]>> {
        // A small buffer, so that each line takes several reads.
        let lines = LineReader::new(BufReader::with_capacity(3, bytes), max_bytes);
        Input { lines, jsonl, name: "test".to_owned(), size: None, carried_over: None, ended: false }
    }

    fn items(bytes: &[u8], jsonl: bool) -> Vec<InputLine> {
        input(bytes, jsonl, 1 << 30).flat_map(|window| window.expect("readable").lines).collect()
    }

    fn texts(bytes: &[u8]) -> Vec<String> {
        let text = |item| match item {
            InputLine::Text(text_line) => text_line.text,
            InputLine::Bad(bad_line) => format!("{}: {}", bad_line.line, bad_line.reason),
        };
        items(bytes, false).into_iter().map(text).collect()
    }

    fn reason(line: &str) -> String {
        match items(line.as_bytes(), true).pop() {
            Some(InputLine::Bad(bad_line)) => bad_line.reason,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn lines_end_as_everywhere() {
        assert_eq!(texts(b""), [""; 0]);
        assert_eq!(texts(b"one\ntwo\n"), ["one", "two"]);
        assert_eq!(texts(b"one\r\ntwo"), ["one", "two"]);
        assert_eq!(texts(b"one\r"), ["one\r"]);
        assert_eq!(texts(b"a\rb\n"), ["a\rb"]);
        assert_eq!(texts(b" \n\0\n"), [" ", "\0"]);
        assert_eq!(texts(b"one\n\ntwo\n\n"), ["one", "2: the text is empty", "two", "4: the text is empty"]);
        assert_eq!(texts(b"\r\n"), ["1: the text is empty"]);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_at_the_start_alone() {
        assert_eq!(texts(b"\xEF\xBB\xBFone\ntwo"), ["one", "two"]);
        assert_eq!(texts(b"\xEF\xBB\xBF"), [""; 0]);
        assert_eq!(texts(b"\xEF\xBB\xBF\n"), ["1: the text is empty"]);
        assert_eq!(texts(b"one\n\xEF\xBB\xBFtwo"), ["one", "\u{FEFF}two"]);
    }

    #[test]
    fn invalid_utf8_is_named_by_line_and_byte() {
        assert_eq!(texts(b"one\ntw\xFFo\nthree"), ["one", "2: the line is not valid UTF-8 (from byte 3 on)", "three"]);
    }

    #[test]
    fn endless_lines_are_passed_over() {
        let items: Vec<InputLine> = input(b"12345678\n12345678\r\n123456789\n1234567890123\nend", false, 8)
            .flat_map(|window| window.expect("readable").lines)
            .collect();
        let whole = |item: &InputLine| matches!(item, InputLine::Text(_));
        assert_eq!(items.iter().map(whole).collect::<Vec<_>>(), [true, true, false, false, true]);
        assert!(
            matches!(&items[2], InputLine::Bad(bad_line) if bad_line.reason == "the line is longer than 8 bytes: split it")
        );
        assert!(matches!(&items[4], InputLine::Text(text_line) if text_line.line == 5 && text_line.text == "end"));
    }

    #[test]
    fn windows_hold_so_much_and_no_more() {
        let many = b"x\n".repeat(2500);
        let sizes: Vec<usize> =
            input(&many, false, LINE_BYTES).map(|window| window.expect("readable").lines.len()).collect();
        assert_eq!(sizes, [1024, 1024, 452]);

        let long = "y".repeat(3 << 20);
        let text = format!("a\nb\n{long}\nc\n");
        let windows: Vec<Window> =
            input(text.as_bytes(), false, LINE_BYTES).map(|window| window.expect("readable")).collect();
        assert_eq!(windows.iter().map(|window| window.lines.len()).collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!(windows.iter().map(|window| window.bytes).sum::<u64>(), text.len() as u64);
    }

    #[test]
    fn objects_give_their_text_and_stay_as_written() {
        let written = r#"{"id": 1.50, "big": 123456789012345678901234567890, "text": "a \"b\"", "tags": []}"#;
        let line = format!(" {written}\r\n");
        let expected = TextLine { line: 1, text: "a \"b\"".to_owned(), object: Some(written.to_owned()) };
        assert_eq!(items(line.as_bytes(), true), [InputLine::Text(expected)]);
    }

    #[test]
    fn says_what_is_wrong_with_an_object() {
        assert_eq!(reason("{\"text\":\"\"}"), "the text is empty");
        assert_eq!(reason("{\"title\":\"x\"}"), "the object has no field `text`");
        assert_eq!(reason("{\"text\":7}"), "the field `text` is not a string");
        assert_eq!(reason("{\"text\":\"x\",\"embedding\":[]}"), "the object has a field `embedding` already");
        assert_eq!(reason("{\"text\":\"x\",\"error\":null}"), "the object has a field `error` already");
        assert_eq!(reason("[\"text\"]"), "the line is JSON, but not an object");
        assert_eq!(reason("\n"), "the line is empty, not a JSON object");
        let broken = reason("{\"text\": secret}");
        assert!(broken.starts_with("the line is not JSON: expected value, at column "), "{broken}");
        assert!(!broken.contains("secret"), "{broken}");
        let cut = reason("{\"text\": \"x\"");
        assert!(cut.contains("EOF while parsing an object"), "{cut}");
    }

    #[test]
    fn bad_objects_are_kept_for_their_row() {
        let items = items(b"{\"id\":7,\"text\":\"\"}\n{\"id\":7", true);
        assert!(
            matches!(&items[0], InputLine::Bad(bad_line) if bad_line.object.as_deref() == Some("{\"id\":7,\"text\":\"\"}"))
        );
        assert!(matches!(&items[1], InputLine::Bad(bad_line) if bad_line.object.is_none()));
    }

    #[test]
    fn a_reading_error_is_the_last_item() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let lines = LineReader::new(BufReader::new((&b"one\n"[..]).chain(Broken)), LINE_BYTES);
        let mut input =
            Input { lines, jsonl: false, name: "test".to_owned(), size: None, carried_over: None, ended: false };
        assert!(input.next().is_some_and(|window| window.is_err()));
        assert!(input.next().is_none());
    }
}
