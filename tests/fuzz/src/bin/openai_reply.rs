//! Replies of servers that speak OpenAI's API: no bytes make the reader panic, and what it accepts is what was asked for.
//!
//! The first byte of an input says which of two checks it is for. Its other meaning is told where it is taken apart.
#![no_main]

#[path = "../rows.rs"]
mod rows;

use docvector_embed::{Embeddings, Normalization, Result, Space, fuzz::openai::read};
use libfuzzer_sys::fuzz_target;
use rows::{bits, body, check_rows, row};

fuzz_target!(|data: &[u8]| {
    let Some((&check, input)) = data.split_first() else { return };
    match check % 2 {
        0 => anything(input),
        _ => written(input),
    }
});

fn space(width: usize, normalization: Normalization) -> Space {
    Space::builder("fuzz", width).with_normalization(normalization).build().expect("a valid space")
}

/// Any bytes are an error, or rows of the right count and width, none of them zero or not finite. The JSON parser alone
/// reads the same as it does behind the part that takes vectors out.
///
/// Input: flags, rows, a width, the body.
fn anything(input: &[u8]) {
    let [flags, rows, width, body @ ..] = input else { return };
    let (rows, width) = (usize::from(*rows % 9), usize::from(*width % 17) + 1);
    let normalization = if flags & 1 != 0 { Normalization::L2 } else { Normalization::None };
    let (space, has_length) = (space(width, normalization), flags & 2 != 0);
    let result = read(body, rows, &space, has_length);
    check(&result, rows, width);

    // An escape before everything else turns the other part off.
    let Some(after) = body.strip_prefix(b"{").filter(|_| rows > 0) else { return };
    let plain = read(&[br#"{"escape":"\n","#, after].concat(), rows, &space, has_length);
    assert_eq!(result.is_ok(), plain.is_ok(), "one way reads what the other refuses: {result:?}, {plain:?}");
    if let (Ok(result), Ok(plain)) = (&result, &plain) {
        assert_eq!(bits(result.as_slice()), bits(plain.as_slice()), "the two ways read other numbers");
    }
}

/// Holds what was read to what was asked for, and what comes with an error, too.
fn check(result: &Result<Embeddings>, rows: usize, width: usize) {
    match result {
        Ok(embeddings) => {
            assert_eq!(embeddings.len(), rows, "another count of rows");
            check_rows(embeddings, width);
        }
        Err(error) => {
            assert!(error.bad_texts().iter().all(|bad| bad.index < rows), "a text is named that nobody sent");
            for partial in error.partials() {
                assert!(partial.indices().iter().all(|&index| index < rows), "a row of a text that nobody sent");
                check_rows(partial.embeddings(), width);
            }
        }
    }
}

/// Rows that are written are read again, in any order and either form; one changed byte is an error or rows.
///
/// Input: a width, a seed of the order, which rows are base64, the place and the value of the change, the components.
fn written(input: &[u8]) {
    let [width, order, encoded, padded, place, change, components @ ..] = input else { return };
    let width = usize::from(*width % 8) + 1;
    let rows: Vec<Vec<f32>> = components.chunks_exact(4 * width).take(8).map(row).collect();
    let body = body(&rows, *order, padded & 2 != 0, *encoded, padded & 1 != 0);
    let (space, mut body) = (space(width, Normalization::None), body.into_bytes());

    let result = read(&body, rows.len(), &space, true);
    check(&result, rows.len(), width);
    match result {
        Ok(embeddings) => {
            assert_eq!(bits(embeddings.as_slice()), bits(&rows.concat()), "other numbers are read than were written");
            assert_eq!(embeddings.usage().exact_tokens(), Some(7), "the cost is another one");
        }
        // Only a row of zeros may be refused, and it by its index.
        Err(error) => {
            let zeros = (0..rows.len()).filter(|&row| rows[row].iter().all(|&component| component == 0.0));
            let named: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
            assert!(!named.is_empty() && named == zeros.collect::<Vec<_>>(), "sound rows are refused: {error}");
        }
    }

    let place = usize::from(*place) * body.len() / 256;
    body[place] ^= change;
    check(&read(&body, rows.len(), &space, false), rows.len(), width);
}
