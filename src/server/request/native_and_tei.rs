//! Makes a request of the fields of `/embed`, which two dialects share: `texts` is ours, `inputs` is that of
//! text-embeddings-inference.

use super::{BadBody, EmbedRequest, Encoding, Fields, Input, headers::HeaderOptions};
use crate::{InputKind, ParseError, SpaceId, Truncation, server::dialect::Dialect, wire};

/// Makes a request of the fields of `/embed`.
pub(in crate::server) fn of_embed(
    mut fields: Fields,
    headers: &HeaderOptions,
) -> (Dialect, Result<EmbedRequest, BadBody>) {
    match (fields.texts.take(), fields.inputs.take()) {
        (Some(texts), None) => (Dialect::Native, native(&fields, texts, headers)),
        (None, Some(inputs)) => (Dialect::Tei, tei(&fields, inputs, headers)),
        (Some(_), Some(_)) => {
            (Dialect::Native, Err(BadBody::of("inputs", "stands beside `texts`: send one of the two")))
        }
        (None, None) => {
            let message = "is missing: send {\"texts\": [..]}, or {\"inputs\": [..]} as to text-embeddings-inference";
            (Dialect::Native, Err(BadBody::of("texts", message)))
        }
    }
}

fn native(fields: &Fields, input: Input, headers: &HeaderOptions) -> Result<EmbedRequest, BadBody> {
    let kind: Option<InputKind> = parsed("kind", fields.kind.as_deref())?;
    let kind = headers.kind.or(kind).unwrap_or(InputKind::Document);
    let mut options = headers.options(kind, parsed("lane", fields.lane.as_deref())?);
    options.key = options.key.or_else(|| fields.key.as_deref().map(Into::into));
    options.tenant = options.tenant.or_else(|| fields.tenant.as_deref().map(Into::into));
    let of_headers = space(wire::SPACE, headers.space.as_deref())?;
    options.space = of_headers.or(space("space", fields.space.as_deref())?);
    let truncation: Option<Truncation> = parsed("truncation", fields.truncation.as_deref())?;
    // As the services that this route replaces do, but the reply names the texts.
    options.truncation = headers.truncation.or(truncation).unwrap_or(Truncation::Truncate);
    let timeout_ms = headers.timeout_ms.or(fields.timeout_ms);
    Ok(request(Dialect::Native, input, options, fields, timeout_ms))
}

fn tei(fields: &Fields, input: Input, headers: &HeaderOptions) -> Result<EmbedRequest, BadBody> {
    let of_prompt = fields.prompt_name.as_deref().map(|name| kind_of("prompt_name", name)).transpose()?;
    let kind = headers.kind.or(of_prompt).unwrap_or(InputKind::Document);
    if fields.truncation_direction.as_deref().is_some_and(|direction| !direction.eq_ignore_ascii_case("right")) {
        return Err(BadBody::of("truncation_direction", "must be \"right\": the beginning of a long text is embedded"));
    }
    let mut options = headers.options(kind, None);
    options.space = space(wire::SPACE, headers.space.as_deref())?;
    let of_body = if fields.truncate == Some(false) { Truncation::Error } else { Truncation::Truncate };
    options.truncation = headers.truncation.unwrap_or(of_body);
    Ok(request(Dialect::Tei, input, options, fields, headers.timeout_ms))
}

fn request(
    dialect: Dialect,
    input: Input,
    options: crate::OwnedOptions,
    fields: &Fields,
    timeout_ms: Option<u64>,
) -> EmbedRequest {
    EmbedRequest {
        texts: input.texts,
        ids: input.ids,
        options,
        dialect,
        encoding: Encoding::Numbers,
        model: fields.model.clone(),
        dimensions: fields.dimensions,
        normalize: fields.normalize,
        timeout_ms,
    }
}

/// Returns the kind of texts that clients mean by this word.
pub(super) fn kind_of(field: &'static str, word: &str) -> Result<InputKind, BadBody> {
    match word.to_ascii_lowercase().as_str() {
        "query" | "search_query" => Ok(InputKind::Query),
        "" | "document" | "passage" | "search_document" => Ok(InputKind::Document),
        _ => Err(BadBody::of(field, "must be \"query\" or \"document\": the service knows no other prompt")),
    }
}

/// Reads the id of a space.
pub(super) fn space(field: &'static str, id: Option<&str>) -> Result<Option<SpaceId>, BadBody> {
    id.map(str::parse)
        .transpose()
        .map_err(|_: ParseError| BadBody::of(field, "must be the id of a space: 32 hex digits"))
}

/// Reads a field whose values have names. The error shows the names that there are, and not the value.
fn parsed<T: std::str::FromStr<Err = ParseError>>(
    field: &'static str,
    value: Option<&str>,
) -> Result<Option<T>, BadBody> {
    value.map(str::parse).transpose().map_err(|error: ParseError| {
        let names = error.message().rsplit("it must be one of ").next().unwrap_or_default();
        BadBody::of(field, format_args!("must be one of {names}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lane;

    fn of(body: &str) -> (Dialect, Result<EmbedRequest, BadBody>) {
        of_embed(Fields::read(body.as_bytes(), 10, true).expect("fields"), &HeaderOptions::default())
    }

    #[test]
    fn the_field_of_the_texts_tells_the_dialect() {
        let (dialect, request) = of(r#"{"texts": ["a"], "batch_size": 3, "kind": "query", "truncation": "error"}"#);
        let request = request.expect("a request");
        assert_eq!(
            (dialect, request.options.kind, request.options.lane),
            (Dialect::Native, InputKind::Query, Lane::Interactive)
        );
        assert_eq!(request.options.truncation, Truncation::Error);
        let (dialect, request) = of(r#"{"inputs": "a", "prompt_name": "query", "truncate": false}"#);
        let options = request.expect("a request").options;
        assert_eq!((dialect, options.kind, options.truncation), (Dialect::Tei, InputKind::Query, Truncation::Error));
        for body in [r#"{"texts": ["a"]}"#, r#"{"inputs": ["a"], "truncate": null, "prompt_name": null}"#] {
            let options = of(body).1.expect("a request").options;
            assert_eq!((options.kind, options.truncation), (InputKind::Document, Truncation::Truncate));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (body, field) in [
            (r#"{"text": ["a"]}"#, "texts"),
            (r#"{"texts": ["a"], "inputs": ["a"]}"#, "inputs"),
            (r#"{"texts": ["a"], "kind": "secret"}"#, "kind"),
            (r#"{"texts": ["a"], "lane": "secret"}"#, "lane"),
            (r#"{"texts": ["a"], "truncation": "secret"}"#, "truncation"),
            (r#"{"texts": ["a"], "space": "secret"}"#, "space"),
            (r#"{"inputs": ["a"], "prompt_name": "secret"}"#, "prompt_name"),
            (r#"{"inputs": ["a"], "truncation_direction": "Left"}"#, "truncation_direction"),
        ] {
            let bad = of(body).1.expect_err(body);
            assert_eq!(bad.field, Some(field));
            assert!(!bad.message.contains("secret"), "{}", bad.message);
        }
    }
}
