//! Divides the texts of a call into pieces of work for the tokenizer.

use std::collections::VecDeque;

use crate::{
    packed::PackedTexts,
    provider::onnx::stages::{ReadSoFar, STRETCH_BYTES},
};

/// The bytes of text that are tokenized as one piece of work. A core needs about 5 milliseconds for them.
pub(super) const PIECE_BYTES: usize = 8 << 10;
/// The bytes of a long text that are tokenized before others have their turn.
pub(super) const SLICE_BYTES: usize = 2 * STRETCH_BYTES;
/// The bytes from which a stretch is a giant one, which is tokenized alone: it takes seconds, and a hundred times its
/// size in memory.
pub(super) const GIANT_BYTES: usize = 1 << 20;
/// The bytes that a text counts besides its own: tokenizing an empty text takes time too.
pub(super) const TEXT_BYTES: usize = 64;

/// The size of a stretch that is too long for the threads that embed. There are threads for each size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StretchSize {
    Long,
    Giant,
}

/// One value for each size of stretches.
#[derive(Clone, Debug, Default)]
pub(super) struct PerSize<T>([T; 2]);

impl<T> PerSize<T> {
    pub(super) const fn of(&mut self, size: StretchSize) -> &mut T {
        &mut self.0[size as usize]
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

/// Texts that are tokenized as one piece of work, or a long text, which takes several turns. Their memory is freed
/// after that.
pub(super) struct TextPiece {
    /// The first text's place in the call.
    pub(super) first: usize,
    texts: PackedTexts,
    /// How far the text was read, if it is a long one.
    so_far: ReadSoFar,
}

impl std::fmt::Debug for TextPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextPiece").field("first", &self.first).finish_non_exhaustive()
    }
}

impl TextPiece {
    /// Returns the bytes of the piece's next turn, with [`TEXT_BYTES`] for each of its texts.
    pub(super) fn weight(&self) -> usize {
        (self.texts.bytes() - self.so_far.bytes + TEXT_BYTES * self.texts.len()).min(SLICE_BYTES)
    }

    /// Returns the place of a long text in the call, the text, and how far it was read, if this is one.
    pub(super) fn long(&mut self) -> Option<(usize, &str, &mut ReadSoFar)> {
        let is_long = self.texts.len() == 1 && self.texts.bytes() > STRETCH_BYTES;
        is_long.then(|| (self.first, self.texts.get(0), &mut self.so_far))
    }

    /// Returns the size of a stretch of unknown length that comes next.
    pub(super) fn next_size(&self) -> StretchSize {
        let most = self.texts.bytes() - self.so_far.bytes;
        if most < GIANT_BYTES { StretchSize::Long } else { StretchSize::Giant }
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (usize, &str)> {
        self.texts.iter().enumerate().map(|(at, text)| (self.first + at, text))
    }

    fn new(first: usize, texts: &[&str]) -> Self {
        Self { first, texts: PackedTexts::copy(texts.iter().copied()), so_far: ReadSoFar::default() }
    }
}

/// Divides texts into pieces. A long text is a piece of its own.
pub(super) fn pieces(texts: &[&str]) -> VecDeque<TextPiece> {
    let mut pieces = VecDeque::new();
    let (mut first, mut weight) = (0, 0);
    for (at, text) in texts.iter().enumerate() {
        if first < at && (text.len() > STRETCH_BYTES || weight >= PIECE_BYTES) {
            pieces.push_back(TextPiece::new(first, &texts[first..at]));
            (first, weight) = (at, 0);
        }
        weight += text.len() + TEXT_BYTES;
    }
    pieces.extend((first < texts.len()).then(|| TextPiece::new(first, &texts[first..])));
    pieces
}
