//! Says which route is answered by what: [`router`].

mod models;
mod openapi;
mod page;
mod probes;
mod status;
mod tei;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode},
    middleware::{Next, from_fn},
    routing::{get, post},
};

use super::{
    dialect::Dialect,
    exchange::{EmbedRoute, exchange},
    inner::Inner,
    refusal::Refusal,
    request::request_id,
};
use crate::ErrorKind;

/// All routes of a server.
pub(super) fn router(server: Arc<Inner>) -> Router {
    let embed = |State(server), request| exchange(server, request, EmbedRoute::Embed);
    let openai = |State(server), request| exchange(server, request, EmbedRoute::OpenAi);
    let mut router = Router::new()
        .route("/embed", post(embed))
        .route("/v1/embeddings", post(openai))
        .route("/embeddings", post(openai))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/info", get(tei::info))
        .route("/tokenize", post(tei::tokenize))
        .route("/decode", post(tei::decode))
        .route("/health", get(probes::health))
        .route("/ping", get(probes::ready))
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/startupz", get(probes::started))
        .route("/metrics", get(probes::metrics));
    if server.options.has_page {
        router = router
            .route("/", get(page::page).post(embed))
            .route("/docs", get(page::docs))
            .route("/openapi.json", get(openapi::openapi))
            .route("/status", get(status::status));
    } else {
        router = router.route("/", post(embed));
    }
    let router = router.fallback(unknown_route).method_not_allowed_fallback(wrong_method).with_state(server);
    router.layer(from_fn(with_request_id))
}

/// Adds the request's id to the reply, whatever it is.
async fn with_request_id(mut request: Request, next: Next) -> Response<Body> {
    let id = HeaderValue::try_from(request_id(request.headers())).ok();
    // The log has the id that the client gets, also where it is a new one.
    id.iter().for_each(|id| _ = request.headers_mut().insert("x-request-id", id.clone()));
    let mut reply = next.run(request).await;
    id.into_iter().for_each(|id| _ = reply.headers_mut().insert("x-request-id", id));
    reply
}

async fn unknown_route(request: Request) -> Response<Body> {
    let message = format!(
        "there is no route {}: the routes for vectors are /embed and /v1/embeddings, and /docs describes all",
        shown_path(&request)
    );
    refused(StatusCode::NOT_FOUND, &request, message)
}

async fn wrong_method(request: Request) -> Response<Body> {
    let message = format!("{} is not for {}: /docs says which method is", request.method(), shown_path(&request));
    refused(StatusCode::METHOD_NOT_ALLOWED, &request, message)
}

fn refused(status: StatusCode, request: &Request, message: String) -> Response<Body> {
    let path = request.uri().path();
    let dialect = if path.starts_with("/v1/") || path == "/embeddings" { Dialect::OpenAi } else { Dialect::Native };
    Refusal::new(status, ErrorKind::Config, message).into_reply(dialect, None)
}

/// Returns the path as far as it may be shown.
fn shown_path(request: &Request) -> String {
    request.uri().path().chars().take(64).collect()
}
