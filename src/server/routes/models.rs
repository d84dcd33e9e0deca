//! Answers OpenAI's `/v1/models`.

use std::{sync::Arc, time::SystemTime};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Response, StatusCode, Uri},
};
use serde_json::{Value, json};

use crate::{
    percent::percent_decoded,
    server::{checks::unknown_model, dialect::Dialect, inner::Inner, intake::accepted, refusal::json_reply},
};

/// Lists the names of the model: its own, and those that fix the kind of texts.
pub(super) async fn list(State(server): State<Arc<Inner>>, headers: HeaderMap) -> Response<Body> {
    match accepted(&server, &headers) {
        Ok(model) => {
            let name = model.name();
            let names = [name.to_owned(), format!("{name}:query"), format!("{name}:document")];
            let data: Vec<Value> = names.iter().map(|name| object(&server, name)).collect();
            json_reply(StatusCode::OK, &json!({"object": "list", "data": data}))
        }
        Err(refusal) => refusal.into_reply(Dialect::OpenAi, None),
    }
}

/// Describes one model, by any of its names.
pub(super) async fn one(State(server): State<Arc<Inner>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let encoded = uri.path().strip_prefix("/v1/models/").unwrap_or_default();
    let name = percent_decoded(encoded).unwrap_or_else(|| encoded.to_owned());
    let found = accepted(&server, &headers).and_then(|model| {
        let stem = name.strip_suffix(":query").or_else(|| name.strip_suffix(":document")).unwrap_or(&name);
        if model.is_called(stem) { Ok(()) } else { Err(unknown_model(model, &name)) }
    });
    match found {
        Ok(()) => json_reply(StatusCode::OK, &object(&server, &name)),
        Err(refusal) => refusal.into_reply(Dialect::OpenAi, None),
    }
}

fn object(server: &Inner, name: &str) -> Value {
    let created = server.lifecycle.started_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({"id": name, "object": "model", "created": created, "owned_by": "docvector-embed"})
}
