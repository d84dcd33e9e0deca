//! Decodes the reply of an embeddings request straight into the caller's matrix.
//!
//! Rows are decoded in the order of the reply, from base64 or from numbers, into one allocation. They are then swapped
//! into the order of their `index`. A fault does not end the reading, because the cost comes after the rows.
//!
//! Nearly all of a reply is base64, which a JSON parser would read byte by byte. So strings as long as a vector are
//! taken out first, and the parser reads the rest. Nothing looks for a quote inside such a string: its decoding accepts
//! only base64, and if it fails, the parser reads the whole reply again.

mod json;
mod partial_reply;
mod values;
mod without_vectors;

use serde::de::DeserializeSeed;
use serde_json::error::Category;

pub(in crate::provider) use self::{json::ReplySeed, partial_reply::PartialReply, values::Scalar};
use self::{partial_reply::Fault, without_vectors::WithoutVectors};
use crate::{Embeddings, Error, ErrorKind, Result, Space, Usage, provider::unusable_rows::unusable_rows};

/// A reply's rows, in the order of the request, and its model.
pub(in crate::provider) struct DecodedReply {
    pub(in crate::provider) embeddings: Embeddings,
    /// The model's name in the reply.
    pub(in crate::provider) model: Option<String>,
}

/// Returns the maximum bytes of a reply to `rows` texts: components as JSON numbers of up to 24 characters with the
/// white space of a pretty printer, which is more than base64 takes, and names and ids around each row.
pub(in crate::provider) fn max_bytes(rows: usize, dimensions: usize) -> usize {
    rows.saturating_mul(dimensions.saturating_mul(32).saturating_add(1024)).saturating_add(64 << 10)
}

/// Decodes a reply to a request of `rows` texts. `has_content_length` says whether the reply told its body's length.
pub(in crate::provider) fn read(
    body: &[u8],
    rows: usize,
    space: &Space,
    has_content_length: bool,
) -> Result<DecodedReply> {
    match parse(body, rows, space, walk) {
        (reply, Ok(())) => finish(reply, space),
        (reply, Err(error)) => Err(malformed(&error, body.len(), has_content_length, Usage::of_request(reply.tokens))),
    }
}

/// Decodes a reply to a request of `rows` texts that stands somewhere in a larger JSON. `walk` parses all of that JSON
/// and hands the reply to [`ReplySeed`]. It may be called twice, the first time with JSON whose vectors were taken out.
///
/// Returns `None` if the rows are not all there and sound. The reply itself, by [`read`], then tells why.
pub(in crate::provider) fn read_inside<'b, T>(
    json: &'b [u8],
    rows: usize,
    space: &Space,
    walk: impl Fn(&[u8], &mut PartialReply<'b>) -> serde_json::Result<T>,
) -> Option<(T, DecodedReply)> {
    let (reply, around) = parse(json, rows, space, walk);
    Some((around.ok()?, finish(reply, space).ok()?))
}

/// Makes the result of a reply whose JSON was read to its end.
fn finish(mut reply: PartialReply<'_>, space: &Space) -> Result<DecodedReply> {
    let rows = reply.rows;
    let usage = Usage::of_request(reply.tokens);
    let wrong = |message: String| Error::new(ErrorKind::Protocol, message).with_usage(usage).of_whole_reply();
    if let Some(code) = &reply.error {
        return Err(wrong("the reply is an error, but its status is success".into()).with_provider_code(code));
    }
    match reply.fault.take() {
        Some(Fault { message, is_of_one_text: true }) => {
            return Err(Error::new(ErrorKind::Protocol, message).with_usage(usage));
        }
        Some(Fault { message, .. }) => return Err(wrong(message)),
        None => {}
    }
    if reply.indices.len() != rows {
        return Err(wrong(format!("{} vectors for {rows} texts", reply.indices.len())));
    }
    // The rows change their places below, so their texts' indices are taken before.
    let unusable: Vec<usize> = reply.unusable.iter().map(|&row| reply.indices[row] as usize).collect();
    reply.sort_by_index().map_err(wrong)?;
    // Each row was checked for finite numbers when it was decoded, so the matrix is not scanned again.
    let embeddings = Embeddings::of_finite(rows, space, reply.components, usage);
    let embeddings = embeddings.map_err(|error| error.with_usage(usage))?;
    if !unusable.is_empty() {
        return Err(unusable_rows(&unusable, &embeddings));
    }
    Ok(DecodedReply { embeddings, model: reply.model })
}

/// Makes the error of a reply that is too large, by its beginning: if that shows a fault, such as rows of another width,
/// the fault is the error. Else it is `too_large`.
pub(super) fn of_beginning(beginning: &[u8], rows: usize, space: &Space, too_large: Error) -> Error {
    let mut reply = PartialReply::new(rows, space, Vec::new());
    let _ = walk(beginning, &mut reply);
    match reply.fault {
        Some(Fault { message, .. }) => {
            Error::new(ErrorKind::Protocol, message).with_usage(Usage::of_request(None)).of_whole_reply()
        }
        None => too_large,
    }
}

/// Parses a reply in the fast way if that finds nothing wrong: the vectors are taken out first and decoded without the
/// parser. Else it parses the whole body, as far as it can, so that errors name places in the reply itself and not in
/// the JSON without vectors.
fn parse<'b, T>(
    body: &'b [u8],
    rows: usize,
    space: &Space,
    walk: impl Fn(&[u8], &mut PartialReply<'b>) -> serde_json::Result<T>,
) -> (PartialReply<'b>, serde_json::Result<T>) {
    if let Some(WithoutVectors { json, taken }) = WithoutVectors::new(body, rows, space.dimensions()) {
        let mut reply = PartialReply::new(rows, space, taken);
        let parsed = walk(&json, &mut reply);
        if parsed.is_ok() && reply.is_proven() {
            return (reply, parsed);
        }
    }
    let mut reply = PartialReply::new(rows, space, Vec::new());
    let parsed = walk(body, &mut reply);
    (reply, parsed)
}

/// Parses all of a JSON into a reply.
fn walk(json: &[u8], reply: &mut PartialReply<'_>) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_slice(json);
    ReplySeed(reply).deserialize(&mut json).and_then(|()| json.end())
}

/// Makes the error of a reply that the parser refused. `usage` is what the reply told before the fault.
fn malformed(error: &serde_json::Error, bytes: usize, has_content_length: bool, usage: Usage) -> Error {
    // The parser's message may quote the reply, so the error has only its place.
    let at = format!("line {}, column {} of {bytes} bytes", error.line(), error.column());
    let message = match error.classify() {
        // With a content length, the HTTP layer would have noticed a lost end: the server sent all that it meant to.
        Category::Eof if !has_content_length => {
            let message = format!("the reply ends early, at {at}");
            return Error::new(ErrorKind::Unavailable, message).with_usage(Usage::of_unanswered());
        }
        Category::Eof => format!("the reply's JSON ends early, at {at}"),
        Category::Data => format!("the reply has not the form of embeddings, at {at}"),
        _ => format!("the reply is not JSON, at {at}"),
    };
    Error::new(ErrorKind::Protocol, message).with_usage(usage)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::{partial_reply::base64, *};

    fn space(width: usize) -> Space {
        Space::builder("test", width).build().expect("a valid space")
    }

    /// Returns a reply with rows in this order, each in base64 or as numbers.
    fn reply(rows: &[(usize, Vec<f32>, bool)], tokens: u64) -> Vec<u8> {
        let data: Vec<Value> = rows
            .iter()
            .map(|(index, row, encoded)| {
                let bytes: Vec<u8> = row.iter().flat_map(|component| component.to_le_bytes()).collect();
                let vector = if *encoded { Value::from(base64().encode(bytes)) } else { Value::from(row.clone()) };
                serde_json::json!({"object": "embedding", "index": index, "embedding": vector})
            })
            .collect();
        let usage = serde_json::json!({"prompt_tokens": tokens, "total_tokens": tokens});
        let reply = serde_json::json!({"object": "list", "data": data, "model": "test", "usage": usage});
        serde_json::to_vec(&reply).expect("JSON")
    }

    fn rows(width: usize) -> impl Strategy<Value = Vec<(usize, Vec<f32>, bool)>> {
        let component = prop::num::f32::NORMAL.prop_map(|number| number.clamp(-1e30, 1e30));
        let row = (prop::collection::vec(component, width), any::<bool>());
        prop::collection::vec(row, 1..20).prop_flat_map(|rows| {
            let rows: Vec<_> =
                rows.into_iter().enumerate().map(|(index, (row, base64))| (index, row, base64)).collect();
            Just(rows).prop_shuffle()
        })
    }

    proptest! {
        #[test]
        fn rows_are_placed_by_index_whatever_their_form(rows in (1_usize..9).prop_flat_map(rows), tokens in 0_u64..1_000_000) {
            let width = rows[0].1.len();
            let read = read(&reply(&rows, tokens), rows.len(), &space(width), true).map_err(|error| {
                TestCaseError::fail(error.to_string())
            })?;
            prop_assert_eq!(read.embeddings.usage(), Usage::of_request(Some(tokens)));
            for (index, row, _) in &rows {
                prop_assert_eq!(read.embeddings.row(*index), row);
            }
        }

        /// Any changed bytes are an error, or rows of the right count and width, and never a panic.
        #[test]
        fn damaged_replies_are_errors_or_rows(
            rows in rows(3),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut body = reply(&rows, 7);
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            if let Ok(read) = read(&body, rows.len(), &space(3), true) {
                let shape = (read.embeddings.len(), read.embeddings.dimensions());
                prop_assert_eq!(shape, (rows.len(), 3));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), rows in 0_usize..4) {
            let _ = read(&body, rows, &space(2), false);
        }

        /// One row less or more, a repeated index or another width is always an error, with the cost that the reply
        /// told.
        #[test]
        fn what_does_not_fit_is_an_error_with_its_cost(rows in rows(4), how in 0_u8..5) {
            let mut rows = rows;
            let asked = rows.len();
            match how {
                0 => _ = rows.pop(),
                1 => rows.push((asked, vec![1.0; 4], true)),
                2 => rows.push((0, vec![1.0; 4], false)),
                3 => rows[0].1 = vec![1.0],
                _ => rows[0].0 = asked,
            }
            let error = read(&reply(&rows, 9), asked, &space(4), true).err().expect("does not fit");
            prop_assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, Usage::of_request(Some(9))));
        }
    }

    #[test]
    fn a_quarter_of_the_width_is_called_by_its_name() {
        let body = br#"{"data": [{"index": 0, "embedding": [1, 2]}]}"#;
        let error = read(body, 1, &space(8), true).err().expect("too narrow");
        assert!(error.to_string().contains("a quarter"), "{error}");
    }

    #[test]
    fn the_beginning_of_a_reply_tells_its_width() {
        let told = |beginning: &str| {
            let too_large = Error::new(ErrorKind::Protocol, "too large");
            of_beginning(beginning.as_bytes(), 3, &space(2), too_large).message().to_owned()
        };
        let row = r#"{"data": [{"index": 0, "embedding": [1, 2, 3, 4]}, {"index": 1, "emb"#;
        assert!(told(row).contains("vector 0 has another width: 4 components, not 2"), "{}", told(row));
        let base64 = r#"{"data": [{"index": 0, "embedding": "AACAPwAAAEAAAEBA"}, {"ind"#;
        assert!(told(base64).contains("vector 0 has another width: 3 components, not 2"), "{}", told(base64));
        // Not even the first vector is whole.
        let half = r#"{"data": [{"index": 0, "embedding": [1, 2, 3, 4, 0.1"#;
        assert!(told(half).contains("vector 0 has another width: at least 5 components, not 2"), "{}", told(half));
        for nothing in ["", "   ", r#"{"data": [{"index": 0, "embedding": [1, 2"#, r#"{"data": [{"index": 0, "em"#] {
            assert_eq!(told(nothing), "too large", "{nothing}");
        }
    }

    /// Protobuf leaves out fields that are 0, and so does Google.
    #[test]
    fn the_first_row_may_leave_out_its_index_of_zero() {
        let read = |rows: &[Option<u32>]| {
            let row = |(place, index): (usize, &Option<u32>)| match index {
                Some(index) => format!(r#"{{"index": {index}, "embedding": [{place}, 1]}}"#),
                None => format!(r#"{{"embedding": [{place}, 1]}}"#),
            };
            let data: Vec<String> = rows.iter().enumerate().map(row).collect();
            let body = format!(r#"{{"data": [{}]}}"#, data.join(","));
            super::read(body.as_bytes(), rows.len(), &space(2), true).map(|read| read.embeddings)
        };
        assert_eq!(read(&[None, Some(1), Some(2)]).expect("Google's form").row(2), [2.0, 1.0]);
        assert_eq!(read(&[None, Some(2), Some(1)]).expect("a permutation").row(1), [2.0, 1.0]);
        assert_eq!(read(&[None]).expect("a single row").row(0), [0.0, 1.0]);
        for other in [
            &[None, None][..],
            &[None, Some(0)],
            &[None, Some(2), Some(2)],
            &[None, Some(2), Some(3)],
            &[Some(0), None],
            &[Some(1), None],
            &[Some(1), None, Some(2)],
        ] {
            assert_eq!(read(other).expect_err("another form").kind(), ErrorKind::Protocol, "{other:?}");
        }
        let null = br#"{"data": [{"index": null, "embedding": [0, 1]}]}"#;
        assert!(super::read(null, 1, &space(2), true).is_err(), "null is not a missing index");
    }

    #[test]
    fn an_error_with_a_status_of_success_is_one() {
        let body = br#"{"error": {"code": "overloaded", "message": "not shown"}}"#;
        let error = read(body, 1, &space(8), true).err().expect("an error");
        assert_eq!((error.kind(), error.provider_code()), (ErrorKind::Protocol, Some("overloaded")));
        assert!(!error.to_string().contains("not shown"), "{error}");
    }
}
