//! Reads one line of a batch's output or error file: [`read`].
//!
//! Nearly all lines hold sound rows, and nearly all bytes of a line are vectors. So a line is first read in one walk,
//! which hands the reply inside to the reader of replies: vectors in base64 are taken out before, and the others are
//! read once. The walk needs to know how many rows to expect, so the `custom_id` is looked for before, and what was
//! found is checked afterwards. A line that is odd in any way is taken apart in steps, which judge it by themselves.

mod fields;
mod walk;

use std::borrow::Cow;

use serde::de::DeserializeSeed;
use serde_json::value::RawValue;

use self::{
    fields::{Fields, Picked},
    walk::{Around, LineSeed},
};
use crate::{
    Embeddings, Error, ErrorKind, Result, Usage,
    provider::openai::{endpoint::Endpoint, failure, reply},
};

/// A line that answers for some texts.
#[derive(Debug)]
pub(super) struct ResultLine {
    pub(super) custom_id: String,
    pub(super) outcome: Outcome,
}

/// The fate of a line's texts.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all lines have rows, and a line is not held for long")]
pub(super) enum Outcome {
    /// The rows of the line's texts, in the order of the texts, with the tokens that the reply states.
    Rows(Embeddings),
    /// No rows, or not all: an error with the status, the provider's code, and the indices within the line of texts
    /// whose vector is unusable beside the sound rows of the others. Its usage has 0 tokens if surely nothing was billed.
    Failed(Error),
}

/// Reads one line, without its line break. `texts_of` returns how many texts the line with this `custom_id` had;
/// `None` for an id that is not known.
///
/// Returns `None` for a blank line, for a line with an unknown id, and for an error without an id. Unknown fields do not matter, and neither does
/// the order of the fields.
///
/// # Errors
/// `Protocol` if the line is not JSON or has no `custom_id`, so that nobody can say which texts it answers for. The
/// error names the place and the line's bytes, and quotes nothing. Its usage is one answer of unknown tokens.
pub(super) fn read(
    line: &[u8],
    texts_of: impl Fn(&str) -> Option<usize>,
    endpoint: &Endpoint,
) -> Result<Option<ResultLine>> {
    // Some editors begin a file with a mark of its encoding.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    match read_sound(line, &texts_of, endpoint) {
        Some(sound) => Ok(Some(sound)),
        None => read_in_steps(line, texts_of, endpoint),
    }
}

/// The fields of a line that matter.
const NAMES: [&str; 3] = ["custom_id", "response", "error"];

/// The fields of a response that matter.
const RESPONSE_NAMES: [&str; 3] = ["status_code", "request_id", "body"];

fn unreadable(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("a line of the batch's results {what}")).with_usage(Usage::of_request(None))
}

/// Reads a line in one walk; `None` if it has no sound rows, or if anything about it is odd.
fn read_sound(line: &[u8], texts_of: impl Fn(&str) -> Option<usize>, endpoint: &Endpoint) -> Option<ResultLine> {
    let custom_id = likely_custom_id(line)?;
    let texts = texts_of(custom_id)?;
    let (around, reply) = reply::read_inside(line, texts, &endpoint.space, |json, reply| {
        let mut json = serde_json::Deserializer::from_slice(json);
        let around: Around = LineSeed(reply).deserialize(&mut json)?;
        json.end().map(|()| around)
    })?;
    let is_sound = around.is_success() && around.custom_id.as_deref() == Some(custom_id);
    is_sound.then(|| ResultLine { custom_id: custom_id.to_owned(), outcome: Outcome::Rows(reply.embeddings) })
}

/// Finds what is most likely the line's `custom_id`: the first field of this name at any depth.
fn likely_custom_id(line: &[u8]) -> Option<&str> {
    const NAME: &[u8] = b"\"custom_id\"";
    let after = line[memchr::memmem::find(line, NAME)? + NAME.len()..].trim_ascii_start();
    let id = after.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let id = &id[..memchr::memchr2(b'"', b'\\', id)?];
    str::from_utf8(id).ok()
}

/// Reads any line in steps: its fields, those of its response, and the reply.
fn read_in_steps(
    line: &[u8],
    texts_of: impl Fn(&str) -> Option<usize>,
    endpoint: &Endpoint,
) -> Result<Option<ResultLine>> {
    let error = match Fields::of_object(line, NAMES) {
        Ok(fields) => return judge(&fields, line.len(), texts_of, endpoint),
        Err(error) => error,
    };
    // Bytes that are no characters spoil a server's words, and not the line.
    if let Cow::Owned(lossy) = String::from_utf8_lossy(line)
        && let Ok(fields) = Fields::of_object(lossy.as_bytes(), NAMES)
    {
        return judge(&fields, line.len(), texts_of, endpoint);
    }
    Err(unreadable(&format!("is not a JSON object, at column {} of {} bytes", error.column(), line.len())))
}

/// Judges a line by its fields.
fn judge(
    line: &Fields<'_, 3>,
    bytes: usize,
    texts_of: impl Fn(&str) -> Option<usize>,
    endpoint: &Endpoint,
) -> Result<Option<ResultLine>> {
    let [custom_id, response, error] = &line.0;
    let custom_id = match custom_id {
        Picked::Value(id) => fields::string(id),
        Picked::Nothing | Picked::Several => None,
    };
    if custom_id.is_none() && matches!((response, error), (Picked::Nothing, Picked::Value(_))) {
        // A line of the input that the server could not read: it answers for nobody and cost nothing.
        return Ok(None);
    }
    let Some(custom_id) = custom_id else {
        return Err(unreadable(&format!("has no `custom_id`, or several, in {bytes} bytes")));
    };
    let Some(texts) = texts_of(&custom_id) else { return Ok(None) };
    let outcome = match (response, error) {
        (Picked::Several, _) | (Picked::Nothing, Picked::Several) => contradictory(),
        (Picked::Nothing, Picked::Nothing) => {
            failed(ErrorKind::Protocol, "the line has neither a response nor an error")
        }
        (Picked::Nothing, Picked::Value(error)) => {
            Outcome::Failed(without_quotes(failure::of_code(error.get().as_bytes(), endpoint, texts)))
        }
        (Picked::Value(response), error) => judge_response(response, error, texts, endpoint),
    };
    Ok(Some(ResultLine { custom_id, outcome }))
}

/// Judges a response by its status. An error beside it counts only if the response has no status.
fn judge_response(response: &RawValue, error: &Picked<'_>, texts: usize, endpoint: &Endpoint) -> Outcome {
    let fields = Fields::of_object(response.get().as_bytes(), RESPONSE_NAMES);
    let [status, request_id, body] = fields.map(|fields| fields.0).unwrap_or_default();
    let status = match status {
        Picked::Value(status) => fields::whole_number(status).unwrap_or_default(),
        Picked::Nothing => 0,
        Picked::Several => return contradictory(),
    };
    let body = match body {
        Picked::Value(body) => body.get(),
        Picked::Nothing => "null",
        Picked::Several => return contradictory(),
    };
    // Some servers write the body as a string of JSON, or as plain text.
    let body = fields::string_of(body).map_or(Cow::Borrowed(body), Cow::Owned);
    let failed = match (status, error) {
        (200..=299, _) => match reply::read(body.as_bytes(), texts, &endpoint.space, true) {
            Ok(reply) => return Outcome::Rows(reply.embeddings),
            Err(error) => failure::explain_in_file(error, body.as_bytes(), endpoint),
        },
        (400..=599, _) => failure::of_status(status, body.as_bytes(), endpoint, texts),
        (_, Picked::Value(error)) => failure::of_code(error.get().as_bytes(), endpoint, texts),
        (_, Picked::Nothing | Picked::Several) => {
            let message = format!("the line's status is {status}, which is neither of success nor of an error");
            Error::new(ErrorKind::Unavailable, message).with_usage(Usage::of_unanswered())
        }
    };
    let id = match request_id {
        Picked::Value(id) => fields::string(id).filter(|id| is_request_id(id)),
        Picked::Nothing | Picked::Several => None,
    };
    Outcome::Failed(id.into_iter().fold(without_quotes(failed), Error::with_request_id))
}

/// Makes the outcome of a line that says two things: which of them is true, nobody knows.
fn contradictory() -> Outcome {
    failed(ErrorKind::Protocol, "the line has a field twice, with different values")
}

/// Makes the outcome of a line that does not say what became of its texts. They may have been billed.
fn failed(kind: ErrorKind, message: &str) -> Outcome {
    Outcome::Failed(Error::new(kind, message).with_usage(Usage::of_request(None)))
}

/// Removes what may quote a text. The texts are not at hand here, so a code must be known or look like one, and the
/// provider's words stay only beside a code that is known.
fn without_quotes(error: Error) -> Error {
    let error = error.without_words(|code| !failure::is_known_code(code) && !is_code(code));
    if error.provider_code().is_some_and(failure::is_known_code) { error } else { error.without_provider_message() }
}

/// Whether a word looks like a code and not like a word of a text: `like_this`.
fn is_code(word: &str) -> bool {
    let mut parts = word.split('_');
    let is_long = word.len() > 40 || !word.contains('_');
    !is_long && parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// Whether a word looks like the id of a request: `req_` and letters and digits, or hexadecimal digits.
fn is_request_id(id: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    match id.strip_prefix("req_") {
        Some(rest) => (8..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        None => (16..=64).contains(&id.len()) && id.bytes().all(is_hex),
    }
}

#[cfg(test)]
mod tests;
