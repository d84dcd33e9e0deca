//! Embeds through OpenAI's API, at OpenAI, Azure or any server that implements it: [`OpenAi`].

mod body_fields;
mod builder;
mod credentials;
mod embedder;
pub(super) mod endpoint;
mod error_body;
pub(super) mod failure;
mod halves;
mod model_name;
mod models;
mod prompted_models;
pub(super) mod reply;
pub(super) mod request;
mod server;
mod text_limit;
mod tokens;

pub use self::{builder::OpenAiBuilder, embedder::OpenAi, endpoint::OpenAiEncoding};

/// Whether a name is one of OpenAI's own models, whose space is known.
pub(crate) fn is_openai_model(name: &str) -> bool {
    models::find(name).is_some()
}

/// Lets `benches/peers` measure the decoder by itself. Not part of the API.
#[cfg(feature = "__bench")]
#[allow(missing_docs, unnameable_types)]
pub mod bench {
    use crate::{Embeddings, Result, Space};

    /// Reads a reply to a request of `rows` texts.
    ///
    /// # Errors
    /// Those of a reply that does not match the request.
    pub fn decode(body: &[u8], rows: usize, space: &Space) -> Result<Embeddings> {
        super::reply::read(body, rows, space, true).map(|read| read.embeddings)
    }
}

/// Opens the reading of replies to `tests/fuzz`.
#[cfg(fuzzing)]
#[allow(missing_docs)]
pub mod fuzz {
    use crate::{Embeddings, Result, Space};

    pub fn read(body: &[u8], rows: usize, space: &Space, has_content_length: bool) -> Result<Embeddings> {
        super::reply::read(body, rows, space, has_content_length).map(|read| read.embeddings)
    }
}
