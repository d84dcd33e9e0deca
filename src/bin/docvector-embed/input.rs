//! Reads the texts of a file or of standard input, in windows of bounded size: [`Input`].
//!
//! A reader gives the text of the input, decompressed. A splitter finds its pieces: lines, rows or elements of an array.
//! The format makes items of them, each with a text or the reason why there is none. A window is a number of items.

mod cells;
mod counted;
mod element_splitter;
mod format_reader;
mod gunzip;
mod header;
mod items;
mod json_array;
mod json_object;
mod lines;
mod next;
mod pieces;
mod read_ahead;
mod recognition;
mod row_splitter;
mod table;
mod text;

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    mem,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use self::{
    format_reader::FormatReader,
    items::{Item, Items},
    next::Next,
    pieces::TextReader,
    read_ahead::ReadAhead,
    recognition::is_json_line,
    text::Head,
};
use crate::{
    cli::input::{InputFormat, InputOptions},
    failure::Failure,
    json_warning::warn_of_json,
    paths::is_standard,
    window::{InputLine, Window},
};

/// The most texts and bytes of input in a window; a longer line is a window of its own.
const WINDOW_TEXTS: usize = 1024;
const WINDOW_BYTES: u64 = 1 << 20;

/// The most texts in the first window: its rows come early.
const FIRST_TEXTS: usize = 64;

/// The longest time that a window waits for further lines of an input that comes in its own time.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

const READ_AHEAD: usize = 64 << 10;

/// An open input, which yields its windows in order.
pub(crate) struct Input {
    reader: FormatReader,
    name: String,
    size: Option<u64>,
    /// The bytes of the input that were taken so far, and those of them that belong to earlier windows.
    taken: Arc<AtomicU64>,
    told: u64,
    /// Whether it comes in its own time, as a pipe does. Then windows end early.
    is_live: bool,
    /// An item that was read and belongs to the next window.
    carried_over: Option<Item>,
    /// The failure behind the last window.
    failure: Option<Failure>,
    has_ended: bool,
    /// The most texts of the next window.
    window_texts: usize,
    /// Whether nothing was read, and the first line may show that another format is meant.
    may_be_json: bool,
    looks_like_json: bool,
    warns: bool,
}

impl Input {
    /// Opens a file, or standard input for `-`. Refuses a file whose beginning is not what its format asks for.
    pub(crate) fn open(path: &Path, options: &InputOptions) -> Result<Self, Failure> {
        if is_standard(path) {
            return Self::live(io::stdin(), "standard input", options);
        }
        let name = path.display().to_string();
        let cannot = |error| Failure::with_cause(format!("{name} cannot be read"), error);
        let about = fs::metadata(path).map_err(cannot)?;
        if about.is_dir() {
            return Err(Failure::new(format!("{name} is a folder, not a file of texts")));
        }
        let file = File::open(path).map_err(cannot)?;
        if about.is_file() {
            Ok(Self { size: Some(about.len()), ..Self::of(file, options, &name)? })
        } else {
            Self::live(file, &name, options)
        }
    }

    /// Reads an open file from its current position.
    pub(crate) fn of(file: File, options: &InputOptions, name: &str) -> Result<Self, Failure> {
        Self::at_rest(Box::new(BufReader::with_capacity(READ_AHEAD, file)), name, options)
    }

    /// Reads what is all there. So its beginning is read at once, and may be refused.
    fn at_rest(reader: TextReader, name: &str, options: &InputOptions) -> Result<Self, Failure> {
        let mut input = Self::new(reader, name, options, false);
        input.carried_over = input.next_item(true)?;
        Ok(input)
    }

    /// Reads what comes in its own time.
    fn live(reader: impl Read + Send + 'static, name: &str, options: &InputOptions) -> Result<Self, Failure> {
        Ok(Self::new(Box::new(ReadAhead::start(reader)?), name, options, true))
    }

    fn new(reader: TextReader, name: &str, options: &InputOptions, is_live: bool) -> Self {
        let taken = Arc::new(AtomicU64::new(0));
        let head = if is_live { Head::FirstLine } else { Head::Bytes };
        Self {
            reader: FormatReader::new(reader, head, Arc::clone(&taken), options),
            name: name.to_owned(),
            size: None,
            taken,
            told: 0,
            is_live,
            carried_over: None,
            failure: None,
            has_ended: false,
            window_texts: FIRST_TEXTS,
            may_be_json: options.format == InputFormat::Lines && !options.is_named,
            looks_like_json: false,
            warns: true,
        }
    }

    /// Does not warn of a first line that looks like a JSON line.
    pub(crate) fn without_warning(self) -> Self {
        Self { warns: false, ..self }
    }

    /// Returns whether the input comes in its own time, as a pipe does.
    pub(crate) const fn is_live(&self) -> bool {
        self.is_live
    }

    /// Returns the size in bytes, if it is known.
    pub(crate) const fn size(&self) -> Option<u64> {
        self.size
    }

    /// Returns whether the first line looks like a JSON line and is read as a text, once a window was read.
    pub(crate) const fn looks_like_json(&self) -> bool {
        self.looks_like_json
    }

    /// Returns the next item; `None` at the end, and in a pause unless that is waited for.
    fn next_item(&mut self, waits: bool) -> Result<Option<Item>, Failure> {
        if let Some(item) = self.carried_over.take() {
            return Ok(Some(item));
        }
        while !self.has_ended {
            match self.reader.next_item() {
                Ok(Next::Found(item)) => return Ok(Some(item)),
                Ok(Next::Pause) if waits => {}
                Ok(Next::Pause) => return Ok(None),
                Ok(Next::End) => self.has_ended = true,
                Err(error) => {
                    self.has_ended = true;
                    return Err(error.into_failure(&self.name));
                }
            }
        }
        Ok(None)
    }

    /// Reads the lines of a window, of which there are none at the end.
    fn next_lines(&mut self) -> Result<Vec<InputLine>, Failure> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        let mut since: Option<Instant> = None;
        while lines.len() < self.window_texts && bytes < WINDOW_BYTES {
            let Some(item) = self.next_item(lines.is_empty())? else { break };
            if !lines.is_empty() && bytes + item.bytes > WINDOW_BYTES {
                self.carried_over = Some(item);
                break;
            }
            bytes += item.bytes;
            lines.push(item.line);
            // Somebody may wait for the first row of a slow input.
            if self.is_live && since.get_or_insert_with(Instant::now).elapsed() >= LONGEST_WAIT {
                break;
            }
        }
        Ok(lines)
    }

    /// Reads on, so that the bytes behind the last line belong to the last window.
    fn look_ahead(&mut self) {
        match self.next_item(true) {
            Ok(item) => self.carried_over = item,
            Err(failure) => self.failure = Some(failure),
        }
    }

    /// Looks at the first line of the first window.
    fn look_for_json(&mut self, lines: &[InputLine]) {
        if mem::take(&mut self.may_be_json)
            && let Some(InputLine::Text(text_line)) = lines.first()
            && is_json_line(&text_line.text)
        {
            self.looks_like_json = true;
            if self.warns {
                warn_of_json(text_line.line);
            }
        }
    }
}

impl Iterator for Input {
    type Item = Result<Window, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let lines = match self.next_lines() {
            Ok(lines) if lines.is_empty() => return None,
            Ok(lines) => lines,
            Err(failure) => return Some(Err(failure)),
        };
        self.window_texts = WINDOW_TEXTS;
        self.look_for_json(&lines);
        if !self.is_live {
            self.look_ahead();
        }
        let taken = self.taken.load(Ordering::Relaxed);
        let bytes = taken - mem::replace(&mut self.told, taken);
        Some(Ok(Window { lines, bytes }))
    }
}

#[cfg(test)]
mod tests;
