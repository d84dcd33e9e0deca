//! Embeds with OpenAI's API, at OpenAI, Azure, or any server that speaks it: [`OpenAi`].

mod builder;
mod credentials;
mod embedder;
mod endpoint;
mod failure;
mod models;
mod redaction;
mod reply;
mod request;
mod server;
mod tokens;

pub use self::{builder::OpenAiBuilder, embedder::OpenAi, endpoint::OpenAiEncoding};

/// What the benchmarks measure alone. Not part of the API.
#[cfg(feature = "__bench")]
#[allow(missing_docs, unnameable_types)]
pub mod bench {
    use crate::{Embeddings, Result, Space};

    /// Reads a reply to a request of `rows` texts.
    ///
    /// # Errors
    /// Where the reply is not one.
    pub fn decode(body: &[u8], rows: usize, space: &Space) -> Result<Embeddings> {
        super::reply::read(body, rows, space, true).map(|read| read.embeddings)
    }
}
