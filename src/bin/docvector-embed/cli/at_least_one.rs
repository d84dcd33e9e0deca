//! Reads numbers that are at least 1: [`at_least_one`].

use std::num::NonZeroUsize;

/// Reads a number of things of which there must be one.
pub(super) fn at_least_one(value: &str) -> Result<NonZeroUsize, String> {
    let number = value.parse::<usize>().ok().and_then(NonZeroUsize::new);
    number.ok_or_else(|| "it must be a whole number from 1 on".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_words_are_refused_in_words() {
        assert_eq!(at_least_one("7").map(NonZeroUsize::get), Ok(7));
        for wrong in ["0", "", "-1", "1.5", "many", "99999999999999999999999"] {
            assert_eq!(at_least_one(wrong), Err("it must be a whole number from 1 on".to_owned()), "{wrong}");
        }
    }
}
