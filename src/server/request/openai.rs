//! Makes a request of the fields of OpenAI's `/v1/embeddings`.

use super::{
    BadBody, EmbedRequest, Encoding, Fields,
    headers::HeaderOptions,
    native_and_tei::{kind_of, space},
};
use crate::{InputKind, Truncation, server::dialect::Dialect, wire};

/// Makes a request of the fields of OpenAI's `/v1/embeddings`.
pub(in crate::server) fn of_openai(mut fields: Fields, headers: &HeaderOptions) -> Result<EmbedRequest, BadBody> {
    let input = fields.input.take().ok_or_else(|| BadBody::of("input", "is missing"))?;
    let encoding = match fields.encoding_format.as_deref() {
        None | Some("float") => Encoding::Numbers,
        Some("base64") => Encoding::Base64,
        Some(_) => return Err(BadBody::of("encoding_format", "must be \"float\" or \"base64\"")),
    };
    let (model, of_name) = match fields.model.take() {
        Some(name) => {
            let (name, kind) = name_and_kind(&name);
            (Some(name.to_owned()), kind)
        }
        None => (None, None),
    };
    let of_type = fields.input_type.as_deref().map(|word| kind_of("input_type", word)).transpose()?;
    let kind = headers.kind.or(of_type).or(of_name).unwrap_or(InputKind::Document);
    let mut options = headers.options(kind, None);
    options.space = space(wire::SPACE, headers.space.as_deref())?;
    options.truncation = headers.truncation.unwrap_or(Truncation::Error);
    Ok(EmbedRequest {
        texts: input.texts,
        ids: input.ids,
        options,
        dialect: Dialect::OpenAi,
        encoding,
        model,
        dimensions: fields.dimensions,
        normalize: None,
        timeout_ms: headers.timeout_ms,
    })
}

/// Divides `NAME:query` and `NAME:document`, for clients that can set nothing but the model.
fn name_and_kind(name: &str) -> (&str, Option<InputKind>) {
    match name.rsplit_once(':') {
        Some((name, "query")) => (name, Some(InputKind::Query)),
        Some((name, "document")) => (name, Some(InputKind::Document)),
        _ => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Result<EmbedRequest, BadBody> {
        of_openai(Fields::read(body.as_bytes(), 10, true).expect("fields"), &HeaderOptions::default())
    }

    #[test]
    fn the_kind_has_two_ways_into_a_request() {
        for (body, model, kind) in [
            (r#"{"input": "a", "model": "m"}"#, Some("m"), InputKind::Document),
            (r#"{"input": "a", "model": "org/m:query"}"#, Some("org/m"), InputKind::Query),
            (r#"{"input": "a", "model": "m:document"}"#, Some("m"), InputKind::Document),
            (r#"{"input": "a", "model": "m:latest"}"#, Some("m:latest"), InputKind::Document),
            (r#"{"input": "a", "model": "m", "input_type": "query"}"#, Some("m"), InputKind::Query),
            (r#"{"input": "a", "model": "m:query", "input_type": "passage"}"#, Some("m"), InputKind::Document),
            (r#"{"input": "a"}"#, None, InputKind::Document),
        ] {
            let request = of(body).expect(body);
            assert_eq!((request.model.as_deref(), request.options.kind), (model, kind), "{body}");
            assert_eq!(request.options.truncation, Truncation::Error);
        }
    }

    #[test]
    fn formats_and_fields_are_checked() {
        assert_eq!(of(r#"{"input": [[1]], "encoding_format": "base64"}"#).expect("ids").encoding, Encoding::Base64);
        for (body, field) in [
            (r#"{"model": "m"}"#, "input"),
            (r#"{"input": "a", "encoding_format": "int8"}"#, "encoding_format"),
            (r#"{"input": "a", "input_type": "secret"}"#, "input_type"),
        ] {
            assert_eq!(of(body).expect_err(body).field, Some(field));
        }
    }
}
