//! Says why texts are bad that an error blames, and finds their lines: [`reasons`], [`bad_lines_of`].

use std::collections::BTreeMap;

use docvector_embed::Error;

use crate::{failure::Failure, source::Source, window::BadLine};

/// Returns why each blamed text is bad, by its index among the texts.
pub(crate) fn reasons(error: &Error) -> BTreeMap<u64, String> {
    error.bad_texts().iter().map(|bad| (bad.index as u64, format!("the text {}", bad.reason))).collect()
}

/// Returns the lines of the texts that an error blames.
pub(crate) fn bad_lines_of(error: &Error, source: &Source) -> Result<Vec<BadLine>, Failure> {
    source.lines_of(&reasons(error))
}
