//! Where a text can be split so that its parts, tokenized one by one, have the tokens of the whole: [`SplitPoints`].

use serde_json::{Map, Value};

/// The places at which a text can be split. The tokens of the two parts are those of the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SplitPoints {
    /// Nowhere that is known.
    Nowhere,
    /// Before a space (U+0020) that follows a letter, a digit or an ASCII mark: the space is a part of the next word's
    /// tokens, and other white space may be a part of a word.
    BeforeBlank,
    /// Before white space.
    BeforeSpace,
    /// Before white space, between ideographs, and between a mark and an ASCII letter or digit: ideographs and marks
    /// are words of their own.
    AroundWords(Marks),
}

/// A set of ASCII punctuation marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks(u128);

impl Marks {
    /// The marks that are in none of these texts.
    fn outside<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let punctuation = (0..128_u8).filter(u8::is_ascii_punctuation).fold(0, |marks, mark| marks | 1 << mark);
        let used = texts.flat_map(str::bytes).filter(u8::is_ascii).fold(0, |marks, byte| marks | 1 << byte);
        Self(punctuation & !used)
    }

    fn contains(self, character: char) -> bool {
        character.is_ascii() && (self.0 >> u32::from(character)) & 1 == 1
    }
}

/// The components of a tokenizer, one by one: those of its sequences too.
fn parts<'v>(component: Option<&'v Value>, list: &str) -> Vec<&'v Value> {
    let Some(component) = component.filter(|component| !component.is_null()) else { return Vec::new() };
    match component.get(list).and_then(Value::as_array) {
        Some(all) if kind(component) == "Sequence" => all.iter().flat_map(|one| parts(Some(one), list)).collect(),
        _ => vec![component],
    }
}

fn kind(component: &Value) -> &str {
    component.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn is_set(component: &Value, flag: &str) -> bool {
    component.get(flag).and_then(Value::as_bool) == Some(true)
}

/// Returns whether a normalizer changes each word as if it were alone.
fn is_local(normalizer: &&Value) -> bool {
    let kind = kind(normalizer);
    matches!(kind, "BertNormalizer" | "Lowercase" | "NFC" | "NFD" | "NFKC" | "NFKD" | "StripAccents" | "Precompiled")
}

/// Returns whether a pre-tokenizer lets no word cross a space.
fn parts_words(splitter: &&Value) -> bool {
    let unless = |flag: &str| splitter.get(flag).is_none_or(|value| *value == true);
    match kind(splitter) {
        "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit" => true,
        "Metaspace" => unless("split"),
        "ByteLevel" => unless("use_regex"),
        _ => false,
    }
}

impl SplitPoints {
    /// Finds where the texts of a tokenizer can be split, from its `tokenizer.json`.
    pub(crate) fn of(tokenizer: &Map<String, Value>) -> Self {
        let normalizers = parts(tokenizer.get("normalizer"), "normalizers");
        let splitters = parts(tokenizer.get("pre_tokenizer"), "pretokenizers");
        let added = tokenizer.get("added_tokens").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let contents = || added.iter().map(|token| token.get("content").and_then(Value::as_str).unwrap_or(" "));
        // An added token that contains white space could be split in two, or lose the space behind it.
        let takes_space = |content: &str| content.contains(char::is_whitespace);
        if !normalizers.iter().all(is_local)
            || !splitters.iter().all(parts_words)
            || contents().any(takes_space)
            || added.iter().any(|token| is_set(token, "rstrip"))
        {
            return Self::Nowhere;
        }
        match (splitters.first().map(|first| kind(first)), splitters.len()) {
            (None, _) => return Self::Nowhere,
            (Some("Metaspace" | "ByteLevel"), 1) => return Self::BeforeBlank,
            (Some("Metaspace" | "ByteLevel"), _) => return Self::Nowhere,
            _ => {}
        }
        // Ideographs are words of their own only if the normalizer makes them so.
        let chinese = |one: &Value| kind(one) == "BertNormalizer" && is_set(one, "handle_chinese_chars");
        let words = splitters.iter().all(|one| kind(one) == "BertPreTokenizer")
            && tokenizer.get("normalizer").is_some_and(chinese)
            // The letter behind a split may begin such a token, which looks at the character before it.
            && !added.iter().any(|token| is_set(token, "single_word"))
            && contents().all(str::is_ascii);
        if words { Self::AroundWords(Marks::outside(contents())) } else { Self::BeforeSpace }
    }

    /// Returns the last place behind `from` where the text can be split, within this many bytes.
    pub(crate) fn last(self, text: &str, from: usize, bytes: usize) -> Option<usize> {
        if self == Self::Nowhere {
            return None;
        }
        let end = text.floor_char_boundary(from.saturating_add(bytes).min(text.len()));
        let mut after: Option<(usize, char)> = None;
        for (at, before) in text[from..end].char_indices().rev() {
            if let Some((at, after)) = after
                && self.between(before, after)
            {
                return Some(from + at);
            }
            after = Some((at, before));
        }
        None
    }

    /// Returns the first place behind `from` where the text can be split, or its end.
    pub(crate) fn first(self, text: &str, from: usize) -> usize {
        if self == Self::Nowhere {
            return text.len();
        }
        let rest = &text[from..];
        let pairs = rest.chars().zip(rest.char_indices().skip(1));
        let mut places = pairs.filter(|&(before, (_, after))| self.between(before, after));
        places.next().map_or(text.len(), |(_, (at, _))| from + at)
    }

    fn between(self, before: char, after: char) -> bool {
        let ideograph = |c: char| matches!(c, '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}');
        // Only what every tokenizer takes for white space: some drop the rarer kinds and join the words around them.
        let space = || matches!(after, ' ' | '\t' | '\n' | '\r') && !before.is_whitespace();
        match self {
            Self::Nowhere => false,
            Self::BeforeBlank => after == ' ' && (before.is_alphanumeric() || before.is_ascii_punctuation()),
            Self::BeforeSpace => space(),
            Self::AroundWords(marks) => {
                space()
                    || (ideograph(before) && ideograph(after))
                    || (marks.contains(before) && after.is_ascii_alphanumeric())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::Tokenizer;

    use super::*;

    fn bert() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tiny/bert-cls/tokenizer.json");
        serde_json::from_slice(&std::fs::read(path).expect("there")).expect("JSON")
    }

    /// A tokenizer whose tokens show where it takes words apart: a space is a part of the token behind it.
    fn with_spaces(space: &str, normalizer: Value, splitter: Value) -> Value {
        let mut vocabulary: Vec<String> = (0x21..0x7F_u8).map(|byte| char::from(byte).to_string()).collect();
        vocabulary.extend((0xA1..0x180).filter_map(char::from_u32).map(String::from));
        vocabulary.extend(["文", "字", "\t", "\n", "\r", "\u{2581}"].map(String::from));
        let merges: Vec<[String; 2]> = [space, "a", "1", ".", "b"]
            .into_iter()
            .flat_map(|left| ["a", "b", "1", ".", space].map(|right| [left.to_owned(), right.to_owned()]))
            .collect();
        vocabulary.push(space.to_owned());
        vocabulary.extend(merges.iter().map(|[left, right]| format!("{left}{right}")));
        vocabulary.sort();
        vocabulary.dedup();
        let vocabulary: Map<String, Value> =
            vocabulary.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
        let unknown = vocabulary.len();
        let mask = serde_json::json!({"id": unknown, "content": "<m>", "single_word": false, "lstrip": true,
            "rstrip": false, "normalized": false, "special": true});
        serde_json::json!({"version": "1.0", "added_tokens": [mask], "normalizer": normalizer,
            "pre_tokenizer": splitter, "model": {"type": "BPE", "vocab": vocabulary, "merges": merges}})
    }

    /// Tokenizers of all kinds, and where their texts can be split.
    fn tokenizers() -> Vec<(Value, &'static str)> {
        let byte_level = |space, regex| serde_json::json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": regex});
        let metaspace = |scheme, split| serde_json::json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split});
        let both = |one: Value, other: Value| serde_json::json!({"type": "Sequence", "pretokenizers": [one, other]});
        let split = serde_json::json!({"type": "WhitespaceSplit"});
        let nfkc = serde_json::json!({"type": "NFKC"});
        let bytes = |splitter| with_spaces("\u{120}", Value::Null, splitter);
        let words = |splitter| with_spaces("\u{2581}", nfkc.clone(), splitter);
        vec![
            (bert(), "AroundWords"),
            (bytes(byte_level(false, true)), "BeforeBlank"),
            (bytes(byte_level(true, true)), "BeforeBlank"),
            (bytes(byte_level(true, false)), "Nowhere"),
            (words(metaspace("always", true)), "BeforeBlank"),
            (words(metaspace("first", true)), "BeforeBlank"),
            (words(metaspace("never", true)), "BeforeBlank"),
            (words(metaspace("always", false)), "Nowhere"),
            (words(both(split.clone(), metaspace("always", true))), "BeforeSpace"),
            (words(both(split, metaspace("first", true))), "BeforeSpace"),
        ]
    }

    fn of(tokenizer: &Value) -> SplitPoints {
        SplitPoints::of(tokenizer.as_object().expect("an object"))
    }

    #[test]
    fn the_kind_of_tokenizer_decides() {
        for (tokenizer, want) in tokenizers() {
            assert!(format!("{:?}", of(&tokenizer)).starts_with(want), "{:?}, not {want}", of(&tokenizer));
        }
        let added = |change: Value| {
            let mut tokenizer = bert();
            let fields = change.as_object().expect("an object").clone();
            tokenizer["added_tokens"][4].as_object_mut().expect("a token").extend(fields);
            of(&tokenizer)
        };
        let SplitPoints::AroundWords(marks) = added(serde_json::json!({"content": "a+b"})) else { panic!("cuts less") };
        assert!(marks.contains('/') && !marks.contains('+') && !marks.contains('['));
        for change in [serde_json::json!({"single_word": true}), serde_json::json!({"content": "文字"})] {
            assert_eq!(added(change), SplitPoints::BeforeSpace);
        }
        for change in [serde_json::json!({"rstrip": true}), serde_json::json!({"content": "a b"})] {
            assert_eq!(added(change), SplitPoints::Nowhere);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The law: at whatever place a text is split, the tokens of the parts are those of the whole.
        #[test]
        fn the_parts_have_the_tokens_of_the_whole(
            texts in prop::collection::vec(prop::collection::vec(
                prop::sample::select(vec!["a", "b", "1", ".", " ", " ", "  ", "\t", "\n", "\r\n", "'s", "+", "/", "-", "_",
                    "[MASK]", "<m>", "文", "字", "é", "e\u{301}", "ß", "Σ", "\u{a0}", "\u{85}", "\u{200b}", "\u{3000}",
                    "\u{2581}", "½", "\u{600}", "🙂", "\u{301}", "\0"]),
                1..24,
            ), 8),
        ) {
            let mut places = 0;
            for (json, _) in tokenizers() {
                let split_points = of(&json);
                let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes()).expect("a tokenizer");
                let ids = |text: &str| tokenizer.encode_fast(text, false).expect("tokens").get_ids().to_vec();
                for text in texts.iter().map(|parts| parts.concat()) {
                    let whole = ids(&text);
                    let mut at = split_points.first(&text, 0);
                    while at < text.len() {
                        places += 1;
                        let parts = [ids(&text[..at]), ids(&text[at..])].concat();
                        prop_assert_eq!(&parts, &whole, "{:?} | {:?}, {:?}", &text[..at], &text[at..], split_points);
                        prop_assert_eq!(split_points.last(&text, 0, at + 4).map(|last| last >= at), Some(true));
                        at = split_points.first(&text, at);
                    }
                }
            }
            prop_assume!(places > 0);
        }
    }
}
