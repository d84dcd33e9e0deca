//! Says what one call may hold: [`Limits`], and how its tokens are counted: [`TokenCount`].

use std::{fmt, sync::Arc};

use crate::InputKind;

/// What one call of an embedder may hold. `None` is no limit.
///
/// ```
/// use docvector_embed::{Limits, TokenCount};
/// let limits = Limits::none().with_texts(2048).with_tokens_per_text(8191).with_tokens_per_call(300_000).with_tokens(TokenCount::AtMostBytes);
/// assert_eq!(limits.texts, Some(2048));
/// ```
///
/// A batch within the limits is accepted as a whole; [`EmbedderExt`](crate::EmbedderExt) splits any number of texts by
/// them. An embedder that schedules whole calls itself states none for a call.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Limits {
    /// Texts a call.
    pub texts: Option<usize>,
    /// Bytes of text a call, all texts together.
    pub bytes: Option<usize>,
    /// Tokens a text, prompt and special tokens included. A longer text is an error or truncated, as the batch says.
    pub tokens_per_text: Option<usize>,
    /// Tokens a call, all texts together, each counted after truncation.
    pub tokens_per_call: Option<usize>,
    /// Calls at once that do not slow each other down; `None` where the embedder does not care.
    pub in_flight: Option<usize>,
    /// How tokens are counted.
    pub tokens: TokenCount,
}

impl Limits {
    /// No limits.
    pub const fn none() -> Self {
        Self {
            texts: None,
            bytes: None,
            tokens_per_text: None,
            tokens_per_call: None,
            in_flight: None,
            tokens: TokenCount::Unknown,
        }
    }

    /// Sets the texts a call.
    #[must_use]
    pub const fn with_texts(mut self, texts: usize) -> Self {
        self.texts = Some(texts);
        self
    }

    /// Sets the bytes a call.
    #[must_use]
    pub const fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Sets the tokens a text.
    #[must_use]
    pub const fn with_tokens_per_text(mut self, tokens: usize) -> Self {
        self.tokens_per_text = Some(tokens);
        self
    }

    /// Sets the tokens a call.
    #[must_use]
    pub const fn with_tokens_per_call(mut self, tokens: usize) -> Self {
        self.tokens_per_call = Some(tokens);
        self
    }

    /// Sets the calls at once.
    #[must_use]
    pub const fn with_in_flight(mut self, calls: usize) -> Self {
        self.in_flight = Some(calls);
        self
    }

    /// Sets how tokens are counted.
    #[must_use]
    pub fn with_tokens(mut self, tokens: TokenCount) -> Self {
        self.tokens = tokens;
        self
    }

    /// The most tokens that a single text can have: it must fit in a call, too.
    pub fn tokens_of_one_text(&self) -> Option<usize> {
        match (self.tokens_per_text, self.tokens_per_call) {
            (Some(text), Some(call)) => Some(text.min(call)),
            (text, call) => text.or(call),
        }
    }
}

/// How an embedder's tokens can be counted from outside.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum TokenCount {
    /// They cannot. Token limits are then the embedder's to check.
    #[default]
    Unknown,
    /// A text has at most as many tokens as bytes.
    AtMostBytes,
    /// They can be counted exactly.
    Exact(Arc<dyn CountTokens>),
}

/// Counts the tokens that an embedder would see. Cheap enough to be called for every text, and pure.
pub trait CountTokens: fmt::Debug + Send + Sync + 'static {
    /// Tokens of this text, with the prompt of the kind and special tokens.
    fn count(&self, kind: InputKind, text: &str) -> usize;

    /// A number that [`count`](Self::count) does not exceed, found without counting; `usize::MAX` where there is none.
    fn at_most(&self, kind: InputKind, text: &str) -> usize;

    /// Counts as far as `limit`: exactly up to it, and where there are more, some number above it that
    /// [`count`](Self::count) does not fall below. A counter for which a text of megabytes is work does better than this
    /// default, which counts all of it.
    fn count_to(&self, kind: InputKind, text: &str, limit: usize) -> usize {
        let _ = limit;
        self.count(kind, text)
    }

    /// The beginning of a text, as long as it can be with no more than `limit` tokens. This default tries lengths.
    fn truncate<'t>(&self, kind: InputKind, text: &'t str, limit: usize) -> &'t str {
        let (mut fits, mut over) = (0, text.len() + 1);
        while over - fits > 1 {
            let end = text.floor_char_boundary(fits + (over - fits) / 2);
            // Between two neighbouring characters there is nothing left to try.
            let end = if end <= fits { text.ceil_char_boundary(fits + 1) } else { end };
            if end >= over {
                break;
            }
            if self.count_to(kind, &text[..end], limit) <= limit {
                fits = end;
            } else {
                over = end;
            }
        }
        &text[..fits]
    }
}
