//! Takes the vectors out of a reply, so that the JSON parser need not look through them.

use std::io::Write;

/// If no vector's string begins within so many bytes, there are none: the vectors are numbers.
const FIRST_VECTOR_WITHIN: usize = 64 << 10;

/// A reply without its vectors.
///
/// A reply with vectors of 2 components, which are 12 characters of base64:
///
/// ```text
/// {"data":[{"index":0,"embedding":"AACAPwAAAEA="},{"index":1,"embedding":"AABAQAAAgEA="}],"usage":{..}}
///                                  ------------                           ------------
///                                    taken[0]                               taken[1]
/// ```
///
/// `json`, which the parser reads. `\u0000` and a number stand where a vector was, and say which one:
///
/// ```text
/// {"data":[{"index":0,"embedding":"\u00000"},{"index":1,"embedding":"\u00001"}],"usage":{..}}
/// ```
pub(super) struct WithoutVectors<'b> {
    pub(super) json: Vec<u8>,
    /// The strings that were taken out, without their quotes.
    pub(super) taken: Vec<&'b [u8]>,
}

impl<'b> WithoutVectors<'b> {
    /// Takes out every string that is as long as a vector of `width` components.
    ///
    /// Returns `None` if there is no such string, or if any other string has an escape. A string of the reply itself
    /// can thus never begin with `\u0000` and pass for a vector.
    pub(super) fn new(body: &'b [u8], rows: usize, width: usize) -> Option<Self> {
        let (padded, unpadded) = ((width * 4).div_ceil(3) * 4, (width * 16).div_ceil(3));
        let (mut json, mut taken) = (Vec::with_capacity(128 * rows), Vec::with_capacity(rows + 1));
        // Bytes before `done` are in `json` or in `taken`; no string is open at `next`.
        let (mut done, mut next) = (0, 0);
        loop {
            let start = match find_mark(body, next) {
                Mark::Quote(at) if taken.is_empty() && at > FIRST_VECTOR_WITHIN => return None,
                Mark::Quote(at) => at + 1,
                Mark::Escape => return None,
                Mark::End => break,
            };
            // The closing quote is not searched for: a jump over the vector is what makes this fast. If the string has
            // another quote inside, it is not base64. Its decoding fails then, and the whole reply is parsed instead.
            let ends_here = |&end: &usize| body.get(end) == Some(&b'"');
            if let Some(end) = [start + padded, start + unpadded].into_iter().find(ends_here) {
                json.extend_from_slice(&body[done..start]);
                // Writing into memory does not fail.
                let _ = write!(json, "\\u0000{}", taken.len());
                taken.push(&body[start..end]);
                (done, next) = (end, end + 1);
            } else if let Mark::Quote(end) = find_mark(body, start) {
                next = end + 1;
            } else {
                return None;
            }
        }
        json.extend_from_slice(&body[done..]);
        (!taken.is_empty()).then_some(Self { json, taken })
    }
}

/// The bytes that decide where a string begins and ends.
enum Mark {
    Quote(usize),
    Escape,
    End,
}

/// Finds the first quote or backslash from a place on.
fn find_mark(body: &[u8], from: usize) -> Mark {
    match body.get(from..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        Some(at) if body[from + at] == b'"' => Mark::Quote(from + at),
        Some(_) => Mark::Escape,
        None => Mark::End,
    }
}
