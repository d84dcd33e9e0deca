//! Writes the body of a request: texts with their prompts, truncated if they are too long.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use super::endpoint::Endpoint;
use crate::{BadText, BadTextReason, Batch, Error, ErrorKind, Result, TokenCount, Truncation, planner};

/// Checks a batch and writes its request's body; also returns the indices of the texts that it truncated.
pub(super) async fn body_of(endpoint: &Endpoint, batch: &Batch<'_>) -> Result<(Vec<u8>, Vec<usize>)> {
    let limits = endpoint.limits();
    let mut counting = planner::check(batch, std::slice::from_ref(&endpoint.space), &limits).await?;
    let prompts = endpoint.space.prompts();
    let mut truncated = Vec::new();
    let mut input: Vec<Cow<'_, str>> = Vec::with_capacity(batch.len());
    for (index, &text) in batch.texts().iter().enumerate() {
        let mut text = text;
        if batch.truncation() == Truncation::Truncate && counting.is_over(batch, index) {
            text = truncate(endpoint, batch, index)?;
            truncated.push(index);
            planner::yield_once().await;
        }
        input.push(prompts.before_by_client(batch.kind(), text));
    }
    let request = Request {
        model: endpoint.model.as_deref(),
        input: &input,
        encoding_format: endpoint.encoding.as_str(),
        dimensions: endpoint.dimensions,
        added: endpoint.body_fields.of(batch.kind()),
    };
    let body = serde_json::to_vec(&request)
        .map_err(|error| Error::new(ErrorKind::Config, "the request cannot be written as JSON").with_source(error))?;
    Ok((body, truncated))
}

/// Returns the beginning of a text that is too long.
fn truncate<'t>(endpoint: &Endpoint, batch: &Batch<'t>, index: usize) -> Result<&'t str> {
    let (text, limits) = (batch.texts()[index], &endpoint.limits);
    let (TokenCount::Exact(counter), Some(limit)) = (&limits.tokens, limits.tokens_of_one_text()) else {
        return Ok(text);
    };
    match counter.truncate(batch.kind(), text, limit) {
        // Not one character fits: the prompt alone is too long.
        "" => {
            let tokens = counter.count_to(batch.kind(), text, limit);
            Err(Error::invalid_texts(vec![BadText::new(index, BadTextReason::TooLong { tokens, limit })]))
        }
        beginning => Ok(beginning),
    }
}

/// The request's body. A field without a value is left out, because servers refuse `null`.
#[derive(Serialize)]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    input: &'a [Cow<'a, str>],
    encoding_format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
    #[serde(flatten)]
    added: &'a Map<String, Value>,
}
