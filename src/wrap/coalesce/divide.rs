//! Divides the result of a merged call among its callers: [`divide`].

use std::ops::Range;

use crate::{BadText, Embeddings, Error, Partial, Result};

/// The part that a caller has in a merged call: so many consecutive texts, in the order of the parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) texts: usize,
    /// The weight of these texts in the cost.
    pub(super) weight: u64,
}

/// Divides a result into one result per part, whose indices count from the part's first text. The charges of all parts
/// add up to those of the whole.
///
/// A part whose rows were all finished before a failure is a success. The indices of an error must be those of texts of
/// the call.
pub(super) fn divide(result: Result<Embeddings>, parts: &[Part]) -> Vec<Result<Embeddings>> {
    if let [_] = parts {
        // Nothing is copied for a caller that is alone in its call.
        return vec![result];
    }
    match result {
        Ok(rows) => {
            let shares = rows.charges().apportion(&weights(parts, |part, _| part.weight));
            ranges(parts).zip(shares).map(|(range, share)| Ok(rows.part(range, share))).collect()
        }
        Err(error) => divide_error(&error, parts),
    }
}

fn divide_error(error: &Error, parts: &[Part]) -> Vec<Result<Embeddings>> {
    let mut finished: Vec<Vec<Partial>> = parts.iter().map(|_| Vec::new()).collect();
    for partial in error.partials() {
        divide_partial(partial, parts, &mut finished);
    }
    let whole_at =
        |(own, part): (&Vec<Partial>, &Part)| own.iter().position(|partial| partial.indices().len() == part.texts);
    let whole_at: Vec<Option<usize>> = finished.iter().zip(parts).map(whole_at).collect();
    // The failed call was for those who have not all their rows. If all have, everybody's weight is 0, and they share
    // alike.
    let shares =
        error.charges().apportion(&weights(parts, |part, at| if whole_at[at].is_some() { 0 } else { part.weight }));
    let bare = error.clone().without_partial().without_charges().with_bad_texts(Vec::new());
    let each = ranges(parts).zip(shares).zip(finished).zip(whole_at);
    each.map(|(((range, share), mut finished), whole_at)| {
        if let Some(at) = whole_at {
            let (_, rows) = finished.swap_remove(at).into_parts();
            let rows = rows.with_charges(&share);
            // Rows of another space that a router has finished beside them were paid for, too.
            return Ok(finished.iter().fold(rows, |rows, other| rows.with_charges(other.embeddings().charges())));
        }
        let bad = error.bad_texts();
        let bad = &bad[within(bad, |bad| bad.index, &range)];
        let bad = bad.iter().map(|bad| BadText::new(bad.index - range.start, bad.reason.clone())).collect();
        Err(bare.clone().with_bad_texts(bad).with_charges(&share).with_more_partials(finished))
    })
    .collect()
}

/// Divides finished rows of one space.
fn divide_partial(partial: &Partial, parts: &[Part], finished: &mut [Vec<Partial>]) {
    let indices = partial.indices();
    let rows: Vec<Range<usize>> = ranges(parts).map(|range| within(indices, |index| *index, &range)).collect();
    let shares = partial.embeddings().charges().apportion(&weights(parts, |part, at| {
        let (weight, texts, have) = (u128::from(part.weight), part.texts as u128, rows[at].len() as u128);
        // A weight is at most that of the part, so it fits.
        if have == 0 { 0 } else { (weight * have / texts).max(1) as u64 }
    }));
    for (((range, rows), share), finished) in ranges(parts).zip(rows).zip(shares).zip(finished) {
        if rows.is_empty() {
            continue;
        }
        let own = indices[rows.clone()].iter().map(|index| index - range.start).collect();
        // The indices ascend, so this cannot fail.
        finished.extend(Partial::new(own, partial.embeddings().part(rows, share)));
    }
}

/// Returns the ranges of the parts' texts in the call.
fn ranges(parts: &[Part]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    parts.iter().map(move |part| {
        let start = end;
        end += part.texts;
        start..end
    })
}

fn weights(parts: &[Part], weight: impl Fn(&Part, usize) -> u64) -> Vec<u64> {
    parts.iter().enumerate().map(|(at, part)| weight(part, at)).collect()
}

/// Returns which of these items, ascending by index, lie in a range.
fn within<T>(items: &[T], index: impl Fn(&T) -> usize, range: &Range<usize>) -> Range<usize> {
    let first_from = |bound: usize| items.partition_point(|item| index(item) < bound);
    first_from(range.start)..first_from(range.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{BadTextReason, Charges, ErrorKind, Payee, Space, Tier, Usage, checked::cost_of};

    /// What a call has for one text.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Has {
        Nothing,
        Row,
        /// A row in another space.
        OtherRow,
        Name,
    }

    fn space(model: &str) -> Space {
        Space::builder(model, 2).build().expect("a valid space")
    }

    /// The rows of these texts: the number of the text, and its mark if the number is divisible by three.
    fn rows(texts: &[usize], model: &str, tokens: u64) -> Embeddings {
        let components = texts.iter().flat_map(|&text| [text as f32, 1.0]).collect();
        let payee = Payee::new("test", model, Tier::Standard);
        let charges = Charges::of(&payee, Usage::of_request(Some(tokens)));
        let marks = (0..texts.len()).filter(|&row| texts[row].is_multiple_of(3)).collect();
        Embeddings::new(texts.len(), &space(model), components, charges).expect("valid").with_truncated(marks)
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let part = (1..5_usize, 1..40_u64).prop_map(|(texts, weight)| Part { texts, weight });
        prop::collection::vec(part, 1..7)
    }

    /// Fails unless these are the rows of these texts of the call, with their marks.
    fn are_of(rows: &Embeddings, texts: &[usize]) -> Result<(), TestCaseError> {
        let have: Vec<usize> = rows.rows().map(|row| row[0] as usize).collect();
        prop_assert_eq!(&have, texts);
        let marks: Vec<usize> = (0..texts.len()).filter(|&row| texts[row].is_multiple_of(3)).collect();
        prop_assert_eq!(rows.truncated(), marks);
        Ok(())
    }

    proptest! {
        #[test]
        fn each_part_has_its_rows_and_all_costs_add_up(parts in parts(), tokens in 0..1_000_u64) {
            let texts: Vec<usize> = (0..parts.iter().map(|part| part.texts).sum()).collect();
            let whole = rows(&texts, "one", tokens);
            let divided = divide(Ok(whole.clone()), &parts);
            let sum: Charges = divided.iter().map(cost_of).collect::<Vec<_>>().iter().sum();
            prop_assert_eq!(&sum, whole.charges());
            prop_assert_eq!(divided.len(), parts.len());
            for (range, part) in ranges(&parts).zip(divided) {
                are_of(&part.expect("rows"), &texts[range])?;
            }
        }

        #[test]
        fn each_part_has_what_an_error_says_of_it(
            parts in parts(),
            has in prop::collection::vec(
                prop_oneof![Just(Has::Nothing), Just(Has::Row), Just(Has::Row), Just(Has::OtherRow), Just(Has::Name)],
                24,
            ),
            tokens in 0..1_000_u64,
        ) {
            let count = parts.iter().map(|part| part.texts).sum();
            let that_have = |what: Has| -> Vec<usize> { (0..count).filter(|&text| has[text] == what).collect() };
            let partials = [(Has::Row, "one"), (Has::OtherRow, "two")].map(|(what, model)| {
                Partial::new(that_have(what), rows(&that_have(what), model, tokens)).expect("ascending")
            });
            let bad = that_have(Has::Name).iter().map(|&text| BadText::new(text, BadTextReason::Rejected)).collect();
            let error = Error::new(ErrorKind::InvalidInput, "scripted").with_usage(Usage::of_request(None));
            let error = error.with_bad_texts(bad).with_more_partials(partials.to_vec());
            let divided = divide(Err(error.clone()), &parts);
            let sum: Charges = divided.iter().map(cost_of).collect::<Vec<_>>().iter().sum();
            prop_assert_eq!(sum, error.total_charges());
            if parts.len() == 1 {
                return Ok(());
            }
            for (range, part) in ranges(&parts).zip(divided) {
                let own = |what: Has| -> Vec<usize> { range.clone().filter(|&text| has[text] == what).collect() };
                let whole = [Has::Row, Has::OtherRow].into_iter().find(|&what| own(what).len() == range.len());
                let error = match (part, whole) {
                    (Ok(rows), Some(what)) => {
                        are_of(&rows, &own(what))?;
                        continue;
                    }
                    (Err(error), None) => error,
                    (part, _) => return Err(TestCaseError::fail(format!("{part:?}"))),
                };
                let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index + range.start).collect();
                prop_assert_eq!(named, own(Has::Name));
                for (what, model) in [(Has::Row, "one"), (Has::OtherRow, "two")] {
                    let mut of_space = error.partials().filter(|partial| *partial.embeddings().space() == space(model));
                    let partial = of_space.next();
                    let indices: Vec<usize> =
                        partial.map_or(&[][..], Partial::indices).iter().map(|index| index + range.start).collect();
                    prop_assert_eq!(&indices, &own(what));
                    partial.map_or(Ok(()), |partial| are_of(partial.embeddings(), &indices))?;
                    prop_assert!(of_space.next().is_none());
                }
            }
        }
    }

    #[test]
    fn a_failed_call_costs_those_without_their_rows() {
        let parts = [Part { texts: 1, weight: 9 }, Part { texts: 2, weight: 4 }, Part { texts: 1, weight: 8 }];
        let partial = Partial::new(vec![0, 1], rows(&[0, 1], "one", 110)).expect("ascending");
        let error = Error::new(ErrorKind::Unavailable, "scripted").with_usage(Usage::of_request(Some(120)));
        let divided = divide(Err(error.with_partial(partial)), &parts);
        // Of the rows' 110 tokens by 9 and 2, of the failure's 120 by 4 and 8.
        let tokens: Vec<u64> = divided.iter().map(|part| cost_of(part).usage().tokens).collect();
        assert_eq!(tokens, [90, 20 + 40, 80]);
    }
}
