//! Knows OpenAI's embedding models, and the models of others that were trained with prompts.

use crate::{InputKind, Limits, Prompts};

/// One of OpenAI's models. Facts: the API reference and the model pages of OpenAI's documentation.
pub(super) struct Model {
    pub(super) name: &'static str,
    /// Components, unless fewer are asked for.
    pub(super) dimensions: usize,
    /// Whether fewer can be asked for.
    pub(super) shortens: bool,
}

const MODELS: [Model; 3] = [
    Model { name: "text-embedding-3-small", dimensions: 1536, shortens: true },
    Model { name: "text-embedding-3-large", dimensions: 3072, shortens: true },
    Model { name: "text-embedding-ada-002", dimensions: 1536, shortens: false },
];

/// The model of this name, if it is OpenAI's.
pub(super) fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// Texts a request; the API reference's limit for the array of inputs.
const TEXTS_PER_CALL: usize = 2048;

/// Tokens a text. The reference says 8,192, and servers have refused that many; 8,191 is what the models' pages say.
const TOKENS_PER_TEXT: usize = 8191;

/// Tokens a request, all its texts together.
const TOKENS_PER_CALL: usize = 300_000;

/// Requests at once that OpenAI answers as fast as one.
const IN_FLIGHT: usize = 8;

/// What a request to OpenAI's models may hold.
pub(super) const fn limits() -> Limits {
    Limits::none()
        .with_texts(TEXTS_PER_CALL)
        .with_tokens_per_text(TOKENS_PER_TEXT)
        .with_tokens_per_call(TOKENS_PER_CALL)
        .with_in_flight(IN_FLIGHT)
}

/// What a request to an unknown server may hold: as many texts as OpenAI takes, and its own limits for tokens.
pub(super) const fn unknown_limits() -> Limits {
    Limits::none().with_texts(TEXTS_PER_CALL)
}

/// Models whose vectors are wrong without prompts: part of the name, and what goes before documents and queries. From
/// their model cards.
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

/// The prompts that a model was trained with, where it is known to need some for this kind of text.
pub(super) fn usual_prompts(model: &str, kind: InputKind) -> Option<Prompts> {
    let model = model.to_ascii_lowercase();
    let (_, document, query) = PROMPTED_MODELS.iter().find(|(part, ..)| model.contains(part))?;
    let wanted = match kind {
        InputKind::Document => document,
        InputKind::Query => query,
    };
    (!wanted.is_empty()).then(|| Prompts::new(document, query))
}
