//! Reads a text stretch by stretch, as far as its tokens are needed: [`Reading`].

use std::ops::Range;

use super::split_points::SplitPoints;
use crate::Result;

/// The most bytes of a text that are tokenized in one go, if it can be split there. A core needs about 5 milliseconds
/// for prose, and 30 for the worst of texts.
pub(crate) const STRETCH_BYTES: usize = 8 << 10;

/// The part of a text that is tokenized next, in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// So many bytes, at most [`STRETCH_BYTES`].
    Short(usize),
    /// More than [`STRETCH_BYTES`]: the text cannot be split before. Nobody has looked yet how many.
    Long,
}

/// How far a text was read, and the ids of that part.
#[derive(Default)]
pub(crate) struct ReadSoFar {
    pub(crate) bytes: usize,
    pub(crate) ids: Vec<u32>,
}

/// The tokens more than needed that the beginning of a long text must have before the rest is left unread.
pub(crate) const MARGIN: usize = 16;
/// The bytes of a long text that are read for each token that is wanted, and the fewest that are read at once.
pub(crate) const BYTES_PER_TOKEN: usize = 16;
const FEWEST_BYTES: usize = 1 << 10;

/// A text to be tokenized, as much of it as is needed. A text of megabytes takes seconds, and nearly all of its tokens
/// would be dropped.
pub(crate) struct Reading<'a, T> {
    pub(crate) text: &'a str,
    pub(crate) split_points: SplitPoints,
    /// Tokenizes a part of the text.
    pub(crate) tokenize: T,
}

impl<T: Fn(Range<usize>) -> Result<Vec<u32>>> Reading<'_, T> {
    /// Reads on until there are certainly more than `most` tokens, or the text ends. Returns whether it came so far:
    /// `go_on` is asked before each stretch.
    pub(crate) fn read(
        &self,
        most: usize,
        so_far: &mut ReadSoFar,
        go_on: &mut dyn FnMut(Stretch) -> bool,
    ) -> Result<bool> {
        let enough = most.saturating_add(MARGIN);
        loop {
            let from = so_far.bytes;
            let stretch = self.next(from, enough.saturating_sub(so_far.ids.len()));
            if !go_on(stretch) {
                return Ok(false);
            }
            let end = match stretch {
                Stretch::Short(bytes) => from + bytes,
                Stretch::Long => self.split_points.first(self.text, from),
            };
            so_far.ids.extend((self.tokenize)(from..end)?);
            so_far.bytes = end;
            if end == self.text.len() || so_far.ids.len() >= enough {
                return Ok(true);
            }
        }
    }

    /// Returns the stretch to read next if so many tokens are wanted.
    fn next(&self, from: usize, tokens: usize) -> Stretch {
        let rest = self.text.len() - from;
        let wanted = tokens.saturating_mul(BYTES_PER_TOKEN).clamp(FEWEST_BYTES, STRETCH_BYTES);
        let last = |bytes| self.split_points.last(self.text, from, bytes).map(|at| Stretch::Short(at - from));
        if rest <= wanted {
            return Stretch::Short(rest);
        }
        last(wanted).unwrap_or_else(|| {
            if rest <= STRETCH_BYTES { Stretch::Short(rest) } else { last(STRETCH_BYTES).unwrap_or(Stretch::Long) }
        })
    }
}
