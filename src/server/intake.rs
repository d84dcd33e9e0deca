//! Takes a request in: its key, its body within the limits, its fields: [`take`].

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body as HttpBody,
    http::{HeaderMap, Request, StatusCode},
};

use super::{
    call::Call,
    inner::Inner,
    keys::comes_from_a_page,
    memory::MemoryShare,
    model::ServedModel,
    refusal::Refusal,
    request::{BadBody, Body, Fields, discard, read_body},
};
use crate::{ErrorKind, Lane};

/// A body of at least so many bytes is parsed off the async executor: that takes a millisecond or more.
const LARGE_BODY: usize = 256 << 10;
/// Token ids take so many times the bytes of their JSON, at most.
const IDS_FACTOR: usize = 4;
/// The shortest wait that a refusal names if there is no memory for a request.
const NO_MEMORY_WAIT: Duration = Duration::from_secs(1);

/// A request that was taken in.
pub(super) struct Intake<'s> {
    pub(super) model: &'s ServedModel,
    pub(super) fields: Fields,
    /// Holds what the fields take.
    pub(super) share: MemoryShare,
}

/// Reads a request, if it may be served now. `takes_ids` says that its route is for token ids; other routes take them if the
/// operator has named their vocabulary. From the moment that its head is accepted, a drain waits for it.
pub(super) async fn take<'s>(
    server: &'s Arc<Inner>,
    request: Request<HttpBody>,
    call: &mut Call,
    takes_ids: bool,
) -> Result<Intake<'s>, Refusal> {
    let (head, body) = request.into_parts();
    let headers = &head.headers;
    let model = match accepted(server, headers) {
        Ok(model) => model,
        Err(refusal) => {
            discard(headers, body);
            return Err(refusal);
        }
    };
    call.accept();
    let mut share = server.memory.clone().share();
    let bytes = whole_body(server, headers, body, &mut share).await?;
    let takes_ids = takes_ids || server.token_ids(model).is_some();
    // The texts are copied out of the body, so both are there for a moment.
    let (held, length) = (share.bytes(), bytes.len());
    let copy = if takes_ids { length * IDS_FACTOR } else { length };
    if !share.grow(copy) {
        return Err(no_memory(server, copy));
    }
    let (fields, mut share) = parse(bytes, server.options.limits.texts, takes_ids, share).await;
    let fields = fields.map_err(Refusal::of_body)?;
    share.shrink(held);
    Ok(Intake { model, fields, share })
}

/// Returns the model if a request may be served, by its head.
pub(super) fn accepted<'s>(server: &'s Inner, headers: &HeaderMap) -> Result<&'s ServedModel, Refusal> {
    if !server.keys.accept(headers) {
        let message = "a key is needed, as `Authorization: Bearer KEY`, and this request has none or another one";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, ErrorKind::Auth, message));
    }
    if !server.keys.are_needed() && comes_from_a_page(headers) {
        let message = "a page of another site sent this request, and the service has no keys that would tell who may: set some, as by --api-keys";
        return Err(Refusal::new(StatusCode::FORBIDDEN, ErrorKind::Auth, message));
    }
    server.ready()
}

async fn whole_body(
    server: &Inner,
    headers: &HeaderMap,
    body: HttpBody,
    share: &mut MemoryShare,
) -> Result<Vec<u8>, Refusal> {
    let limits = server.options.limits;
    let refused = |status, message: String| Err(Refusal::new(status, ErrorKind::InvalidInput, message));
    match read_body(headers, body, limits.body_bytes, limits.body_time, share).await {
        Body::Whole(bytes) => Ok(bytes),
        Body::TooLarge => {
            let limit = limits.body_bytes;
            let message = format!("the body has more than {limit} bytes, which is the most: send less per request");
            refused(StatusCode::PAYLOAD_TOO_LARGE, message)
        }
        Body::NoRoom { bytes } => Err(no_memory(server, bytes)),
        Body::TooSlow => refused(StatusCode::REQUEST_TIMEOUT, "the body came too slowly".to_owned()),
        Body::Cut => refused(StatusCode::BAD_REQUEST, "the body ended before it was complete".to_owned()),
        Body::Compressed => {
            let message = "the body is compressed, which is not read: send it without `content-encoding`";
            refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned())
        }
    }
}

/// Parses a body. The share goes along, because the work goes on if the client leaves.
async fn parse(
    body: Vec<u8>,
    max_texts: usize,
    takes_ids: bool,
    share: MemoryShare,
) -> (Result<Fields, BadBody>, MemoryShare) {
    if body.len() < LARGE_BODY {
        return (Fields::read(&body, max_texts, takes_ids), share);
    }
    let of = share.of();
    let read = tokio::task::spawn_blocking(move || (Fields::read(&body, max_texts, takes_ids), share));
    read.await.unwrap_or_else(|_| {
        // The runtime ends, and with it all that waits for this.
        let message = "the server is ending".to_owned();
        (Err(BadBody { field: None, message, is_too_much: false }), of.share())
    })
}

/// The server has no memory for so many bytes now.
pub(super) fn no_memory(server: &Inner, bytes: usize) -> Refusal {
    let message = format!("the server has no memory now for {bytes} bytes more: try again soon, or send less");
    let wait = server.admission.wait(Lane::Bulk).unwrap_or(NO_MEMORY_WAIT).max(NO_MEMORY_WAIT);
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, ErrorKind::Overloaded, message).with_wait(wait)
}
