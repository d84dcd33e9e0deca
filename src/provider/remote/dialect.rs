//! Names the languages that embedding services speak: [`RemoteDialect`].

use crate::named::named;

/// The language in which an embedding service is asked.
///
/// Set by [`with_dialect`](crate::provider::RemoteBuilder::with_dialect).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemoteDialect {
    /// That of this crate's own service: `POST /embed` with `texts`, and rows as binary numbers with their space.
    #[default]
    Docvector,
    /// That of text-embeddings-inference: `POST /embed` with `inputs`, and rows as JSON.
    TextEmbeddingsInference,
    /// That of OpenAI: `POST /v1/embeddings`. Needs the feature `openai`.
    #[cfg(feature = "openai")]
    #[cfg_attr(docvector_docs, doc(cfg(feature = "openai")))]
    OpenAi,
}

#[cfg(feature = "openai")]
named! {
    /// Returns the name: `docvector`, `tei` or `openai`.
    RemoteDialect, "a dialect of embedding services",
    Docvector = "docvector",
    TextEmbeddingsInference = "tei",
    OpenAi = "openai",
}

#[cfg(not(feature = "openai"))]
named! {
    /// Returns the name: `docvector` or `tei`.
    RemoteDialect, "a dialect of embedding services",
    Docvector = "docvector",
    TextEmbeddingsInference = "tei",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        crate::named::check_names(RemoteDialect::ALL);
    }
}
