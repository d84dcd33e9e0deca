//! Makes an error of a reply without success: its kind, which says what to do, and what the server told.

use reqwest::{StatusCode, Url};
use serde_json::Value;

use crate::{
    Error, ErrorKind, Usage,
    http::{Reply, headers},
};

/// Codes and types of a 429 that does not pass with time.
const QUOTA_CODES: [&str; 5] =
    ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded", "account_deactivated"];

/// Codes and types that are surely the provider's, even if a text contains the same word.
const KNOWN_CODES: [&str; 12] = [
    "context_length_exceeded",
    "invalid_api_key",
    "invalid_request_error",
    "max_tokens_per_request",
    "model_not_found",
    "overloaded",
    "rate_limit_exceeded",
    "requests",
    "server_error",
    "server_overloaded",
    "slow_down",
    "tokens",
];

/// Maximum characters of the provider's message that an error keeps.
const MAX_MESSAGE_CHARS: usize = 1000;

/// The content of an error's body, in any of the usual shapes.
#[derive(Default)]
struct ErrorBody {
    message: String,
    /// `code`, if it is a string.
    code: String,
    /// `type` or `error_type`.
    kind: String,
    param: String,
}

impl ErrorBody {
    /// Reads OpenAI's `{"error": {...}}`, the flat objects of vLLM and text-embeddings-inference, and FastAPI's
    /// `detail`.
    fn read(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let about = body.get("error").filter(|error| error.is_object()).unwrap_or(&body);
        let word = |name: &str| about.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, error_type) = (word("type"), word("error_type"));
        let message = ["message", "error", "detail"].map(word).into_iter().find(|words| !words.is_empty());
        Self {
            message: message.unwrap_or_default().chars().take(MAX_MESSAGE_CHARS).collect(),
            code: word("code"),
            kind: if kind.is_empty() { error_type } else { kind },
            param: word("param"),
        }
    }

    fn is_one_of(&self, names: &[&str]) -> bool {
        names.contains(&self.code.as_str()) || names.contains(&self.kind.as_str())
    }

    /// Returns the number after a word of the message, as in `Limit 1000000, Requested 1200000`.
    fn number_after(&self, word: &str) -> Option<u64> {
        let rest = &self.message[self.message.find(word)? + word.len()..];
        let digits: String =
            rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        digits.replace(',', "").parse().ok()
    }

    /// Whether the message says that the input is too large: llama.cpp says so with status 500.
    fn is_about_size(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        ["too large to process", "physical batch size", "context length", "context size", "too many tokens"]
            .iter()
            .any(|words| message.contains(words))
    }
}

/// Statuses of gateways that stopped waiting. The server behind the gateway may have finished the request and billed
/// it.
const GATEWAY_STATUSES: [u16; 9] = [408, 499, 502, 504, 520, 521, 522, 523, 524];

/// Makes an error of a reply without success.
pub(super) fn error_of(reply: &Reply, url: &Url) -> Error {
    let body = reply.decompressed().map(|body| ErrorBody::read(&body)).unwrap_or_default();
    let (kind, message) = classify(reply.status, &body, url);
    let status = reply.status.as_u16();
    let usage = if GATEWAY_STATUSES.contains(&status) { Usage::of_unanswered() } else { Usage::of_request(Some(0)) };
    let mut error = Error::new(kind, message).with_status(status).with_usage(usage);
    error = error.with_provider_code(if body.code.is_empty() { &body.kind } else { &body.code });
    if !body.message.is_empty() {
        error = error.with_provider_message(body.message);
    }
    if let Some(wait) = headers::retry_after(&reply.headers) {
        error = error.with_retry_after(wait);
    }
    match reply.headers.get("x-should-retry").map(|value| value.as_bytes()) {
        Some(b"false") => error.mark_exhausted(),
        _ => error,
    }
}

/// Whether a code is surely the provider's, even if a text contains the same word.
pub(super) fn is_known_code(word: &str) -> bool {
    KNOWN_CODES.contains(&word) || QUOTA_CODES.contains(&word)
}

fn classify(status: StatusCode, body: &ErrorBody, url: &Url) -> (ErrorKind, String) {
    use ErrorKind::{Auth, Config, InvalidInput, Protocol, QuotaExhausted, RateLimited, Timeout, Unavailable};
    let is = |kind: ErrorKind, message: &str| (kind, message.to_owned());
    match status.as_u16() {
        401 | 403 => is(Auth, "the server did not accept the key: check the key, the organization and the project"),
        402 => is(QuotaExhausted, "the account has no money or quota left: waiting does not help"),
        429 if body.is_one_of(&QUOTA_CODES) => {
            is(QuotaExhausted, "the account has no money or quota left: waiting does not help")
        }
        429 => match (body.number_after("Limit"), body.number_after("Requested")) {
            (Some(limit), Some(requested)) if requested > limit => {
                let advice = "send less per call (`with_limits`)";
                (InvalidInput, format!("one request needs {requested}, but the account's limit is {limit}: {advice}"))
            }
            _ => is(RateLimited, "too many requests or tokens at the moment"),
        },
        400 | 422 if ["model", "dimensions", "encoding_format"].contains(&body.param.as_str()) => {
            (Config, format!("the server does not accept `{}` as it is set", body.param))
        }
        400 | 404 | 422 if body.is_one_of(&["model_not_found"]) => is(Config, "the server does not know this model"),
        400 | 422 => is(
            InvalidInput,
            "the server refused the request, perhaps because of one of its texts: `embed_each` finds which",
        ),
        413 => is(InvalidInput, "the server finds the request too large: send less per call (`with_limits`)"),
        404 | 405 | 410 | 501 => {
            // Without a user, a password or a query, which may be secret.
            let (origin, path) = (url.origin().ascii_serialization(), url.path());
            (Config, format!("the server does not know POST {origin}{path}: check the base URL and the model's name"))
        }
        408 => is(Timeout, "the server waited too long for the request"),
        300..=399 => is(Config, "the server answered with a redirect, which is not followed: give the final base URL"),
        500 if body.is_about_size() => is(InvalidInput, "a text or the whole request is too large for the server"),
        // With 424, text-embeddings-inference says that its model failed.
        409 | 424 | 425 | 500..=599 => is(Unavailable, "the server cannot answer at the moment"),
        400..=499 => is(InvalidInput, "the server refused the request"),
        _ => is(Protocol, "the status is neither of success nor of an error"),
    }
}
