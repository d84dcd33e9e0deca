//! Takes one request for vectors from its head to its reply: [`exchange`].

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{
    body::Body as HttpBody,
    http::{HeaderName, HeaderValue, Request, Response},
};

use super::{
    call::Call,
    checks::{check_request, decoded_ids},
    dialect::Dialect,
    inner::Inner,
    intake::{Intake, no_memory, take},
    memory::MemoryShare,
    model::ServedModel,
    refusal::Refusal,
    reply::{Rows, refusal_reply, rows_reply},
    request::{EmbedRequest, ReplyFormat, of_embed, of_openai, options_of_headers, reply_format, request_id},
};
use crate::{Batch, Embeddings, Result as CrateResult, all::embed_all, telemetry};

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
    let mut steps = Steps { started: Instant::now(), body: None, embedded: None };
    let id = request_id(request.headers());
    let served = tokio::select! {
        biased;
        served = serve(&server, request, route, &mut call, &mut steps) => served,
        () = server.lifecycle.ended() => Err(Refusal::of_end()),
    };
    let mut reply = match served {
        Ok((rows, share)) => rows_reply(rows, call, share),
        Err(refusal) => {
            log_cause(&server, &refusal, &id);
            refusal_reply(refusal, call, server.model.get().and_then(ServedModel::space).map(crate::Space::id))
        }
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
    steps: &mut Steps,
) -> Result<(Rows, MemoryShare), Refusal> {
    let options = options_of_headers(request.headers()).map_err(Refusal::of_body);
    let format = reply_format(request.headers());
    let Intake { model, fields, mut share } = take(server, request, call, false).await?;
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
    let rows = embed_request(server, model, request, format, &mut share).await;
    steps.embedded = Some(Instant::now());
    Ok((rows?, share))
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
        return Err(Refusal::never_fits_in_memory(texts.len(), rows_bytes, server.options.limits.memory_bytes));
    }
    if !share.grow(rows_bytes) {
        return Err(no_memory(server, rows_bytes));
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
    let embedded = embed_all(&*model.embedder, batch).await;
    server.health.note(embedded.as_ref().err().map(crate::Error::kind));
    let embeddings = recorded(server, batch, embedded, now)?;
    admitted.done(embeddings.usage().exact_tokens() != Some(0));
    Ok(Rows { embeddings, model: model.name().to_owned(), format, encoding: request.encoding })
}

/// Counts what came of the texts of a request.
fn recorded(
    server: &Inner,
    batch: Batch<'_>,
    embedded: CrateResult<Embeddings>,
    began: Instant,
) -> Result<Embeddings, Refusal> {
    let embeddings = embedded.map_err(|error| Refusal::of_error(&error))?;
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

/// Logs the failure below a refusal, if there is one.
fn log_cause(server: &Inner, refusal: &Refusal, id: &str) {
    if let Some(cause) = &refusal.cause
        && server.log_limit.may_log()
    {
        // At most one per second: the metrics count all.
        tracing::warn!({ telemetry::ERROR } = %cause, request = id, "a request of the service failed");
    }
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
