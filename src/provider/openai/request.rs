//! Writes the body of a request: texts with their prompts, truncated if they are too long, in a [`RequestForm`].

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::endpoint::{Endpoint, OpenAiEncoding};
use crate::{
    Batch, Error, ErrorKind, InputKind, Limits, Result,
    provider::{client_texts, service_headers::ServedBy},
};

/// Checks a batch and writes its request's body; also returns the indices of the texts that it truncated.
pub(in crate::provider) async fn body_of(
    endpoint: &Endpoint,
    batch: &Batch<'_>,
    server: ServedBy,
) -> Result<(Vec<u8>, Vec<usize>)> {
    let prompts = endpoint.client_prompts(server);
    let (inputs, truncated) = client_texts::inputs_of(batch, &endpoint.space, &endpoint.limits(), prompts).await?;
    let mut body = Vec::new();
    RequestForm::of(endpoint, batch.kind()).write_body(&inputs, &mut body)?;
    Ok((body, truncated))
}

/// Checks a batch by these limits and returns its texts as a request has them; also the indices of the texts that it
/// truncated.
pub(in crate::provider) async fn inputs_of<'t>(
    endpoint: &Endpoint,
    batch: &Batch<'t>,
    limits: &Limits,
) -> Result<(Vec<Cow<'t, str>>, Vec<usize>)> {
    client_texts::inputs_of(batch, &endpoint.space, limits, Some(endpoint.space.prompts())).await
}

/// Everything in the body of a request except its texts.
pub(in crate::provider) struct RequestForm {
    model: Option<String>,
    encoding: OpenAiEncoding,
    dimensions: Option<usize>,
    added: Map<String, Value>,
}

impl RequestForm {
    /// Returns the form of requests for texts of this kind.
    pub(in crate::provider) fn of(endpoint: &Endpoint, kind: InputKind) -> Self {
        Self {
            model: endpoint.model.clone(),
            encoding: endpoint.encoding,
            dimensions: endpoint.dimensions,
            added: endpoint.body_fields.of(kind).clone(),
        }
    }

    /// Appends the body of a request that has these texts.
    pub(in crate::provider) fn write_body(&self, inputs: &[impl AsRef<str>], out: &mut Vec<u8>) -> Result<()> {
        let request = Request {
            model: self.model.as_deref(),
            input: Inputs(inputs),
            encoding_format: self.encoding.as_str(),
            dimensions: self.dimensions,
            added: &self.added,
        };
        serde_json::to_writer(out, &request)
            .map_err(|error| Error::new(ErrorKind::Config, "the request cannot be written as JSON").with_source(error))
    }
}

/// The request's body. A field without a value is left out, because servers refuse `null`.
#[derive(Serialize)]
#[serde(bound = "T: AsRef<str>")]
struct Request<'a, T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    input: Inputs<'a, T>,
    encoding_format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
    #[serde(flatten)]
    added: &'a Map<String, Value>,
}

/// Texts of any type, written as an array of strings.
struct Inputs<'a, T>(&'a [T]);

impl<T: AsRef<str>> Serialize for Inputs<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(AsRef::as_ref))
    }
}
