//! Keeps proving that a fall-back is the same model, for as long as its stack lives: [`Proved`].

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{
    Batch, Embedder, Embeddings, Limits, Result, Space,
    explanation::Explanation,
    wrap::{Resilient, Verifier},
};

/// How often the members are compared by probe texts.
const PERIOD: Duration = Duration::from_secs(3600);

/// A stack with a fall-back, and the task that compares its members.
pub(super) struct Proved {
    stack: Resilient,
    _verifier: Verifier,
}

impl Proved {
    pub(super) fn new(stack: Resilient) -> Result<Self> {
        let verifier = stack.verify_every(PERIOD)?;
        Ok(Self { stack, _verifier: verifier })
    }
}

impl fmt::Display for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stack.fmt(f)
    }
}

impl fmt::Debug for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stack.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Embedder for Proved {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        self.stack.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.stack.spaces()
    }

    fn limits(&self) -> Limits {
        self.stack.limits()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        self.stack.explain(batch)
    }
}
