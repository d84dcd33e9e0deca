//! Makes an error of a reply without rows: the kind that the service names, or else that of the status.

use reqwest::Url;
use serde_json::Value;

use crate::{
    BadText, BadTextReason, Error, ErrorKind, Usage,
    http::{Reply, headers},
    provider::service_headers,
};

/// Maximum characters of the server's words that an error keeps.
const MAX_WORDS: usize = 1000;

/// Statuses of gateways that stopped waiting. The server behind the gateway may have finished the request.
const GATEWAY_STATUSES: [u16; 9] = [408, 499, 502, 504, 520, 521, 522, 523, 524];

/// The types of errors of text-embeddings-inference, with the kind of each.
const TEI_TYPES: [(&str, ErrorKind); 7] = [
    ("Validation", ErrorKind::InvalidInput),
    ("Tokenizer", ErrorKind::InvalidInput),
    ("Empty", ErrorKind::InvalidInput),
    ("Overloaded", ErrorKind::Overloaded),
    ("Backend", ErrorKind::Unavailable),
    ("Unhealthy", ErrorKind::Unavailable),
    ("BatchTooLarge", ErrorKind::InvalidInput),
];

/// The content of the body of an error.
#[derive(Default)]
struct Told {
    kind: Option<ErrorKind>,
    /// The type of error that text-embeddings-inference names, and its kind.
    tei_type: Option<(&'static str, ErrorKind)>,
    words: String,
    bad_texts: Vec<BadText>,
}

/// Makes an error of a reply without success to a request of `texts` texts.
pub(super) fn error_of(reply: &Reply, url: &Url, texts: usize) -> Error {
    let body = reply.decompressed().map(|body| told_by(&body.bytes, texts)).unwrap_or_default();
    let status = reply.status.as_u16();
    // A type of text-embeddings-inference is less exact than the kinds of this crate's own service.
    let own_kind = body.kind.or_else(|| service_headers::error_kind(&reply.headers));
    let (kind, message) = match own_kind.or(body.tei_type.map(|(_, kind)| kind)) {
        Some(kind) => (kind, message_of(kind).to_owned()),
        None => of_status(status, url),
    };
    // Bad texts say everything by themselves.
    let message = if body.bad_texts.is_empty() { message } else { String::new() };
    let usage = match service_headers::tokens(&reply.headers) {
        Some(tokens) => Usage::of_request(Some(tokens)),
        None if GATEWAY_STATUSES.contains(&status) => Usage::of_unanswered(),
        None => Usage::of_request(Some(0)),
    };
    let error = Error::new(kind, message).with_usage(usage).with_status(status).with_bad_texts(body.bad_texts);
    let error = body.tei_type.iter().fold(error, |error, (name, _)| error.with_provider_code(name));
    let error = if body.words.is_empty() { error } else { error.with_provider_message(body.words) };
    headers::retry_after(&reply.headers).into_iter().fold(error, Error::with_retry_after)
}

/// Reads the body of an error: that of this crate's service, of text-embeddings-inference, or of anything else.
fn told_by(body: &[u8], texts: usize) -> Told {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Told::default() };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let shortened = |words: String| words.chars().take(MAX_WORDS).collect::<String>();
    let named = body.get("error_type").and_then(Value::as_str);
    Told {
        kind: body.get("kind").and_then(|kind| kind.as_str()?.parse().ok()),
        tei_type: TEI_TYPES.into_iter().find(|(name, _)| named == Some(name)),
        words: shortened(text(body.get("error").or_else(|| body.get("detail")))),
        bad_texts: bad_texts_of(&body, texts),
    }
}

/// Reads the texts that are the cause. One that the request does not have blames nobody.
fn bad_texts_of(error: &Value, texts: usize) -> Vec<BadText> {
    let number = |of: &Value, name: &str| of.get(name)?.as_u64().and_then(|number| usize::try_from(number).ok());
    let bad_text = |bad: &Value| {
        let index = number(bad, "index").filter(|&index| index < texts)?;
        let pair = |name: &str| Some((number(bad, name)?, number(bad, "limit")?));
        let reason = match bad.get("reason")?.as_str()? {
            "empty" => BadTextReason::Empty,
            "too_long" => pair("tokens")
                .map_or(BadTextReason::Rejected, |(tokens, limit)| BadTextReason::TooLong { tokens, limit }),
            "too_large" => {
                pair("bytes").map_or(BadTextReason::Rejected, |(bytes, limit)| BadTextReason::TooLarge { bytes, limit })
            }
            "unusable" => BadTextReason::Unusable,
            // Reasons of later versions.
            _ => BadTextReason::Rejected,
        };
        Some(BadText::new(index, reason))
    };
    error.get("bad_texts").and_then(Value::as_array).into_iter().flatten().filter_map(bad_text).collect()
}

/// Says what failed, for a kind that the service named.
const fn message_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Auth => "the service did not accept the key, or its own provider did not accept its key",
        ErrorKind::Cache => "the cache of the service failed",
        ErrorKind::Config => "the service is not set up for this request: `provider_message` has its words",
        ErrorKind::DeadlinePassed => "the deadline passed while the service worked or the request waited there",
        ErrorKind::Inference => "the model of the service failed",
        ErrorKind::InvalidInput => {
            "the service refused the request, perhaps because of one of its texts: `embed_each` finds which"
        }
        ErrorKind::Overloaded => "the queue of the service is full",
        ErrorKind::Protocol => "the service got an unusable answer from its own provider",
        ErrorKind::QuotaExhausted => {
            "the service has no money or quota left at its own provider: waiting does not help"
        }
        ErrorKind::RateLimited => "too many requests or tokens at the moment",
        ErrorKind::SpaceMismatch => {
            "the service embeds in another space: it serves another model by now, or the URL is that of another service"
        }
        ErrorKind::Timeout => "the service waited too long",
        ErrorKind::Unavailable => "the service cannot answer at the moment: it loads its model, ends, or failed",
    }
}

/// Classifies a status whose body names no kind.
pub(super) fn of_status(status: u16, url: &Url) -> (ErrorKind, String) {
    use ErrorKind::{Auth, Config, InvalidInput, Protocol, RateLimited, Timeout, Unavailable};
    let is = |kind: ErrorKind, message: &str| (kind, message.to_owned());
    match status {
        300..=399 => is(Config, "the server answered with a redirect, which is not followed: give the final URL"),
        401 | 403 => is(Auth, "the service did not accept the key: check `with_api_key`"),
        404 | 405 | 410 | 501 => {
            // The origin and the path alone: a query could hold a secret.
            let (origin, path) = (url.origin().ascii_serialization(), url.path());
            let message = format!(
                "the server does not know this URL: the request was POST {origin}{path}; check the URL, and choose another \
                 dialect by `with_dialect` if the service does not speak this one"
            );
            (Config, message)
        }
        408 => is(Timeout, "the server waited too long for the request"),
        413 => is(InvalidInput, "the server finds the request too large: send less per call (`with_limits`)"),
        400 | 422 => (InvalidInput, message_of(InvalidInput).to_owned()),
        429 => (RateLimited, message_of(RateLimited).to_owned()),
        409 | 424 | 425 | 499..=599 => is(Unavailable, "the server cannot answer at the moment"),
        400..=498 => {
            is(Config, "the server refused the request, and not because of its texts: `provider_message` has its words")
        }
        _ => is(Protocol, "the status is neither of success nor of an error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Told {
        told_by(body.as_bytes(), 4)
    }

    #[test]
    fn every_kind_comes_through_the_wire() {
        for &kind in ErrorKind::ALL {
            let told = told(&format!(r#"{{"detail":"d","error":"words","kind":"{}"}}"#, kind.as_str()));
            assert_eq!((told.kind, told.words.as_str()), (Some(kind), "words"));
            assert!(!message_of(kind).is_empty());
        }
    }

    #[test]
    fn every_reason_comes_through_the_wire() {
        let told = told(
            r#"{"error":"words","kind":"invalid_input","bad_texts":[
                {"index":0,"reason":"empty"}, {"index":1,"reason":"too_long","tokens":9,"limit":8},
                {"index":2,"reason":"too_large","bytes":7,"limit":6}, {"index":3,"reason":"of a later version"},
                {"index":4,"reason":"empty"}, {"index":-1,"reason":"empty"}, {"reason":"empty"}, 7,
                {"index":2,"reason":"too_long"}
            ]}"#,
        );
        let expected = [
            BadText::new(0, BadTextReason::Empty),
            BadText::new(1, BadTextReason::TooLong { tokens: 9, limit: 8 }),
            BadText::new(2, BadTextReason::TooLarge { bytes: 7, limit: 6 }),
            BadText::new(3, BadTextReason::Rejected),
            BadText::new(2, BadTextReason::Rejected),
        ];
        assert_eq!(told.bad_texts, expected);
    }

    #[test]
    fn bodies_of_any_shape_are_read() {
        let tei = told(r#"{"error":"words","error_type":"Overloaded"}"#);
        assert_eq!((tei.tei_type, tei.words.as_str()), (Some(("Overloaded", ErrorKind::Overloaded)), "words"));
        for body in ["", "<html>", "null", "[]", "7", r#"{"error":7,"error_type":7}"#, r#"{"error":{},"kind":"later"}"#]
        {
            let told = told(body);
            assert!(told.kind.is_none() && told.tei_type.is_none(), "{body}");
            assert!(told.words.is_empty() && told.bad_texts.is_empty(), "{body}");
        }
        assert_eq!(told(r#"{"detail":"words"}"#).words, "words");
        assert_eq!(told(&format!(r#"{{"error":"{}"}}"#, "é".repeat(5000))).words.chars().count(), MAX_WORDS);
    }
}
