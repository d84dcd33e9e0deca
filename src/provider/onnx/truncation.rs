//! Truncates texts: which tokens of a long text are kept.

use crate::{Result, Truncation, tokenizer::SplitPoints};

/// The tokens of a text that a model has room for.
pub(super) enum Fit {
    /// All of them.
    Whole(Vec<u32>),
    /// Those that are kept of more.
    Truncated(Vec<u32>),
    /// None: there are at least so many, and nothing may be truncated.
    TooMany(usize),
}

/// Tokenizes a text and keeps the tokens that there is room for: the last ones if `keep_end`, else the first ones.
/// Too many tokens are a fault under [`Truncation::Error`].
pub(super) fn fit(
    points: SplitPoints,
    text: &str,
    room: usize,
    keep_end: bool,
    truncation: Truncation,
    tokenize: impl Fn(&str) -> Result<Vec<u32>>,
) -> Result<Fit> {
    let (mut ids, whole) = points.beginning(text, room, &tokenize)?;
    if ids.len() <= room {
        return Ok(Fit::Whole(ids));
    }
    if truncation == Truncation::Error {
        return Ok(Fit::TooMany(ids.len()));
    }
    if keep_end {
        // The end of the text is kept, so the whole text must be tokenized.
        if !whole {
            ids = tokenize(text)?;
        }
        ids.drain(..ids.len() - room);
    }
    ids.truncate(room);
    Ok(Fit::Truncated(ids))
}
