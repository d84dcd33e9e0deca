//! Takes the strings of vectors out of a reply, so that the JSON parser need not look through them.

use std::io::Write;

/// Where no string of a vector has begun by then, there are none: the vectors are numbers.
const FIRST_VECTOR_WITHIN: usize = 64 << 10;

/// A reply without its vectors.
pub(super) struct WithoutVectors<'b> {
    /// The JSON, with the number of a string after a character of value 0 in the place of each.
    pub(super) json: Vec<u8>,
    pub(super) taken: Vec<&'b [u8]>,
}

impl<'b> WithoutVectors<'b> {
    /// `None` where it would be of no use, or where any other string has an escape: so no string of the reply's own can
    /// look like one that stands for another.
    pub(super) fn new(body: &'b [u8], rows: usize, width: usize) -> Option<Self> {
        let padded = (width * 4).div_ceil(3) * 4;
        let bare = (width * 16).div_ceil(3);
        let (mut json, mut taken) = (Vec::with_capacity(128 * rows), Vec::with_capacity(rows + 1));
        let (mut copied, mut next) = (0, 0);
        let find = |from: usize| {
            let at = from + memchr::memchr2(b'"', b'\\', body.get(from..)?)?;
            Some((at, body[at] == b'"'))
        };
        while let Some((start, is_quote)) = find(next) {
            if !is_quote || (taken.is_empty() && start > FIRST_VECTOR_WITHIN) {
                return None;
            }
            // Said to be one by its length alone; that it is one shows when it is decoded.
            let is_vector = |&length: &usize| body.get(start + 1 + length) == Some(&b'"');
            if let Some(length) = [padded, bare].iter().find(|length| is_vector(length)) {
                let end = start + 1 + length;
                json.extend_from_slice(&body[copied..=start]);
                // Writing into memory does not fail.
                let _ = write!(json, "\\u0000{}", taken.len());
                taken.push(&body[start + 1..end]);
                (copied, next) = (end, end + 1);
            } else {
                match find(start + 1)? {
                    (end, true) => next = end + 1,
                    _ => return None,
                }
            }
        }
        json.extend_from_slice(body.get(copied..)?);
        (!taken.is_empty()).then_some(Self { json, taken })
    }
}
