//! Sends one request to one endpoint, in a span of its own, and reads its rows: [`send`].

use reqwest::header::HeaderMap;
use tracing::{Instrument, Span, field};

use super::{endpoint::Endpoint, failure, inner::Inner};
use crate::{
    Batch, Embeddings, Error, Result,
    http::{Reply, connections::Connections, headers, redaction},
    provider::{
        decoding,
        service_headers::{self, ServedBy},
    },
    telemetry,
};

/// A batch on its way to an endpoint.
#[derive(Clone, Copy)]
pub(super) struct Call<'c> {
    pub(super) inner: &'c Inner,
    pub(super) endpoint: &'c Endpoint,
    pub(super) batch: &'c Batch<'c>,
    /// The server that answers, as far as is known.
    pub(super) server: ServedBy,
    /// Notes over which connections replies come.
    pub(super) connections: &'c Connections,
}

/// A request for the rows of a batch.
pub(super) struct Request {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Maximum bytes of the reply.
    pub(super) max_bytes: usize,
    /// Whether the body of a reply states its space, so that the head need not.
    pub(super) body_states_space: bool,
}

/// Sends a request and reads the reply's body by `read`, which gets its head too.
pub(super) async fn send(
    call: Call<'_>,
    request: Request,
    read: impl FnOnce(&[u8], &Reply) -> Result<Embeddings> + Send + 'static,
) -> Result<Embeddings> {
    let span = span_of(call);
    let result = exchange(call, request, read).instrument(span.clone()).await;
    match &result {
        Ok(embeddings) => {
            if let Some(tokens) = embeddings.usage().exact_tokens() {
                span.record(telemetry::INPUT_TOKENS, tokens);
            }
        }
        Err(error) => _ = span.record(telemetry::ERROR_TYPE, error.kind().as_str()),
    }
    result
}

async fn exchange(
    call: Call<'_>,
    request: Request,
    read: impl FnOnce(&[u8], &Reply) -> Result<Embeddings> + Send + 'static,
) -> Result<Embeddings> {
    let Call { inner, endpoint, batch, server, connections } = call;
    // An error must not show a piece of a text or of a secret, which the server's words may quote.
    let quoted = |words: &str| {
        batch.texts().iter().any(|text| redaction::quotes(words, text))
            || redaction::quotes_secret(words, &inner.headers)
    };
    let unquoted = |error: Error| error.without_words(quoted);
    let Request { headers, body, max_bytes, body_states_space } = request;
    let reply = inner.http.post_json(&endpoint.embed_url, &headers, body, batch.deadline(), max_bytes).await;
    let reply = reply.map_err(unquoted)?;
    connections.note(reply.connection);
    let (status, id) = (reply.status, headers::request_id(&reply.headers));
    let about = |error: Error| {
        let error = error.with_status(status.as_u16());
        unquoted(id.iter().fold(error, |error, id| error.with_request_id(id)))
    };
    if !status.is_success() {
        return Err(about(failure::error_of(&reply, &endpoint.embed_url, batch.len())));
    }
    let stated = match body_states_space {
        true => service_headers::compare_space(&reply.headers, &inner.space),
        false => service_headers::check_space(&reply.headers, &inner.space, server),
    };
    let saved = service_headers::saved(&reply.headers, batch.len());
    let rows = decoding::decode(reply.len(), move || {
        let body = reply.decompressed()?;
        if body.is_cut {
            return Err(reply.too_large());
        }
        read(&body.bytes, &reply)
    });
    match (stated, rows.await) {
        // The rows are of no use, but what they cost is known.
        (Err(error), Ok(rows)) => Err(about(error.with_usage(rows.usage()))),
        (Err(error), Err(unread)) => Err(about(error.with_usage(unread.total_charges().usage()))),
        (Ok(()), rows) => rows.map(|rows| rows.with_usage(saved)).map_err(about),
    }
}

fn span_of(call: Call<'_>) -> Span {
    let Call { inner, endpoint, batch, .. } = call;
    let model = inner.space.model();
    tracing::info_span!(
        telemetry::REQUEST_SPAN,
        { telemetry::OTEL_NAME } = format_args!("embeddings {model}"),
        { telemetry::OTEL_KIND } = "client",
        { telemetry::OPERATION_NAME } = "embeddings",
        { telemetry::PROVIDER_NAME } = inner.dialect.as_str(),
        { telemetry::REQUEST_MODEL } = model,
        { telemetry::DIMENSION_COUNT } = inner.space.dimensions(),
        { telemetry::INPUT_TOKENS } = field::Empty,
        { telemetry::SERVER_ADDRESS } = endpoint.embed_url.host_str(),
        { telemetry::SERVER_PORT } = endpoint.embed_url.port_or_known_default(),
        { telemetry::ERROR_TYPE } = field::Empty,
        { telemetry::BATCH_SIZE } = batch.len(),
    )
}
