//! Lists OpenAI's embedding models with their limits, and other models that were trained with prompts.

use crate::{InputKind, Limits, Prompts};

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

/// Returns the limits for an unknown model: as many texts per request as OpenAI takes; the server checks tokens.
pub(super) const fn unknown_limits() -> Limits {
    Limits::none().with_texts(TEXTS_PER_CALL)
}

/// Models that need prompts: a part of the name, and the prompts of documents and queries. Source: their model cards.
const PROMPTED_MODELS: [(&str, &str, &str); 9] = [
    ("e5-", "passage: ", "query: "),
    ("bge-small-en", "", "Represent this sentence for searching relevant passages: "),
    ("bge-base-en", "", "Represent this sentence for searching relevant passages: "),
    ("bge-large-en", "", "Represent this sentence for searching relevant passages: "),
    ("nomic-embed-text", "search_document: ", "search_query: "),
    ("mxbai-embed-large", "", "Represent this sentence for searching relevant passages: "),
    ("snowflake-arctic-embed", "", "Represent this sentence for searching relevant passages: "),
    ("qwen3-embedding", "", "Instruct: <what the search is for>\nQuery:"),
    ("embeddinggemma", "title: none | text: ", "task: search result | query: "),
];

/// Returns the prompts that a model was trained with, if it is known to need one for this kind of text.
pub(super) fn usual_prompts(model: &str, kind: InputKind) -> Option<Prompts> {
    let model = model.to_ascii_lowercase();
    let (_, document, query) = PROMPTED_MODELS.iter().find(|(part, ..)| model.contains(part))?;
    let wanted = match kind {
        InputKind::Document => document,
        InputKind::Query => query,
    };
    (!wanted.is_empty()).then(|| Prompts::new(document, query))
}
