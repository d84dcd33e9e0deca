//! Reads the body of an error, in every shape that servers of OpenAI's API send: [`ErrorBody`].

use std::time::Duration;

use serde_json::Value;

use crate::http::headers;

/// Maximum characters of the provider's message that an error keeps.
const MAX_MESSAGE_CHARS: usize = 1000;

/// Names under which servers have their words, the most telling one first.
const WORDS: [&str; 8] = ["message", "msg", "Message", "error", "detail", "errors", "title", "description"];

/// Names of the field of a request that holds the texts.
const INPUT: [&str; 8] = ["text", "texts", "content", "contents", "documents", "passages", "queries", "sentences"];

/// Beginnings of other names of the texts, and of what a server counts in them: `inputs`, `input_tokens`, `prompt`.
const INPUT_BEGINNINGS: [&str; 2] = ["input", "prompt"];

/// The other fields that servers know. An error may show these names: none of them is a piece of a text.
const PARAMETERS: [&str; 17] = [
    "model",
    "dimensions",
    "encoding_format",
    "input_type",
    "output_dimension",
    "output_dtype",
    "prompt_name",
    "embedding_type",
    "embedding_types",
    "task",
    "task_type",
    "truncate",
    "truncation",
    "truncate_prompt_tokens",
    "normalize",
    "normalized",
    "user",
];

/// Words about a field that the request does not have.
const LACK_WORDS: [&str; 4] = ["required", "missing", "must be provided", "must be specified"];

/// The subject of a refusal, as its body says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Subject {
    /// The body does not say.
    #[default]
    Unknown,
    /// The texts.
    Input,
    /// A known field of the request that is not the texts.
    Parameter(&'static str),
    /// Another field.
    Other,
}

/// The content of an error's body.
#[derive(Default)]
pub(super) struct ErrorBody {
    /// The server's own words.
    pub(super) message: String,
    /// `code`, if it is a string, or the reason in Google's details.
    pub(super) code: String,
    /// `code`, if it is an HTTP status.
    pub(super) status: Option<u16>,
    /// `type`, `error_type` or Google's `status`.
    pub(super) kind: String,
    pub(super) subject: Subject,
    /// The wait in Google's details.
    retry_delay: Option<Duration>,
}

impl ErrorBody {
    /// Reads a body: JSON of any shape, or plain text.
    pub(super) fn read(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(body) => Self::of_json(&body),
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                // A web page says nothing that a program can use.
                let message = if text.trim_start().starts_with('<') { "" } else { text.trim() };
                Self { message: shortened(message), ..Self::default() }
            }
        }
    }

    /// Reads the JSON of OpenAI (`{"error": {..}}`), of Google (the same in an array), of FastAPI (`detail`), of Mistral
    /// (`message` is an object), and flat objects.
    pub(super) fn of_json(body: &Value) -> Self {
        let body = body.get(0).unwrap_or(body);
        let about = body.get("error").filter(|error| error.is_object() || error.is_array()).unwrap_or(body);
        let about = about.get(0).unwrap_or(about);
        let word = |name: &str| about.get(name).and_then(Value::as_str).unwrap_or_default();
        let first = |words: &[&str]| words.iter().find(|word| !word.is_empty()).copied().unwrap_or_default().to_owned();
        let details = || about.get("details").and_then(Value::as_array).into_iter().flatten();
        let in_details = |name: &str| details().find_map(|detail| detail.get(name)?.as_str()).unwrap_or_default();
        let number = about.get("code").and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
        Self {
            message: shortened(&words_of(about)),
            code: first(&[word("code"), in_details("reason")]),
            status: number.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code)),
            kind: first(&[word("type"), word("error_type"), word("status")]),
            subject: subject_of(about),
            retry_delay: headers::go_duration(in_details("retryDelay")),
        }
    }

    pub(super) fn is_one_of(&self, names: &[&str]) -> bool {
        names.contains(&self.code.as_str()) || names.contains(&self.kind.as_str())
    }

    /// Whether the message has one of these words, which are in lower case.
    pub(super) fn says(&self, words: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        words.iter().any(|words| message.contains(words))
    }

    /// Whether the message says that the request lacks something.
    pub(super) fn is_about_a_lack(&self) -> bool {
        self.says(&LACK_WORDS)
    }

    /// Returns the known field that the message alone names as lacking, as in `'input_type' is required`. A name that
    /// is a word of English counts only in quotes.
    pub(super) fn lacking_parameter(&self) -> Option<&'static str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_quote = |c: char| matches!(c, '\'' | '"' | '`');
        let is_named = |name: &str| {
            self.message.match_indices(name).any(|(at, _)| {
                let (before, after) = (&self.message[..at], &self.message[at + name.len()..]);
                let is_quoted = before.ends_with(is_quote) && after.starts_with(is_quote);
                is_quoted || (name.contains('_') && !before.ends_with(is_part) && !after.starts_with(is_part))
            })
        };
        PARAMETERS.into_iter().find(|name| self.is_about_a_lack() && is_named(name))
    }

    /// Returns the number after a word of the message, as in `Limit 1000000, Requested 1200000`.
    pub(super) fn number_after(&self, word: &str) -> Option<u64> {
        let rest = &self.message[self.message.find(word)? + word.len()..];
        let digits: String =
            rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        digits.replace(',', "").parse().ok()
    }

    /// Returns the wait that the body asks for: in Google's details, or in words, as in `try again in 1m2.5s`.
    pub(super) fn wait(&self) -> Option<Duration> {
        let message = self.message.to_ascii_lowercase();
        let in_words = |before: &&str| wait_of(&message[message.find(*before)? + before.len()..]);
        self.retry_delay.or_else(|| ["try again in ", "retry in ", "retry after "].iter().find_map(in_words))
    }
}

/// Reads the duration at the beginning of some words: `20s.`, `1m2.5s`, `850ms`, `7 seconds`.
fn wait_of<'w>(words: &'w str) -> Option<Duration> {
    let until = |words: &'w str, is_out: fn(char) -> bool| words.split_at(words.find(is_out).unwrap_or(words.len()));
    let (whole, _) = until(words, |c| !c.is_ascii_alphanumeric() && c != '.');
    headers::go_duration(whole.trim_end_matches('.')).or_else(|| {
        let (number, rest) = until(words, |c| !c.is_ascii_digit() && c != '.');
        let (unit, _) = until(rest.trim_start(), |c| !c.is_alphanumeric());
        let short = match unit {
            "ms" | "millisecond" | "milliseconds" => "ms",
            "s" | "sec" | "secs" | "second" | "seconds" => "s",
            "m" | "min" | "mins" | "minute" | "minutes" => "m",
            "h" | "hr" | "hrs" | "hour" | "hours" => "h",
            _ => return None,
        };
        headers::go_duration(&format!("{number}{short}"))
    })
}

fn shortened(words: &str) -> String {
    words.chars().take(MAX_MESSAGE_CHARS).collect()
}

/// Returns the words of a value: a string, those under a known name of an object, or those of all items of an array.
fn words_of(value: &Value) -> String {
    match value {
        Value::String(words) => words.clone(),
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(words_of).filter(|words| !words.is_empty()).collect();
            words.join("; ")
        }
        Value::Object(fields) => {
            let mut all = WORDS.iter().filter_map(|name| fields.get(*name)).map(words_of);
            let words = all.find(|words| !words.is_empty()).unwrap_or_default();
            match path_of(value).last() {
                // FastAPI says beside the words where the fault is.
                Some(field) if !words.is_empty() => format!("{field}: {words}"),
                _ => words,
            }
        }
        _ => String::new(),
    }
}

/// Returns the names in FastAPI's `loc`, as in `["body", "input", 0]`, but for the first one.
fn path_of(detail: &Value) -> Vec<&str> {
    let loc = detail.get("loc").and_then(Value::as_array);
    loc.into_iter().flatten().filter_map(Value::as_str).filter(|name| *name != "body").collect()
}

/// Returns what an error is about, by the fields of the request that it names.
///
/// A parameter goes before the texts: a server that takes several forms of a request may complain about the texts of
/// another form, too.
fn subject_of(about: &Value) -> Subject {
    let mut names = Vec::new();
    collect_names(about, &mut names);
    // `input[0]` and `input.0` are the texts.
    let stem = |name: &str| name.split(['[', '.']).next().unwrap_or_default().to_owned();
    let stems: Vec<String> = names.into_iter().map(|name| stem(name.trim_start_matches("$."))).collect();
    let is_input = |name: &String| {
        INPUT.contains(&name.as_str()) || INPUT_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
    };
    // `input_type` and `prompt_name` are parameters, so these go first.
    let parameter = PARAMETERS.iter().find(|parameter| stems.iter().any(|name| name == *parameter));
    let is_name =
        |name: &String| (1..=40).contains(&name.len()) && name.bytes().all(|c| c == b'_' || c.is_ascii_lowercase());
    match parameter {
        Some(parameter) => Subject::Parameter(parameter),
        None if stems.iter().any(is_input) => Subject::Input,
        None if stems.iter().any(is_name) => Subject::Other,
        None => Subject::Unknown,
    }
}

/// Collects the names of fields: OpenAI's `param`, FastAPI's `loc`, Google's `field`, at any depth under the names that
/// hold words or details.
fn collect_names<'v>(value: &'v Value, names: &mut Vec<&'v str>) {
    if let Value::Array(items) = value {
        items.iter().for_each(|item| collect_names(item, names));
    }
    names.extend(["param", "field"].iter().filter_map(|name| value.get(*name)?.as_str()));
    names.extend(path_of(value));
    let inside = WORDS.iter().chain(&["details", "fieldViolations"]).filter_map(|name| value.get(*name));
    inside.for_each(|inside| collect_names(inside, names));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The bodies of refusals as servers send them: the words that are kept, and what they are about.
    #[test]
    fn every_shape_keeps_its_words_and_its_subject() {
        let invalid = "type.googleapis.com/google.rpc.BadRequest";
        let cases = [
            (json!({"error": {"message": "no", "type": "t", "param": null, "code": null}}), "no", Subject::Unknown),
            (json!({"error": {"message": "no", "param": "input[3]"}}), "no", Subject::Input),
            // vLLM, about a text that is too long.
            (
                json!({"error": {
                    "message": "too long (parameter=input_tokens, value=600)", "type": "BadRequestError",
                    "param": "input_tokens", "code": 400
                }}),
                "too long (parameter=input_tokens, value=600)",
                Subject::Input,
            ),
            (json!({"error": {"message": "no", "param": "prompt_token_ids"}}), "no", Subject::Input),
            (json!({"error": {"message": "no", "param": "documents[2]"}}), "no", Subject::Input),
            (json!({"error": {"message": "no", "param": "input_type"}}), "no", Subject::Parameter("input_type")),
            (json!({"error": {"message": "no", "param": "prompt_name"}}), "no", Subject::Parameter("prompt_name")),
            (json!({"error": {"message": "no", "param": "dimensions"}}), "no", Subject::Parameter("dimensions")),
            (json!([{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}]), "no", Subject::Unknown),
            (
                json!([{"error": {"message": "no", "details": [
                    {"@type": invalid, "fieldViolations": [{"field": "encoding_format", "description": "unknown"}]}
                ]}}]),
                "no",
                Subject::Parameter("encoding_format"),
            ),
            (json!({"error": "flat", "error_type": "Validation"}), "flat", Subject::Unknown),
            (
                json!({"object": "error", "message": "flat", "type": "BadRequestError", "param": null, "code": 400}),
                "flat",
                Subject::Unknown,
            ),
            (json!({"detail": "flat"}), "flat", Subject::Unknown),
            (
                json!({"detail": [{"type": "enum", "loc": ["body", "encoding_format"], "msg": "Input should be 'float'"}]}),
                "encoding_format: Input should be 'float'",
                Subject::Parameter("encoding_format"),
            ),
            (
                json!({"detail": [{"loc": ["body", "input", 0], "msg": "too short"}, {"loc": ["body", "input"], "msg": "no list"}]}),
                "input: too short; input: no list",
                Subject::Input,
            ),
            // A server that also takes chats names the fields of both forms.
            (
                json!({"detail": [
                    {"loc": ["body", "EmbeddingCompletionRequest", "dimensions"], "msg": "not an int"},
                    {"loc": ["body", "EmbeddingChatRequest", "input"], "msg": "extra"}
                ]}),
                "dimensions: not an int; input: extra",
                Subject::Parameter("dimensions"),
            ),
            (json!({"detail": [{"loc": ["body", "messages"], "msg": "missing"}]}), "messages: missing", Subject::Other),
            // Mistral.
            (
                json!({"object": "error", "message": {"detail": [
                    {"type": "extra_forbidden", "loc": ["body", "dimensions"], "msg": "Extra inputs are not permitted"}
                ]}, "type": "invalid_request_error", "code": null}),
                "dimensions: Extra inputs are not permitted",
                Subject::Parameter("dimensions"),
            ),
            (
                json!({"object": "error", "message": ["one", {"msg": "two"}], "code": "3210"}),
                "one; two",
                Subject::Unknown,
            ),
            (json!({"id": "7", "message": "Cohere's"}), "Cohere's", Subject::Unknown),
            (
                json!({"success": false, "errors": [{"code": 10000, "message": "Cloudflare's"}]}),
                "Cloudflare's",
                Subject::Unknown,
            ),
            (json!({"error": [{"message": "in an array"}]}), "in an array", Subject::Unknown),
            (json!("a string"), "a string", Subject::Unknown),
            // No piece of a text counts as the name of a field.
            (json!({"error": {"message": "no", "param": "My text, in part"}}), "no", Subject::Unknown),
            (json!({"error": {"message": 7}}), "", Subject::Unknown),
            (json!([]), "", Subject::Unknown),
            (json!(null), "", Subject::Unknown),
        ];
        for (body, message, subject) in cases {
            let read = ErrorBody::read(body.to_string().as_bytes());
            assert_eq!((read.message.as_str(), read.subject), (message, subject), "{body}");
        }
        assert_eq!(ErrorBody::read(b" 404 page not found\n").message, "404 page not found");
        assert_eq!(ErrorBody::read(b"<html>404</html>").message, "");
        assert_eq!(ErrorBody::read("ä".repeat(5000).as_bytes()).message.chars().count(), MAX_MESSAGE_CHARS);
    }

    #[test]
    fn codes_are_words_or_statuses() {
        let code = |body: Value| {
            let read = ErrorBody::of_json(&body);
            (read.code, read.kind, read.status)
        };
        let of = |code: &str, kind: &str, status| (code.to_owned(), kind.to_owned(), status);
        assert_eq!(code(json!({"error": {"code": "c", "type": "t"}})), of("c", "t", None));
        assert_eq!(code(json!({"error": {"code": 404}})), of("", "", Some(404)));
        assert_eq!(code(json!({"code": "3210", "error_type": "t"})), of("3210", "t", None));
        let details = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]);
        let google = json!([{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": details}}]);
        assert_eq!(code(google), of("API_KEY_INVALID", "INVALID_ARGUMENT", Some(400)));
    }

    #[test]
    fn the_wait_is_read_from_details_and_from_words() {
        let wait = |body: Value| ErrorBody::of_json(&body).wait();
        let retry = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "25s"});
        let quota = json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure"});
        let google = json!([{"error": {"message": "Please retry in 9s.", "details": [quota, retry]}}]);
        assert_eq!(wait(google), Some(Duration::from_secs(25)));
        for (words, millis) in [
            ("Rate limit reached. Please try again in 20s. Visit the page.", Some(20_000)),
            ("Please try again in 1m2.5s.", Some(62_500)),
            ("Try again in 850ms", Some(850)),
            ("Please retry after 7 seconds.", Some(7000)),
            ("Please retry in 37.5s.", Some(37_500)),
            ("try again in 2 minutes", Some(120_000)),
            ("try again in 300 milliseconds", Some(300)),
            ("try again in 1 hour.", Some(3_600_000)),
            ("try again in 90 sec, please", Some(90_000)),
            ("try again in 2min", Some(120_000)),
            ("try again in 1 month", None),
            ("try again in 5 microseconds", None),
            ("try again in 5 \u{b5}s", None),
            ("try again in 3 hundred years", None),
            ("try again in 2 shards", None),
            ("try again in 2m5sec", None),
            ("try again in a while", None),
            ("try again in ", None),
            ("try again in 20", None),
            ("try again in -5s", None),
            ("try again later", None),
            ("try again in 99999999999999999999h", None),
        ] {
            assert_eq!(wait(json!({"message": words})), millis.map(Duration::from_millis), "{words}");
        }
    }
}
