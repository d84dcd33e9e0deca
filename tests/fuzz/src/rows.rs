//! Rows of replies: written as servers write them, and checked when they are read.

use std::fmt::Write;

use docvector_embed::Embeddings;

/// Checks that rows have their width, and that none of them is of zeros or not finite.
pub fn check_rows(embeddings: &Embeddings, width: usize) {
    assert_eq!(embeddings.dimensions(), width, "rows of another width");
    assert_eq!(embeddings.as_slice().len(), embeddings.len() * width, "rows that are not whole");
    for row in embeddings.rows() {
        assert!(row.iter().all(|component| component.is_finite()), "a component is not finite: {row:?}");
        assert!(row.iter().any(|&component| component != 0.0), "a row of zeros");
    }
}

/// A reply with these rows, turned by `start`, in reverse or not; the bits of `encoded` say which are base64.
pub fn body(rows: &[Vec<f32>], start: u8, reversed: bool, encoded: u8, padded: bool) -> String {
    let start = usize::from(start) % rows.len().max(1);
    let mut order: Vec<usize> = (0..rows.len()).map(|row| (row + start) % rows.len()).collect();
    if reversed {
        order.reverse();
    }
    let mut body = String::from(r#"{"object":"list","data":["#);
    for (at, &index) in order.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let vector = vector(&rows[index], encoded >> (index % 8) & 1 != 0, padded);
        let _ = write!(body, r#"{comma}{{"object":"embedding","index":{index},"embedding":{vector}}}"#);
    }
    body.push_str(r#"],"model":"fuzz","usage":{"prompt_tokens":7,"total_tokens":7}}"#);
    body
}

/// A row of finite components: those that are not lose the highest bit of their exponent.
pub fn row(bytes: &[u8]) -> Vec<f32> {
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

pub fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|number| number.to_bits()).collect()
}
