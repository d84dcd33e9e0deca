//! Answers `/openapi.json`: the description of all routes.

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};

pub(super) const OPENAPI: &str = include_str!("../openapi.json");

pub(super) async fn openapi() -> Response<Body> {
    let mut reply = Response::new(Body::from(OPENAPI));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}
