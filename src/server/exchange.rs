//! Takes one request for vectors from its head to its reply: [`exchange`].

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{
    body::{Body as HttpBody, to_bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode},
};

use super::{
    call::Call,
    checks::{check_request, decoded_ids},
    dialect::Dialect,
    inner::Inner,
    memory::MemoryShare,
    model::ServedModel,
    refusal::Refusal,
    reply::{ReplyBody, Rows, rows_reply},
    request::{
        BadBody, Body, EmbedRequest, Fields, ReplyFormat, discard, of_embed, of_openai, options_of_headers, read_body,
        reply_format,
    },
};
use crate::{Batch, Embeddings, ErrorKind, Result as CrateResult, all::embed_all, telemetry};

/// A body of at least so many bytes is parsed off the async executor: that takes a millisecond or more.
const LARGE_BODY: usize = 256 << 10;
/// The wait that a refusal names if there is no memory for a request.
const NO_MEMORY_WAIT: Duration = Duration::from_secs(1);

/// The route of a request for vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EmbedRoute {
    /// `/embed`, of two dialects.
    Embed,
    /// `/v1/embeddings`.
    OpenAi,
}

/// When the steps of a request ended.
struct Steps {
    started: Instant,
    body: Option<Instant>,
    embedded: Option<Instant>,
}

/// Answers a request for vectors.
pub(super) async fn exchange(server: Arc<Inner>, request: Request<HttpBody>, route: EmbedRoute) -> Response<HttpBody> {
    let dialect = if route == EmbedRoute::OpenAi { Dialect::OpenAi } else { Dialect::Native };
    let mut call = Call::begin(&server, dialect);
    let mut share = server.memory.clone().share();
    let mut steps = Steps { started: Instant::now(), body: None, embedded: None };
    let served = serve(&server, request, route, &mut call, &mut share, &mut steps).await;
    let mut reply = match served {
        Ok(rows) => rows_reply(rows, call, share),
        Err(refusal) => refusal_reply(&server, refusal, call).await,
    };
    if let Ok(timing) = HeaderValue::try_from(steps.timing()) {
        reply.headers_mut().insert(HeaderName::from_static("server-timing"), timing);
    }
    reply
}

async fn serve(
    server: &Arc<Inner>,
    request: Request<HttpBody>,
    route: EmbedRoute,
    call: &mut Call,
    share: &mut MemoryShare,
    steps: &mut Steps,
) -> Result<Rows, Refusal> {
    let options = options_of_headers(request.headers()).map_err(Refusal::of_body);
    let format = reply_format(request.headers());
    let (model, fields) = read_fields(server, request, share).await?;
    let options = options?;
    let request = match route {
        EmbedRoute::OpenAi => of_openai(fields, &options),
        EmbedRoute::Embed => {
            let (dialect, request) = of_embed(fields, &options);
            call.dialect = dialect;
            request
        }
    };
    steps.body = Some(Instant::now());
    let request = request.map_err(Refusal::of_body)?;
    let rows = embed_request(server, model, request, format, share).await;
    steps.embedded = Some(Instant::now());
    rows
}

/// Reads the fields of a request, if it may be served now. The share holds what they take.
pub(super) async fn read_fields<'s>(
    server: &'s Arc<Inner>,
    request: Request<HttpBody>,
    share: &mut MemoryShare,
) -> Result<(&'s ServedModel, Fields), Refusal> {
    let (head, body) = request.into_parts();
    let headers = &head.headers;
    let refused_early = match server.keys.accept(headers) {
        false => Err(wrong_key()),
        true => server.ready(),
    };
    let model = match refused_early {
        Ok(model) => model,
        Err(refusal) => {
            discard(headers, body).await;
            return Err(refusal);
        }
    };
    let bytes = whole_body(server, headers, body, share).await?;
    // The texts are copied out of the body, so both are there for a moment.
    let length = bytes.len();
    if !share.grow(length) {
        return Err(no_memory(length));
    }
    let fields = parse(bytes, server.options.limits.texts).await.map_err(Refusal::of_body)?;
    share.shrink(length);
    Ok((model, fields))
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
            refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body has more than {limit} bytes, which is the most: send less per request"),
            )
        }
        Body::NoRoom => Err(no_memory(limits.body_bytes)),
        Body::TooSlow => {
            refused(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {:?}", limits.body_time))
        }
        Body::Cut => refused(StatusCode::BAD_REQUEST, "the body ended before it was complete".to_owned()),
        Body::Compressed => {
            let message = "the body is compressed, which is not read: send it without `content-encoding`";
            refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned())
        }
    }
}

async fn parse(body: Vec<u8>, max_texts: usize) -> Result<Fields, BadBody> {
    if body.len() < LARGE_BODY {
        return Fields::read(&body, max_texts);
    }
    let read = tokio::task::spawn_blocking(move || Fields::read(&body, max_texts));
    // The runtime ends, and with it all that waits for this.
    read.await.unwrap_or_else(|_| {
        Err(BadBody { field: None, message: "the server is ending".to_owned(), is_too_much: false })
    })
}

/// Embeds the texts of a request.
async fn embed_request(
    server: &Arc<Inner>,
    model: &ServedModel,
    request: EmbedRequest,
    format: ReplyFormat,
    share: &mut MemoryShare,
) -> Result<Rows, Refusal> {
    let request = decoded_ids(server, model, request).await?;
    let width = check_request(model, &request)?;
    let texts: Vec<&str> = request.texts.iter().collect();
    let rows_bytes = texts.len().saturating_mul(width).saturating_mul(size_of::<f32>());
    if rows_bytes > server.options.limits.memory_bytes {
        return Err(never_fits_in_memory(texts.len(), rows_bytes, server.options.limits.memory_bytes));
    }
    if !share.grow(rows_bytes) {
        return Err(no_memory(rows_bytes));
    }
    let (now, most) = (Instant::now(), server.options.limits.request_time);
    let time = request.timeout_ms.map_or(most, |millis| most.min(Duration::from_millis(millis)));
    let mut options = request.options.borrow();
    options.deadline = now.checked_add(time);
    let batch = Batch::with_options(&texts, options);
    let tokens = batch.guessed_tokens(&model.embedder.limits()).max(texts.len());
    let lane = batch.lane();
    let admitted = server.admission.admit(lane, texts.len(), tokens);
    let admitted = admitted.map_err(|not| Refusal::of_queue(not, tokens, lane))?;
    let embedded = tokio::select! {
        embedded = embed_all(&*model.embedder, batch) => embedded,
        () = server.lifecycle.ended() => {
            let message = "the server is going away and could not finish the request: send it to another one";
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable, message);
            return Err(refusal.with_wait(NO_MEMORY_WAIT));
        }
    };
    let embeddings = recorded(server, model, batch, embedded, now)?;
    admitted.done();
    Ok(Rows { embeddings, model: model.name().to_owned(), format, encoding: request.encoding })
}

/// Counts what came of the texts of a request.
fn recorded(
    server: &Inner,
    model: &ServedModel,
    batch: Batch<'_>,
    embedded: CrateResult<Embeddings>,
    began: Instant,
) -> Result<Embeddings, Refusal> {
    let embeddings = embedded.map_err(|error| {
        let refusal = Refusal::of_error(&error);
        if refusal.status.is_server_error() {
            let embedder = &model.embedder;
            tracing::warn!(
                { telemetry::EMBEDDER } = %embedder, { telemetry::ERROR } = %error,
                "a request of the service failed"
            );
        }
        refusal
    })?;
    let (texts, tokens) = (batch.len(), embeddings.usage().tokens);
    let truncated = embeddings.truncated().len();
    server.metrics.embedded(batch.kind(), batch.lane(), texts, tokens, truncated, began.elapsed());
    server.totals.texts.fetch_add(texts as u64, Ordering::Relaxed);
    server.totals.tokens.fetch_add(tokens, Ordering::Relaxed);
    server.throughput.add(|second| {
        second.texts += texts as u64;
        second.tokens += tokens;
    });
    Ok(embeddings)
}

/// Makes the reply of a refusal, and ends its call.
async fn refusal_reply(server: &Inner, refusal: Refusal, call: Call) -> Response<HttpBody> {
    let space = server.model.get().and_then(ServedModel::space).map(crate::Space::id);
    let (parts, body) = refusal.into_reply(call.dialect, space).into_parts();
    // The body is a few sentences, and there already.
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let body = ReplyBody::of_refusal(bytes, parts.status.as_u16(), call);
    Response::from_parts(parts, HttpBody::new(body))
}

pub(super) fn wrong_key() -> Refusal {
    let message = "a key is needed, as `Authorization: Bearer KEY`, and this request has none or another one";
    Refusal::new(StatusCode::UNAUTHORIZED, ErrorKind::Auth, message)
}

fn no_memory(bytes: usize) -> Refusal {
    let message = format!("the server has no memory now for {bytes} bytes more: try again soon, or send less");
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, ErrorKind::Overloaded, message).with_wait(NO_MEMORY_WAIT)
}

fn never_fits_in_memory(texts: usize, bytes: usize, limit: usize) -> Refusal {
    let message = format!(
        "the vectors of {texts} texts have {bytes} bytes, and all requests together may hold {limit}: send less per request"
    );
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::InvalidInput, message)
}

impl Steps {
    /// Returns the times of the steps, in milliseconds, for the header `server-timing`.
    fn timing(&self) -> String {
        let millis = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        let mut timing = String::new();
        if let Some(body) = self.body {
            timing += &format!("body;dur={:.3}", millis(self.started, body));
            if let Some(embedded) = self.embedded {
                timing += &format!(", embed;dur={:.3}", millis(body, embedded));
            }
            timing += ", ";
        }
        timing + &format!("total;dur={:.3}", millis(self.started, Instant::now()))
    }
}
