//! Embeds a batch at one endpoint, in the dialect of the service: [`embed`].

use super::{dialect::RemoteDialect, native, sending::Call, tei};
use crate::{Embeddings, Result};

/// Embeds a batch at one endpoint, with one request.
pub(super) async fn embed(call: Call<'_>) -> Result<Embeddings> {
    match call.inner.dialect {
        RemoteDialect::Docvector => native::embed(call).await,
        RemoteDialect::TextEmbeddingsInference => tei::embed(call).await,
        #[cfg(feature = "openai")]
        RemoteDialect::OpenAi => match &call.endpoint.openai {
            Some(openai) => openai.embed_noting(call.batch, call.connections).await,
            None => Err(crate::Error::new(crate::ErrorKind::Config, "the endpoint was not built for OpenAI's dialect")),
        },
    }
}
