//! Makes the reply of a request that is refused or failed, in its dialect: [`Refusal`].

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header, response::Parts},
};
use serde_json::{Value, json};

use super::{admission::NotAdmitted, dialect::Dialect, request::BadBody};
use crate::{BadText, BadTextReason, Error, ErrorKind, SpaceId, wire};

/// The most bad texts that a message names. The list beside it has all of them.
const NAMED: usize = 8;

/// The wait of a request that another server may serve at once.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Why a request gets no vectors. It never holds a text or a key.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) bad_texts: Vec<BadText>,
    /// The wait after which the same request may be served.
    pub(super) wait: Option<Duration>,
    /// The field that is wrong.
    param: Option<&'static str>,
    /// OpenAI's code, if it has one for this.
    code: Option<&'static str>,
    /// Tokens that the failed call is known to have cost.
    pub(super) tokens: u64,
    /// The failure below, for the log.
    pub(super) cause: Option<Error>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        let (bad_texts, wait, param, code) = (Vec::new(), None, None, None);
        Self { status, kind, message: message.into(), bad_texts, wait, param, code, tokens: 0, cause: None }
    }

    pub(super) const fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    pub(super) const fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(super) const fn with_param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// The server goes away and cannot finish the request.
    pub(super) fn of_end() -> Self {
        let message = "the server is going away and could not finish the request: send it to another one";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable, message).with_wait(AT_ONCE)
    }

    /// The rows of the request have more bytes than all requests together may hold.
    pub(super) fn never_fits_in_memory(texts: usize, bytes: usize, limit: usize) -> Self {
        let message = format!(
            "the vectors of {texts} texts have {bytes} bytes, and all requests together may hold {limit}: send less per \
             request"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::InvalidInput, message)
    }

    /// The request's body is not as it must be.
    pub(super) fn of_body(bad: BadBody) -> Self {
        let status = if bad.is_too_much { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Self { param: bad.field, ..Self::new(status, ErrorKind::InvalidInput, bad.message) }
    }

    /// The queue does not take the request.
    pub(super) fn of_queue(not: NotAdmitted, tokens: usize, lane: crate::Lane) -> Self {
        match not {
            NotAdmitted::NeverFits { limit } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                ErrorKind::InvalidInput,
                format!(
                    "the request has about {tokens} tokens, and the {lane} queue takes at most {limit}: send less per \
                     request"
                ),
            ),
            NotAdmitted::Full { wait, queued, limit } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                ErrorKind::Overloaded,
                format!(
                    "the {lane} queue is full: {queued} of {limit} tokens wait, and the request has about {tokens}: \
                     try again in {:.1} s",
                    wait.as_secs_f64()
                ),
            )
            .with_wait(wait),
        }
    }

    /// The embedder failed. What is in the server's own matters, such as keys and addresses, is not told to clients.
    pub(super) fn of_error(error: &Error) -> Self {
        use ErrorKind::{
            Auth, Cache, Config, DeadlinePassed, Inference, InvalidInput, Overloaded, Protocol, QuotaExhausted,
            RateLimited, SpaceMismatch, Timeout, Unavailable,
        };
        let kind = error.kind();
        let bad = error.bad_texts();
        let (status, message) = match kind {
            InvalidInput if bad.is_empty() => {
                let message =
                    "the model or its provider refused the request: it, or one of its texts, may be too large";
                (StatusCode::BAD_REQUEST, message.to_owned())
            }
            InvalidInput => (StatusCode::BAD_REQUEST, about_texts(bad)),
            SpaceMismatch => (StatusCode::CONFLICT, error.message().to_owned()),
            DeadlinePassed => (StatusCode::GATEWAY_TIMEOUT, "the vectors were not there in time".to_owned()),
            Timeout => (StatusCode::GATEWAY_TIMEOUT, "the provider of the vectors was too slow".to_owned()),
            Overloaded | RateLimited => (StatusCode::TOO_MANY_REQUESTS, "too many requests at the moment".to_owned()),
            Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "the provider of the vectors is not available".to_owned()),
            Inference => (StatusCode::INTERNAL_SERVER_ERROR, "the model failed".to_owned()),
            Cache => (StatusCode::INTERNAL_SERVER_ERROR, "the cache failed".to_owned()),
            Auth | Config | Protocol | QuotaExhausted => {
                (StatusCode::BAD_GATEWAY, format!("the provider of the vectors does not serve this service ({kind})"))
            }
        };
        let mut refusal = Self::new(status, kind, message);
        refusal.bad_texts = bad.to_vec();
        refusal.tokens = error.usage().tokens;
        // A deadline is the client's own matter.
        let is_own = refusal.status.is_server_error() && kind != DeadlinePassed;
        refusal.cause = is_own.then(|| error.clone());
        if !bad.is_empty() && bad.iter().all(|bad| bad.reason == BadTextReason::Empty) {
            refusal.code = Some("empty");
        }
        refusal.wait = error.retry_after();
        let waits = matches!(refusal.status.as_u16(), 429 | 503);
        if waits && refusal.wait.is_none() {
            refusal.wait = Some(Duration::from_secs(1));
        }
        refusal
    }

    /// Returns the status as the dialect has it.
    pub(super) fn status(&self, dialect: Dialect) -> StatusCode {
        match (dialect, self.status, self.kind) {
            // An empty list is 400 there; whatever else is wrong with a request is 422.
            (Dialect::Tei, StatusCode::BAD_REQUEST, _) if self.code != Some("empty") => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            (Dialect::Tei, StatusCode::INTERNAL_SERVER_ERROR, _) => StatusCode::FAILED_DEPENDENCY,
            (_, status, _) => status,
        }
    }

    /// Makes the reply.
    pub(super) fn into_reply(self, dialect: Dialect, space: Option<SpaceId>) -> Response<Body> {
        let (parts, body) = self.into_parts(dialect, space);
        Response::from_parts(parts, body.into())
    }

    /// Makes the head and the body of the reply.
    pub(super) fn into_parts(self, dialect: Dialect, space: Option<SpaceId>) -> (Parts, Vec<u8>) {
        let body = match dialect {
            Dialect::OpenAi => self.openai_body(),
            Dialect::Native | Dialect::Tei => self.native_body(),
        };
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = self.status(dialect);
        let headers = &mut parts.headers;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(wire::ERROR, HeaderValue::from_static(self.kind.as_str()));
        if let Some(space) = space.and_then(|space| HeaderValue::try_from(space.to_string()).ok()) {
            headers.insert(wire::SPACE, space);
        }
        if self.tokens > 0 {
            headers.insert(wire::TOKENS, self.tokens.into());
        }
        // OpenAI's clients would send these again: they fail in the same way.
        if matches!(self.status.as_u16(), 409 | 502) {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Some(wait) = self.wait {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            // Whole seconds, rounded up: nobody comes back too early.
            headers.insert(header::RETRY_AFTER, millis.div_ceil(1000).max(1).into());
            headers.insert("retry-after-ms", millis.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        (parts, body.to_string().into_bytes())
    }

    /// Returns the body of both dialects of `/embed`: the fields of each are there, whichever the client reads.
    fn native_body(&self) -> Value {
        let error_type = match (self.status.as_u16(), self.kind) {
            (400, _) if self.code == Some("empty") => "Empty",
            (429, _) => "Overloaded",
            (503, _) => "Unhealthy",
            (500 | 502 | 504, _) => "Backend",
            _ => "Validation",
        };
        let mut body = json!({
            "error": self.message,
            "error_type": error_type,
            "detail": self.message,
            "kind": self.kind.as_str(),
        });
        if !self.bad_texts.is_empty() {
            body["bad_texts"] = self.bad_texts.iter().map(bad_text).collect();
        }
        body
    }

    fn openai_body(&self) -> Value {
        let (kind, code) = match self.status.as_u16() {
            401 => ("invalid_request_error", Some("invalid_api_key")),
            429 => ("rate_limit_error", Some("rate_limit_exceeded")),
            408 => ("invalid_request_error", Some("request_timeout")),
            400..=499 => ("invalid_request_error", self.code),
            504 => ("server_error", Some("timeout")),
            _ => ("server_error", self.code),
        };
        let param = self.param.or((!self.bad_texts.is_empty()).then_some("input"));
        let mut error = json!({"message": self.message, "type": kind, "param": param, "code": code});
        if !self.bad_texts.is_empty() {
            error["bad_texts"] = self.bad_texts.iter().map(bad_text).collect();
        }
        json!({"error": error})
    }
}

/// Makes a reply of JSON.
pub(super) fn json_reply(status: StatusCode, body: &Value) -> Response<Body> {
    let mut reply = Response::new(Body::from(body.to_string()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Says what is wrong with some texts and what to do, in one message.
fn about_texts(bad: &[BadText]) -> String {
    let named: Vec<String> = bad.iter().take(NAMED).map(|bad| format!("text {} {}", bad.index, bad.reason)).collect();
    let mut message = named.join("; ");
    if bad.len() > NAMED {
        message += &format!("; and {} more texts", bad.len() - NAMED);
    }
    let any = |is: fn(&BadTextReason) -> bool| bad.iter().any(|bad| is(&bad.reason));
    if any(|reason| matches!(reason, BadTextReason::TooLong { .. })) {
        message += ": shorten the over-long texts, or have their beginnings embedded (`\"truncation\": \"truncate\"`, \
                    `\"truncate\": true`, or the header `x-embed-truncation: truncate`)";
    } else if any(|reason| matches!(reason, BadTextReason::Empty)) {
        message += ": leave out empty texts";
    }
    message
}

/// Describes a bad text for programs.
fn bad_text(bad: &BadText) -> Value {
    let mut item = json!({"index": bad.index, "reason": bad.reason.as_str()});
    match bad.reason {
        BadTextReason::TooLong { tokens, limit } => (item["tokens"], item["limit"]) = (tokens.into(), limit.into()),
        BadTextReason::TooLarge { bytes, limit } => (item["bytes"], item["limit"]) = (bytes.into(), limit.into()),
        _ => {}
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_has_its_statuses() {
        let of = |kind| Refusal::of_error(&Error::new(kind, "secret"));
        for (kind, native, tei, openai) in [
            (ErrorKind::InvalidInput, 400, 422, 400),
            (ErrorKind::SpaceMismatch, 409, 409, 409),
            (ErrorKind::DeadlinePassed, 504, 504, 504),
            (ErrorKind::Overloaded, 429, 429, 429),
            (ErrorKind::Unavailable, 503, 503, 503),
            (ErrorKind::Inference, 500, 424, 500),
            (ErrorKind::Auth, 502, 502, 502),
        ] {
            let status = |dialect| of(kind).status(dialect).as_u16();
            let statuses = [Dialect::Native, Dialect::Tei, Dialect::OpenAi].map(status);
            assert_eq!(statuses, [native, tei, openai], "{kind}");
        }
        // A failure of the server's own provider is not described to clients.
        for kind in [ErrorKind::Auth, ErrorKind::Config, ErrorKind::Protocol, ErrorKind::Unavailable, ErrorKind::Cache]
        {
            assert!(!of(kind).message.contains("secret"), "{kind}");
        }
        for kind in [ErrorKind::Overloaded, ErrorKind::RateLimited, ErrorKind::Unavailable] {
            let reply = of(kind).into_reply(Dialect::Native, None);
            assert_eq!(
                (reply.headers()["retry-after"].as_bytes(), reply.headers()["retry-after-ms"].as_bytes()),
                (&b"1"[..], &b"1000"[..])
            );
        }
    }

    #[test]
    fn bad_texts_are_named_for_people_and_for_programs() {
        let bad = vec![
            BadText::new(1, BadTextReason::Empty),
            BadText::new(4, BadTextReason::TooLong { tokens: 300, limit: 256 }),
        ];
        let refusal = Refusal::of_error(&Error::new(ErrorKind::InvalidInput, "").with_bad_texts(bad));
        let start = "text 1 is empty; text 4 has at least 300 tokens, the limit is 256: shorten";
        assert!(refusal.message.starts_with(start), "{}", refusal.message);
        let list = json!([
            {"index": 1, "reason": "empty"}, {"index": 4, "reason": "too_long", "tokens": 300, "limit": 256}
        ]);
        assert_eq!(refusal.native_body()["bad_texts"], list);
        assert_eq!(refusal.openai_body()["error"]["bad_texts"], list);
        assert_eq!(refusal.openai_body()["error"]["param"], "input");
        let many = (0..20).map(|index| BadText::new(index, BadTextReason::Empty)).collect::<Vec<_>>();
        assert!(about_texts(&many).ends_with("; and 12 more texts: leave out empty texts"));
    }
}
