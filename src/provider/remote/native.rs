//! Asks this crate's own service, in its own dialect: JSON there, a binary frame back: [`embed`].

use reqwest::header::{ACCEPT, HeaderValue};
use serde::Serialize;

use super::{
    frame,
    sending::{self, Call, Request},
};
use crate::{Batch, Embeddings, Error, ErrorKind, Result, SpaceId, provider::service_headers, wire::FRAMED};

/// Embeds a batch, which is checked already, with one request.
pub(super) async fn embed(call: Call<'_>) -> Result<Embeddings> {
    let (batch, space) = (call.batch, call.inner.space.clone());
    let mut headers = call.inner.headers.clone();
    headers.insert(ACCEPT, HeaderValue::from_static(FRAMED));
    service_headers::add_trace(&mut headers, batch);
    let (rows, body) = (batch.len(), body_of(batch, space.id())?);
    let max_bytes = frame::max_bytes(rows, space.dimensions());
    let request = Request { headers, body, max_bytes, body_states_space: true };
    sending::send(call, request, move |body, _| frame::read(body, rows, &space)).await
}

/// The request's body: the texts as they are, and how they are to be embedded. The service puts prompts before them.
#[derive(Serialize)]
struct Body<'a> {
    texts: &'a [&'a str],
    kind: &'a str,
    lane: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    space: &'a str,
    truncation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

/// Writes the body of a request for rows in this space.
fn body_of(batch: &Batch<'_>, space: SpaceId) -> Result<Vec<u8>> {
    let space = space.to_string();
    let body = Body {
        texts: batch.texts(),
        kind: batch.kind().as_str(),
        lane: batch.lane().as_str(),
        key: batch.key(),
        tenant: batch.tenant(),
        space: &space,
        truncation: batch.truncation().as_str(),
        timeout_ms: service_headers::left_ms(batch),
    };
    // Quotes and a comma for each text, and some room for line breaks, which take two bytes.
    let bytes: usize = batch.texts().iter().map(|text| text.len() + text.len() / 16 + 3).sum();
    let mut json = Vec::with_capacity(bytes + 512);
    serde_json::to_writer(&mut json, &body)
        .map_err(|error| Error::new(ErrorKind::Config, "the request cannot be written as JSON").with_source(error))?;
    Ok(json)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::{InputKind, Lane, Space, Truncation};

    /// Services hold to these names: they never change.
    #[tokio::test(start_paused = true)]
    async fn the_body_has_every_option_of_the_batch() {
        let space = Space::builder("a-model", 2).build().expect("valid").id();
        let json = |batch: &Batch<'_>| {
            String::from_utf8(body_of(batch, space).expect("JSON")).expect("text").replace(&space.to_string(), "ID")
        };
        assert_eq!(
            json(&Batch::documents(&["a \"text\"\n", "é"])),
            r#"{"texts":["a \"text\"\n","é"],"kind":"document","lane":"bulk","space":"ID","truncation":"error"}"#
        );
        let batch = Batch::new(InputKind::Query, &["a"]).with_key("k").with_tenant("t").with_lane(Lane::Bulk);
        let deadline = (Instant::now() + Duration::from_millis(1500)).into_std();
        let batch = batch.with_truncation(Truncation::Truncate).with_deadline(deadline);
        assert_eq!(
            json(&batch),
            r#"{"texts":["a"],"kind":"query","lane":"bulk","key":"k","tenant":"t","space":"ID","truncation":"truncate","timeout_ms":1500}"#
        );
    }
}
