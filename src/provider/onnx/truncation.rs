//! Truncates texts: which tokens of a long text are kept.

use std::ops::Range;

use crate::{
    Result, Truncation,
    tokenizer::{ReadSoFar, Reading, Stretch},
};

/// The tokens of a text that a model has room for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// All of them.
    Whole(Vec<u32>),
    /// Those that are kept of more.
    Truncated(Vec<u32>),
    /// None: there are at least so many, and nothing may be truncated.
    TooMany(usize),
}

/// Tokenizes the text and keeps the tokens that there is room for: the last ones if `keep_end`, else the first ones.
/// Too many tokens are a fault under [`Truncation::Error`]. Returns `None` if `go_on` said no.
pub(super) fn fit(
    reading: &Reading<'_, impl Fn(Range<usize>) -> Result<Vec<u32>>>,
    room: usize,
    keep_end: bool,
    truncation: Truncation,
    so_far: &mut ReadSoFar,
    go_on: &mut dyn FnMut(Stretch) -> bool,
) -> Result<Option<Fit>> {
    // If the end of the text is kept, all of it must be read.
    let most = if keep_end && truncation == Truncation::Truncate { usize::MAX } else { room };
    if !reading.read(most, so_far, go_on)? {
        return Ok(None);
    }
    let mut ids = std::mem::take(&mut so_far.ids);
    Ok(Some(if ids.len() <= room {
        Fit::Whole(ids)
    } else if truncation == Truncation::Error {
        Fit::TooMany(ids.len())
    } else {
        if keep_end {
            ids.drain(..ids.len() - room);
        }
        ids.truncate(room);
        Fit::Truncated(ids)
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::{BYTES_PER_TOKEN, MARGIN, STRETCH_BYTES, SplitPoints};

    /// Reads a text whose characters are its tokens, a slice of `stretches` stretches at a time. Returns the parts too.
    fn fit(
        text: &str,
        room: usize,
        keep_end: bool,
        truncation: Truncation,
        stretches: usize,
    ) -> (Fit, Vec<Range<usize>>) {
        let parts = std::cell::RefCell::new(Vec::new());
        let tokenize = |part: Range<usize>| {
            parts.borrow_mut().push(part.clone());
            Ok(text[part].chars().map(u32::from).collect())
        };
        let reading = Reading { text, split_points: SplitPoints::BeforeSpace, tokenize };
        let mut so_far = ReadSoFar::default();
        let fit = loop {
            let mut left = stretches;
            let mut go_on = |stretch| {
                if let Stretch::Short(bytes) = stretch {
                    assert!(bytes <= STRETCH_BYTES, "{bytes}");
                }
                left = left.wrapping_sub(1);
                left != usize::MAX
            };
            if let Some(fit) =
                super::fit(&reading, room, keep_end, truncation, &mut so_far, &mut go_on).expect("no fault")
            {
                break fit;
            }
        };
        (fit, parts.into_inner())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_text_in_stretches_has_the_tokens_of_the_whole(
            words in prop::collection::vec((1_usize..12_000, "[a-z文]"), 0..8),
            room in prop_oneof![1_usize..600, 1_usize..30_000, Just(usize::MAX)],
            (keep_end, truncate) in any::<(bool, bool)>(),
            stretches in 1_usize..4,
        ) {
            let text: String = words.iter().map(|(times, letter)| letter.repeat(*times) + " ").collect();
            let truncation = if truncate { Truncation::Truncate } else { Truncation::Error };
            let (fit, parts) = fit(&text, room, keep_end, truncation, stretches);
            let ids: Vec<u32> = text.chars().map(u32::from).collect();
            match fit {
                Fit::Whole(whole) => prop_assert_eq!(whole, ids),
                Fit::Truncated(kept) if keep_end => prop_assert_eq!(&kept, &ids[ids.len() - room..]),
                Fit::Truncated(kept) => prop_assert_eq!(&kept, &ids[..room]),
                Fit::TooMany(some) => prop_assert!(!truncate && some > room && some <= ids.len()),
            }
            prop_assert_eq!(parts[0].start, 0);
            for two in parts.windows(2) {
                prop_assert_eq!(two[0].end, two[1].start, "read twice, or not at all");
            }
        }
    }

    #[test]
    fn no_more_is_read_than_decides_the_matter() {
        let text = "word ".repeat(1 << 20);
        for truncation in [Truncation::Truncate, Truncation::Error] {
            let (_, parts) = fit(&text, 126, false, truncation, 1);
            assert_eq!(parts.len(), 1);
            assert!(parts[0].end <= (126 + MARGIN) * BYTES_PER_TOKEN, "{parts:?}");
        }
        let (_, parts) = fit(&text, 126, true, Truncation::Truncate, 1);
        assert_eq!(parts.last().map(|part| part.end), Some(text.len()), "the end is kept");
    }
}
