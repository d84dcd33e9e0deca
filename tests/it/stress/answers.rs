//! Holds what a caller was answered to the laws: rows, marks, names and places.

use std::sync::atomic::Ordering;

use docvector_embed::{BadText, Each, Embeddings, Error, Partial, Result, Truncation};

use super::{callers::Caller, checks::Check, round::Round, texts};

/// Checks a result for these texts. `first` is the caller's index of the first text, and is only for messages.
pub(super) fn check(round: &Round, number: usize, texts: &[&str], first: usize, result: &Result<Embeddings>) {
    let caller = &round.plan.callers[number];
    match result {
        Ok(rows) => {
            let places: Vec<usize> = (0..texts.len()).collect();
            check_rows(round, number, texts, first, &places, rows);
        }
        Err(error) => check_error(round, number, caller, texts, error),
    }
}

fn check_rows(round: &Round, number: usize, texts: &[&str], first: usize, places: &[usize], rows: &Embeddings) {
    let caller = &round.plan.callers[number];
    if rows.len() != places.len() {
        round.fault(Check::Rows, format!("caller {number}: {} rows for {} texts", rows.len(), places.len()));
        return;
    }
    let space = check_space(round, number, rows);
    let limit = round.member.limit();
    for (row, &place) in places.iter().enumerate() {
        let Some(text) = texts.get(place) else { continue };
        check_row(round, number, space, text, first + place, rows.row(row));
        let over = caller.truncation == Truncation::Truncate && texts::is_over(text, limit);
        if rows.truncated().contains(&row) != over {
            let what = if over { "is not marked as cut" } else { "is marked as cut" };
            round.fault(Check::Marks, format!("caller {number}: text {} {what}", first + place));
        }
    }
}

/// Returns the number of the rows' space, which must be the one that the caller wants.
fn check_space(round: &Round, number: usize, rows: &Embeddings) -> usize {
    let space = texts::number_of(rows.space());
    if space.is_none() || round.plan.callers[number].names_space && space != Some(0) {
        round.fault(Check::Rows, format!("caller {number}: its rows lie in {}", rows.space()));
    }
    space.unwrap_or(0)
}

fn check_row(round: &Round, number: usize, space: usize, text: &str, index: usize, row: &[f32]) {
    round.rows.fetch_add(1, Ordering::Relaxed);
    let caller = &round.plan.callers[number];
    let vector = |text| texts::vector(space, caller.kind, texts::cut(text, round.member.limit(), caller.truncation));
    if row != vector(text) {
        let of = caller.texts.iter().position(|other| row == vector(other));
        let whose = of.map_or("nobody's".to_owned(), |of| format!("that of its text {of}"));
        round.fault(Check::Rows, format!("caller {number}, {:?}: the row of text {index} is {whose}", caller.how));
    }
}

fn check_error(round: &Round, number: usize, caller: &Caller, texts: &[&str], error: &Error) {
    let bad: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
    let finished = || error.partials().map(Partial::indices);
    for (what, indices) in std::iter::once(("named", &bad[..])).chain(finished().map(|indices| ("finished", indices))) {
        if !indices.is_sorted_by(|a, b| a < b) || indices.last().is_some_and(|&last| last >= texts.len()) {
            let message = format!("caller {number}: texts {indices:?} of {} are {what} in: {error}", texts.len());
            round.fault(Check::Range, message);
        }
    }
    if let Some(index) = bad.iter().find(|index| finished().any(|finished| finished.contains(index))) {
        round.fault(Check::Named, format!("caller {number}: text {index} is both named and finished in: {error}"));
    }
    for partial in error.partials() {
        check_rows(round, number, texts, 0, partial.indices(), partial.embeddings());
    }
    error.bad_texts().iter().for_each(|bad| check_blame(round, number, caller, texts, bad));
}

/// Checks that each blamed text is bad or was refused by the member.
fn check_blame(round: &Round, number: usize, caller: &Caller, texts: &[&str], bad: &BadText) {
    let Some(text) = texts.get(bad.index) else { return };
    let limits = &round.plan.member.limits;
    let is_bad = text.is_empty()
        || limits.bytes.is_some_and(|limit| text.len() > limit)
        || texts::is_over(text, round.member.limit());
    if !is_bad && !round.member.has_refused(caller.kind, text, caller.truncation) {
        let message = format!("caller {number}, {:?}: text {} is blamed, and nobody refused it", caller.how, bad.index);
        round.fault(Check::Blame, message);
    }
}

/// Checks a result for each of these texts.
pub(super) fn check_each(round: &Round, number: usize, texts: &[&str], each: &Each) {
    let caller = &round.plan.callers[number];
    if each.len() != texts.len() {
        round.fault(Check::Rows, format!("caller {number}: {} results for {} texts", each.len(), texts.len()));
        return;
    }
    let space = each.embeddings().map_or(0, |rows| check_space(round, number, rows));
    let mut there = 0;
    for (index, (text, result)) in texts.iter().zip(each.iter()).enumerate() {
        match result {
            Ok(row) => {
                there += 1;
                check_row(round, number, space, text, index, row);
                let over = caller.truncation == Truncation::Truncate && texts::is_over(text, round.member.limit());
                if each.is_truncated(index) != over {
                    round.fault(Check::Marks, format!("caller {number}: text {index} has the wrong mark"));
                }
            }
            Err(error) => {
                for bad in error.bad_texts() {
                    if bad.index != index {
                        let message = format!("caller {number}: the error of text {index} names text {}", bad.index);
                        round.fault(Check::Range, message);
                    }
                    check_blame(round, number, caller, texts, bad);
                }
            }
        }
    }
    let rows = each.embeddings().map_or(0, Embeddings::len);
    if rows != there {
        round.fault(Check::Rows, format!("caller {number}, Each: {rows} rows and {there} texts that have one"));
    }
}
