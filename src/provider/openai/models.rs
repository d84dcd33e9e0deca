//! Lists OpenAI's embedding models with their limits, and the limits of all others.

use crate::Limits;

/// One of OpenAI's models. Source: the API reference and the model pages of OpenAI's documentation.
pub(super) struct Model {
    pub(super) name: &'static str,
    /// Components of a vector, unless the request asks for fewer.
    pub(super) dimensions: usize,
    /// Whether a request can ask for fewer dimensions.
    pub(super) shortens: bool,
}

const MODELS: [Model; 3] = [
    Model { name: "text-embedding-3-small", dimensions: 1536, shortens: true },
    Model { name: "text-embedding-3-large", dimensions: 3072, shortens: true },
    Model { name: "text-embedding-ada-002", dimensions: 1536, shortens: false },
];

/// Returns OpenAI's model of this name.
pub(super) fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// Texts per request: the API reference's limit for the array of inputs.
const TEXTS_PER_CALL: usize = 2048;

/// Tokens per text. The reference says 8,192, but servers have refused that many; the models' pages say 8,191.
const TOKENS_PER_TEXT: usize = 8191;

/// Tokens per request, all its texts together.
const TOKENS_PER_CALL: usize = 300_000;

/// UTF-8 bytes of text per request. OpenAI does not count the tokens of a request before it takes it: it takes a quarter
/// of the bytes for them. So text of more than four bytes per token, such as prose, fills a request by its bytes.
const BYTES_PER_CALL: usize = 4 * TOKENS_PER_CALL;

/// Concurrent requests that OpenAI answers as fast as a single one.
const IN_FLIGHT: usize = 8;

/// Returns the limits of OpenAI's models.
pub(super) const fn limits() -> Limits {
    Limits::none()
        .with_texts(TEXTS_PER_CALL)
        .with_bytes(BYTES_PER_CALL)
        .with_tokens_per_text(TOKENS_PER_TEXT)
        .with_tokens_per_call(TOKENS_PER_CALL)
        .with_in_flight(IN_FLIGHT)
}

/// Texts per request of a model that is not OpenAI's. One's own server on a CPU answers that many within the time limit
/// of a call, and most hosted models take as many.
const TEXTS_PER_CALL_ELSEWHERE: usize = 64;

/// Returns the limits for a model that is not OpenAI's. The server checks tokens.
pub(super) const fn unknown_limits() -> Limits {
    Limits::none().with_texts(TEXTS_PER_CALL_ELSEWHERE)
}
