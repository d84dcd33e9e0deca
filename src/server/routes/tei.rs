//! Answers the routes of text-embeddings-inference beside `/embed`: `/info`, `/tokenize`, `/decode`.

use std::sync::Arc;

use axum::{
    body::Body as HttpBody,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    ErrorKind, Result as CrateResult, Space,
    server::{
        call::Call,
        dialect::Dialect,
        inner::Inner,
        intake::{Intake, accepted, no_memory, take},
        memory::MemoryShare,
        model::ServedModel,
        refusal::{Refusal, json_reply},
        reply::{ReplyBody, refusal_reply},
        request::{BadBody, Fields, Input},
        vocabulary::{Token, Vocabulary},
    },
};

/// The most bytes of text, or four times the most ids, of one request for tokens. A token takes many times its bytes.
const MAX_BYTES: usize = 256 << 10;
/// The bytes of memory that a byte of text takes on its way to tokens, at most.
const MEMORY_FACTOR: usize = 128;

/// Describes the model and the limits: TEI's fields, and ours under `docvector`.
pub(super) async fn info(State(server): State<Arc<Inner>>, headers: HeaderMap) -> Response<HttpBody> {
    match accepted(&server, &headers) {
        Ok(model) => json_reply(StatusCode::OK, &described(&server, model)),
        Err(refusal) => refusal.into_reply(Dialect::Tei, None),
    }
}

fn described(server: &Inner, model: &ServedModel) -> Value {
    let limits = server.options.limits;
    let space = model.space();
    let pooling = space.and_then(|space| space.pooling().first()).map(|pooling| pooling.as_str());
    let of_embedder = model.embedder.limits();
    let own = json!({
        "space": space.map(Space::to_text),
        "space_id": space.map(|space| space.id().to_string()),
        "spaces": model.embedder.spaces().iter().map(Space::to_text).collect::<Vec<_>>(),
        "dimension": space.map(Space::dimensions),
        "device": model.device,
        "state": server.lifecycle.state().as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "max_tokens_per_text": of_embedder.tokens_per_text,
        "max_interactive_tokens": limits.interactive_tokens,
        "max_bulk_tokens": limits.bulk_tokens,
        "max_request_tokens": limits.bulk_tokens.min(limits.interactive_tokens),
        "max_body_bytes": limits.body_bytes,
        "max_texts": limits.texts,
    });
    json!({
        "model_id": model.name(),
        "model_sha": space.and_then(Space::revision),
        "model_dtype": if space.is_some_and(|space| space.precision() == crate::Precision::Full) { "float32" } else { "int8" },
        "model_type": {"embedding": {"pooling": pooling.unwrap_or("unknown")}},
        "served_model_name": model.name(),
        "max_concurrent_requests": limits.connections,
        "max_input_length": of_embedder.tokens_per_text.unwrap_or(limits.bulk_tokens),
        "max_batch_tokens": limits.bulk_tokens,
        "max_batch_requests": Value::Null,
        "max_client_batch_size": limits.texts,
        "auto_truncate": true,
        "tokenization_workers": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": Value::Null,
        "docker_label": Value::Null,
        "docvector": own,
    })
}

/// A token, as clients read it.
#[derive(Serialize)]
struct ShownToken {
    id: u32,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

impl From<Token> for ShownToken {
    fn from(token: Token) -> Self {
        let (start, stop) = token.bytes.map(|bytes| (bytes.start, bytes.end)).unzip();
        Self { id: token.id, text: token.text, special: token.special, start, stop }
    }
}

/// Returns the tokens of texts.
pub(super) async fn tokenize(State(server): State<Arc<Inner>>, request: Request) -> Response<HttpBody> {
    with_vocabulary(&server, request, |fields, vocabulary| {
        let input = fields.inputs.ok_or_else(|| BadBody::of("inputs", "is missing"))?;
        if !input.ids.is_empty() {
            return Err(BadBody::of("inputs", "must be a string or a list of strings").into());
        }
        let special = fields.add_special_tokens.unwrap_or(true);
        let tokens = |text: &str| {
            let tokens = vocabulary.tokenize(text, special).map_err(Unmade::Failed)?;
            Ok(tokens.into_iter().map(ShownToken::from).collect())
        };
        let all: Result<Vec<Vec<ShownToken>>, Unmade> = input.texts.iter().map(tokens).collect();
        written(&all?)
    })
    .await
}

/// Returns the texts of token ids.
pub(super) async fn decode(State(server): State<Arc<Inner>>, request: Request) -> Response<HttpBody> {
    with_vocabulary(&server, request, |fields, vocabulary| {
        let Input { texts, ids, .. } = fields.ids.ok_or_else(|| BadBody::of("ids", "is missing"))?;
        if !texts.is_empty() {
            return Err(BadBody::of("ids", "must be a list of token ids, or a list of such lists").into());
        }
        let skip = fields.skip_special_tokens.unwrap_or(true);
        let all: CrateResult<Vec<String>> = ids.iter().map(|ids| vocabulary.decode(ids, skip)).collect();
        written(&all.map_err(Unmade::Failed)?)
    })
    .await
}

/// Why there is no answer.
enum Unmade {
    Bad(BadBody),
    Failed(crate::Error),
}

impl From<BadBody> for Unmade {
    fn from(bad: BadBody) -> Self {
        Self::Bad(bad)
    }
}

fn written(value: &impl Serialize) -> Result<Vec<u8>, Unmade> {
    let failed = |error| crate::Error::new(ErrorKind::Inference, "the reply cannot be written").with_source(error);
    serde_json::to_vec(value).map_err(|error| Unmade::Failed(failed(error)))
}

type Work = fn(Fields, &dyn Vocabulary) -> Result<Vec<u8>, Unmade>;

/// Answers a request by work with the model's vocabulary, on a thread that may block.
async fn with_vocabulary(server: &Arc<Inner>, request: Request, work: Work) -> Response<HttpBody> {
    let mut call = Call::begin(server, Dialect::Tei);
    let done = tokio::select! {
        biased;
        done = worked(server, request, work, &mut call) => done,
        () = server.lifecycle.ended() => Err(Refusal::of_end()),
        () = tokio::time::sleep(server.options.limits.request_time) => {
            let message = "the tokens were not there in time";
            Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, ErrorKind::DeadlinePassed, message))
        }
    };
    match done {
        Ok((body, share)) => {
            let mut reply = Response::new(HttpBody::new(ReplyBody::of_words(body, 200, call, Some(share))));
            reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            reply
        }
        Err(refusal) => refusal_reply(refusal, call, None),
    }
}

async fn worked(
    server: &Arc<Inner>,
    request: Request,
    work: Work,
    call: &mut Call,
) -> Result<(Vec<u8>, MemoryShare), Refusal> {
    let Intake { model, fields, mut share } = take(server, request, call, true).await?;
    let Some(vocabulary) = model.vocabulary.clone() else {
        let message = "the tokenizer of what is served here is not known to the server";
        return Err(Refusal::new(StatusCode::NOT_FOUND, ErrorKind::Config, message));
    };
    let bytes = [&fields.inputs, &fields.ids].into_iter().flatten().map(Input::bytes).sum::<usize>();
    if bytes > MAX_BYTES {
        let message =
            format!("the request has {bytes} bytes of text or ids, and at most {MAX_BYTES} are taken: send less");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::InvalidInput, message));
    }
    if [&fields.inputs, &fields.ids].into_iter().flatten().any(|input| input.len() == 0) {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, ErrorKind::InvalidInput, "the list is empty");
        return Err(refusal.with_code("empty"));
    }
    if !share.grow(bytes * MEMORY_FACTOR) {
        return Err(no_memory(server, bytes * MEMORY_FACTOR));
    }
    let turn = server.tokenizing.clone().acquire_owned().await;
    // Turn and share go along: the work goes on if the client leaves.
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work(fields, &*vocabulary).map(|body| (body, share))
    });
    let failed = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Inference, "the tokenizer failed");
    done.await.map_err(|_| failed())?.map_err(|unmade| match unmade {
        Unmade::Bad(bad) => Refusal::of_body(bad),
        Unmade::Failed(error) => {
            let mut refusal = Refusal::of_error(&error);
            refusal.message = error.message().to_owned();
            refusal
        }
    })
}
