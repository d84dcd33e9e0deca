//! Reads the items of an input in its format, and opens it when the first one is asked for: [`FormatReader`].

use std::sync::{Arc, atomic::AtomicU64};

use super::{
    items::{Item, Items},
    json_array::JsonArray,
    lines::{JsonLines, TextLines},
    next::{Next, ReadError},
    pieces::TextReader,
    table::Table,
    text::{self, Head},
};
use crate::cli::input::{InputFormat, InputOptions};

/// The most bytes of a line, row or element. No text is this long, but a file without line ends may be, and must not
/// fill the memory.
const ITEM_BYTES: usize = 16 << 20;

/// An input in some format.
pub(super) struct FormatReader {
    options: InputOptions,
    /// The bytes of the input that were taken.
    count: Arc<AtomicU64>,
    unopened: Option<(TextReader, Head)>,
    /// `None` until the input is opened, and if that fails.
    items: Option<Box<dyn Items + Send>>,
}

impl FormatReader {
    pub(super) fn new(reader: TextReader, head: Head, count: Arc<AtomicU64>, options: &InputOptions) -> Self {
        Self { options: options.clone(), count, unopened: Some((reader, head)), items: None }
    }
}

impl Items for FormatReader {
    fn next_item(&mut self) -> Result<Next<Item>, ReadError> {
        if let Some((reader, head)) = self.unopened.take() {
            self.items = Some(items(text::open(reader, head, &self.count, &self.options)?, &self.options));
        }
        match &mut self.items {
            Some(items) => items.next_item(),
            None => Ok(Next::End),
        }
    }
}

/// Returns the items of a text.
fn items(text: TextReader, options: &InputOptions) -> Box<dyn Items + Send> {
    match options.format {
        InputFormat::Lines => Box::new(TextLines::new(text, ITEM_BYTES)),
        InputFormat::Jsonl => Box::new(JsonLines::new(text, &options.column, ITEM_BYTES)),
        InputFormat::Json => Box::new(JsonArray::new(text, &options.column, ITEM_BYTES)),
        InputFormat::Csv => Box::new(Table::new(text, b',', options, ITEM_BYTES)),
        InputFormat::Tsv => Box::new(Table::new(text, b'\t', options, ITEM_BYTES)),
    }
}
