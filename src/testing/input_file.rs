//! Reads and judges an input file as it is uploaded, and keeps what the answers need of it: [`InputFile`].

use std::{collections::HashSet, ops::Range, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    api_error::ApiError,
    body_check::{check, estimated_tokens, parse},
    settings::Settings,
    vectors::{Encoding, TextHash, hash_text},
};

/// The endpoint of each line, and of the batch.
pub(super) const ENDPOINT: &str = "/v1/embeddings";

/// The longest line in bytes. No line within the limits of a request comes near.
const LONGEST_LINE: usize = 16 << 20;
/// The longest `custom_id` in characters.
const LONGEST_ID: usize = 64;
/// The most faults that are kept of a file.
const MOST_FAULTS: usize = 100;

/// An entry of a failed batch's `errors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileFault {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) param: Option<&'static str>,
    /// The number of the line, from 1.
    pub(super) line: Option<usize>,
}

/// A line that has its form. Its body may be one that the endpoint refuses.
#[derive(Debug)]
pub(super) struct InputLine {
    pub(super) custom_id: Box<str>,
    pub(super) place: Range<u64>,
    pub(super) texts: Range<usize>,
    pub(super) tokens: u64,
    pub(super) dimensions: usize,
    pub(super) encoding: Encoding,
    pub(super) refusal: Option<Box<ApiError>>,
}

/// An input file without its texts: their hashes are enough to answer it.
#[derive(Debug)]
pub(super) struct InputFile {
    /// The blake3 hash of the bytes, in hexadecimal.
    pub(super) digest: String,
    pub(super) bytes: u64,
    pub(super) model: Option<Arc<str>>,
    pub(super) lines: Vec<InputLine>,
    pub(super) texts: Vec<TextHash>,
    /// The tokens that count against the limit of enqueued tokens.
    pub(super) enqueued_tokens: u64,
    /// If there are any, a batch of this file fails.
    pub(super) faults: Vec<FileFault>,
}

impl InputFile {
    pub(super) fn texts_of(&self, line: &InputLine) -> &[TextHash] {
        &self.texts[line.texts.clone()]
    }

    /// Returns what describes the file as a whole.
    pub(super) fn without_lines(&self) -> Self {
        Self {
            digest: self.digest.clone(),
            model: self.model.clone(),
            lines: Vec::new(),
            texts: Vec::new(),
            faults: Vec::new(),
            ..*self
        }
    }
}

/// The envelope of a line.
#[derive(Deserialize)]
struct Envelope<'a> {
    custom_id: Option<String>,
    method: Option<String>,
    url: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// Reads a file in pieces of any size.
pub(super) struct InputReader {
    settings: Arc<Settings>,
    file: InputFile,
    hasher: blake3::Hasher,
    /// The beginning of a line whose end has not come.
    pending: Vec<u8>,
    /// The number of the next line, from 1, blank ones included.
    number: usize,
    /// Requests and texts so far, also those beyond the limits.
    requests: usize,
    inputs: usize,
    ids: HashSet<TextHash>,
}

impl InputReader {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        let file = InputFile {
            digest: String::new(),
            bytes: 0,
            model: None,
            lines: Vec::new(),
            texts: Vec::new(),
            enqueued_tokens: 0,
            faults: Vec::new(),
        };
        let (pending, ids) = (Vec::new(), HashSet::new());
        Self { settings, file, hasher: blake3::Hasher::new(), pending, number: 1, requests: 0, inputs: 0, ids }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.hasher.update(bytes);
        while let Some(end) = memchr_newline(bytes) {
            self.hold(&bytes[..end]);
            self.end_line(1);
            bytes = &bytes[end + 1..];
        }
        self.hold(bytes);
    }

    pub(super) fn finish(mut self) -> InputFile {
        self.end_line(0);
        let (requests, inputs) = (self.settings.requests, self.settings.inputs);
        if self.requests == 0 {
            self.fault("empty_file", "The input file has no requests.", None, None);
        }
        if self.requests > requests {
            let message = format!("The input file has {} requests; at most {requests} are permitted.", self.requests);
            self.fault("too_many_tasks", &message, None, None);
        }
        if self.inputs > inputs {
            let message =
                format!("The input file has {} embedding inputs; at most {inputs} are permitted.", self.inputs);
            self.fault("too_many_tasks", &message, None, None);
        }
        self.file.digest = self.hasher.finalize().to_hex().to_string();
        self.file
    }

    /// Keeps a part of a line, up to one byte more than a line may have.
    fn hold(&mut self, part: &[u8]) {
        self.file.bytes += part.len() as u64;
        let room = (LONGEST_LINE + 1).saturating_sub(self.pending.len());
        self.pending.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// Judges the line that `pending` holds. It ends with so many bytes of its own.
    fn end_line(&mut self, ending: u64) {
        let line = std::mem::take(&mut self.pending);
        let end = self.file.bytes;
        self.file.bytes += ending;
        if line.len() > LONGEST_LINE {
            self.requests += 1;
            self.fault("invalid_json_line", "This line is too long.", None, Some(self.number));
        } else if !line.trim_ascii().is_empty() {
            self.requests += 1;
            self.read_line(&line, end);
        }
        self.number += 1;
        // The room is used again.
        self.pending = line;
        self.pending.clear();
    }

    fn read_line(&mut self, line: &[u8], end: u64) {
        let number = Some(self.number);
        let envelope: Envelope<'_> = match serde_json::from_slice(line) {
            Ok(envelope) => envelope,
            Err(error) if error.is_data() => {
                return self.fault("invalid_request", "A field of this line has a wrong type.", None, number);
            }
            Err(_) => {
                return self.fault("invalid_json_line", "This line is not parseable as valid JSON.", None, number);
            }
        };
        let (Some(id), Some(method), Some(url), Some(body)) =
            (envelope.custom_id, envelope.method, envelope.url, envelope.body)
        else {
            let message = "This line lacks one of custom_id, method, url and body.";
            return self.fault("missing_required_parameter", message, None, number);
        };
        if id.is_empty() || id.chars().count() > LONGEST_ID {
            let message = format!("The custom_id must have from 1 to {LONGEST_ID} characters.");
            return self.fault("invalid_custom_id", &message, Some("custom_id"), number);
        }
        if !self.ids.insert(hash_text(&id)) {
            let message = "The custom_id for this request is a duplicate of another request.";
            return self.fault("duplicate_custom_id", message, Some("custom_id"), number);
        }
        if method != "POST" {
            return self.fault("invalid_method", "The method of each request must be POST.", Some("method"), number);
        }
        if url != ENDPOINT {
            let message = "The URL provided for this request does not match the batch endpoint.";
            return self.fault("url_mismatch", message, Some("url"), number);
        }
        self.read_body(id, body.get().as_bytes(), end - line.len() as u64..end);
    }

    fn read_body(&mut self, id: String, body: &[u8], place: Range<u64>) {
        let body = parse(body);
        if let Ok(body) = &body {
            self.inputs += body.input.as_ref().map_or(0, |input| input.0.len());
            self.file.enqueued_tokens += body.input.as_ref().map_or(0, estimated_tokens);
            if !self.is_of_the_model(body.model.as_deref()) {
                return;
            }
        }
        // Beyond the limits nothing is kept: the file fails.
        if self.file.lines.len() >= self.settings.requests || self.inputs > self.settings.inputs {
            return;
        }
        let start = self.file.texts.len();
        let mut line = InputLine {
            custom_id: id.into_boxed_str(),
            place,
            texts: start..start,
            tokens: 0,
            dimensions: 0,
            encoding: Encoding::Float,
            refusal: None,
        };
        match body.and_then(|body| check(&body, &self.settings)) {
            Ok(accepted) => {
                self.file.texts.extend(accepted.texts);
                line.texts.end = self.file.texts.len();
                line.tokens = accepted.tokens;
                line.dimensions = accepted.dimensions;
                line.encoding = accepted.encoding;
            }
            Err(refusal) => line.refusal = Some(Box::new(refusal)),
        }
        self.file.lines.push(line);
    }

    /// Returns whether a line's model is that of the lines before, and records the fault if not.
    fn is_of_the_model(&mut self, name: Option<&str>) -> bool {
        let number = Some(self.number);
        let Some(name) = name else {
            self.fault("missing_required_parameter", "This line's body lacks a model.", Some("body.model"), number);
            return false;
        };
        if self.settings.model(name).is_none() {
            let message = format!("The provided model '{name}' is not supported by the Batch API.");
            self.fault("model_not_found", &message, Some("body.model"), number);
            return false;
        }
        let is_same = self.file.model.as_deref().is_none_or(|model| model == name);
        if is_same {
            self.file.model.get_or_insert_with(|| name.into());
        } else {
            let message = "The model for this request does not match the rest of the batch. Each batch must contain \
                           requests for a single model.";
            self.fault("model_mismatch", message, Some("body.model"), number);
        }
        is_same
    }

    fn fault(&mut self, code: &str, message: &str, param: Option<&'static str>, line: Option<usize>) {
        if self.file.faults.len() < MOST_FAULTS {
            self.file.faults.push(FileFault { code: code.to_owned(), message: message.to_owned(), param, line });
        }
    }
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n')
}

/// Returns the texts of a line, for the functions that choose lines. Texts that came as tokens are empty.
pub(super) fn texts_of(line: &[u8]) -> Vec<String> {
    use super::request_body::InputText;
    let body = serde_json::from_slice::<Envelope<'_>>(line).ok().and_then(|envelope| envelope.body);
    let input = body.and_then(|body| parse(body.get().as_bytes()).ok()).and_then(|body| body.input);
    let texts = input.into_iter().flat_map(|input| input.0);
    let text = |text| match text {
        InputText::Text(text) => text,
        InputText::Tokens(_) => String::new(),
    };
    texts.map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, model: &str, input: &str) -> String {
        format!(
            r#"{{"custom_id":"{id}","method":"POST","url":"/v1/embeddings","body":{{"model":"{model}","input":{input}}}}}"#
        )
    }

    fn read(bytes: &[u8], piece: usize) -> InputFile {
        let settings = Settings { requests: 5, inputs: 8, ..Settings::default() };
        let mut reader = InputReader::new(Arc::new(settings));
        bytes.chunks(piece).for_each(|piece| reader.push(piece));
        reader.finish()
    }

    const MODEL: &str = "text-embedding-3-small";

    #[test]
    fn pieces_of_any_size_give_the_same_file() {
        let text = [line("a", MODEL, r#"["one","two"]"#), String::new(), line("é", MODEL, r#""three""#)].join("\n");
        let whole = format!("{:?}", read(text.as_bytes(), text.len()));
        for piece in 1..20 {
            assert_eq!(format!("{:?}", read(text.as_bytes(), piece)), whole);
        }
        let file = read(text.as_bytes(), 7);
        assert_eq!((file.bytes, file.texts.len(), file.lines.len()), (text.len() as u64, 3, 2));
        let place = &file.lines[1].place;
        assert_eq!(texts_of(&text.as_bytes()[place.start as usize..place.end as usize]), ["three"]);
        assert_eq!(file.digest, blake3::hash(text.as_bytes()).to_hex().as_str());
    }

    #[test]
    fn faults_of_the_form_name_their_line() {
        let other = line("b", "text-embedding-3-large", r#""x""#);
        let cases = [
            (String::new(), "empty_file", None),
            ("{".to_owned(), "invalid_json_line", Some(2)),
            (line("a", MODEL, r#""x""#), "duplicate_custom_id", Some(2)),
            (line(&"i".repeat(65), MODEL, r#""x""#), "invalid_custom_id", Some(2)),
            (line("b", MODEL, r#""x""#).replace("/v1/embeddings", "/v1/other"), "url_mismatch", Some(2)),
            (line("b", MODEL, r#""x""#).replace("POST", "GET"), "invalid_method", Some(2)),
            (line("b", MODEL, r#""x""#).replace("custom_id", "customid"), "missing_required_parameter", Some(2)),
            (line("b", MODEL, r#""x""#).replace("\"POST\"", "1"), "invalid_request", Some(2)),
            (other, "model_mismatch", Some(2)),
            (line("b", "unknown", r#""x""#), "model_not_found", Some(2)),
            (line("b", MODEL, r#"["1","2","3","4","5","6","7","8"]"#), "too_many_tasks", None),
        ];
        for (second, code, number) in cases {
            let first = if second.is_empty() { String::new() } else { line("a", MODEL, r#""x""#) };
            let file = read(format!("{first}\n{second}\n").as_bytes(), 9);
            let found: Vec<_> = file.faults.iter().map(|fault| (fault.code.as_str(), fault.line)).collect();
            assert_eq!(found, [(code, number)], "{second}");
        }
        let six: Vec<String> = (0..6).map(|id| line(&id.to_string(), MODEL, r#""x""#)).collect();
        let file = read(six.join("\n").as_bytes(), 9);
        assert_eq!((file.faults[0].code.as_str(), file.lines.len()), ("too_many_tasks", 5));
    }

    #[test]
    fn a_bad_body_is_the_fault_of_its_line_alone() {
        let long = format!("\"{}\"", "x".repeat(4 * 8191 + 1));
        let fat = format!("[{}]", vec![long.clone(); 37].join(","));
        let bodies = ["\"\"", "[]", "[\"a\",\"\"]", "null", "{}", &long, &fat];
        for body in bodies {
            let mut reader = InputReader::new(Arc::new(Settings::default()));
            reader.push(line("a", MODEL, body).as_bytes());
            let file = reader.finish();
            assert_eq!(file.faults, [], "{body:.9}");
            let refusal = file.lines[0].refusal.as_ref().expect("refused");
            assert_eq!(refusal.status, 400);
            assert_eq!(refusal.code.as_deref() == Some("max_tokens_per_request"), body.len() == fat.len());
        }
    }
}
