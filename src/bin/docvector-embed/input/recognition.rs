//! Recognizes by the first bytes what is no text, or text of another format: [`refusal`], [`is_json_line`].

use super::gunzip;
use crate::{
    cli::input::{InputFormat, InputOptions},
    json_fields::Fields,
};

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Says why an input that begins with these bytes is not read. The words follow its name.
pub(super) fn refusal(head: &[u8], options: &InputOptions) -> Option<&'static str> {
    kind_of_file(head).or_else(|| encoding(head)).or_else(|| array(head, options))
}

/// Returns whether a text is an object of JSON lines. Then it is hardly meant to be embedded as it stands.
pub(super) fn is_json_line(text: &str) -> bool {
    text.starts_with('{') && Fields::of(text).is_ok_and(|fields| fields.get("text").is_some())
}

/// Recognizes files that are not text.
fn kind_of_file(head: &[u8]) -> Option<&'static str> {
    Some(match head {
        [b'%', b'P', b'D', b'F', b'-', ..] => {
            "looks like a PDF document: extract its text first, for example with `pdftotext FILE`"
        }
        [b'P', b'K', 3, 4, ..] => {
            "looks like a zip archive or an office document: unpack it, or save its text, and name that file"
        }
        // No text goes on with such a byte.
        [b'P', b'A', b'R', b'1', 0..=8 | 14..=31, ..] => {
            "looks like a Parquet file, which is not read: convert it to CSV or JSON lines"
        }
        [b'A', b'R', b'R', b'O', b'W', b'1', 0..=8 | 14..=31, ..] => {
            "looks like an Arrow file, which is not read: convert it to CSV or JSON lines"
        }
        [0x28, 0xB5, 0x2F, 0xFD, ..] => {
            "is compressed with zstd, and only gzip is read: decompress it first, with `zstd -d FILE`"
        }
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => {
            "is compressed with xz, and only gzip is read: decompress it first, with `xz -d FILE`"
        }
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
        | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => {
            "is compressed with bzip2, and only gzip is read: decompress it first, with `bzip2 -d FILE`"
        }
        // The outer one is read already.
        _ if head.starts_with(gunzip::MAGIC) => "is compressed with gzip twice: decompress it once",
        _ => return None,
    })
}

/// Recognizes text in another encoding than UTF-8.
fn encoding(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => {
            return Some("looks like UTF-32, and only UTF-8 is read: convert it, with `iconv -f UTF-32 -t UTF-8 FILE`");
        }
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
            return Some("looks like UTF-16, and only UTF-8 is read: convert it, with `iconv -f UTF-16 -t UTF-8 FILE`");
        }
        _ if !head.contains(&0) => return None,
        _ => {}
    }
    // In UTF-16, every second byte of plain letters is NUL. Of other letters there may be a few.
    let nul_bytes = |from: usize| head.iter().skip(from).step_by(2).filter(|byte| **byte == 0).count();
    let (first, second, pairs) = (nul_bytes(0), nul_bytes(1), head.len() / 2);
    let is_most = |count: usize| 4 * count >= 3 * pairs;
    Some(if is_most(second) && 4 * first <= pairs {
        "looks like UTF-16, and only UTF-8 is read: convert it, with `iconv -f UTF-16LE -t UTF-8 FILE`"
    } else if is_most(first) && 4 * second <= pairs {
        "looks like UTF-16, and only UTF-8 is read: convert it, with `iconv -f UTF-16BE -t UTF-8 FILE`"
    } else {
        "holds NUL bytes, so it is a binary file or not in UTF-8: extract its text, or convert it"
    })
}

/// Recognizes a JSON array that would be read by its lines.
fn array(head: &[u8], options: &InputOptions) -> Option<&'static str> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let first = line.strip_prefix(b"[")?.trim_ascii().first();
    let holds_texts = matches!(first, None | Some(b'{' | b'"'));
    match options.format {
        InputFormat::Lines if holds_texts && !options.is_named => Some(
            "looks like a JSON array: --input-format json reads it, --input-format lines embeds its lines as they \
             stand",
        ),
        InputFormat::Jsonl => Some("begins with `[`, and JSON lines with `{`: --input-format json reads a JSON array"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(head: &[u8], options: &InputOptions) -> &'static str {
        refusal(head, options).unwrap_or_default()
    }

    fn lines() -> InputOptions {
        InputOptions::by_name(InputFormat::Lines)
    }

    #[test]
    fn files_that_are_not_text_are_recognized() {
        for (head, word) in [
            (&b"%PDF-1.7\n%\xE2\xE3\n"[..], "PDF"),
            (b"PK\x03\x04\x14\0\x08\0", "zip"),
            (b"PAR1\x15\x04\x15", "Parquet"),
            (b"ARROW1\0\0\xFF\xFF", "Arrow"),
            (b"\x28\xB5\x2F\xFD\x04", "`zstd -d FILE`"),
            (b"\xFD7zXZ\0\0", "`xz -d FILE`"),
            (b"BZh91AY&SY", "`bzip2 -d FILE`"),
            (b"BZh9\x17\x72\x45\x38\x50\x90", "`bzip2 -d FILE`"),
            (b"\x1F\x8B\x08\0", "twice"),
            (b"\x7FELF\x02\x01\x01\0\0\0\0", "NUL bytes"),
            (b"\x93NUMPY\x01\0v\0{'descr'", "NUL bytes"),
        ] {
            for format in [InputFormat::Lines, InputFormat::Jsonl, InputFormat::Json, InputFormat::Csv] {
                let said = said(head, &InputOptions::by_name(format).named());
                assert!(said.contains(word), "{word}: {said}");
            }
        }
    }

    #[test]
    fn encodings_are_recognized() {
        let in_utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for (head, name) in [
            (b"\xFF\xFEa\0".to_vec(), "-f UTF-16 "),
            (b"\xFE\xFF\0a".to_vec(), "-f UTF-16 "),
            (b"\xFF\xFE\0\0a\0\0\0".to_vec(), "-f UTF-32 "),
            (b"\0\0\xFE\xFF\0\0\0a".to_vec(), "-f UTF-32 "),
            (in_utf16("hello, world\r\n", u16::to_le_bytes), "-f UTF-16LE "),
            (in_utf16("hello, w\u{f6}rld \u{20ac}\r\n", u16::to_be_bytes), "-f UTF-16BE "),
            // A first line in parts.
            (b"a\0\n".to_vec(), "-f UTF-16LE "),
            (b"\0a\0\n".to_vec(), "-f UTF-16BE "),
            (b"plain\0text".to_vec(), "NUL bytes"),
            (vec![0; 100], "NUL bytes"),
        ] {
            let said = said(&head, &lines());
            assert!(said.contains(name), "{head:?}: {said}");
        }
    }

    #[test]
    fn text_is_text() {
        for head in [
            &b""[..],
            b"PARIS, PAR1 and PAR2\n",
            b"PAR1\n",
            b"ARROW1 points up",
            b"BZh9 is a name",
            b"PK",
            b"\xE6\x97\xA5\xE6\x9C\xAC\n",
            b"\xE9t\xE9\n",
            b"\tindented\x0C\n",
        ] {
            assert_eq!(said(head, &lines()), "", "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn an_array_is_not_read_by_its_lines_unless_that_is_asked_for() {
        for head in ["[\n  1,\n", "[", " [ \r\n\"a\"", "[{\"text\":\"a\"},\n", "[ \"a\", \"b\"]"] {
            assert!(said(head.as_bytes(), &lines()).starts_with("looks like a JSON array: "), "{head}");
            assert_eq!(said(head.as_bytes(), &lines().named()), "", "{head}");
            let jsonl = said(head.as_bytes(), &InputOptions::by_name(InputFormat::Jsonl).named());
            assert!(jsonl.contains("--input-format json reads"), "{jsonl}");
            for format in [InputFormat::Json, InputFormat::Csv, InputFormat::Tsv] {
                assert_eq!(said(head.as_bytes(), &InputOptions::by_name(format)), "");
            }
        }
        for head in ["[INFO] started\n", "[1] a footnote\n", "a\n[\n", "[[1, 2]]", ""] {
            assert_eq!(said(head.as_bytes(), &lines()), "", "{head}");
        }
    }

    #[test]
    fn objects_of_json_lines_are_recognized() {
        assert!(is_json_line("{\"text\":\"hello\"}") && is_json_line("{\"x\":1e400,\"text\":null}"));
        for text in ["{\"title\":\"hello\"}", "{\"text\":", "{curly}", "[]", "text", ""] {
            assert!(!is_json_line(text), "{text}");
        }
    }
}
