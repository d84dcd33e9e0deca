//! Divides the texts of a call into pieces of work for the tokenizer.

use std::collections::VecDeque;

use crate::packed::PackedTexts;

/// The bytes from which a text is tokenized on a thread of its own, one text at a time. If such a text can be split
/// nowhere, it takes seconds, and a hundred times its size in memory.
pub(super) const GIANT_BYTES: usize = 1 << 20;
/// The bytes of text that are tokenized as one piece of work. A core needs about 5 milliseconds for them.
pub(super) const PIECE_BYTES: usize = 8 << 10;
/// The bytes that a text counts besides its own: tokenizing an empty text takes time too.
pub(super) const TEXT_BYTES: usize = 64;

/// Texts that are tokenized as one piece of work. Their memory is freed after that.
pub(super) struct TextPiece {
    /// The first text's place in the call.
    pub(super) first: usize,
    texts: PackedTexts,
}

impl std::fmt::Debug for TextPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextPiece").field("first", &self.first).finish_non_exhaustive()
    }
}

impl TextPiece {
    /// Returns the piece's bytes and [`TEXT_BYTES`] for each of its texts.
    pub(super) fn weight(&self) -> usize {
        self.texts.bytes() + TEXT_BYTES * self.texts.len()
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (usize, &str)> {
        self.texts.iter().enumerate().map(|(at, text)| (self.first + at, text))
    }

    fn new(first: usize, texts: &[&str]) -> Self {
        Self { first, texts: PackedTexts::copy(texts.iter().copied()) }
    }
}

/// Divides texts into pieces, and returns the giant ones apart, each as a piece of its own.
pub(super) fn pieces(texts: &[&str]) -> (VecDeque<TextPiece>, VecDeque<TextPiece>) {
    let (mut pieces, mut giants) = (VecDeque::new(), VecDeque::new());
    let (mut first, mut weight) = (0, 0);
    for (at, text) in texts.iter().enumerate() {
        let giant = text.len() >= GIANT_BYTES;
        if first < at && (giant || weight >= PIECE_BYTES) {
            pieces.push_back(TextPiece::new(first, &texts[first..at]));
            (first, weight) = (at, 0);
        }
        if giant {
            giants.push_back(TextPiece::new(at, &texts[at..=at]));
            first = at + 1;
        } else {
            weight += text.len() + TEXT_BYTES;
        }
    }
    pieces.extend((first < texts.len()).then(|| TextPiece::new(first, &texts[first..])));
    (pieces, giants)
}
