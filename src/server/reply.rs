//! Makes the reply of a request that was served: [`rows_reply`], and [`ReplyBody`], which all replies of vectors have.

mod frame;
mod json_rows;
mod reply_body;

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use serde_json::json;

pub(super) use self::reply_body::ReplyBody;
use self::{frame::framed_head, json_rows::JsonRows, reply_body::Source};
use super::{
    call::Call,
    dialect::Dialect,
    memory::MemoryShare,
    refusal::Refusal,
    request::{Encoding, ReplyFormat},
};
use crate::{Embeddings, SpaceId, wire};

/// The vectors of a request, and how they are written.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) embeddings: Embeddings,
    /// The name of the model for clients.
    pub(super) model: String,
    pub(super) format: ReplyFormat,
    pub(super) encoding: Encoding,
}

/// Makes the reply of a refusal. Its body holds the call until it is sent.
pub(super) fn refusal_reply(refusal: Refusal, call: Call, space: Option<SpaceId>) -> Response<Body> {
    let (parts, body) = refusal.into_parts(call.dialect, space);
    let status = parts.status.as_u16();
    Response::from_parts(parts, Body::new(ReplyBody::of_words(body, status, call, None)))
}

/// Makes the reply of a request that was served. The body holds the call and its memory until it is sent.
pub(super) fn rows_reply(rows: Rows, call: Call, share: MemoryShare) -> Response<Body> {
    let Rows { embeddings, model, format, encoding } = rows;
    let (space, charged) = (embeddings.space().id(), embeddings.usage().exact_tokens());
    let saved = (embeddings.usage().cached, embeddings.usage().deduplicated);
    let (truncated, dimension) = (embeddings.truncated().len(), embeddings.dimensions());
    let (content_type, source) = match format {
        ReplyFormat::Rows => (wire::ROWS, Source::of_rows(Vec::new(), embeddings)),
        ReplyFormat::Framed => {
            let head = framed_head(&embeddings, &model);
            (wire::FRAMED, Source::of_rows(head, embeddings))
        }
        ReplyFormat::Json => {
            ("application/json", Source::of_json(json_rows(call.dialect, embeddings, &model, encoding)))
        }
    };
    let mut reply = Response::new(Body::new(ReplyBody::new(source, 200, call, Some(share))));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(space) = HeaderValue::try_from(space.to_string()) {
        headers.insert(wire::SPACE, space);
    }
    headers.insert(wire::DIMENSION, dimension.into());
    headers.insert(wire::TRUNCATED, truncated.into());
    headers.insert(wire::CACHED, saved.0.into());
    headers.insert(wire::DEDUPLICATED, saved.1.into());
    if let Some(tokens) = charged {
        headers.insert(wire::TOKENS, tokens.into());
    }
    reply
}

fn json_rows(dialect: Dialect, embeddings: Embeddings, model: &str, encoding: Encoding) -> JsonRows {
    let tokens = embeddings.usage().exact_tokens();
    match dialect {
        Dialect::Tei => JsonRows::plain(embeddings, "[", "]".to_owned()),
        Dialect::Native => {
            let rest = json!({
                "model": model,
                "dimension": embeddings.dimensions(),
                "space": embeddings.space().id().to_string(),
                "truncated": embeddings.truncated(),
                "tokens": tokens,
            });
            let rest = rest.to_string();
            let tail = format!("],{}", rest.strip_prefix('{').unwrap_or(&rest));
            JsonRows::plain(embeddings, "{\"embeddings\":[", tail)
        }
        Dialect::OpenAi => {
            // Clients need a number: of a cache, nothing is charged; if nobody reported tokens, it is 0 too.
            let tokens = tokens.unwrap_or(0);
            let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
            let tail = format!("],\"model\":{},\"usage\":{usage}}}", serde_json::Value::from(model));
            JsonRows::of_openai(embeddings, encoding, "{\"object\":\"list\",\"data\":[", tail)
        }
    }
}
