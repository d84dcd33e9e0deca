//! Opens the text of an input: decompresses it, passes over a byte order mark, and refuses what is no text: [`open`].

use std::{
    io::{BufRead, BufReader, Cursor, ErrorKind, Read},
    sync::{Arc, atomic::AtomicU64},
};

use memchr::memchr;

use super::{
    counted::CountedReader,
    gunzip::{self, Gunzip},
    next::ReadError,
    pieces::TextReader,
    recognition::{BYTE_ORDER_MARK, refusal},
};
use crate::cli::input::InputOptions;

/// The most bytes that are looked at before anything is read.
const HEAD_BYTES: usize = 8 << 10;

/// The buffer of what is decompressed.
const BUFFER_BYTES: usize = 64 << 10;

/// How much of an input is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Up to 8 KiB.
    Bytes,
    /// Its first line at most. Nobody waits for more of an input that comes in its own time.
    FirstLine,
}

/// Opens the text of an input, and counts the bytes of the input itself as they are taken.
pub(super) fn open(
    reader: TextReader,
    head: Head,
    count: &Arc<AtomicU64>,
    options: &InputOptions,
) -> Result<TextReader, ReadError> {
    let (mut beginning, reader) = peek(reader, head)?;
    let mut text: TextReader = Box::new(CountedReader::new(reader, Arc::clone(count)));
    if beginning.starts_with(gunzip::MAGIC) {
        let decompressed = BufReader::with_capacity(BUFFER_BYTES, Gunzip::new(text));
        (beginning, text) = peek(Box::new(decompressed), head)?;
    }
    if let Some(what) = refusal(beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&beginning), options) {
        return Err(ReadError::Refused(what.to_owned()));
    }
    if beginning.starts_with(BYTE_ORDER_MARK) {
        text.consume(BYTE_ORDER_MARK.len());
    }
    Ok(text)
}

/// Returns the beginning of an input, and the whole input.
fn peek(mut reader: TextReader, head: Head) -> Result<(Vec<u8>, TextReader), ReadError> {
    let beginning = take(&mut reader, head)?;
    let whole: TextReader = Box::new(Cursor::new(beginning.clone()).chain(reader));
    Ok((beginning, whole))
}

/// Takes the beginning from a reader, and waits for it if need be.
fn take(reader: &mut TextReader, head: Head) -> Result<Vec<u8>, ReadError> {
    let mut beginning = Vec::new();
    while beginning.len() < HEAD_BYTES {
        let bytes = match reader.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => &bytes[..bytes.len().min(HEAD_BYTES - beginning.len())],
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => continue,
            Err(error) => return Err(ReadError::Unreadable { after_line: 0, error }),
        };
        let line_end = memchr(b'\n', bytes).filter(|_| head == Head::FirstLine);
        let taken = line_end.map_or(bytes.len(), |at| at + 1);
        beginning.extend_from_slice(&bytes[..taken]);
        reader.consume(taken);
        if line_end.is_some() {
            break;
        }
    }
    Ok(beginning)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{
        super::{gunzip::testing::gzip, pieces::testing::in_parts},
        *,
    };
    use crate::cli::input::InputFormat;

    fn read(bytes: &[u8], size: usize, head: Head) -> Result<String, ReadError> {
        let count = Arc::new(AtomicU64::new(0));
        let options = InputOptions::by_name(InputFormat::Lines);
        let mut text = String::new();
        let mut reader = open(in_parts(bytes, size), head, &count, &options)?;
        reader.read_to_string(&mut text).map_err(|error| ReadError::Unreadable { after_line: 0, error })?;
        assert_eq!(count.load(Ordering::Relaxed), bytes.len() as u64);
        Ok(text)
    }

    #[test]
    fn text_is_the_same_plain_and_compressed_in_parts_of_any_size() {
        let long = format!("\u{FEFF}first\n{}", "and another line\n".repeat(2000));
        for text in ["", "a", "one\ntwo\n", "\u{FEFF}one\n\u{FEFF}two", "\u{FEFF}", &long] {
            let bare = text.strip_prefix('\u{FEFF}').unwrap_or(text);
            let members = [gzip(text.as_bytes()), gzip(b"")].concat();
            for size in [1, 2, 3, 10, 1 << 20] {
                for head in [Head::Bytes, Head::FirstLine] {
                    assert_eq!(read(text.as_bytes(), size, head).expect("text"), bare);
                    assert_eq!(read(&members, size, head).expect("text"), bare);
                }
            }
        }
    }

    #[test]
    fn no_more_than_the_first_line_is_waited_for() {
        let whole = b"one\n\0\0\0\n";
        assert!(matches!(read(whole, 3, Head::Bytes), Err(ReadError::Refused(what)) if what.contains("NUL")));
        assert_eq!(read(whole, 3, Head::FirstLine).expect("text"), "one\n\0\0\0\n");
    }

    #[test]
    fn what_is_no_text_is_refused_in_gzip_too() {
        let utf16 = b"\xFF\xFEa\0\n\0";
        for bytes in [utf16.to_vec(), gzip(utf16)] {
            for head in [Head::Bytes, Head::FirstLine] {
                let refused = read(&bytes, 3, head);
                assert!(matches!(&refused, Err(ReadError::Refused(what)) if what.contains("UTF-16")), "{refused:?}");
            }
        }
    }

    #[test]
    fn truncated_gzip_is_unreadable() {
        let whole = gzip(&b"some text\n".repeat(10));
        let error = read(&whole[..whole.len() - 3], 3, Head::Bytes).expect_err("truncated");
        let says = |error: &std::io::Error| error.to_string().contains("truncated");
        assert!(matches!(&error, ReadError::Unreadable { error, .. } if says(error)), "{error:?}");
    }
}
