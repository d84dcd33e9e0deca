//! Answers probes and metrics. Nothing here waits: the state is in atomics.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::{Value, json};

use crate::server::{figure::Figure, inner::Inner, model::ServedModel, refusal::json_reply, state::ServerState};

/// Says whether the process works at all: it is answered, so it does. Loading and going away are no reason to kill it.
pub(super) async fn live(State(server): State<Arc<Inner>>) -> Response<Body> {
    match server.health.is_dead() {
        false => words(StatusCode::OK, "alive"),
        true => words(StatusCode::SERVICE_UNAVAILABLE, "the model fails for minutes"),
    }
}

/// Says whether new work is wanted.
pub(super) async fn ready(State(server): State<Arc<Inner>>) -> Response<Body> {
    let state = server.lifecycle.state();
    match state == ServerState::Ready && server.health.is_failing() {
        false => words(status_of(state == ServerState::Ready), state.as_str()),
        true => words(StatusCode::SERVICE_UNAVAILABLE, "the model fails"),
    }
}

/// Says whether the start is over.
pub(super) async fn started(State(server): State<Arc<Inner>>) -> Response<Body> {
    let state = server.lifecycle.state();
    words(status_of(server.model.get().is_some()), state.as_str())
}

/// Says for clients whether the service can be used, and what it serves.
pub(super) async fn health(State(server): State<Arc<Inner>>) -> Response<Body> {
    let state = server.lifecycle.state();
    let is_ready = state == ServerState::Ready;
    let model = server.model.get();
    let space = model.and_then(ServedModel::space);
    let body = json!({
        "status": if is_ready { "ok" } else { state.as_str() },
        "state": state.as_str(),
        "model": model.map(ServedModel::name),
        "dimension": space.map(crate::Space::dimensions),
        "space": space.map(|space| space.id().to_string()),
        "device": model.and_then(|model| model.device.as_deref()),
    });
    json_reply(status_of(is_ready), &body)
}

/// Returns everything that is counted and measured, for Prometheus.
pub(super) async fn metrics(State(server): State<Arc<Inner>>) -> Response<Body> {
    let mut text = server.metrics.text(&server.snapshot());
    if let Some(model) = server.model.get() {
        let figures = model.figures.as_ref().map_or(Vec::new(), |figures| figures());
        add_model(&mut text, model, &figures);
    }
    let mut reply = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

/// Adds what the model tells about itself, before the mark of the end.
fn add_model(text: &mut String, model: &ServedModel, figures: &[Figure]) {
    let end = "# EOF\n";
    text.truncate(text.strip_suffix(end).map_or(text.len(), str::len));
    let space = model.space().map(|space| space.id().to_string()).unwrap_or_default();
    let (name, version) = (escaped(model.name()), env!("CARGO_PKG_VERSION"));
    *text += "# HELP docvector_embed_model What is served.\n# TYPE docvector_embed_model info\n";
    *text += &format!("docvector_embed_model_info{{model=\"{name}\",space=\"{space}\",version=\"{version}\"}} 1\n");
    // A name that is none would spoil the whole reply.
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
    for Figure { name, about, value } in figures.iter().filter(|figure| is_name(figure.name)) {
        let about = about.replace(['\\', '\n'], " ");
        let name = format!("docvector_embed_engine_{name}");
        *text += &format!("# HELP {name} {about}.\n# TYPE {name} counter\n{name}_total {value}\n");
    }
    *text += end;
}

/// Escapes the value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

const fn status_of(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn words(status: StatusCode, words: &'static str) -> Response<Body> {
    let mut reply = Response::new(Body::from(words));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// Describes the server for people: see `status.rs`.
pub(super) fn described(space: &crate::Space) -> Value {
    json!({
        "model": space.model(),
        "dimension": space.dimensions(),
        "pooling": space.pooling().iter().map(|pooling| pooling.as_str()).collect::<Vec<_>>().join("+"),
        "normalization": space.normalization().as_str(),
        "precision": space.precision().as_str(),
        "revision": space.revision(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Fake;

    #[test]
    fn the_model_stands_before_the_mark_of_the_end() {
        let model = ServedModel::new(Arc::new(Fake::new(4))).with_name("a\"b\\c\nd");
        let mut text = "x 1\n# EOF\n".to_owned();
        add_model(&mut text, &model, &[Figure::new("batches", "Batches", 7.0)]);
        assert!(text.starts_with("x 1\n# HELP docvector_embed_model") && text.ends_with("_batches_total 7\n# EOF\n"));
        assert!(text.contains(r#"model="a\"b\\c\nd""#), "{text}");
    }
}
