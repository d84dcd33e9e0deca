//! Writes the input file of a batch, and reads its texts back, line by line: [`ShardWriter`], [`read_lines`].
//!
//! A line is a request as the Batch API takes it. Its body is the one that a synchronous request would have.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{job_file, line_id::LineId};
use crate::{Result, provider::openai::request::RequestForm};

/// The endpoint of each line, and of the batch.
pub(super) const ENDPOINT: &str = "/v1/embeddings";

/// The end of a line, after its body.
const LINE_END: &[u8] = b"}\n";

/// The bytes that are read and written at once.
const BUFFER: usize = 256 << 10;

/// An input file that is being written. After an error, it is of no more use: create it again.
pub(super) struct ShardWriter {
    path: PathBuf,
    file: BufWriter<File>,
    form: RequestForm,
    /// The bytes of a body without texts.
    empty_body: u64,
    /// The body of the last line. Its room is used again.
    body: Vec<u8>,
    bytes: u64,
    lines: u32,
    texts: u64,
    tokens: u64,
}

impl ShardWriter {
    /// Creates the file, in place of one that an earlier run left unfinished.
    pub(super) fn create(path: &Path, form: RequestForm) -> Result<Self> {
        let mut body = Vec::new();
        form.write_body(&[""; 0], &mut body)?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(BUFFER, job_file::create(path)?),
            form,
            empty_body: body.len() as u64,
            body,
            bytes: 0,
            lines: 0,
            texts: 0,
            tokens: 0,
        })
    }

    /// Returns the exact number of bytes that the next line has if it holds these texts.
    pub(super) fn bytes_of(&self, inputs: &[impl AsRef<str>]) -> u64 {
        let around = line_begin(LineId { number: self.lines, hash: 0 }).len() + LINE_END.len();
        let inputs = inputs.iter().map(|input| json_bytes(input.as_ref()) + 1).sum::<u64>();
        // There is no comma after the last one.
        around as u64 + self.empty_body + inputs.saturating_sub(1)
    }

    /// Writes a line that holds these texts, of which there is at least one. Returns its `custom_id`.
    pub(super) fn push(&mut self, inputs: &[impl AsRef<str>]) -> Result<LineId> {
        self.body.clear();
        self.form.write_body(inputs, &mut self.body)?;
        escape_line_ends(&mut self.body);
        let id = LineId::of(self.lines, &self.body);
        for part in [line_begin(id).as_bytes(), &self.body, LINE_END] {
            self.file.write_all(part).map_err(|error| job_file::unwritten(&self.path, error))?;
            self.bytes += part.len() as u64;
        }
        self.lines += 1;
        self.texts += inputs.len() as u64;
        self.tokens += inputs.iter().map(|input| input.as_ref().len() as u64).sum::<u64>().div_ceil(4);
        Ok(id)
    }

    /// Returns the bytes of all lines so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the number of lines so far.
    pub(super) const fn lines(&self) -> u32 {
        self.lines
    }

    /// Returns the number of texts so far.
    pub(super) const fn texts(&self) -> u64 {
        self.texts
    }

    /// Returns the tokens of all lines so far as OpenAI's limits estimate them: a quarter of the bytes of the texts of
    /// each line.
    pub(super) const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Writes what is left and syncs the file.
    pub(super) fn finish(self) -> Result<()> {
        let Self { path, file, .. } = self;
        let file = file.into_inner().map_err(|error| job_file::unwritten(&path, error.into_error()))?;
        file.sync_all().map_err(|error| job_file::unwritten(&path, error))
    }
}

/// Characters at which some readers end a line, Python's `splitlines` among them, though JSON lets them stand in a string.
const LINE_ENDS: [(&str, &str); 3] = [("\u{85}", "\\u0085"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")];

/// Writes the line ends in JSON as escapes, which mean the same.
fn escape_line_ends(json: &mut Vec<u8>) {
    for (end, escape) in LINE_ENDS {
        if memchr::memmem::find(json, end.as_bytes()).is_some()
            && let Ok(text) = str::from_utf8(json)
        {
            *json = text.replace(end, escape).into_bytes();
        }
    }
}

/// Returns the beginning of a line, before its body.
fn line_begin(id: LineId) -> String {
    format!(r#"{{"custom_id":"{id}","method":"POST","url":"{ENDPOINT}","body":"#)
}

/// Returns the bytes of a text as a JSON string. JSON escapes only quotes, backslashes and control characters, and the
/// line ends are escaped beside them.
fn json_bytes(text: &str) -> u64 {
    let bytes = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        0..32 => 6,
        _ => 1,
    };
    let added = |(end, escape): (&str, &str)| {
        let times = memchr::memmem::find_iter(text.as_bytes(), end).count();
        (times * (escape.len() - end.len())) as u64
    };
    2 + text.bytes().map(bytes).sum::<u64>() + LINE_ENDS.into_iter().map(added).sum::<u64>()
}

/// Reads the texts of some lines back, in the order of the file. `wanted` are the numbers of the lines, ascending. Holds
/// one line in memory.
///
/// # Errors
/// Those of reading; [`Config`](crate::ErrorKind::Config) if a line is missing or is not the one that was written; the
/// first that `each` returns.
pub(super) fn read_lines(
    path: &Path,
    wanted: impl Iterator<Item = u32>,
    mut each: impl FnMut(u32, Vec<String>) -> Result<()>,
) -> Result<()> {
    let mut reader =
        ShardReader { path, file: BufReader::with_capacity(BUFFER, job_file::open(path)?), next: 0, line: Vec::new() };
    for number in wanted {
        each(number, reader.texts_of(number)?)?;
    }
    Ok(())
}

struct ShardReader<'p> {
    path: &'p Path,
    file: BufReader<File>,
    /// The number of the next line.
    next: u32,
    /// The last line. Its room is used again.
    line: Vec<u8>,
}

impl ShardReader<'_> {
    fn texts_of(&mut self, number: u32) -> Result<Vec<String>> {
        let unread = |error| job_file::unread(self.path, error);
        while self.next < number && self.file.skip_until(b'\n').map_err(unread)? > 0 {
            self.next += 1;
        }
        self.line.clear();
        if self.next == number && self.file.read_until(b'\n', &mut self.line).map_err(unread)? > 0 {
            self.next = self.next.saturating_add(1);
        }
        texts_of(&self.line, number).ok_or_else(|| {
            job_file::damaged(
                self.path,
                format_args!("line {number}, from 0, is missing or not the one that was written"),
            )
        })
    }
}

/// The part of a line that is read back.
#[derive(Deserialize)]
struct Line<'a> {
    custom_id: &'a str,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The part of a body that is read back.
#[derive(Deserialize)]
struct Body {
    input: Vec<String>,
}

/// Returns the texts of a line, or `None` if it is not the one that its `custom_id` was made of.
fn texts_of(line: &[u8], number: u32) -> Option<Vec<String>> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let body = line.body.get();
    if LineId::parse(line.custom_id) != Some(LineId::of(number, body.as_bytes())) {
        return None;
    }
    serde_json::from_str::<Body>(body).ok().map(|body| body.input)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        Batch, ErrorKind, InputKind,
        provider::{OpenAi, openai::request::body_of, service_headers::ServedBy},
    };

    /// Texts of any characters, those that JSON escapes in particular.
    fn text() -> impl Strategy<Value = String> {
        let odd = prop::sample::select(vec![
            '"', '\\', '/', '\n', '\r', '\t', '\0', '\u{8}', '\u{c}', '\u{1f}', '\u{7f}', '\u{2028}', '😀',
        ]);
        let text = prop::collection::vec(prop_oneof![3 => any::<char>(), 1 => odd], 1..20);
        text.prop_map(|characters| characters.into_iter().collect())
    }

    fn lines() -> impl Strategy<Value = Vec<Vec<String>>> {
        prop::collection::vec(prop::collection::vec(text(), 1..5), 1..14)
    }

    fn openai() -> OpenAi {
        let builder = OpenAi::builder("text-embedding-3-small").with_api_key("sk-not-a-key").with_dimensions(8);
        builder.with_body_field("user", "someone \"quoted\"").build().expect("an embedder")
    }

    fn form(openai: &OpenAi) -> RequestForm {
        RequestForm::of(&openai.0, InputKind::Document)
    }

    /// Writes the lines, and returns their names.
    fn write(path: &Path, lines: &[Vec<String>]) -> Vec<LineId> {
        let mut writer = ShardWriter::create(path, form(&openai())).expect("created");
        let ids = lines.iter().map(|line| writer.push(line).expect("written")).collect();
        writer.finish().expect("synced");
        ids
    }

    fn read(path: &Path, wanted: &[u32]) -> Result<Vec<(u32, Vec<String>)>> {
        let mut lines = Vec::new();
        read_lines(path, wanted.iter().copied(), |number, texts| {
            lines.push((number, texts));
            Ok(())
        })?;
        Ok(lines)
    }

    proptest! {
        #[test]
        fn sizes_are_known_before_a_line_is_written(lines in lines()) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("shard");
            let mut writer = ShardWriter::create(&path, form(&openai())).expect("created");
            let mut tokens = 0;
            for line in &lines {
                let expected = writer.bytes() + writer.bytes_of(line);
                writer.push(line).expect("written");
                prop_assert_eq!(writer.bytes(), expected);
                tokens += (line.iter().map(String::len).sum::<usize>() as u64).div_ceil(4);
            }
            let texts = lines.iter().map(Vec::len).sum::<usize>() as u64;
            prop_assert_eq!((writer.lines() as usize, writer.texts(), writer.tokens()), (lines.len(), texts, tokens));
            let said = writer.bytes();
            writer.finish().expect("synced");
            prop_assert_eq!(fs::read(&path).expect("there").len() as u64, said);
        }

        #[test]
        fn lines_are_read_back_as_they_were_written(lines in lines(), wanted: u16) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("shard");
            write(&path, &lines);
            let wanted: Vec<u32> = (0..lines.len() as u32).filter(|number| wanted >> number & 1 == 1).collect();
            let expected: Vec<_> = wanted.iter().map(|&number| (number, lines[number as usize].clone())).collect();
            prop_assert_eq!(read(&path, &wanted).expect("read"), expected);
        }

        #[test]
        fn a_damaged_file_gives_the_right_texts_or_an_error(
            lines in lines(), at: prop::sample::Index, by in 1_u8.., cut: bool,
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("shard");
            write(&path, &lines);
            let mut content = fs::read(&path).expect("there");
            let at = at.index(content.len());
            if cut { content.truncate(at) } else { content[at] ^= by }
            fs::write(&path, content).expect("written");
            let mut given = Vec::new();
            let read = read_lines(&path, 0..lines.len() as u32, |_, texts| {
                given.push(texts);
                Ok(())
            });
            prop_assert!(given.iter().zip(&lines).all(|(given, line)| given == line));
            prop_assert!(read.is_ok() == (given.len() == lines.len()));
        }
    }

    #[tokio::test]
    async fn a_body_is_the_one_of_a_synchronous_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shard");
        let (openai, texts) = (openai(), ["one", "two\n"]);
        let (body, _) = body_of(&openai.0, &Batch::documents(&texts), ServedBy::Other).await.expect("a body");
        let mut writer = ShardWriter::create(&path, form(&openai)).expect("created");
        let id = writer.push(&texts).expect("written");
        writer.finish().expect("synced");
        let body = String::from_utf8(body).expect("text");
        let line = format!(r#"{{"custom_id":"{id}","method":"POST","url":"/v1/embeddings","body":{body}}}"#);
        assert_eq!(fs::read_to_string(&path).expect("there"), format!("{line}\n"));
        let start =
            r#"{"model":"text-embedding-3-small","input":["one","two\n"],"encoding_format":"base64","dimensions":8,"#;
        assert!(body.starts_with(start), "{body}");
        assert_eq!(id, LineId::of(0, body.as_bytes()));
    }

    #[test]
    fn equal_lines_have_different_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = vec![vec!["same".to_owned()]; 3];
        let ids = write(&folder.path().join("shard"), &lines);
        assert_eq!(ids.iter().map(|id| id.number).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(ids.iter().all(|id| id.hash == ids[0].hash));
    }

    /// Other readers of the file may end a line there.
    #[test]
    fn line_ends_in_texts_are_escaped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shard");
        let texts = vec!["one\u{85}two\u{2028}three\u{2029}\u{2029}four\u{b}five".to_owned(), "six".to_owned()];
        write(&path, std::slice::from_ref(&texts));
        let file = std::fs::read_to_string(&path).expect("text");
        assert!(file.is_ascii() && file.lines().count() == 1, "{file}");
        assert_eq!(read(&path, &[0]).expect("read"), [(0, texts)]);
    }

    #[test]
    fn a_file_that_was_left_is_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shard");
        write(&path, &vec![vec!["long ago".to_owned()]; 9]);
        write(&path, &[vec!["now".to_owned()]]);
        assert_eq!(read(&path, &[0]).expect("read"), [(0, vec!["now".to_owned()])]);
        assert!(read(&path, &[1]).is_err());
    }

    #[test]
    fn errors_say_which_line_of_which_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shard-00001.jsonl");
        write(&path, &[vec!["one".to_owned()], vec!["two".to_owned()]]);
        for wanted in [&[2][..], &[1, 0], &[0, 0]] {
            let error = read(&path, wanted).expect_err("no such line");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("shard-00001.jsonl is damaged: line "), "{error}");
        }
        let error = read(&folder.path().join("missing"), &[0]).expect_err("no such file");
        assert!(error.to_string().contains("is missing"), "{error}");
        let stop = || crate::Error::new(ErrorKind::Config, "stop");
        assert_eq!(read_lines(&path, 0..2, |_, _| Err(stop())).expect_err("told").message(), "stop");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_that_names_it() {
        let mut writer = ShardWriter::create(Path::new("/dev/full"), form(&openai())).expect("opened");
        let text = "x".repeat(BUFFER);
        let error = writer.push(&[&text]).expect_err("full");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("/dev/full cannot be written: its disk is full"), "{error}");
        let mut writer = ShardWriter::create(Path::new("/dev/full"), form(&openai())).expect("opened");
        writer.push(&["short"]).expect("held");
        assert!(writer.finish().is_err());
    }
}
