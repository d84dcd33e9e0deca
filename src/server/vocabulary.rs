//! Turns texts into token ids and back for clients: [`Vocabulary`].

use std::fmt;

use crate::Result;
#[cfg(any(feature = "openai", feature = "tokenizers"))]
use crate::{Error, ErrorKind};

/// The tokens of a model, for requests that ask for them or send them. Clients see the messages of its errors, which must not
/// quote a text.
///
/// Given to [`ServedModel::with_vocabulary`](super::ServedModel::with_vocabulary) and
/// [`ServerBuilder::with_token_ids`](super::ServerBuilder::with_token_ids).
pub trait Vocabulary: fmt::Debug + Send + Sync + 'static {
    /// Returns the tokens of a text. Runs on a thread that may block.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    fn tokenize(&self, text: &str, add_special_tokens: bool) -> Result<Vec<Token>>;

    /// Returns the text of some ids. Runs on a thread that may block.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an id that is not in the vocabulary.
    fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String>;
}

/// A token of a text.
///
/// Returned by [`Vocabulary::tokenize`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// The id.
    pub id: u32,
    /// The piece of the text, or the name of a special token.
    pub text: String,
    /// Whether the token is not from the text: `[CLS]`, say.
    pub special: bool,
    /// The bytes of the text that it stands for; `None` for a special token.
    pub bytes: Option<std::ops::Range<usize>>,
}

impl Token {
    /// Makes a token that stands for these bytes of the text, or a special one.
    pub fn new(id: u32, text: impl Into<String>, bytes: Option<std::ops::Range<usize>>) -> Self {
        Self { id, text: text.into(), special: bytes.is_none(), bytes }
    }
}

/// Makes the error of an id that a vocabulary does not have.
#[cfg(any(feature = "openai", feature = "tokenizers"))]
fn unknown(id: u32) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("the token id {id} is not in the vocabulary"))
}

#[cfg(feature = "tokenizers")]
impl Vocabulary for crate::TokenizerCounter {
    fn tokenize(&self, text: &str, add_special_tokens: bool) -> Result<Vec<Token>> {
        let encoding =
            self.texts.tokenizer.encode(text, add_special_tokens).map_err(|error| {
                Error::new(ErrorKind::Inference, "the tokenizer failed on a text").with_source(error)
            })?;
        let special = encoding.get_special_tokens_mask().iter().map(|&mask| mask == 1);
        let all = encoding.get_ids().iter().zip(encoding.get_tokens()).zip(encoding.get_offsets()).zip(special);
        Ok(all
            .map(|(((&id, name), &(start, end)), special)| match (special, text.get(start..end)) {
                (false, Some(piece)) => Token::new(id, piece, Some(start..end)),
                _ => Token::new(id, name.as_str(), None),
            })
            .collect())
    }

    fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let tokenizer = &self.texts.tokenizer;
        if let Some(&id) = ids.iter().find(|&&id| tokenizer.id_to_token(id).is_none()) {
            return Err(unknown(id));
        }
        tokenizer
            .decode(ids, skip_special_tokens)
            .map_err(|error| Error::new(ErrorKind::Inference, "the tokenizer could not decode ids").with_source(error))
    }
}

/// OpenAI's vocabulary `cl100k_base`: some clients send its ids in place of texts.
#[cfg(feature = "openai")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "openai")))]
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Cl100k;

#[cfg(feature = "openai")]
impl Vocabulary for Cl100k {
    fn tokenize(&self, text: &str, _: bool) -> Result<Vec<Token>> {
        let vocabulary = tiktoken_rs::cl100k_base_singleton();
        let mut start = 0;
        let token = |id: u32| {
            let bytes = vocabulary.decode_bytes(&[id]).map_err(|_| unknown(id))?;
            let range = start..start + bytes.len();
            start = range.end;
            Ok(Token::new(id, String::from_utf8_lossy(&bytes), Some(range)))
        };
        vocabulary.encode_ordinary(text).into_iter().map(token).collect()
    }

    fn decode(&self, ids: &[u32], _: bool) -> Result<String> {
        let vocabulary = tiktoken_rs::cl100k_base_singleton();
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend(vocabulary.decode_bytes(&[id]).map_err(|_| unknown(id))?);
        }
        String::from_utf8(bytes)
            .map_err(|_| Error::new(ErrorKind::InvalidInput, "the token ids do not make a text: a character is cut"))
    }
}

#[cfg(all(test, feature = "openai"))]
mod tests {
    use super::*;

    #[test]
    fn ids_of_cl100k_are_their_text() {
        for text in ["hello world", "Grüße, 世界 👋", "<|endoftext|>", ""] {
            let tokens = Cl100k.tokenize(text, true).expect("tokens");
            let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
            assert_eq!(Cl100k.decode(&ids, true).expect("a text"), text);
            let end = tokens.iter().fold(0, |start, token| {
                let bytes = token.bytes.clone().expect("not special");
                assert_eq!(bytes.start, start);
                bytes.end
            });
            assert_eq!(end, text.len());
        }
        assert_eq!(Cl100k.decode(&[15339], true).expect("a word"), "hello");
        for ids in [&[4_000_000_000][..], &[15339, 100_300]] {
            let error = Cl100k.decode(ids, true).expect_err("no such id");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}
