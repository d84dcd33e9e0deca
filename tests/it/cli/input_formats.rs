//! `docvector-embed embed` with inputs of all formats: what is read, and what is refused with a word on what to do.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc,
    thread,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

use super::{embed, program, rows, stderr, stdout, vector};
use crate::support::minilm;

/// A folder with files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("written");
        path
    }
}

/// Embeds a file and returns the rows as they were printed.
fn embedded(path: &Path, more: &[&str]) -> String {
    let done = embed(&[&["--input", path.to_str().expect("UTF-8")], more].concat(), b"");
    assert!(done.status.success(), "{}: {}", path.display(), stderr(&done));
    stdout(&done)
}

/// Returns what is said of a file that is not embedded.
fn refused(path: &Path, more: &[&str]) -> String {
    let done = embed(&[&["--input", path.to_str().expect("UTF-8")], more].concat(), b"");
    assert_eq!(done.status.code(), Some(1), "{}: {}", path.display(), stderr(&done));
    assert!(done.stdout.is_empty(), "{}", stdout(&done));
    stderr(&done)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

/// Returns the vectors of texts, each on a line of its own.
fn vectors(texts: &[&str]) -> Vec<Vec<f32>> {
    let done = embed(&[], format!("{}\n", texts.join("\n")).as_bytes());
    assert!(done.status.success(), "{}", stderr(&done));
    rows(&stdout(&done)).iter().map(vector).collect()
}

/// Fails unless the rows have the vectors of these texts.
fn assert_vectors(printed: &str, texts: &[&str]) {
    let have: Vec<Vec<f32>> = rows(printed).iter().map(vector).collect();
    for ((have, want), text) in have.iter().zip(vectors(texts)).zip(texts) {
        let difference = have.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-5, "{text}: {difference}");
    }
    assert_eq!(have.len(), texts.len());
}

#[test]
fn what_is_no_utf8_text_is_refused_before_anything_is_embedded() {
    let files = Files::new();
    let in_utf16 = |order: fn(u16) -> [u8; 2]| "a line\nanother\n".encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let with_mark = [b"\xFF\xFE".to_vec(), in_utf16(u16::to_le_bytes)].concat();
    for (name, content, says) in [
        ("marked.txt", with_mark.clone(), "`iconv -f UTF-16 -t UTF-8 FILE`"),
        ("marked.csv", with_mark.clone(), "`iconv -f UTF-16 -t UTF-8 FILE`"),
        ("little.txt", in_utf16(u16::to_le_bytes), "`iconv -f UTF-16LE -t UTF-8 FILE`"),
        ("big.jsonl", in_utf16(u16::to_be_bytes), "`iconv -f UTF-16BE -t UTF-8 FILE`"),
        ("paper.pdf", b"%PDF-1.7\n%\xE2\xE3\xCF\xD3\n".to_vec(), "looks like a PDF document: extract its text first"),
        ("sheet.xlsx", b"PK\x03\x04\x14\0\x06\0".to_vec(), "looks like a zip archive or an office document"),
        ("rows.parquet", b"PAR1\x15\x04\x15\x10".to_vec(), "looks like a Parquet file"),
        ("lines.zst", b"\x28\xB5\x2F\xFD\x04\0".to_vec(), "`zstd -d FILE`"),
        ("data.bin", b"some\0thing\nelse".to_vec(), "holds NUL bytes"),
        ("packed.txt.gz", gzip(&with_mark), "`iconv -f UTF-16 -t UTF-8 FILE`"),
    ] {
        let path = files.write(name, &content);
        let said = refused(&path, &["--on-error", "record"]);
        assert!(said.starts_with(&format!("error: {} ", path.display())) && said.contains(says), "{said}");
    }
    let done = embed(&[], &with_mark);
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).starts_with("error: standard input looks like UTF-16"), "{}", stderr(&done));
}

#[test]
fn a_nul_byte_later_on_makes_a_bad_line() {
    let files = Files::new();
    // Behind what is looked at first.
    let content = format!("{}a\0b\n", format!("{}\n", "long ".repeat(40)).repeat(50));
    let said = refused(&files.write("long.txt", content.as_bytes()), &[]);
    assert!(said.contains("line 51: the text holds a NUL byte, so this is no text file"), "{said}");
}

#[test]
fn an_array_is_read_by_its_elements() {
    let files = Files::new();
    let array = r#"[
  {
    "id": 1.50,
    "text": "one"
  },
  "two \"quoted\"",
  {"text": "three", "x": []}
]
"#;
    let printed = embedded(&files.write("texts.json", array.as_bytes()), &[]);
    assert_vectors(&printed, &["one", "two \"quoted\"", "three"]);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with("{     \"id\": 1.50,     \"text\": \"one\",\"embedding\":["), "{printed}");
    assert!(lines[1].starts_with("{\"text\":\"two \\\"quoted\\\"\",\"embedding\":["), "{printed}");
    assert!(lines[2].starts_with("{\"text\": \"three\", \"x\": [],\"embedding\":["), "{printed}");
    assert_eq!(embedded(&files.write("packed.json.gz", &gzip(array.as_bytes())), &[]), printed);
    assert_eq!(embedded(&files.write("none.json", b"[]"), &[]), "");

    // By its lines only if that is asked for.
    let path = files.write("texts.txt", array.as_bytes());
    let said = refused(&path, &[]);
    assert!(said.contains("looks like a JSON array: --input-format json reads it, --input-format lines"), "{said}");
    assert!(refused(&path, &["--jsonl"]).contains("--input-format json reads a JSON array"));
    assert_eq!(embedded(&path, &["--input-format", "json"]), printed);
    assert_eq!(rows(&embedded(&path, &["--input-format", "lines"])).len(), array.lines().count());
}

#[test]
fn a_broken_array_is_named_by_its_line() {
    let files = Files::new();
    for (content, says) in [
        ("[\n\"a\",\n\"b\"\n", ", line 4: the JSON array is not whole: its `]` is missing"),
        ("[\"a\"\n\"b\"]", ", line 2: `,` or `]` is missing after an element of the JSON array"),
        ("[\"a\"]\n\n[\"b\"]", ", line 3: the JSON array has ended, and more follows"),
        ("{\"text\":\"a\"}\n", ", line 1: this begins with `{`"),
        ("", ", line 1: the input is empty"),
    ] {
        let said = refused(&files.write("broken.json", content.as_bytes()), &["--quiet"]);
        assert!(said.contains(says), "{says}: {said}");
    }
    let said = refused(&files.write("bad.json", b"[\"a\",\n7,\n{\"text\":\"\"}]"), &["--quiet"]);
    assert!(said.contains("line 2: the element is JSON, but neither a string nor an object"), "{said}");
    assert!(said.contains("line 3: the text is empty"), "{said}");
}

#[test]
fn rows_of_a_table_keep_their_cells() {
    let files = Files::new();
    let csv = "\u{FEFF}id,body,note\r\n1.50,one,\r\n\r\n2,\"two, \"\"quoted\"\"\r\nlines\",x\r\n";
    let printed = embedded(&files.write("texts.csv", csv.as_bytes()), &["--column", "body"]);
    let have = rows(&printed);
    assert_eq!(have.len(), 2);
    assert!(printed.starts_with("{\"id\":\"1.50\",\"body\":\"one\",\"note\":\"\",\"embedding\":["), "{printed}");
    assert_eq!((have[1]["body"].as_str(), have[1]["note"].as_str()), (Some("two, \"quoted\"\r\nlines"), Some("x")));
    assert_eq!(embedded(&files.write("packed.CSV.gz", &gzip(csv.as_bytes())), &["--column", "body"]), printed);
    let tsv = csv.replace("two, ", "two; ").replace(',', "\t");
    let have = rows(&embedded(&files.write("texts.tsv", tsv.as_bytes()), &["--column", "body"]));
    assert_eq!((have.len(), have[1]["body"].as_str()), (2, Some("two; \"quoted\"\r\nlines")));

    let path = files.write("texts.csv", csv.as_bytes());
    let said = refused(&path, &[]);
    assert!(said.contains("there is no column `text`: the columns are `id`, `body` and `note`; "), "{said}");
    assert!(said.contains("--column names the one with the texts, and --input-format lines embeds whole"), "{said}");
    let lines = csv.replace("\r\n\r\n", "\r\n");
    assert_eq!(rows(&embedded(&files.write("texts.csv", lines.as_bytes()), &["--input-format", "lines"])).len(), 4);
}

#[test]
fn rows_with_other_cells_than_the_header_are_bad_lines() {
    let files = Files::new();
    let path = files.write("texts.csv", b"id,text\n1,\"a\nb\"\n2\n3,c,d\n4,\n");
    let said = refused(&path, &[]);
    assert!(said.contains("line 4: the row has 1 cell, and the header has 2 columns\n"), "{said}");
    assert!(said.contains("line 5: the row has 3 cells, and the header has 2 columns\n"), "{said}");
    assert!(said.contains("line 6: the text is empty\n") && said.contains("3 lines of 4 cannot be embedded"), "{said}");
    let open = refused(&files.write("open.csv", b"id,text\n1,\"a\nb\n"), &[]);
    assert!(open.contains(", line 2: a quote that opens in this row is not closed"), "{open}");
}

#[test]
fn gzip_is_recognized_whatever_the_name() {
    let files = Files::new();
    let (lines, objects) = ("one\ntwo\n", "{\"text\":\"one\",\"n\":1}\n{\"text\":\"two\"}\n");
    let plain = embedded(&files.write("lines.txt", lines.as_bytes()), &[]);
    let members = [gzip(b"one\n"), gzip(b"two\n")].concat();
    for (name, content) in [("lines.gz", gzip(lines.as_bytes())), ("lines.txt", members)] {
        assert_eq!(embedded(&files.write(name, &content), &[]), plain, "{name}");
    }
    let done = embed(&[], &gzip(lines.as_bytes()));
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(stdout(&done), plain);
    let plain = embedded(&files.write("objects.jsonl", objects.as_bytes()), &[]);
    assert_eq!(embedded(&files.write("objects.jsonl.gz", &gzip(objects.as_bytes())), &[]), plain);
}

#[test]
fn truncated_gzip_is_an_error() {
    let files = Files::new();
    let lines: String = (0..200).map(|number| format!("line {number}\n")).collect();
    let whole = gzip(lines.as_bytes());
    for length in [20, whole.len() - 5] {
        let said = refused(&files.write("lines.txt.gz", &whole[..length]), &[]);
        assert!(said.contains("cannot be read") && said.contains("its gzip data ends too early"), "{said}");
    }
    let mut damaged = whole.clone();
    damaged[whole.len() - 6] ^= 1;
    let said = refused(&files.write("lines.txt.gz", &damaged), &[]);
    assert!(said.contains("its gzip data is damaged"), "{said}");
}

#[test]
fn json_that_is_valid_is_never_refused() {
    let files = Files::new();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
    let fields = format!("\"x\":1e400,\"y\":{nested},\"z\":{deep}");
    let objects = format!("{{{fields},\"text\":\"one\"}}\n{{\"text\":\"two\",\"id\":\"\\ud800\"}}\n");
    let printed = embedded(&files.write("odd.jsonl", objects.as_bytes()), &[]);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with(&format!("{{{fields},\"text\":\"one\",\"embedding\":[")));
    assert!(lines[1].starts_with("{\"text\":\"two\",\"id\":\"\\ud800\",\"embedding\":["), "{}", lines[1]);

    // Nor is a bad line that is recorded with its fields.
    let bad = files.write("bad.jsonl", format!("{{{fields},\"line\":7,\"text\":\"\"}}\n").as_bytes());
    let done = embed(&["--on-error", "record", "--input", bad.to_str().expect("UTF-8")], b"");
    assert!(stdout(&done).starts_with("{\"line\":1,\"error\":\"the text is empty\",\"x\":1e400,"), "{}", stderr(&done));
    // Lines of text that look like JSON are looked at, too.
    let done = embed(&[], objects.as_bytes());
    assert!(done.status.success() && stderr(&done).contains("line 1 looks like a JSON line"), "{}", stderr(&done));
    let done = embed(&["--input-format", "lines"], objects.as_bytes());
    assert!(done.status.success() && !stderr(&done).contains("looks like"), "{}", stderr(&done));
}

#[test]
fn rows_of_a_slow_pipe_come_line_by_line() {
    let mut child = program();
    let child = child.args(["embed", "--quiet", "--model"]).arg(minilm());
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let (sending, printed) = mpsc::channel();
    let reader = thread::spawn(move || out.lines().try_for_each(|line| sending.send(line.expect("UTF-8"))));
    for line in ["one", "two", "three"] {
        stdin.write_all(format!("{line}\n").as_bytes()).expect("written");
        // A busy machine may take this long to load the model.
        let row = printed.recv_timeout(Duration::from_secs(180));
        if row.is_err() {
            child.kill().expect("killed");
        }
        let row = row.expect("a row before the next line is written");
        assert!(row.starts_with(&format!("{{\"text\":\"{line}\",\"embedding\":[")), "{row}");
    }
    drop(stdin);
    assert!(child.wait().expect("ended").success());
    reader.join().expect("read").expect("sent");
    assert!(printed.recv().is_err());
}
