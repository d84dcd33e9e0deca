//! An embedder that does not pass the deadline on: [`Deaf`].

use std::fmt;

use docvector_embed::{Batch, Embedder, Embeddings, Limits, Result, Space, async_trait, provider::Fake};

/// Asks the fake without a deadline, so that a call ends late or is given up by the wrapper around it.
#[derive(Debug)]
pub(crate) struct Deaf(pub(crate) Fake);

impl fmt::Display for Deaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deaf({})", self.0)
    }
}

#[async_trait]
impl Embedder for Deaf {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        self.0.embed(Batch::new(batch.kind(), batch.texts())).await
    }

    fn spaces(&self) -> &[Space] {
        self.0.spaces()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }
}
