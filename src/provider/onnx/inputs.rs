//! Fills the inputs of a graph with a batch.

use ort::{
    session::SessionInputValue,
    value::{PrimitiveTensorElementType, TensorRef},
};

use super::{runtime_messages::failed, stages::TokenRow};
use crate::Result;

/// An input of a graph.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) role: InputRole,
    pub(super) wide: bool,
}

/// The purpose of an input of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputRole {
    Ids,
    Mask,
    /// The mask without the prompt's tokens.
    PoolingMask,
    /// Always 0: texts are not pairs.
    Types,
    /// 0, 1, 2, ..
    Places,
    /// Numbered from one above this padding id. Tokens of that id get the id itself and are not counted.
    PlacesAfter(u32),
    /// See [`graph::SEGMENTS`].
    Segments,
    /// See [`graph::ENDS`].
    Ends,
}

impl InputRole {
    /// Returns the shape of the input for a batch of texts by tokens.
    pub(super) fn shape(self, [texts, tokens]: [usize; 2]) -> Vec<usize> {
        match self {
            Self::Segments => vec![3 * texts + 2],
            Self::Ends => vec![2],
            _ => vec![texts, tokens],
        }
    }

    /// Fills the whole input.
    fn fill<N: InputNumber>(self, buffer: &mut Vec<N>, rows: &[TokenRow<'_>], [texts, tokens]: [usize; 2], pad: u32) {
        buffer.clear();
        match self {
            Self::Ends => buffer.extend([N::from_u32(tokens as u32); 2]),
            Self::Segments => {
                // The lengths; then where the texts begin as queries, with the end; then the same as keys.
                let lengths = rows.iter().map(|row| row.ids.len()).chain(std::iter::repeat(0)).take(texts);
                let starts = || (0..=texts).map(|text| text * tokens);
                buffer.extend(lengths.chain(starts()).chain(starts()).map(|number| N::from_u32(number as u32)));
            }
            _ => {
                buffer.resize(texts * tokens, N::from_u32(if self == Self::Ids { pad } else { 0 }));
                buffer.chunks_exact_mut(tokens).zip(rows).for_each(|(slots, row)| self.fill_row(slots, row));
            }
        }
    }

    /// Fills the row of one text; its padding is there already.
    fn fill_row<N: InputNumber>(self, slots: &mut [N], row: &TokenRow<'_>) {
        let mut seen = 0;
        for (at, (slot, &id)) in slots.iter_mut().zip(row.ids).enumerate() {
            *slot = N::from_u32(match self {
                Self::Ids => id,
                Self::Mask => 1,
                Self::PoolingMask => u32::from(at >= row.unpooled),
                // Segments and ends are not by texts and tokens: they are filled above.
                Self::Types | Self::Segments | Self::Ends => 0,
                Self::Places => at as u32,
                Self::PlacesAfter(pad) if id == pad => pad,
                Self::PlacesAfter(pad) => {
                    seen += 1;
                    pad + seen
                }
            });
        }
    }
}

/// A type of number that graphs take ids as.
pub(super) trait InputNumber: PrimitiveTensorElementType + Copy + std::fmt::Debug {
    fn from_u32(number: u32) -> Self;
}

impl InputNumber for i32 {
    fn from_u32(number: u32) -> Self {
        number as Self
    }
}

impl InputNumber for i64 {
    fn from_u32(number: u32) -> Self {
        number.into()
    }
}

/// The memory of one input, which is used again for each batch.
#[derive(Debug)]
pub(super) enum InputBuffer {
    Narrow(Vec<i32>),
    Wide(Vec<i64>),
}

impl InputBuffer {
    pub(super) fn fill(&mut self, role: InputRole, rows: &[TokenRow<'_>], shape: [usize; 2], pad: u32) {
        match self {
            Self::Narrow(buffer) => role.fill(buffer, rows, shape, pad),
            Self::Wide(buffer) => role.fill(buffer, rows, shape, pad),
        }
    }

    pub(super) fn value(&self, shape: Vec<usize>) -> Result<SessionInputValue<'_>> {
        let what = "the batch cannot be handed to ONNX Runtime";
        Ok(match self {
            Self::Narrow(buffer) => TensorRef::from_array_view((shape, &buffer[..])).map_err(failed(what))?.into(),
            Self::Wide(buffer) => TensorRef::from_array_view((shape, &buffer[..])).map_err(failed(what))?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_the_inputs_of_attention_on_a_gpu() {
        let rows = [TokenRow { ids: &[7, 8, 9], unpooled: 0 }, TokenRow { ids: &[7], unpooled: 0 }];
        let (mut segments, mut ends, mut mask) = (Vec::<i32>::new(), Vec::<i64>::new(), Vec::<i32>::new());
        InputRole::Segments.fill(&mut segments, &rows, [2, 8], 0);
        assert_eq!(segments, [3, 1, 0, 8, 16, 0, 8, 16]);
        assert_eq!(InputRole::Segments.shape([2, 8]), [segments.len()]);
        InputRole::Ends.fill(&mut ends, &rows, [2, 8], 0);
        assert_eq!(ends, [8, 8]);
        InputRole::Mask.fill(&mut mask, &rows, [2, 4], 0);
        assert_eq!(mask, [1, 1, 1, 0, 1, 0, 0, 0]);
    }
}
