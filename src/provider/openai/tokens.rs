//! Counts tokens as OpenAI's embedding models do: cl100k, by tiktoken.
//!
//! A text is counted in pieces of a few kilobytes, split where the tokenizer splits anyway. So counting stops soon
//! after a limit is passed, and a text of megabytes is never tokenized as a whole.

use tiktoken_rs::{CoreBPE, cl100k_base_singleton};

use crate::{CountTokens, InputKind, Prompts};

/// Minimum bytes of a piece; the search for a place to split begins there.
const MIN_PIECE: usize = 4 << 10;

/// Maximum bytes of a piece. If no word ends within so many bytes, the text is split at any character: an exact count
/// of a text without words does not matter, and the tokenizer's time grows faster than the piece.
const MAX_PIECE: usize = 32 << 10;

/// Counts cl100k's tokens of a text with its prompt, whether the client or the server adds the prompt.
#[derive(Debug)]
pub(super) struct Cl100kCounter {
    prompts: Prompts,
}

impl Cl100kCounter {
    pub(super) const fn new(prompts: Prompts) -> Self {
        Self { prompts }
    }
}

fn encoder() -> &'static CoreBPE {
    cl100k_base_singleton()
}

impl CountTokens for Cl100kCounter {
    fn count(&self, kind: InputKind, text: &str) -> usize {
        self.count_to(kind, text, usize::MAX)
    }

    /// Returns the bytes of the prompt and the text, because a token has at least one byte.
    fn at_most(&self, kind: InputKind, text: &str) -> usize {
        self.prompts.of(kind).map_or(0, str::len) + text.len()
    }

    fn count_to(&self, kind: InputKind, text: &str, limit: usize) -> usize {
        let mut tokens = 0;
        for piece in pieces(&self.prompts.before(kind, text)) {
            tokens += encoder().encode_ordinary(piece).len();
            if tokens > limit {
                break;
            }
        }
        tokens
    }

    fn truncate<'t>(&self, kind: InputKind, text: &'t str, limit: usize) -> &'t str {
        let whole = self.prompts.before(kind, text);
        let (mut room, mut end) = (limit, 0);
        for piece in pieces(&whole) {
            let tokens = encoder().encode_ordinary(piece);
            if tokens.len() <= room {
                room -= tokens.len();
                end += piece.len();
                continue;
            }
            // A prefix may have one token more than the same characters had in the whole text, if its end splits a
            // character or a run of spaces. So the prefix is counted again, and shortened until it fits.
            for keep in (0..=room).rev() {
                let bytes = encoder().decode_bytes(&tokens[..keep]).map_or(0, |bytes| bytes.len());
                let beginning = &piece[..piece.floor_char_boundary(bytes)];
                if encoder().encode_ordinary(beginning).len() <= room {
                    end += beginning.len();
                    break;
                }
            }
            break;
        }
        let prompt = whole.len() - text.len();
        &text[..end.saturating_sub(prompt)]
    }
}

/// Splits a text into pieces whose token counts add up to that of the whole.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(first_piece_end(rest));
        rest = after;
        Some(piece)
    })
}

/// Returns where the first piece ends: after a letter that no letter follows. The tokenizer's pattern always ends a
/// match there: a match takes all letters that follow each other, no other match contains a letter before its end, and
/// the pattern does not look back.
fn first_piece_end(text: &str) -> usize {
    if text.len() <= MAX_PIECE.min(2 * MIN_PIECE) {
        return text.len();
    }
    let start = text.floor_char_boundary(MIN_PIECE);
    let mut letter_before = false;
    for (at, c) in text[start..].char_indices() {
        if start + at >= MAX_PIECE {
            break;
        }
        if letter_before && !c.is_alphabetic() {
            return start + at;
        }
        letter_before = is_surely_letter(c);
    }
    text.floor_char_boundary(MAX_PIECE)
}

/// Whether a character is one of the pattern's letters (`\p{L}`). The standard library's `is_alphabetic` also accepts
/// others, such as marks, so this lists the common scripts. A letter that is missing here only moves the split.
const fn is_surely_letter(c: char) -> bool {
    matches!(c,
        'a'..='z' | 'A'..='Z'
        | 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ɏ'
        | 'Α'..='Ρ' | 'Σ'..='Ϋ' | 'ά'..='ώ'
        | 'Ѐ'..='ҁ' | 'Ҋ'..='ԯ'
        | 'א'..='ת' | 'ء'..='ؿ' | 'ف'..='ي'
        | 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '㐀'..='䶿' | '一'..='鿿' | '가'..='힣')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Cl100kCounter =
        Cl100kCounter::new(Prompts { document: None, query: None, applied_by: crate::PromptsBy::Client });

    fn count(text: &str) -> usize {
        PLAIN.count(InputKind::Document, text)
    }

    /// Makes long texts of many scripts and kinds of white space, so that pieces end in all of them.
    fn long_text() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            "[a-z]{1,12}",
            "[A-Za-z]{1,8}'(s|t|re|ve|LL|d|m)",
            "[а-яё]{1,9}",
            "[一-龥]{1,6}",
            "[가-힣]{1,5}",
            "[ぁ-ゖァ-ヺー]{1,6}",
            "[ء-ي]{1,7}",
            "[0-9]{1,9}",
            "[!-/:-@]{1,5}",
            "[ \t\n\r\u{a0}\u{3000}]{1,6}",
            "[\u{300}-\u{36f}éàñ]{1,4}",
            "[😀-😏]{1,3}",
        ];
        let gap = prop_oneof![Just(""), Just(" "), Just("  "), Just("\n"), Just("\r\n\r\n"), Just("\t"), Just(", ")];
        prop::collection::vec((word, gap), 3000..5000)
            .prop_map(|parts| parts.iter().flat_map(|(word, gap)| [word.as_str(), gap]).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn pieces_have_the_tokens_of_the_whole(text in long_text()) {
            prop_assert!(pieces(&text).count() > 1);
            prop_assert_eq!(pieces(&text).collect::<String>(), text.clone());
            prop_assert_eq!(count(&text), encoder().encode_ordinary(&text).len());
        }

        #[test]
        fn cut_texts_are_within_the_limit_and_as_long_as_can_be(text in long_text(), limit in 1_usize..3000) {
            let cut = PLAIN.truncate(InputKind::Document, &text, limit);
            prop_assert!(text.starts_with(cut));
            let tokens = encoder().encode_ordinary(cut).len();
            prop_assert!(tokens <= limit, "{tokens} of {limit}");
            // A character takes up to four tokens, and a few tokens are lost where the text cannot be split.
            prop_assert!(cut.len() == text.len() || tokens + 8 > limit, "{tokens} of {limit}");
        }
    }

    #[test]
    fn texts_without_words_neither_panic_nor_take_for_ever() {
        for unit in [" ", "\n", "\t ", "a", "é", "漢", "0", "=", "\u{301}", "😀", "\u{3000}", "ab1", "\r\n"] {
            let text = unit.repeat((200 << 10) / unit.len());
            assert!(count(&text) > 0, "{unit:?}");
            let cut = PLAIN.truncate(InputKind::Document, &text, 100);
            assert!(count(cut) <= 100 && !cut.is_empty(), "{unit:?}");
        }
    }

    #[test]
    fn counting_stops_at_the_limit() {
        // Counting all of it would take noticeably long.
        let text = "word ".repeat(4 << 20);
        let tokens = PLAIN.count_to(InputKind::Document, &text, 8191);
        assert!((8192..20_000).contains(&tokens), "{tokens}");
        assert_eq!(PLAIN.truncate(InputKind::Document, &text, 8191).len(), "word".len() + 8190 * " word".len());
    }
}
