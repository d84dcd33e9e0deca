//! Reads the headers of a request: options, the wanted format of the reply, and the request's id.

use axum::http::{HeaderMap, header::ACCEPT};

use super::BadBody;
use crate::{
    InputKind, Lane, OwnedOptions, Truncation,
    percent::percent_decoded,
    wire::{self, FRAMED, ROWS},
};

/// The format of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum ReplyFormat {
    /// The JSON of the dialect.
    Json,
    /// Rows alone.
    Rows,
    /// Rows behind a description.
    Framed,
}

/// Returns the format that a request accepts: JSON, unless it names a binary one.
pub(in crate::server) fn reply_format(headers: &HeaderMap) -> ReplyFormat {
    // The weight of a type, which is 1 if none is said. A binary type is taken only by its name.
    let weight = |wanted: &[&str]| {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let of_type = |one: &str| {
            let mut parts = one.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0_f32));
            wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)).then_some(weight)
        };
        values.flat_map(|value| value.split(',')).filter_map(of_type).fold(0.0, f32::max)
    };
    let json = weight(&["application/json"]);
    match (weight(&[FRAMED]), weight(&[ROWS])) {
        (framed, rows) if framed > json && framed >= rows => ReplyFormat::Framed,
        (_, rows) if rows > json => ReplyFormat::Rows,
        _ => ReplyFormat::Json,
    }
}

/// The options of a request that its headers set. What they leave out is `None`.
#[derive(Debug, Default)]
pub(in crate::server) struct HeaderOptions {
    pub(super) kind: Option<InputKind>,
    pub(super) lane: Option<Lane>,
    pub(super) key: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) trace: Option<String>,
    pub(super) space: Option<String>,
    pub(super) truncation: Option<Truncation>,
    pub(super) timeout_ms: Option<u64>,
}

/// Reads the options in headers. A header that cannot be read is an error: an option that is ignored would be a wrong
/// vector.
pub(in crate::server) fn options_of_headers(headers: &HeaderMap) -> Result<HeaderOptions, BadBody> {
    let text = |name: &'static str| match headers.get(name).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value.trim())),
        Some(Err(_)) => Err(BadBody::of(name, "must be ASCII: percent-encode it")),
    };
    fn parsed<T: std::str::FromStr<Err = crate::ParseError>>(
        name: &'static str,
        value: Option<&str>,
    ) -> Result<Option<T>, BadBody> {
        value.map(str::parse).transpose().map_err(|error: crate::ParseError| BadBody::of(name, error.message()))
    }
    let encoded = |name: &'static str| {
        let value = text(name)?.map(|value| percent_decoded(value).ok_or_else(|| wrong_percent(name)));
        value.transpose()
    };
    let timeout = text(wire::TIMEOUT)?.map(|value| {
        let message = "must be a whole number of milliseconds";
        value.parse().map_err(|_| BadBody::of(wire::TIMEOUT, message))
    });
    Ok(HeaderOptions {
        kind: parsed(wire::KIND, text(wire::KIND)?)?,
        lane: parsed(wire::LANE, text(wire::LANE)?)?,
        key: encoded(wire::KEY)?,
        tenant: encoded(wire::TENANT)?,
        // A trace that cannot be read is no reason to refuse: it changes no vector.
        trace: headers.get(wire::TRACE).and_then(|value| value.to_str().ok()).map(str::to_owned),
        space: text(wire::SPACE)?.map(str::to_owned),
        truncation: parsed(wire::TRUNCATION, text(wire::TRUNCATION)?)?,
        timeout_ms: timeout.transpose()?,
    })
}

impl HeaderOptions {
    /// Returns the options of texts of this kind; `lane` is the lane of the body.
    pub(super) fn options(&self, kind: InputKind, lane: Option<Lane>) -> OwnedOptions {
        let mut options = OwnedOptions::new(kind);
        options.lane = self.lane.or(lane).unwrap_or(options.lane);
        options.key = self.key.as_deref().map(Into::into);
        options.tenant = self.tenant.as_deref().map(Into::into);
        options.trace = self.trace.as_deref().map(Into::into);
        options
    }
}

fn wrong_percent(name: &'static str) -> BadBody {
    BadBody::of(name, "must be percent-encoded UTF-8: write % as %25")
}

/// Returns the request's id: the client's if it looks like one, else a new one.
pub(in crate::server) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let is_id = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(is_id).map_or_else(|| format!("{:016x}", fastrand::u64(..)), str::to_owned)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn binary_replies_are_asked_for_by_name() {
        for (accept, format) in [
            ("*/*", ReplyFormat::Json),
            ("application/json", ReplyFormat::Json),
            ("", ReplyFormat::Json),
            ("application/octet-stream", ReplyFormat::Rows),
            ("text/html, Application/Octet-Stream;q=0.5", ReplyFormat::Rows),
            ("application/vnd.docvector.embeddings, application/octet-stream", ReplyFormat::Framed),
            ("application/json, application/octet-stream;q=0", ReplyFormat::Json),
            ("application/json, application/octet-stream", ReplyFormat::Json),
            ("application/json;q=0.1, application/octet-stream; q=0.2", ReplyFormat::Rows),
        ] {
            assert_eq!(reply_format(&headers(&[("accept", accept)])), format, "{accept}");
        }
        assert_eq!(reply_format(&HeaderMap::new()), ReplyFormat::Json);
    }

    #[test]
    fn options_are_read_or_refused() {
        let read = options_of_headers(&headers(&[
            ("x-embed-kind", "query"),
            ("x-embed-key", "library%3areact%20%C3%A4"),
            ("x-embed-truncation", "truncate"),
            ("request-timeout-ms", "250"),
            ("traceparent", "00-1-2-01"),
        ]))
        .expect("options");
        assert_eq!((read.kind, read.truncation), (Some(InputKind::Query), Some(Truncation::Truncate)));
        assert_eq!((read.key.as_deref(), read.timeout_ms), (Some("library:react ä"), Some(250)));
        let options = read.options(InputKind::Query, None);
        assert_eq!((options.lane, options.trace.as_deref()), (Lane::Interactive, Some("00-1-2-01")));
        assert_eq!(read.options(InputKind::Query, Some(Lane::Bulk)).lane, Lane::Bulk);
        for (name, value) in [
            ("x-embed-kind", "poem"),
            ("x-embed-lane", "fast"),
            ("x-embed-key", "%zz"),
            ("x-embed-tenant", "%"),
            ("x-embed-tenant", "%+1"),
            ("x-embed-key", "%ff"),
            ("x-embed-truncation", "yes"),
            ("request-timeout-ms", "soon"),
            ("request-timeout-ms", "-1"),
        ] {
            let bad = options_of_headers(&headers(&[(name, value)])).expect_err(value);
            assert_eq!(bad.field, Some(name), "{value}");
        }
    }

    #[test]
    fn an_id_of_the_client_is_kept_if_it_looks_like_one() {
        assert_eq!(request_id(&headers(&[("x-request-id", "r-7")])), "r-7");
        for odd in ["", "a b", &"x".repeat(129)] {
            assert_eq!(request_id(&headers(&[("x-request-id", odd)])).len(), 16);
        }
    }
}
