//! Writes and reads the headers of the crate's own embedding service: how a batch is to be embedded, and which space its
//! rows lie in.

use std::{fmt::Write, time::Duration};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::{Batch, Error, ErrorKind, PromptsBy, Result, Space, SpaceId, Usage, wire};

const KIND: HeaderName = HeaderName::from_static(wire::KIND);
const LANE: HeaderName = HeaderName::from_static(wire::LANE);
const KEY: HeaderName = HeaderName::from_static(wire::KEY);
const TENANT: HeaderName = HeaderName::from_static(wire::TENANT);
const SPACE: HeaderName = HeaderName::from_static(wire::SPACE);
const TRUNCATION: HeaderName = HeaderName::from_static(wire::TRUNCATION);
const TIMEOUT: HeaderName = HeaderName::from_static(wire::TIMEOUT);
const TRACE: HeaderName = HeaderName::from_static(wire::TRACE);
const CACHED: HeaderName = HeaderName::from_static(wire::CACHED);
const DEDUPLICATED: HeaderName = HeaderName::from_static(wire::DEDUPLICATED);
#[cfg(feature = "remote")]
const TOKENS: HeaderName = HeaderName::from_static(wire::TOKENS);
const TRUNCATED: HeaderName = HeaderName::from_static(wire::TRUNCATED);
const ERROR: HeaderName = HeaderName::from_static(wire::ERROR);

/// The server that answers, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServedBy {
    /// The crate's own service. It puts the prompts before texts, and states the space of each reply.
    Own,
    /// Another program, or nobody knows.
    Other,
}

/// Adds how the batch is to be embedded, in this space. Another program than the crate's own service does not learn the
/// routing key, the tenant and the trace.
pub(super) fn add_options(headers: &mut HeaderMap, batch: &Batch<'_>, space: SpaceId, server: ServedBy) {
    let mut add = |name: HeaderName, value: &str| {
        // A value that cannot be in a header, such as a trace with a line break, is left out.
        HeaderValue::from_str(value).into_iter().for_each(|value| _ = headers.insert(&name, value));
    };
    add(KIND, batch.kind().as_str());
    add(LANE, batch.lane().as_str());
    add(TRUNCATION, batch.truncation().as_str());
    add(SPACE, &space.to_string());
    if let Some(left) = left_ms(batch) {
        add(TIMEOUT, &left.to_string());
    }
    if server == ServedBy::Own {
        batch.key().into_iter().for_each(|key| add(KEY, &percent_encoded(key)));
        batch.tenant().into_iter().for_each(|tenant| add(TENANT, &percent_encoded(tenant)));
        add_trace(headers, batch);
    }
}

/// Adds the trace that the batch belongs to, if it can be in a header.
pub(super) fn add_trace(headers: &mut HeaderMap, batch: &Batch<'_>) {
    let value = batch.trace().and_then(|trace| HeaderValue::from_str(trace).ok());
    value.into_iter().for_each(|value| _ = headers.insert(TRACE, value));
}

/// Returns the milliseconds until the batch's deadline, at least 1.
pub(super) fn left_ms(batch: &Batch<'_>) -> Option<u64> {
    let left = Instant::from_std(batch.deadline()?).saturating_duration_since(Instant::now());
    Some(u64::try_from(left.max(Duration::from_millis(1)).as_millis()).unwrap_or(u64::MAX))
}

/// Checks that a reply does not lie in another space than this one, as far as its headers tell. `server` is who was
/// asked: if it is the crate's own service, the reply must state its space.
pub(super) fn check_space(reply: &HeaderMap, space: &Space, server: ServedBy) -> Result<()> {
    let Some(stated) = reply.get(SPACE) else {
        return match server {
            ServedBy::Other => Ok(()),
            ServedBy::Own => {
                let message = "the reply does not state its space, as replies of this server did: another program \
                               answers now, and the next call finds out which";
                Err(Error::new(ErrorKind::Protocol, message).of_whole_reply())
            }
        };
    };
    let id = stated.to_str().ok().and_then(|id| id.trim().parse::<SpaceId>().ok());
    match id {
        None => {
            Err(Error::new(ErrorKind::Protocol, "the reply's header x-embed-space is no space id").of_whole_reply())
        }
        Some(id) if id != space.id() => Err(another_space(id, space)),
        Some(_) if server == ServedBy::Other && has_client_prompts(space) => {
            let message = "the server states its space, so it puts the space's prompts before texts itself, and this \
                           client had put them there already: use `provider::Remote`, which asks such a server without \
                           them from its next call on";
            Err(Error::new(ErrorKind::Config, message).of_whole_reply())
        }
        Some(_) => Ok(()),
    }
}

/// Checks the space of a reply that need not state it in its headers, because its body does.
#[cfg(feature = "remote")]
pub(super) fn compare_space(reply: &HeaderMap, space: &Space) -> Result<()> {
    if reply.contains_key(SPACE) { check_space(reply, space, ServedBy::Own) } else { Ok(()) }
}

/// Makes the error of a reply whose rows lie in another space.
pub(super) fn another_space(stated: SpaceId, space: &Space) -> Error {
    let message = format!(
        "the server answers in space {stated}, but its vectors are to lie in {space}: it serves another model by now; \
         ask the right server, or embed the collection again in the new space"
    );
    Error::new(ErrorKind::SpaceMismatch, message).of_whole_reply()
}

/// Makes the error of a refusal that says by its headers that the server's space is another one.
#[cfg(feature = "openai")]
pub(super) fn refused_space(reply: &HeaderMap, space: &Space) -> Option<Error> {
    (error_kind(reply)? == ErrorKind::SpaceMismatch).then(|| {
        let stated = reply.get(SPACE).and_then(|id| id.to_str().ok()?.parse::<SpaceId>().ok());
        match stated.filter(|stated| *stated != space.id()) {
            Some(stated) => another_space(stated, space),
            None => {
                let message = format!("the server refused the batch, because its vectors do not lie in {space}");
                Error::new(ErrorKind::SpaceMismatch, message).of_whole_reply()
            }
        }
    })
}

/// Returns the kind of error that a refusal names.
pub(super) fn error_kind(reply: &HeaderMap) -> Option<ErrorKind> {
    reply.get(ERROR)?.to_str().ok()?.trim().parse().ok()
}

/// Returns the tokens that the reply's texts took.
#[cfg(feature = "remote")]
pub(super) fn tokens(reply: &HeaderMap) -> Option<u64> {
    number(reply, TOKENS)
}

/// Returns the texts of a request of so many that cost nothing, because the service had their rows: in its cache, or of an
/// equal text. More than there are is none.
pub(super) fn saved(reply: &HeaderMap, texts: usize) -> Usage {
    let (cached, equal) = (number(reply, CACHED).unwrap_or(0), number(reply, DEDUPLICATED).unwrap_or(0));
    match cached.checked_add(equal) {
        Some(saved) if saved <= texts as u64 => Usage::ZERO.with_cached(cached).with_deduplicated(equal),
        _ => Usage::ZERO,
    }
}

/// Returns the indices of the truncated texts, if the reply says that all of its texts were truncated. Their number alone
/// does not tell which they are.
pub(super) fn truncated(reply: &HeaderMap, texts: usize) -> Vec<usize> {
    let all = number(reply, TRUNCATED).is_some_and(|truncated| truncated == texts as u64);
    if all { (0..texts).collect() } else { Vec::new() }
}

fn number(reply: &HeaderMap, name: HeaderName) -> Option<u64> {
    reply.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn has_client_prompts(space: &Space) -> bool {
    let prompts = space.prompts();
    prompts.applied_by == PromptsBy::Client && (prompts.document.is_some() || prompts.query.is_some())
}

/// Returns a value with all bytes but letters, digits and `-._~` in percent encoding.
fn percent_encoded(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InputKind, Prompts};

    fn space() -> Space {
        Space::builder("a-model", 8).build().expect("valid")
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn another_program_does_not_learn_who_asks() {
        let batch = Batch::new(InputKind::Query, &["a"]).with_key("a/b c").with_tenant("é").with_trace("00-1-2-01");
        let sent = |server| {
            let mut headers = HeaderMap::new();
            add_options(&mut headers, &batch, space().id(), server);
            move |name: &str| headers.get(name).map(|value| value.to_str().expect("visible").to_owned())
        };
        let (own, other) = (sent(ServedBy::Own), sent(ServedBy::Other));
        let id = space().id().to_string();
        for (name, value) in [("x-embed-kind", "query"), ("x-embed-lane", "interactive"), ("x-embed-space", &id)] {
            assert_eq!((own(name).as_deref(), other(name).as_deref()), (Some(value), Some(value)), "{name}");
        }
        for (name, value) in [("x-embed-key", "a%2Fb%20c"), ("x-embed-tenant", "%C3%A9"), ("traceparent", "00-1-2-01")]
        {
            assert_eq!((own(name).as_deref(), other(name)), (Some(value), None), "{name}");
        }
        assert_eq!(own("request-timeout-ms"), None);
    }

    #[test]
    fn a_reply_in_another_space_is_a_mismatch() {
        let (id, other) = (space().id().to_string(), "0".repeat(32));
        let kind = |stated: &[(&'static str, &str)], server| {
            check_space(&headers(stated), &space(), server).err().map(|error| error.kind())
        };
        for server in [ServedBy::Own, ServedBy::Other] {
            assert_eq!(kind(&[("x-embed-space", &id)], server), None);
            assert_eq!(kind(&[("x-embed-space", &other)], server), Some(ErrorKind::SpaceMismatch));
            assert_eq!(kind(&[("x-embed-space", "?")], server), Some(ErrorKind::Protocol));
        }
        assert_eq!(kind(&[], ServedBy::Own), Some(ErrorKind::Protocol));
        assert_eq!(kind(&[], ServedBy::Other), None);
    }

    #[test]
    fn prompts_that_both_sides_put_are_found() {
        let space = space().to_builder().with_prompts(Prompts::new("d: ", "q: ")).build().expect("valid");
        let reply = headers(&[("x-embed-space", &space.id().to_string())]);
        assert!(check_space(&reply, &space, ServedBy::Own).is_ok());
        let error = check_space(&reply, &space, ServedBy::Other).expect_err("twice");
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[test]
    fn saved_texts_are_no_more_than_there_are() {
        let of = |cached: &str, equal: &str| {
            let usage = saved(&headers(&[("x-embed-cached", cached), ("x-embed-deduplicated", equal)]), 3);
            (usage.cached, usage.deduplicated)
        };
        assert_eq!((of("1", "2"), of("0", "0"), of("x", "1")), ((1, 2), (0, 0), (0, 1)));
        let most = u64::MAX.to_string();
        assert_eq!((of("2", "2"), of(&most, &most)), ((0, 0), (0, 0)));
    }

    #[test]
    fn only_all_texts_are_named_as_truncated() {
        let of = |told: &str| truncated(&headers(&[("x-embed-truncated", told)]), 2);
        assert_eq!((of("2"), of("1"), of("0"), of("x")), (vec![0, 1], vec![], vec![], vec![]));
    }
}
