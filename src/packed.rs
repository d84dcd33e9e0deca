//! Packs many texts, or many byte strings, into one buffer: [`Packed`].

use std::ops::{Deref, Index, Range};

/// Many pieces in one buffer: one allocation holds all contents, however many pieces there are.
#[derive(Debug, Default)]
pub(crate) struct Packed<B> {
    buffer: B,
    /// The end of each piece. A piece begins at the end of the one before.
    ends: Vec<usize>,
}

/// Many texts in one `String`.
pub(crate) type PackedTexts = Packed<String>;

/// Many byte strings in one `Vec`.
pub(crate) type PackedBytes = Packed<Vec<u8>>;

impl<B: AsRef<[u8]> + Deref> Packed<B>
where
    B::Target: Index<Range<usize>, Output = B::Target>,
{
    /// Begins with an empty buffer, and reserves room for the ends of this many pieces.
    pub(crate) fn in_buffer(buffer: B, pieces: usize) -> Self {
        debug_assert!(buffer.as_ref().is_empty());
        Self { buffer, ends: Vec::with_capacity(pieces) }
    }

    /// Adds the piece that `write` appends to the buffer.
    pub(crate) fn push_with(&mut self, write: impl FnOnce(&mut B)) {
        write(&mut self.buffer);
        self.ends.push(self.buffer.as_ref().len());
    }

    /// Returns piece `at`, which must be there.
    pub(crate) fn get(&self, at: usize) -> &B::Target {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.buffer[start..self.ends[at]]
    }

    /// Returns the number of pieces.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns `true` if there are no pieces.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "for the service"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the bytes of all pieces together.
    #[cfg_attr(
        not(any(feature = "onnx", feature = "server")),
        allow(dead_code, reason = "for the local provider and the service")
    )]
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.as_ref().len()
    }

    /// Iterates over all pieces in the order in which they were added.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &B::Target> {
        (0..self.len()).map(|at| self.get(at))
    }
}

impl PackedTexts {
    /// Copies these texts into one buffer of exactly their size.
    pub(crate) fn copy<'t>(texts: impl ExactSizeIterator<Item = &'t str> + Clone) -> Self {
        let mut packed = Self::in_buffer(String::with_capacity(texts.clone().map(str::len).sum()), texts.len());
        texts.for_each(|text| packed.push_with(|buffer| buffer.push_str(text)));
        packed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_come_back_as_they_were(texts in prop::collection::vec(".{0,6}", 0..8)) {
            let packed = PackedTexts::copy(texts.iter().map(String::as_str));
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), texts.clone());
            let mut bytes = PackedBytes::default();
            texts.iter().for_each(|text| bytes.push_with(|buffer| buffer.extend_from_slice(text.as_bytes())));
            for (at, text) in texts.iter().enumerate() {
                prop_assert_eq!((packed.get(at), bytes.get(at)), (text.as_str(), text.as_bytes()));
            }
        }
    }
}
