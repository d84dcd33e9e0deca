//! Makes an error of a reply without rows: its kind, which says what to do, and what the server told.

use std::time::Duration;

use reqwest::Url;
use serde_json::Value;

use super::{
    endpoint::Endpoint,
    error_body::{ErrorBody, Subject},
    text_limit,
};
use crate::{
    Error, ErrorKind, Usage,
    error::LONGEST_RESET,
    http::{MAX_ERROR_BYTES, Reply, headers},
};

/// Codes and types of a 429 that does not pass with time.
const QUOTA_CODES: [&str; 6] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "quota_exceeded",
    "account_deactivated",
    "AUTHZ_INSUFFICIENT_BALANCE",
];

/// Codes and types of a key that was not accepted, whatever the status.
const KEY_CODES: [&str; 6] = [
    "invalid_api_key",
    "authentication_error",
    "API_KEY_INVALID",
    "API_KEY_EXPIRED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
];

/// Codes and types that are surely the provider's, even if a text contains the same word.
const KNOWN_CODES: [&str; 14] = [
    "context_length_exceeded",
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
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
];

/// Codes and types of a limit that is full at the moment.
const RATE_CODES: [&str; 6] =
    ["rate_limit_exceeded", "rate_limit_error", "requests", "tokens", "slow_down", "RESOURCE_EXHAUSTED"];

/// Codes of a server that stopped waiting for another one.
const TIMEOUT_CODES: [&str; 3] = ["request_timeout", "timeout", "DEADLINE_EXCEEDED"];

/// Codes and types of a refusal of what the request says, beside those that begin with `invalid_`.
const REFUSAL_CODES: [&str; 5] =
    ["context_length_exceeded", "max_tokens_per_request", "model_not_found", "INVALID_ARGUMENT", "NOT_FOUND"];

/// Words about the size of a text or a request. llama.cpp says them with status 500.
const SIZE_WORDS: [&str; 5] =
    ["too large to process", "physical batch size", "context length", "context size", "too many tokens"];

/// Words about the key. Google says them with status 400.
const KEY_WORDS: [&str; 5] =
    ["api key not valid", "invalid api key", "incorrect api key", "api key expired", "invalid authorization header"];

/// Words about a model that the server does not have.
const MODEL_WORDS: [&str; 6] = [
    "model not found",
    "invalid model",
    "not a valid model",
    "unknown model",
    "model does not exist",
    "no models loaded",
];

const TOO_MANY: &str = "too many requests or tokens at the moment";

/// Statuses of gateways that stopped waiting. The server behind the gateway may have finished the request and billed
/// it.
const GATEWAY_STATUSES: [u16; 9] = [408, 499, 502, 504, 520, 521, 522, 523, 524];

/// Makes an error of a reply without success to a request of `texts` texts. Also returns how many texts the server
/// takes, if it refused them for their number and said so.
pub(super) fn error_of(reply: &Reply, endpoint: &Endpoint, texts: usize) -> (Error, Option<usize>) {
    let body = reply.decompressed().map(|body| ErrorBody::read(&body.bytes)).unwrap_or_default();
    let status = reply.status.as_u16();
    let (error, told) = of_body(status, &body, endpoint, texts);
    (with_reply(error, reply, &body), told)
}

/// Makes an error of a reply without success to a request that holds no texts and costs nothing by itself.
pub(in crate::provider) fn error_without_texts(reply: &Reply) -> Error {
    let body = reply.decompressed().map(|body| ErrorBody::read(&body.bytes)).unwrap_or_default();
    let (kind, message) = classify_without_texts(reply.status.as_u16(), &body);
    let error = with_words(Error::new(kind, message), &body);
    with_reply(asked_wait(kind, &body).into_iter().fold(error, Error::with_retry_after), reply, &body)
}

/// Adds what the head of a reply says: its status and its waits.
fn with_reply(error: Error, reply: &Reply, body: &ErrorBody) -> Error {
    let mut error = error.with_status(reply.status.as_u16());
    // Headers are for programs. They go before the words, but for the resets, which are those of the whole limit.
    let wait = headers::retry_after(&reply.headers).or(error.retry_after());
    let reset = || headers::reset_wait(&reply.headers, &body.kind).filter(|reset| *reset <= LONGEST_RESET);
    if let Some(wait) = wait.or_else(|| (error.kind() == ErrorKind::RateLimited).then(reset).flatten()) {
        error = error.with_retry_after(wait);
    }
    if reply.headers.get("x-should-retry").is_some_and(|value| value == "false") {
        error = error.mark_exhausted();
    }
    error
}

/// Makes an error of a status without success and the body that came with it, without headers.
pub(in crate::provider) fn of_status(status: u16, body: &[u8], endpoint: &Endpoint, texts: usize) -> Error {
    of_body(status, &ErrorBody::read(body), endpoint, texts).0.with_status(status)
}

/// Makes an error of a body that came without a status: its code stands for one. The error has no status.
pub(in crate::provider) fn of_code(body: &[u8], endpoint: &Endpoint, texts: usize) -> Error {
    let body = ErrorBody::read(body);
    let unsent = |message: &str| Error::new(ErrorKind::Unavailable, message).with_usage(Usage::of_request(Some(0)));
    match body.code.as_str() {
        "batch_expired" => return with_words(unsent("the batch expired before these texts were embedded"), &body),
        "batch_cancelled" => {
            return with_words(unsent("the batch was cancelled before these texts were embedded"), &body);
        }
        _ => {}
    }
    of_body(status_of_code(&body), &body, endpoint, texts).0
}

/// Makes an error of a status and a body. Also returns how many texts the server takes, if it said so.
fn of_body(status: u16, body: &ErrorBody, endpoint: &Endpoint, texts: usize) -> (Error, Option<usize>) {
    let (kind, message) = classify(status, body, endpoint);
    // A refused parameter, model or key is no matter of texts, whatever its words count. A field that is not known may
    // be a server's own name of them.
    let is_of_texts = match body.subject {
        Subject::Parameter(_) => false,
        Subject::Other => matches!(kind, ErrorKind::InvalidInput | ErrorKind::Config),
        Subject::Input | Subject::Unknown => kind == ErrorKind::InvalidInput,
    };
    let is_of_texts = is_of_texts && matches!(status, 400 | 413 | 422);
    let told = text_limit::told(&body.message, texts).filter(|_| is_of_texts);
    let (kind, message) = match told {
        Some(limit) => {
            let advice = format!("send less per call (`with_limits(Limits::none().with_texts({limit}))`)");
            (ErrorKind::InvalidInput, format!("{texts} texts in one request, but the server takes {limit}: {advice}"))
        }
        None => (kind, message),
    };
    let usage = if GATEWAY_STATUSES.contains(&status) { Usage::of_unanswered() } else { Usage::of_request(Some(0)) };
    let error = with_words(Error::new(kind, message).with_usage(usage), body);
    (asked_wait(kind, body).into_iter().fold(error, Error::with_retry_after), told)
}

/// Returns the status that usually comes with the code of a body. That of an unknown code is one that may pass.
fn status_of_code(body: &ErrorBody) -> u16 {
    let begins = |beginning: &str| [&body.code, &body.kind].into_iter().any(|code| code.starts_with(beginning));
    match body.status {
        Some(status) => status,
        None if body.is_one_of(&QUOTA_CODES) => 402,
        None if body.is_one_of(&KEY_CODES) => 401,
        None if body.is_one_of(&RATE_CODES) => 429,
        None if body.is_one_of(&TIMEOUT_CODES) => 408,
        None if body.is_one_of(&REFUSAL_CODES) || begins("invalid_") => 400,
        None => 503,
    }
}

/// Says more about a reply that has the status of success and is not usable: `body`, of which `error` was made. What is
/// no reply of embeddings at all is at fault as a whole.
pub(super) fn explain(error: Error, body: &[u8], endpoint: &Endpoint) -> Error {
    if error.kind() != ErrorKind::Protocol || body.len() > MAX_ERROR_BYTES {
        return error;
    }
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Some(told) = told_by(&json, error.usage(), endpoint) {
        return told;
    }
    // A reply with rows came from the right place, even if its JSON is broken.
    if json.get("data").is_some() || (json.is_null() && memchr::memmem::find(body, b"\"data\"").is_some()) {
        return error;
    }
    let message = format!("{}: {}", error.message(), base_url_advice(&endpoint.url));
    Error::new(ErrorKind::Protocol, message).with_usage(error.usage()).of_whole_reply()
}

/// Does the same as [`explain`] for a reply in a file, which no wrong base URL can be the cause of.
pub(in crate::provider) fn explain_in_file(error: Error, body: &[u8], endpoint: &Endpoint) -> Error {
    if error.kind() != ErrorKind::Protocol || body.len() > MAX_ERROR_BYTES {
        return error;
    }
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    told_by(&json, error.usage(), endpoint).unwrap_or(error)
}

/// Makes an error of the error that a reply with the status of success holds; `None` if it holds none.
fn told_by(json: &Value, usage: Usage, endpoint: &Endpoint) -> Option<Error> {
    let error = json.get(0).unwrap_or(json).get("error");
    error.filter(|error| !matches!(error, Value::Null | Value::Bool(false)))?;
    let body = ErrorBody::of_json(json);
    let (kind, message) = match body.status {
        _ if body.says(&["unexpected endpoint"]) => classify(404, &body, endpoint),
        Some(status @ 400..=599) => classify(status, &body, endpoint),
        _ => (ErrorKind::Protocol, "the reply is an error, but its status is success".to_owned()),
    };
    let error = with_words(Error::new(kind, message).with_usage(usage), &body).of_whole_reply();
    Some(asked_wait(kind, &body).into_iter().fold(error, Error::with_retry_after))
}

/// Returns the wait that a body asks for, if waiting helps.
fn asked_wait(kind: ErrorKind, body: &ErrorBody) -> Option<Duration> {
    body.wait().filter(|_| matches!(kind, ErrorKind::RateLimited | ErrorKind::Unavailable))
}

/// Adds the server's words and its code: the more precise one, if it looks like a code.
fn with_words(error: Error, body: &ErrorBody) -> Error {
    let error = error.with_provider_code(&body.kind).with_provider_code(&body.code);
    if body.message.is_empty() { error } else { error.with_provider_message(body.message.clone()) }
}

/// Whether a code is surely the provider's, even if a text contains the same word.
pub(in crate::provider) fn is_known_code(word: &str) -> bool {
    KNOWN_CODES.contains(&word) || QUOTA_CODES.contains(&word) || KEY_CODES.contains(&word)
}

fn classify(status: u16, body: &ErrorBody, endpoint: &Endpoint) -> (ErrorKind, String) {
    use ErrorKind::{Config, InvalidInput, RateLimited};
    let is = |kind: ErrorKind, message: &str| (kind, message.to_owned());
    match status {
        401 | 403 | 429 if body.is_one_of(&QUOTA_CODES) => no_quota(),
        429 => match (body.number_after("Limit"), body.number_after("Requested")) {
            (Some(limit), Some(requested)) if requested > limit => {
                let advice = "send less per call (`with_limits`)";
                (InvalidInput, format!("one request needs {requested}, but the account's limit is {limit}: {advice}"))
            }
            _ => is(RateLimited, TOO_MANY),
        },
        400 | 404 | 422 if body.is_one_of(&["model_not_found"]) => is(Config, "the server does not know this model"),
        400 | 422 => classify_refusal(body, endpoint),
        413 => is(InvalidInput, "the server finds the request too large: send less per call (`with_limits`)"),
        404 | 405 | 410 | 501 => {
            let advice = base_url_advice(&endpoint.url);
            (Config, format!("the server does not know this URL or this model: {advice}; check the model's name too"))
        }
        500 if body.says(&SIZE_WORDS) => is(InvalidInput, "a text or the whole request is too large for the server"),
        _ => classify_status(status),
    }
}

/// Classifies a reply to a request that holds no texts.
fn classify_without_texts(status: u16, body: &ErrorBody) -> (ErrorKind, String) {
    use ErrorKind::{Config, RateLimited};
    let is = |kind: ErrorKind, message: &str| (kind, message.to_owned());
    match status {
        400 | 401 | 403 | 429 if body.is_one_of(&QUOTA_CODES) => no_quota(),
        400 | 422 if body.is_one_of(&KEY_CODES) || body.says(&KEY_WORDS) => wrong_key(),
        429 => is(RateLimited, TOO_MANY),
        404 | 410 => is(Config, "the server does not have it: it expired or was deleted, or the base URL is wrong"),
        405 | 501 => is(Config, "the server does not know this request: it may not have OpenAI's Batch API"),
        413 => is(Config, "the server finds the request too large"),
        _ => classify_status(status),
    }
}

/// Classifies a status that means the same whatever was asked for.
fn classify_status(status: u16) -> (ErrorKind, String) {
    use ErrorKind::{Config, Protocol, Timeout, Unavailable};
    let is = |kind: ErrorKind, message: &str| (kind, message.to_owned());
    match status {
        402 => no_quota(),
        401 | 403 => wrong_key(),
        408 => is(Timeout, "the server waited too long for the request"),
        300..=399 => is(Config, "the server answered with a redirect, which is not followed: give the final base URL"),
        // With 424, text-embeddings-inference says that its model failed.
        409 | 424 | 425 | 499..=599 => is(Unavailable, "the server cannot answer at the moment"),
        400..=498 => {
            is(Config, "the server refused the request, and not because of its texts: `provider_message` has its words")
        }
        _ => is(Protocol, "the status is neither of success nor of an error"),
    }
}

fn no_quota() -> (ErrorKind, String) {
    (ErrorKind::QuotaExhausted, "the account has no money or quota left: waiting does not help".to_owned())
}

fn wrong_key() -> (ErrorKind, String) {
    let message = "the server did not accept the key: check the key, the organization and the project";
    (ErrorKind::Auth, message.to_owned())
}

/// Classifies a refusal of what the request says. Only if nothing else is named, the texts may be the cause.
fn classify_refusal(body: &ErrorBody, endpoint: &Endpoint) -> (ErrorKind, String) {
    let is = |kind: ErrorKind, message: &str| (kind, message.to_owned());
    let texts = "the server refused the request, perhaps because of one of its texts: `embed_each` finds which";
    let parameter = |name: &str| {
        let advice = match name {
            "model" => ": check the model's name",
            "dimensions" => ": leave out or change `with_dimensions`",
            "encoding_format" => ": change it by `with_encoding`, as to `OpenAiEncoding::Float`",
            _ if body.is_about_a_lack() => {
                let advice = "add it by `with_body_field`, or by `with_body_field_for` if documents and queries differ";
                return (ErrorKind::Config, format!("the server requires the field `{name}`: {advice}"));
            }
            _ => ": add or change it by `with_body_field`; `provider_message` has its words",
        };
        (ErrorKind::Config, format!("the server does not accept `{name}` as it is set{advice}"))
    };
    match body.subject {
        Subject::Parameter(name) => parameter(name),
        Subject::Input => is(ErrorKind::InvalidInput, texts),
        // Whatever the field is called, it is too large because of the texts.
        Subject::Other if body.says(&SIZE_WORDS) => is(ErrorKind::InvalidInput, texts),
        _ if body.is_one_of(&KEY_CODES) || body.says(&KEY_WORDS) => wrong_key(),
        _ if body.says(&MODEL_WORDS) => is(ErrorKind::Config, "the server does not know this model"),
        _ if body.says(&["encoding_format"]) => parameter("encoding_format"),
        _ if endpoint.dimensions.is_some() && body.says(&["matryoshka", "dimensions"]) => parameter("dimensions"),
        Subject::Other => {
            let message = "the server misses or does not accept a field of the request that is not the texts: \
                           `provider_message` has its words, and `with_body_field` adds a field";
            is(ErrorKind::Config, message)
        }
        Subject::Unknown => match body.lacking_parameter() {
            Some(name) => parameter(name),
            None => is(ErrorKind::InvalidInput, texts),
        },
    }
}

/// Says where the request went and what a base URL looks like.
fn base_url_advice(url: &Url) -> String {
    // Without a user, a password or a query, which may be secret.
    let (origin, path) = (url.origin().ascii_serialization(), url.path());
    let remark = match path {
        _ if path.starts_with("/openai/") => {
            return format!(
                "the request was POST {origin}{path}: check the endpoint and the deployment of `with_azure`"
            );
        }
        _ if path.contains("/v1/v1/") => " (this one has /v1 twice)",
        _ if path.ends_with("/api/embeddings") => " (Ollama's too, and not in /api)",
        _ if path.ends_with("/v1/embeddings") => "",
        _ => " (this one does not)",
    };
    format!("the request was POST {origin}{path}: check the base URL, which usually ends in /v1{remark}")
}
