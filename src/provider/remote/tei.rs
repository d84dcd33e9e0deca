//! Asks a service in the dialect of text-embeddings-inference: [`embed`], and [`width_of`] for an unknown model.

use reqwest::{
    Url,
    header::{ACCEPT, HeaderMap, HeaderValue},
};
use serde::{Serialize, Serializer};

use super::{
    failure, matrix,
    sending::{self, Call, Request},
};
use crate::{
    Embeddings, Error, ErrorKind, InputKind, Normalization, PromptsBy, Result, Space, Truncation, Usage,
    http::Http,
    provider::{
        client_texts,
        service_headers::{self, ServedBy},
    },
};

/// Embeds a batch with one request.
pub(super) async fn embed(call: Call<'_>) -> Result<Embeddings> {
    let Call { inner, batch, server, .. } = call;
    let space = inner.space.clone();
    // This crate's own service puts the prompts itself, for the kind that it is told.
    let client_prompts = (server == ServedBy::Other).then(|| space.prompts());
    let (inputs, truncated) = client_texts::inputs_of(batch, &space, &inner.limits(), client_prompts).await?;
    let by_server = server == ServedBy::Other && space.prompts().applied_by == PromptsBy::Server;
    let body = Body {
        inputs: Inputs(&inputs),
        truncate: batch.truncation() == Truncation::Truncate,
        normalize: space.normalization() == Normalization::L2,
        prompt_name: space.prompts().of(batch.kind()).filter(|_| by_server).map(|_| prompt_name(batch.kind())),
    };
    let body = body.to_json()?;
    let mut headers = json_headers(&inner.headers);
    service_headers::add_options(&mut headers, batch, space.id(), server);
    let rows = batch.len();
    let max_bytes = matrix::max_bytes(rows, space.dimensions());
    let request = Request { headers, body, max_bytes, body_states_space: false };
    sending::send(call, request, move |body, reply| {
        let usage = Usage::of_request(service_headers::tokens(&reply.headers));
        let embeddings = matrix::read(body, rows, &space, usage, reply.has_content_length)?;
        let by_server = service_headers::truncated(&reply.headers, rows);
        Ok(embeddings.with_truncated([truncated, by_server].concat()))
    })
    .await
}

/// Embeds one text to learn how many components the vectors of a model have.
pub(super) async fn width_of(text: &str, http: &Http, url: &Url, headers: &HeaderMap) -> Result<usize> {
    let body = Body { inputs: Inputs(&[text]), truncate: false, normalize: true, prompt_name: None };
    let headers = json_headers(headers);
    let reply = http.post_json(url, &headers, body.to_json()?, None, matrix::max_bytes_of_probe()).await?;
    if !reply.status.is_success() {
        return Err(failure::error_of(&reply, url, 1));
    }
    let body = reply.decompressed()?;
    if body.is_cut {
        return Err(reply.too_large());
    }
    matrix::read_one(&body.bytes).map(|vector| vector.len())
}

fn json_headers(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

/// Returns the name that a model's configuration has for the prompt of this kind of texts.
const fn prompt_name(kind: InputKind) -> &'static str {
    match kind {
        InputKind::Document => "document",
        InputKind::Query => "query",
    }
}

/// The request's body.
#[derive(Serialize)]
#[serde(bound = "T: AsRef<str>")]
struct Body<'a, T> {
    inputs: Inputs<'a, T>,
    truncate: bool,
    normalize: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_name: Option<&'a str>,
}

impl<T: AsRef<str>> Body<'_, T> {
    fn to_json(&self) -> Result<Vec<u8>> {
        // Quotes and a comma for each text, and some room for line breaks, which take two bytes.
        let bytes: usize = self.inputs.0.iter().map(AsRef::as_ref).map(|text| text.len() + text.len() / 16 + 3).sum();
        let mut json = Vec::with_capacity(bytes + 128);
        serde_json::to_writer(&mut json, self).map_err(|error| {
            Error::new(ErrorKind::Config, "the request cannot be written as JSON").with_source(error)
        })?;
        Ok(json)
    }
}

/// Texts of any type, written as an array of strings.
struct Inputs<'a, T>(&'a [T]);

impl<T: AsRef<str>> Serialize for Inputs<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(AsRef::as_ref))
    }
}

/// Returns the space of a model that nobody described otherwise: its name, its revision and its pooling name it.
pub(super) fn space_of(model: &super::info::ServedModel, width: usize) -> Result<Space> {
    let space = Space::builder(&model.name, width).with_normalization(Normalization::L2);
    let space = model.revision.iter().fold(space, |space, revision| space.with_revision(revision));
    space.with_pooling(model.pooling()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_names_of_the_api() {
        let body = |prompt_name| Body { inputs: Inputs(&["a\n"]), truncate: true, normalize: false, prompt_name };
        let json = |prompt_name| String::from_utf8(body(prompt_name).to_json().expect("JSON")).expect("text");
        assert_eq!(json(None), r#"{"inputs":["a\n"],"truncate":true,"normalize":false}"#);
        assert!(json(Some(prompt_name(InputKind::Query))).ends_with(r#","prompt_name":"query"}"#));
    }
}
