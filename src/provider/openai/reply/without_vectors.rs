//! Takes the strings of vectors out of a reply, so that the JSON parser need not look through them.

use std::io::Write;

/// Where no string of a vector has begun by then, there are none: the vectors are numbers.
const SOON: usize = 64 << 10;

/// A reply without its vectors.
pub(super) struct Shortened<'b> {
    /// The JSON, with the number of a string after a character of value 0 in the place of each.
    pub(super) json: Vec<u8>,
    pub(super) strings: Vec<&'b [u8]>,
}

impl<'b> Shortened<'b> {
    /// `None` where it would be of no use, or where any other string has an escape: so no string of the reply's own can
    /// look like one that stands for another.
    pub(super) fn of(body: &'b [u8], rows: usize, width: usize) -> Option<Self> {
        let padded = (width * 4).div_ceil(3) * 4;
        let bare = (width * 16).div_ceil(3);
        let (mut json, mut strings) = (Vec::with_capacity(128 * rows), Vec::with_capacity(rows + 1));
        let (mut copied, mut next) = (0, 0);
        let find = |from: usize| {
            let at = from + memchr::memchr2(b'"', b'\\', body.get(from..)?)?;
            Some((at, body[at] == b'"'))
        };
        while let Some((start, is_quote)) = find(next) {
            if !is_quote || (strings.is_empty() && start > SOON) {
                return None;
            }
            // Said to be one by its length alone; that it is one shows when it is decoded.
            let is_vector = |&length: &usize| body.get(start + 1 + length) == Some(&b'"');
            if let Some(length) = [padded, bare].iter().find(|length| is_vector(length)) {
                let end = start + 1 + length;
                json.extend_from_slice(&body[copied..=start]);
                // Writing into memory does not fail.
                let _ = write!(json, "\\u0000{}", strings.len());
                strings.push(&body[start + 1..end]);
                (copied, next) = (end, end + 1);
            } else {
                match find(start + 1)? {
                    (end, true) => next = end + 1,
                    _ => return None,
                }
            }
        }
        json.extend_from_slice(body.get(copied..)?);
        (!strings.is_empty()).then_some(Self { json, strings })
    }
}
