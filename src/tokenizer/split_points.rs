//! Finds where a long text can be split, so that only its beginning has to be tokenized: [`SplitPoints`].

use std::ops::Range;

use serde_json::Value;

use crate::Result;

/// The tokens more than needed that the beginning of a long text must have before the rest is left unread.
const MARGIN: usize = 16;
/// Bytes of a long text that are read first, for each token that the model takes.
const BYTES_PER_TOKEN: usize = 16;

/// The places at which a text can be split so that the tokens before the split stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SplitPoints {
    /// Nowhere that is known.
    Nowhere,
    /// Before a space, but before no other white space.
    BeforeBlank,
    /// Before white space.
    BeforeSpace,
    /// Before white space, and around ideographs and most punctuation, which are words of their own.
    AroundWords,
}

impl SplitPoints {
    /// Finds where the texts of a tokenizer can be split, from its `tokenizer.json`.
    pub(crate) fn of(tokenizer: &serde_json::Map<String, Value>) -> Self {
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
        /// Returns the component, or the first of its parts if it is a sequence.
        fn first(component: &Value) -> &Value {
            component.get("pretokenizers").and_then(|parts| parts.get(0)).map_or(component, first)
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
            return Self::AroundWords;
        }
        if !bert
            && !all(splitter, "pretokenizers", &|kind| matches!(kind, "Whitespace" | "WhitespaceSplit" | "Metaspace"))
        {
            return Self::Nowhere;
        }
        // The first of them sees the text itself. Metaspace knows no white space but the space. Unless it splits there,
        // a token may reach from one word into the next, and the end of a text may change the tokens at its beginning.
        match splitter.map(first) {
            Some(splitter) if splitter["type"] == "Metaspace" && splitter["split"] == false => Self::Nowhere,
            Some(splitter) if splitter["type"] == "Metaspace" => Self::BeforeBlank,
            _ => Self::BeforeSpace,
        }
    }

    /// Tokenizes a text: the whole of it, or so much that there are certainly more than `room` tokens. Returns the
    /// tokens, and whether they are all. Tokenizing a text of megabytes takes seconds, and nearly all of it would be
    /// dropped.
    pub(crate) fn beginning(
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
            Self::BeforeBlank => after == ' ' && !before.is_whitespace(),
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenizers::Tokenizer;

    use super::*;
    use crate::{Error, ErrorKind};

    /// The tokens that there is room for, and the bytes that are read first.
    const ROOM: usize = 4;
    const FIRST: usize = (ROOM + MARGIN) * BYTES_PER_TOKEN;

    /// Makes a tokenizer with these splitters, and checks that the beginning of a text has the tokens of the whole.
    fn check(model: &Value, splitter: &Value, text: &str, expected: SplitPoints) {
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": splitter, "post_processor": null, "decoder": null, "model": model,
        });
        let tokenizer = Tokenizer::from_bytes(file.to_string().as_bytes()).expect("a tokenizer");
        let tokenize = |text: &str| {
            let tokens = tokenizer.encode_fast(text, false);
            let failed = |error: tokenizers::Error| Error::new(ErrorKind::Inference, "no tokens").with_source(error);
            tokens.map(|tokens| tokens.get_ids().to_vec()).map_err(failed)
        };
        assert!(text.len() > FIRST, "it is read whole");
        let points = SplitPoints::of(file.as_object().expect("an object"));
        assert_eq!(points, expected, "{splitter}");
        let (beginning, _) = points.beginning(text, ROOM, tokenize).expect("tokens");
        let whole = tokenize(text).expect("tokens");
        assert_eq!(beginning[..ROOM], whole[..ROOM], "{splitter}");
    }

    fn metaspace(scheme: &str, split: bool) -> Value {
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split})
    }

    /// A Unigram model with tokens over the edges of words, of which all come out another way if the end is another.
    fn unigram(before: f64, after: f64) -> Value {
        let vocabulary = json!([
            ["?", -50.0],
            ["x", -10.0],
            ["\u{2581}", -10.0],
            ["q", -10.0],
            ["x\u{2581}", after],
            ["\u{2581}x", before],
        ]);
        json!({"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": false})
    }

    /// A BPE model with a token of `words` words, each an `x` and this mark, and a `q` at the end.
    fn bpe(mark: &str, words: usize) -> Value {
        let word = format!("x{mark}");
        let mut vocabulary: Vec<String> = ["x", mark, "q", "r", &word].map(str::to_owned).to_vec();
        let mut merges = vec![("x".to_owned(), mark.to_owned())];
        let mut tail = "q".to_owned();
        for _ in 0..words {
            merges.push((word.clone(), tail.clone()));
            tail = format!("{word}{tail}");
            vocabulary.push(tail.clone());
        }
        let ids: serde_json::Map<String, Value> =
            vocabulary.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
        json!({"type": "BPE", "vocab": ids, "merges": merges, "unk_token": null, "fuse_unk": false})
    }

    /// The words of a text that end just before the end of what is read first.
    const WORDS: usize = FIRST / 2 - 10;

    #[test]
    fn words_that_are_not_split_are_not_cut() {
        let words = format!("{}q", "x ".repeat(WORDS));
        let text = format!("{words}{}", "r".repeat(FIRST));
        for scheme in ["first", "always", "never"] {
            check(&bpe("\u{2581}", WORDS), &metaspace(scheme, false), &text, SplitPoints::Nowhere);
            let (before, after) = if scheme == "never" { (-0.999, -1.0) } else { (-1.0, -0.999) };
            let text = format!("{}q", "x ".repeat(2 * FIRST));
            check(&unigram(before, after), &metaspace(scheme, false), &text, SplitPoints::Nowhere);
        }
    }

    #[test]
    fn words_that_are_split_are_cut_before_a_space() {
        let text = format!("{}q", "x ".repeat(2 * FIRST));
        for scheme in ["first", "always", "never"] {
            for (before, after) in [(-0.999, -1.0), (-1.0, -0.999)] {
                check(&unigram(before, after), &metaspace(scheme, true), &text, SplitPoints::BeforeBlank);
            }
        }
    }

    /// Metaspace leaves the end of a line inside a word.
    #[test]
    fn lines_are_cut_only_if_a_splitter_splits_them() {
        let text = format!("{}q{}", "x\n".repeat(WORDS), "r".repeat(FIRST));
        check(&bpe("\n", WORDS), &metaspace("always", true), &text, SplitPoints::BeforeBlank);
        let both = |parts: [Value; 2]| json!({"type": "Sequence", "pretokenizers": parts});
        let space = || json!({"type": "WhitespaceSplit"});
        let model = bpe("\u{2581}", WORDS);
        let text = format!("{}q{}", "x\n".repeat(WORDS), " r".repeat(FIRST));
        check(&model, &both([space(), metaspace("always", true)]), &text, SplitPoints::BeforeSpace);
        check(&model, &both([space(), metaspace("always", false)]), &text, SplitPoints::BeforeSpace);
        let text = text.replace('\n', " ");
        check(&model, &both([metaspace("always", false), space()]), &text, SplitPoints::Nowhere);
    }
}
