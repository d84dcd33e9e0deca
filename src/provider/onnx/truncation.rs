//! Truncation: which tokens of a long text are kept, how much of the text is tokenized for that, and where it can be split.

use std::ops::Range;

use serde_json::Value;

use crate::{Result, Truncation};

/// The tokens more than needed that the beginning of a long text must have before the rest is left unread.
const MARGIN: usize = 16;
/// Bytes of a long text that are read first, for each token that the model takes.
const BYTES_PER_TOKEN: usize = 16;

/// The tokens of a text that a model has room for.
pub(super) enum Fit {
    /// All of them.
    Whole(Vec<u32>),
    /// Those that are kept of more.
    Truncated(Vec<u32>),
    /// None: there are at least so many, and nothing may be truncated.
    TooMany(usize),
}

/// The places at which a text can be split so that the tokens before the split stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitPoints {
    /// Nowhere that is known.
    Nowhere,
    /// Before white space.
    BeforeSpace,
    /// Before white space, and around ideographs and most punctuation, which are words of their own.
    AroundWords,
}

impl SplitPoints {
    /// Finds where the texts of a tokenizer can be split, from its `tokenizer.json`.
    pub(super) fn of(tokenizer: &serde_json::Map<String, Value>) -> Self {
        /// Applies `check` to the types of a component, of all its parts if it is a sequence.
        fn all(component: Option<&Value>, part: &str, check: &dyn Fn(&str) -> bool) -> bool {
            let Some(component) = component.filter(|component| !component.is_null()) else { return false };
            match component.get("type").and_then(Value::as_str) {
                Some("Sequence") => {
                    let parts = component.get(part).and_then(Value::as_array);
                    parts.is_some_and(|parts| !parts.is_empty() && parts.iter().all(|one| all(Some(one), part, check)))
                }
                Some(kind) => check(kind),
                None => false,
            }
        }
        let local = |kind: &str| {
            matches!(
                kind,
                "BertNormalizer" | "Lowercase" | "NFC" | "NFD" | "NFKC" | "NFKD" | "StripAccents" | "Precompiled"
            )
        };
        let normalizer = tokenizer.get("normalizer");
        if !normalizer.is_none_or(Value::is_null) && !all(normalizer, "normalizers", &local) {
            return Self::Nowhere;
        }
        // An added token that contains white space could be split in two.
        let added = tokenizer.get("added_tokens").and_then(Value::as_array);
        let spaced = |token: &Value| {
            token.get("content").and_then(Value::as_str).is_none_or(|content| content.contains(char::is_whitespace))
        };
        if added.is_some_and(|added| added.iter().any(spaced)) {
            return Self::Nowhere;
        }
        let splitter = tokenizer.get("pre_tokenizer");
        // Ideographs are words of their own only if the normalizer makes them so.
        let chinese = normalizer.is_some_and(|normalizer| {
            normalizer["type"] == "BertNormalizer" && normalizer["handle_chinese_chars"] == true
        });
        let bert = all(splitter, "pretokenizers", &|kind| kind == "BertPreTokenizer");
        if bert && chinese {
            Self::AroundWords
        } else if bert
            || all(splitter, "pretokenizers", &|kind| matches!(kind, "Whitespace" | "WhitespaceSplit" | "Metaspace"))
        {
            Self::BeforeSpace
        } else {
            Self::Nowhere
        }
    }

    /// Tokenizes a text and keeps the tokens that there is room for: the last ones if `keep_end`, else the first ones.
    /// Too many tokens are a fault under [`Truncation::Error`].
    pub(super) fn fit(
        self,
        text: &str,
        room: usize,
        keep_end: bool,
        truncation: Truncation,
        tokenize: impl Fn(&str) -> Result<Vec<u32>>,
    ) -> Result<Fit> {
        let (mut ids, whole) = self.beginning(text, room, &tokenize)?;
        if ids.len() <= room {
            return Ok(Fit::Whole(ids));
        }
        if truncation == Truncation::Error {
            return Ok(Fit::TooMany(ids.len()));
        }
        if keep_end {
            // The end of the text is kept, so the whole text must be tokenized.
            if !whole {
                ids = tokenize(text)?;
            }
            ids.drain(..ids.len() - room);
        }
        ids.truncate(room);
        Ok(Fit::Truncated(ids))
    }

    /// Tokenizes a text: the whole of it, or so much that there are certainly more than `room` tokens. Returns the
    /// tokens, and whether they are all. Tokenizing a text of megabytes takes seconds, and nearly all of it would be
    /// dropped.
    pub(super) fn beginning(
        self,
        text: &str,
        room: usize,
        tokenize: impl Fn(&str) -> Result<Vec<u32>>,
    ) -> Result<(Vec<u32>, bool)> {
        let enough = room.saturating_add(MARGIN);
        let mut size = enough.saturating_mul(BYTES_PER_TOKEN);
        while self != Self::Nowhere && size < text.len() {
            if let Some(split) = self.before(text, size / 2..size) {
                let ids = tokenize(&text[..split])?;
                if ids.len() >= enough {
                    return Ok((ids, false));
                }
            }
            size = size.saturating_mul(4);
        }
        Ok((tokenize(text)?, true))
    }

    /// Returns the last place in `range` where the text can be split.
    fn before(self, text: &str, range: Range<usize>) -> Option<usize> {
        let start = (0..=range.start).rev().find(|&at| text.is_char_boundary(at))?;
        let end = (0..=range.end.min(text.len())).rev().find(|&at| text.is_char_boundary(at))?;
        let mut after: Option<(usize, char)> = None;
        for (at, before) in text[start..end].char_indices().rev() {
            if let Some((at, after)) = after
                && self.between(before, after)
            {
                return Some(start + at);
            }
            after = Some((at, before));
        }
        None
    }

    fn between(self, before: char, after: char) -> bool {
        let ideograph = |c: char| matches!(c, '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}');
        // Not brackets or the like, which special tokens are made of.
        let mark = |c: char| matches!(c, '.' | ',' | ';' | ':' | '!' | '?');
        match self {
            Self::Nowhere => false,
            // Only what every tokenizer takes for white space: some drop the rarer kinds and join the words around
            // them.
            _ if matches!(after, ' ' | '\t' | '\n' | '\r') && !before.is_whitespace() => true,
            Self::BeforeSpace => false,
            Self::AroundWords => {
                (ideograph(before) && ideograph(after)) || (mark(before) && after.is_ascii_alphanumeric())
            }
        }
    }
}
