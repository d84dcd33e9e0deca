//! Replies of servers that speak OpenAI's API: no bytes make the reader panic, and what it accepts is what was asked for.
//!
//! The first byte of an input says which of two checks it is for. Its other meaning is told where it is taken apart.
#![no_main]

use std::fmt::Write;

use docvector_embed::{Embeddings, Normalization, Result, Space, fuzz::openai::read};
use libfuzzer_sys::fuzz_target;

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
    let sound = |embeddings: &Embeddings| {
        assert_eq!(embeddings.dimensions(), width, "rows of another width");
        assert_eq!(embeddings.as_slice().len(), embeddings.len() * width, "rows that are not whole");
        for row in embeddings.rows() {
            assert!(row.iter().all(|component| component.is_finite()), "a component is not finite: {row:?}");
            assert!(row.iter().any(|&component| component != 0.0), "a row of zeros");
        }
    };
    match result {
        Ok(embeddings) => {
            assert_eq!(embeddings.len(), rows, "another count of rows");
            sound(embeddings);
        }
        Err(error) => {
            assert!(error.bad_texts().iter().all(|bad| bad.index < rows), "a text is named that nobody sent");
            for partial in error.partials() {
                assert!(partial.indices().iter().all(|&index| index < rows), "a row of a text that nobody sent");
                sound(partial.embeddings());
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
    let mut order: Vec<usize> = {
        let start = usize::from(*order) % rows.len().max(1);
        (0..rows.len()).map(|row| (row + start) % rows.len()).collect()
    };
    if padded & 2 != 0 {
        order.reverse();
    }
    let mut body = String::from(r#"{"object":"list","data":["#);
    for (at, &index) in order.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let vector = vector(&rows[index], encoded >> (index % 8) & 1 != 0, padded & 1 != 0);
        let _ = write!(body, r#"{comma}{{"object":"embedding","index":{index},"embedding":{vector}}}"#);
    }
    body.push_str(r#"],"model":"fuzz","usage":{"prompt_tokens":7,"total_tokens":7}}"#);
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

/// A row of finite components: those that are not lose the highest bit of their exponent.
fn row(bytes: &[u8]) -> Vec<f32> {
    let four = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    let finite = |bits: u32| if bits & 0x7f80_0000 == 0x7f80_0000 { bits & !0x4000_0000 } else { bits };
    bytes.chunks_exact(4).map(|bytes| f32::from_bits(finite(four(bytes)))).collect()
}

/// A vector in JSON: a string of base64, with or without its padding, or an array of numbers.
fn vector(row: &[f32], encoded: bool, padded: bool) -> String {
    if encoded {
        let bytes: Vec<u8> = row.iter().flat_map(|component| component.to_le_bytes()).collect();
        return format!("\"{}\"", base64(&bytes, padded));
    }
    // As 64-bit numbers, which a parser reads without rounding them twice.
    let numbers: Vec<String> = row.iter().map(|&component| format!("{:e}", f64::from(component))).collect();
    format!("[{}]", numbers.join(","))
}

/// Base64 by its definition.
fn base64(bytes: &[u8], padded: bool) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let group = three.iter().chain(&[0, 0]).take(3).fold(0, |group, &byte| group << 8 | u32::from(byte));
        for digit in 0..=three.len() {
            text.push(char::from(DIGITS[(group >> (18 - 6 * digit) & 63) as usize]));
        }
        if padded {
            text.extend(std::iter::repeat_n('=', 3 - three.len()));
        }
    }
    text
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|number| number.to_bits()).collect()
}
