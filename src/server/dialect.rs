//! Names the dialects that clients speak: [`Dialect`].

/// The way in which a client writes requests and reads replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dialect {
    /// This service's own: `{"texts": ..}`.
    Native,
    /// That of text-embeddings-inference: `{"inputs": ..}`.
    Tei,
    /// That of OpenAI: `{"input": ..}`.
    OpenAi,
}

impl Dialect {
    /// All dialects.
    pub(super) const ALL: [Self; 3] = [Self::Native, Self::Tei, Self::OpenAi];

    /// Returns the name, for metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tei => "tei",
            Self::OpenAi => "openai",
        }
    }
}
