//! Reads the rows of a framed reply, which is how this crate's own service answers in binary: [`read`].
//!
//! ```text
//! "DVE1"   length of the metadata, u32 LE   metadata, JSON padded with spaces   rows x dimension f32 LE
//! ```

use serde::Deserialize;

use super::received_rows::result_of;
use crate::{
    Embeddings, Error, ErrorKind, Result, Space, SpaceId, Usage, provider::service_headers::another_space, wire::MAGIC,
};

/// The bytes before the metadata.
const HEAD: usize = 8;

/// Bytes that are allowed for the metadata beside the indices of truncated texts.
const METADATA: usize = 64 << 10;

/// Bytes that are allowed for each row beside its numbers: its index among the truncated ones, or why its text is bad.
const PER_ROW: usize = 160;

/// The metadata of a frame. Fields of later versions are ignored.
#[derive(Deserialize)]
struct Metadata {
    space: String,
    dimension: usize,
    rows: usize,
    #[serde(default)]
    truncated: Vec<usize>,
    #[serde(default)]
    tokens: Option<u64>,
}

/// Returns the maximum bytes of a reply to `rows` texts.
pub(super) fn max_bytes(rows: usize, dimensions: usize) -> usize {
    rows.saturating_mul(dimensions.saturating_mul(4).saturating_add(PER_ROW)).saturating_add(METADATA)
}

/// Reads the reply to a request of `rows` texts in this space.
///
/// # Errors
/// [`SpaceMismatch`](ErrorKind::SpaceMismatch) if the rows lie in another space, [`Protocol`](ErrorKind::Protocol) if the
/// frame is damaged or is not that of the request.
pub(super) fn read(body: &[u8], rows: usize, space: &Space) -> Result<Embeddings> {
    let unknown = |message: String| wrong(message, Usage::of_request(None));
    let (metadata, numbers) = split(body).map_err(unknown)?;
    let metadata: Metadata = serde_json::from_slice(metadata).map_err(|error| {
        // The parser's message may quote the reply, so the error has only its place.
        unknown(format!(
            "the frame's metadata cannot be read, at column {} of {} bytes",
            error.column(),
            metadata.len()
        ))
    })?;
    let usage = Usage::of_request(metadata.tokens);
    let wrong = |message: String| wrong(message, usage);
    let Ok(stated) = metadata.space.parse::<SpaceId>() else {
        return Err(wrong("the frame's space is no space id".to_owned()));
    };
    if stated != space.id() {
        return Err(another_space(stated, space).with_usage(usage));
    }
    let width = space.dimensions();
    if (metadata.rows, metadata.dimension) != (rows, width) {
        let message = format!(
            "the frame has {} rows of {} dimensions for {rows} texts in a space of {width}",
            metadata.rows, metadata.dimension
        );
        return Err(wrong(message));
    }
    if let Some(index) = metadata.truncated.iter().find(|&&index| index >= rows) {
        return Err(wrong(format!("the frame says that text {index} was truncated, but the request has {rows} texts")));
    }
    let components = rows.checked_mul(width).filter(|count| count.checked_mul(4) == Some(numbers.len()));
    let Some(components) = components else {
        let message = format!("the frame has {} bytes of numbers, not {rows} rows of {width} times 4", numbers.len());
        return Err(wrong(message));
    };
    Ok(result_of(rows, space, numbers_of(numbers, components), usage)?.with_truncated(metadata.truncated))
}

/// Splits a frame into its metadata and its numbers.
fn split(body: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let Some(after) = body.strip_prefix(MAGIC) else {
        let begins = if body.trim_ascii_start().first() == Some(&b'<') { ", but a web page" } else { "" };
        return Err(format!(
            "the reply is no frame of embeddings{begins}: check that the URL is that of a docvector-embed service, and \
             choose another dialect by `with_dialect` if it is not"
        ));
    };
    let short = || format!("the frame ends early, after {} bytes", body.len());
    let (length, after) = after.split_first_chunk::<4>().ok_or_else(short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    after.split_at_checked(length).ok_or_else(|| {
        format!("the frame ends early: {length} bytes of metadata are announced, {} follow", body.len() - HEAD)
    })
}

/// Copies little-endian numbers, which lie at any address, into a vector of this many.
fn numbers_of(bytes: &[u8], count: usize) -> Vec<f32> {
    let mut numbers = vec![0.0_f32; count];
    bytemuck::cast_slice_mut::<f32, u8>(&mut numbers).copy_from_slice(bytes);
    if cfg!(target_endian = "big") {
        numbers.iter_mut().for_each(|number| *number = f32::from_bits(number.to_bits().swap_bytes()));
    }
    numbers
}

/// Makes the error of a damaged frame: no single text is to blame for it.
fn wrong(message: String, usage: Usage) -> Error {
    Error::new(ErrorKind::Protocol, message).with_usage(usage).of_whole_reply()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> Space {
        Space::builder("a-model", 2).build().expect("valid")
    }

    /// Writes a frame with this metadata.
    fn frame(metadata: &str, numbers: &[f32]) -> Vec<u8> {
        let mut metadata = metadata.to_owned();
        while !(HEAD + metadata.len()).is_multiple_of(4) {
            metadata.push(' ');
        }
        let length = u32::try_from(metadata.len()).expect("short").to_le_bytes();
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        [MAGIC, &length, metadata.as_bytes(), &numbers].concat()
    }

    fn metadata(rows: usize, more: &str) -> String {
        let id = space().id();
        format!(r#"{{"model":"a-model","space":"{id}","dimension":2,"rows":{rows}{more}}}"#)
    }

    /// Services hold to these bytes: they never change.
    #[test]
    fn a_golden_frame_is_read() {
        let mut golden = b"DVE1\x74\x00\x00\x00".to_vec();
        golden.extend(br#"{"model":"a-model","space":"f1f8e7b6f1f8e7b6f1f8e7b6f1f8e7b6","dimension":2,"rows":2,"#);
        golden.extend(br#""truncated":[1],"tokens":7}"#);
        golden.extend([b' '; 4]);
        golden.extend([0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40, 0, 0, 0x80, 0xc0]);
        let id = space().id().to_string();
        let at = 8 + r#"{"model":"a-model","space":""#.len();
        golden[at..at + 32].copy_from_slice(id.as_bytes());
        let rows = read(&golden, 2, &space()).expect("a frame");
        assert_eq!(rows.as_slice(), [1.0, 2.0, 3.0, -4.0]);
        assert_eq!((rows.truncated(), rows.usage()), (&[1][..], Usage::of_request(Some(7))));
        // At any address, the numbers are the same.
        let moved = [b"x", &golden[..]].concat();
        assert_eq!(read(&moved[1..], 2, &space()).expect("a frame"), rows);
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_its_cost() {
        let cases: [(&str, Vec<u8>, &str, Option<u64>); 11] = [
            ("nothing", Vec::new(), "is no frame", None),
            ("a web page", b" <html></html>".to_vec(), "but a web page", None),
            ("json", br#"{"embeddings":[]}"#.to_vec(), "is no frame", None),
            ("a beginning", b"DVE1\x01".to_vec(), "ends early, after 5 bytes", None),
            ("a huge length", b"DVE1\xff\xff\xff\xff{}".to_vec(), "4294967295 bytes of metadata", None),
            ("no metadata", frame("{", &[]), "metadata cannot be read", None),
            ("one row less", frame(&metadata(1, r#","tokens":3"#), &[1.0, 2.0]), "1 rows of 2", Some(3)),
            ("another width", frame(&metadata(2, "").replace(":2,", ":3,"), &[1.0; 6]), "2 rows of 3", None),
            ("too few numbers", frame(&metadata(2, r#","tokens":3"#), &[1.0; 3]), "12 bytes of numbers", Some(3)),
            ("too many numbers", frame(&metadata(2, ""), &[1.0; 5]), "20 bytes of numbers", None),
            ("a stranger", frame(&metadata(2, r#","truncated":[2]"#), &[1.0; 4]), "text 2 was truncated", None),
        ];
        for (what, body, message, tokens) in cases {
            let error = read(&body, 2, &space()).expect_err(what);
            assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, Usage::of_request(tokens)), "{what}");
            assert!(error.message().contains(message), "{what}: {error}");
        }
    }

    #[test]
    fn another_space_is_told_before_all_else() {
        let other = metadata(9, r#","tokens":5"#).replace(&space().id().to_string(), &"0".repeat(32));
        let error = read(&frame(&other, &[]), 2, &space()).expect_err("another space");
        assert_eq!((error.kind(), error.usage().tokens), (ErrorKind::SpaceMismatch, 5));
    }

    #[test]
    fn rows_that_no_text_can_have_are_named_beside_the_others() {
        let numbers = [f32::NAN, 1.0, 1.0, 2.0, 0.0, 0.0, 1.0, f32::INFINITY];
        let error = read(&frame(&metadata(4, r#","tokens":4"#), &numbers), 4, &space()).expect_err("unusable");
        let bad: Vec<usize> = error.bad_texts().iter().map(|bad| bad.index).collect();
        assert_eq!((error.kind(), bad), (ErrorKind::Protocol, vec![0, 2, 3]));
        let partial = error.partial().expect("a sound row");
        assert_eq!((partial.indices(), partial.embeddings().row(0)), (&[1][..], &[1.0, 2.0][..]));
        assert_eq!(error.total_charges().usage(), Usage::of_request(Some(4)));
    }

    proptest! {
        #[test]
        fn frames_are_read_back(
            rows in prop::collection::vec(prop::array::uniform2(0.001_f32..1e30), 0..20),
            tokens in prop::option::of(any::<u64>()),
        ) {
            let tokens_text = tokens.map_or("null".to_owned(), |tokens| tokens.to_string());
            let numbers: Vec<f32> = rows.iter().flatten().copied().collect();
            let body = frame(&metadata(rows.len(), &format!(r#","truncated":[],"tokens":{tokens_text}"#)), &numbers);
            prop_assert!(body.len() <= max_bytes(rows.len(), 2));
            let read = read(&body, rows.len(), &space()).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(read.as_slice(), &numbers[..]);
            prop_assert_eq!(read.usage(), Usage::of_request(tokens));
        }

        /// Any changed bytes are an error, or rows of the right count and width, and never a panic.
        #[test]
        fn damaged_frames_are_errors_or_rows(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut body = frame(&metadata(3, r#","truncated":[1],"tokens":7"#), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            if let Ok(read) = read(&body, 3, &space()) {
                prop_assert_eq!((read.len(), read.dimensions()), (3, 2));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(after in prop::collection::vec(any::<u8>(), 0..200), rows in 0_usize..4) {
            let _ = read(&after, rows, &space());
            let _ = read(&[MAGIC.as_slice(), &after].concat(), rows, &space());
        }
    }
}
