//! Tokenizes texts as a `tokenizer.json` says: [`TextTokenizer`].

mod post_processor;
mod reading;
mod split_points;

use std::{
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

#[cfg(all(test, feature = "onnx"))]
pub(crate) use self::reading::{BYTES_PER_TOKEN, MARGIN};
#[cfg(feature = "onnx")]
pub(crate) use self::reading::{STRETCH_BYTES, Stretch};
pub(crate) use self::{
    reading::{ReadSoFar, Reading},
    split_points::SplitPoints,
};
use crate::{Error, ErrorKind, Result};

/// The content of a `tokenizer.json`.
pub(crate) struct TokenizerJson {
    /// As they lie in the file.
    #[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "for the hash of a local model"))]
    pub(crate) bytes: Vec<u8>,
    /// Without truncation and padding: an export used them, and the model may take another length.
    pub(crate) fields: Map<String, Value>,
}

impl TokenizerJson {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let advice = "is not there: fetch it, or write it with transformers: \
                              `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`";
                wrong(path, advice).with_source(error)
            }
            _ => wrong(path, "cannot be read").with_source(error),
        })?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("is not JSON: line {}, column {}", error.line(), error.column());
            wrong(path, &message).with_source(error)
        })?;
        let Value::Object(mut fields) = json else { return Err(wrong(path, "is not a tokenizer")) };
        fields.insert("truncation".into(), Value::Null);
        fields.insert("padding".into(), Value::Null);
        Ok(Self { bytes, fields })
    }
}

/// A tokenizer, and the special tokens that it puts around a text.
pub(crate) struct TextTokenizer {
    pub(crate) tokenizer: Tokenizer,
    /// Special tokens before and after a text.
    pub(crate) before: Vec<u32>,
    pub(crate) after: Vec<u32>,
    pub(crate) split_points: SplitPoints,
}

impl TextTokenizer {
    /// Makes the tokenizer of these fields. Errors name the file that they are from.
    pub(crate) fn new(fields: Map<String, Value>, path: &Path) -> Result<Self> {
        // What is known to make the library panic is refused before, with a better reason.
        catch_unwind(AssertUnwindSafe(|| Self::of_fields(fields, path))).unwrap_or_else(|_| {
            Err(wrong(path, "makes the tokenizer's library panic: a part of it does not fit the others; save it again"))
        })
    }

    fn of_fields(fields: Map<String, Value>, path: &Path) -> Result<Self> {
        post_processor::check(&fields).map_err(|message| wrong(path, &message))?;
        let split_points = SplitPoints::of(&fields);
        let tokenizer = Tokenizer::from_bytes(Value::Object(fields).to_string().as_bytes())
            .map_err(|error| wrong(path, "is not a tokenizer that is known here").with_source(error))?;
        let (before, after) = around(&tokenizer).map_err(|message| wrong(path, message))?;
        Ok(Self { tokenizer, before, after, split_points })
    }

    /// Returns the number of special tokens around a text.
    pub(crate) fn special(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// Tokenizes a text alone, without special tokens.
    pub(crate) fn plain(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let encoding = encoding
            .map_err(|error| Error::new(ErrorKind::Inference, "the tokenizer failed on a text").with_source(error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Counts a text's tokens, with the special ones. A text that cannot be tokenized has more than any limit, so it is
    /// refused.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.plain(text).map_or(usize::MAX, |ids| ids.len()).saturating_add(self.special())
    }

    /// Counts only as far as `limit`.
    pub(crate) fn count_to(&self, text: &str, limit: usize) -> usize {
        let room = limit.saturating_sub(self.special());
        let reading = Reading { text, split_points: self.split_points, tokenize: |part| self.plain(&text[part]) };
        let mut so_far = ReadSoFar::default();
        let read = reading.read(room, &mut so_far, &mut |_| true);
        read.map_or(usize::MAX, |_| so_far.ids.len().saturating_add(self.special()))
    }
}

impl fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextTokenizer").field("split_points", &self.split_points).finish_non_exhaustive()
    }
}

/// Finds the special tokens that the tokenizer puts around a text, by tokenizing short words.
fn around(tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>), &'static str> {
    let ids =
        |text: &str, special: bool| tokenizer.encode_fast(text, special).map(|encoding| encoding.get_ids().to_vec());
    if tokenizer.encode_fast("a", true).is_ok_and(|encoding| encoding.get_type_ids().iter().any(|&kind| kind != 0)) {
        return Err("gives a single text a token type other than 0");
    }
    for probe in ["a", "the", "1"] {
        let (Ok(plain), Ok(whole)) = (ids(probe, false), ids(probe, true)) else { continue };
        if plain.is_empty() {
            continue;
        }
        if let Some(at) = whole.windows(plain.len()).position(|part| part == plain) {
            return Ok((whole[..at].to_vec(), whole[at + plain.len()..].to_vec()));
        }
    }
    Err("gives no tokens for the simplest words")
}

fn wrong(file: &Path, message: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{} {message}", file.display()))
}
