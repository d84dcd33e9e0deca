//! Judges the body of a request for vectors as OpenAI does: [`check`].

use super::{
    api_error::ApiError,
    request_body::{Input, InputText, RequestBody},
    settings::{Settings, TEXTS_PER_REQUEST, TOKENS_PER_REQUEST, TOKENS_PER_TEXT, estimate},
    vectors::{Encoding, TextHash, hash_text, hash_tokens},
};

/// A body that can be answered.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) model: String,
    pub(super) dimensions: usize,
    pub(super) encoding: Encoding,
    pub(super) texts: Vec<TextHash>,
    /// The tokens that are billed for all texts.
    pub(super) tokens: u64,
}

/// Parses a body.
///
/// # Errors
/// The refusal, if it is not JSON or has fields of other types.
pub(super) fn parse(body: &[u8]) -> Result<RequestBody, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            ApiError::bad_request("'$.input' is invalid, or another field has a wrong type.")
        } else {
            ApiError::not_json()
        }
    })
}

/// Returns the tokens of a body's texts as OpenAI's limits estimate them.
pub(super) fn estimated_tokens(input: &Input) -> u64 {
    let mut bytes = 0;
    let mut tokens = 0;
    for text in &input.0 {
        match text {
            InputText::Text(text) => bytes += text.len(),
            InputText::Tokens(list) => tokens += list.len() as u64,
        }
    }
    estimate(bytes) + tokens
}

/// Judges a body.
///
/// # Errors
/// The refusal of the endpoint.
pub(super) fn check(body: &RequestBody, settings: &Settings) -> Result<Accepted, ApiError> {
    let Some(name) = &body.model else {
        return Err(ApiError::bad_request("you must provide a model parameter"));
    };
    let model = settings.model(name).ok_or_else(|| {
        ApiError::new(404, format!("The model `{name}` does not exist or you do not have access to it."))
            .with_code("model_not_found")
    })?;
    let encoding = match body.encoding_format.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(other) => {
            let message = format!("Invalid value: '{other}'. Supported values are: 'float' and 'base64'.");
            return Err(ApiError::bad_request(message).with_param("encoding_format").with_code("invalid_value"));
        }
    };
    let dimensions = match body.dimensions {
        None => model.dimensions,
        Some(_) if !model.shortens => {
            return Err(ApiError::bad_request("This model does not support specifying dimensions."));
        }
        Some(asked) => match usize::try_from(asked) {
            Ok(asked) if (1..=model.dimensions).contains(&asked) => asked,
            _ => {
                let message =
                    format!("Invalid value for 'dimensions' = {asked}. Must be from 1 to {}.", model.dimensions);
                return Err(ApiError::bad_request(message).with_param("dimensions"));
            }
        },
    };
    let (texts, tokens) = check_input(body.input.as_ref(), settings)?;
    Ok(Accepted { model: model.name.clone(), dimensions, encoding, texts, tokens })
}

/// Judges the texts and returns their hashes and the tokens to bill.
fn check_input(input: Option<&Input>, settings: &Settings) -> Result<(Vec<TextHash>, u64), ApiError> {
    let invalid = || ApiError::bad_request("'$.input' is invalid.");
    let input = input.ok_or_else(invalid)?;
    if input.0.is_empty() {
        return Err(invalid());
    }
    if input.0.len() > TEXTS_PER_REQUEST {
        let message = format!(
            "Invalid 'input': array too long. Expected an array with maximum length {TEXTS_PER_REQUEST}, but got an \
             array with length {} instead.",
            input.0.len()
        );
        return Err(ApiError::bad_request(message).with_param("input").with_code("array_above_max_length"));
    }
    let asked = estimated_tokens(input);
    if asked > TOKENS_PER_REQUEST {
        let message = format!("Requested {asked} tokens, max {TOKENS_PER_REQUEST} tokens per request");
        let kind = "max_tokens_per_request";
        return Err(ApiError::bad_request(message).with_kind(kind).with_code(kind));
    }
    let mut hashes = Vec::with_capacity(input.0.len());
    let mut all = 0;
    for text in &input.0 {
        let (hash, tokens) = match text {
            InputText::Text(text) if text.is_empty() => return Err(invalid()),
            InputText::Tokens(list) if list.is_empty() => return Err(invalid()),
            InputText::Text(text) => (hash_text(text), settings.tokens(text)),
            InputText::Tokens(list) => (hash_tokens(list), list.len() as u64),
        };
        if tokens > TOKENS_PER_TEXT {
            let message = format!(
                "This model's maximum context length is {} tokens, however you requested {tokens} tokens. Please \
                 reduce your prompt.",
                TOKENS_PER_TEXT + 1
            );
            return Err(ApiError::bad_request(message));
        }
        all += tokens;
        hashes.push(hash);
    }
    Ok((hashes, all))
}
