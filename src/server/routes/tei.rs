//! Answers the routes of text-embeddings-inference beside `/embed`: `/info`, `/tokenize`, `/decode`.

use std::sync::Arc;

use axum::{
    body::Body as HttpBody,
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode},
};
use serde_json::{Value, json};

use crate::{
    ErrorKind, Result as CrateResult, Space,
    server::{
        dialect::Dialect,
        exchange::{read_fields, wrong_key},
        inner::Inner,
        model::ServedModel,
        refusal::{Refusal, json_reply},
        request::{BadBody, Input},
        vocabulary::{Token, Vocabulary},
    },
};

/// Describes the model and the limits: TEI's fields, and ours under `docvector`.
pub(super) async fn info(State(server): State<Arc<Inner>>, headers: HeaderMap) -> Response<HttpBody> {
    let model = match server.keys.accept(&headers) {
        true => server.ready(),
        false => Err(wrong_key()),
    };
    match model {
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
        "max_input_length": of_embedder.tokens_per_text,
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

/// Returns the tokens of texts.
pub(super) async fn tokenize(State(server): State<Arc<Inner>>, request: Request) -> Response<HttpBody> {
    let done = with_vocabulary(&server, request, |fields, vocabulary| {
        let input = fields.inputs.ok_or_else(|| BadBody::of("inputs", "is missing"))?;
        if !input.ids.is_empty() {
            return Err(BadBody::of("inputs", "must be a string or a list of strings").into());
        }
        let special = fields.add_special_tokens.unwrap_or(true);
        let tokens = |text: &str| vocabulary.tokenize(text, special).map(|tokens| tokens.iter().map(token).collect());
        let all: CrateResult<Vec<Value>> = input.texts.iter().map(tokens).collect();
        all.map(Value::from).map_err(Unmade::Failed)
    });
    replied(done.await)
}

/// Returns the texts of token ids.
pub(super) async fn decode(State(server): State<Arc<Inner>>, request: Request) -> Response<HttpBody> {
    let done = with_vocabulary(&server, request, |fields, vocabulary| {
        let Input { texts, ids, .. } = fields.ids.ok_or_else(|| BadBody::of("ids", "is missing"))?;
        if !texts.is_empty() {
            return Err(BadBody::of("ids", "must be a list of token ids, or a list of such lists").into());
        }
        let skip = fields.skip_special_tokens.unwrap_or(true);
        let all: CrateResult<Vec<String>> = ids.iter().map(|ids| vocabulary.decode(ids, skip)).collect();
        all.map(Value::from).map_err(Unmade::Failed)
    });
    replied(done.await)
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

/// Reads a request and works on it with the model's vocabulary, on a thread that may block.
async fn with_vocabulary(
    server: &Arc<Inner>,
    request: Request,
    work: impl FnOnce(crate::server::request::Fields, &dyn Vocabulary) -> Result<Value, Unmade> + Send + 'static,
) -> Result<Value, Refusal> {
    let mut share = server.memory.clone().share();
    let (model, fields) = read_fields(server, request, &mut share).await?;
    let Some(vocabulary) = model.vocabulary.clone() else {
        let message = "the tokenizer of what is served here is not known to the server";
        return Err(Refusal::new(StatusCode::NOT_FOUND, ErrorKind::Config, message));
    };
    let _turn = server.tokenizing.acquire().await;
    let done = tokio::task::spawn_blocking(move || work(fields, &*vocabulary)).await;
    let failed = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Inference, "the tokenizer failed");
    done.map_err(|_| failed())?.map_err(|unmade| match unmade {
        Unmade::Bad(bad) => Refusal::of_body(bad),
        Unmade::Failed(error) => Refusal::of_error(&error),
    })
}

fn replied(done: Result<Value, Refusal>) -> Response<HttpBody> {
    match done {
        Ok(value) => json_reply(StatusCode::OK, &value),
        Err(refusal) => refusal.into_reply(Dialect::Tei, None),
    }
}

fn token(token: &Token) -> Value {
    let (start, stop) = token.bytes.as_ref().map(|bytes| (bytes.start, bytes.end)).unzip();
    json!({"id": token.id, "text": token.text, "special": token.special, "start": start, "stop": stop})
}
