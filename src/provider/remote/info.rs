//! Asks a service what it is: `GET /info`, of this crate's own service and of text-embeddings-inference: [`ask`].

use std::time::{Duration, Instant};

use reqwest::{Method, Url, header::HeaderMap};
use serde_json::Value;

use super::failure;
use crate::{Error, ErrorKind, Limits, Pooling, Result, Space, SpaceId, TokenCount, deadline::until, http::Http};

/// Maximum bytes of the description.
const MAX_BYTES: usize = 256 << 10;

/// The longest wait for the description, which costs a service no work.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// A body of JSON has at most this many bytes per byte of text, unless nearly all of it are control characters.
const BODY_BYTES_PER_TEXT_BYTE: usize = 2;

/// The description of a service, by itself.
pub(super) struct Info {
    /// This crate's own service.
    pub(super) own: Option<OwnService>,
    /// The model, as text-embeddings-inference tells it.
    pub(super) model: Option<ServedModel>,
    pub(super) limits: Limits,
}

/// The space of this crate's own service, as it says.
pub(super) struct OwnService {
    space_id: Option<String>,
    space: Option<String>,
}

/// The model of text-embeddings-inference, as it says.
pub(super) struct ServedModel {
    pub(super) name: String,
    pub(super) revision: Option<String>,
    /// The name of the pooling, or of what the model is if it makes no embeddings.
    pub(super) pooling: Option<String>,
    pub(super) is_embedder: bool,
}

/// Asks for the description; `None` if the server has none.
pub(super) async fn ask(
    http: &Http,
    url: &Url,
    headers: &HeaderMap,
    deadline: Option<Instant>,
) -> Result<Option<Info>> {
    let soon = Instant::now().checked_add(MAX_WAIT);
    let end = [deadline, soon].into_iter().flatten().min();
    let reply = until(end, http.exchange(Method::GET, url, headers, Vec::new(), MAX_BYTES)).await;
    let reply = reply.unwrap_or_else(|| {
        let kind = if deadline.is_some() && end == deadline { ErrorKind::DeadlinePassed } else { ErrorKind::Timeout };
        let origin = url.origin().ascii_serialization();
        Err(Error::new(kind, format!("{origin} did not say in time what it serves: is it up, and is its URL right?")))
    });
    // This request holds no texts, so nobody bills it.
    let reply = reply.map_err(Error::without_charges)?;
    match reply.status.as_u16() {
        200..=299 => {}
        // This says nothing about the route.
        401 | 403 | 408 | 425 | 429 | 500.. => return Err(failure::error_of(&reply, url, 0).without_charges()),
        _ => return Ok(None),
    }
    let body = reply.decompressed().map_err(Error::without_charges)?;
    Ok(serde_json::from_slice::<Value>(&body.bytes).ok().and_then(|body| Info::of_json(&body)))
}

impl Info {
    /// Reads a description; `None` if it is something else.
    fn of_json(body: &Value) -> Option<Self> {
        let own = body.get("docvector").filter(|own| own.is_object());
        let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
        let model = text(body, "model_id").filter(|name| !name.is_empty()).map(|name| ServedModel::of(name, body));
        if own.is_none() && model.is_none() {
            return None;
        }
        let number = |of: Option<&Value>, name: &str| {
            of?.get(name)?.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|&number| number > 0)
        };
        let texts = number(own, "max_texts").or_else(|| number(Some(body), "max_client_batch_size"));
        let bytes = number(own, "max_body_bytes").map(|bytes| (bytes / BODY_BYTES_PER_TEXT_BYTE).max(1));
        let limits = Limits { texts, bytes, ..Limits::none() };
        let tokens_per_text = number(own, "max_input_length").or_else(|| number(Some(body), "max_input_length"));
        let tokens_per_call = number(own, "max_request_tokens");
        // The own service takes a quarter of a text's bytes for its tokens, so a call within its bytes is within its queue.
        let tokens = if tokens_per_call.is_some() { TokenCount::AtMostBytes } else { TokenCount::Unknown };
        let limits = Limits { tokens_per_text, tokens_per_call, tokens, ..limits };
        let own = own.map(|own| OwnService { space_id: text(own, "space_id"), space: text(own, "space") });
        Some(Self { own, model, limits })
    }
}

impl ServedModel {
    /// Reads `model_type`: `{"embedding": {"pooling": "cls"}}`, or the same with a capital letter.
    fn of(name: String, body: &Value) -> Self {
        let revision = body.get("model_sha").and_then(Value::as_str).map(str::to_owned);
        let kinds = body.get("model_type").and_then(Value::as_object);
        let embedding = kinds.and_then(|kinds| kinds.get("embedding").or_else(|| kinds.get("Embedding")));
        let pooling = embedding.and_then(|kind| Some(kind.get("pooling")?.as_str()?.to_owned()));
        Self { name, revision, pooling, is_embedder: kinds.is_none() || embedding.is_some() }
    }

    /// Returns the pooling, by its name in this crate.
    pub(super) fn pooling(&self) -> Option<Pooling> {
        match self.pooling.as_deref()? {
            "cls" => Some(Pooling::Cls),
            "mean" => Some(Pooling::Mean),
            "last_token" | "lasttoken" => Some(Pooling::LastToken),
            _ => None,
        }
    }
}

impl OwnService {
    /// Checks that the service embeds in this space.
    pub(super) fn check(&self, space: &Space) -> Result<()> {
        let id = self.space_id.as_deref().ok_or_else(loading)?;
        match id.parse::<SpaceId>() {
            Ok(id) if id == space.id() => Ok(()),
            Ok(id) => {
                let message = format!(
                    "the service embeds in space {id}, but its vectors are to lie in {space}: it serves another model, or \
                     the URL is that of another service; no texts were sent"
                );
                Err(Error::new(ErrorKind::SpaceMismatch, message))
            }
            Err(_) => Err(unreadable("`space_id`")),
        }
    }

    /// Returns the space of the service.
    pub(super) fn space(&self) -> Result<Space> {
        let text = self.space.as_deref().ok_or_else(loading)?;
        // The parser's error may quote what the server said.
        let space: Space = text.parse().map_err(|_| unreadable("`space`"))?;
        self.check(&space)?;
        Ok(space)
    }
}

fn loading() -> Error {
    Error::new(ErrorKind::Unavailable, "the service does not know its space yet: it still loads its model")
}

fn unreadable(what: &str) -> Error {
    let message = format!(
        "{what} in the service's description cannot be read: a later version may have written it; give the space by \
         `with_space`"
    );
    Error::new(ErrorKind::Protocol, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn space() -> Space {
        Space::builder("a-model", 2).build().expect("valid")
    }

    #[test]
    fn the_own_service_tells_its_space_and_limits() {
        let (text, id) = (space().to_text(), space().id().to_string());
        let own =
            json!({"space": text, "space_id": id, "max_request_tokens": 500, "max_body_bytes": 100, "max_texts": 8});
        let body = json!({"model_id": "a-model", "max_input_length": 64, "max_client_batch_size": 9, "docvector": own});
        let info = Info::of_json(&body).expect("a description");
        let limits = Limits::none().with_texts(8).with_bytes(50).with_tokens_per_text(64).with_tokens_per_call(500);
        let limits = limits.with_tokens(TokenCount::AtMostBytes);
        assert_eq!(info.limits, limits);
        assert_eq!(info.own.expect("own").space().expect("readable"), space());
    }

    #[test]
    fn another_space_is_a_mismatch_and_none_is_a_wait() {
        let kind = |own: Value| {
            let own = Info::of_json(&json!({"docvector": own})).expect("a description").own.expect("own");
            (own.check(&space()).map_err(|error| error.kind()), own.space().map_err(|error| error.kind()))
        };
        let (id, other) = (space().id().to_string(), "0".repeat(32));
        let (text, mismatch) = (space().to_text(), Err(ErrorKind::SpaceMismatch));
        assert_eq!(kind(json!({"space": text, "space_id": other})), (mismatch, Err(ErrorKind::SpaceMismatch)));
        assert_eq!(kind(json!({"space": "planted", "space_id": id})), (Ok(()), Err(ErrorKind::Protocol)));
        assert_eq!(kind(json!({"space": text, "space_id": "x"})).0, Err(ErrorKind::Protocol));
        let unavailable = ErrorKind::Unavailable;
        assert_eq!(kind(json!({"space": null, "space_id": null})), (Err(unavailable), Err(unavailable)));
    }

    #[test]
    fn tei_tells_its_model() {
        let body = |model_type: Value| json!({"model_id": "BAAI/bge-m3", "model_sha": "abc", "model_type": model_type, "max_client_batch_size": 0});
        for (model_type, is_embedder, pooling) in [
            (json!({"embedding": {"pooling": "cls"}}), true, Some(Pooling::Cls)),
            (json!({"Embedding": {"pooling": "mean"}}), true, Some(Pooling::Mean)),
            (json!({"embedding": {"pooling": "last_token"}}), true, Some(Pooling::LastToken)),
            (json!({"embedding": {"pooling": "splade"}}), true, None),
            (json!({"reranker": {}}), false, None),
            (Value::Null, true, None),
        ] {
            let info = Info::of_json(&body(model_type)).expect("a description");
            let model = info.model.expect("a model");
            assert_eq!((model.is_embedder, model.pooling()), (is_embedder, pooling));
            assert_eq!((model.name.as_str(), model.revision.as_deref()), ("BAAI/bge-m3", Some("abc")));
            assert_eq!(info.limits, Limits::none());
        }
        for other in [json!(null), json!([]), json!({}), json!({"docvector": 7}), json!({"model_id": 7})] {
            assert!(Info::of_json(&other).is_none(), "{other}");
        }
    }
}
