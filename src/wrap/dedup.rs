//! Embeds each distinct text of a call once: [`Dedup`].

use std::{collections::HashMap, fmt};

use async_trait::async_trait;

use crate::{
    Batch, Embedder, Embeddings, Limits, Result, Space, Usage,
    checked::embed_checked,
    explanation::{Explanation, distinct, plural},
    observer::EventKind,
};

/// Embeds each distinct text of a call once.
///
/// ```
/// use docvector_embed::{EmbedderExt, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let fake = Fake::new(8);
/// let embeddings = fake.clone().dedup().embed_documents(&["same", "other", "same"]).await?;
/// assert_eq!(embeddings.row(0), embeddings.row(2));
/// assert_eq!(embeddings.usage().deduplicated, 1);
/// assert_eq!(fake.calls()[0].texts, ["same", "other"]);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Rows, space and limits are the inner embedder's. So is the usage, and the texts saved are added to its
/// [`deduplicated`](crate::Usage::deduplicated). Texts are equal if their bytes are; nothing is trimmed and no case is
/// folded. Each call is looked at alone. If [`embed_all`](crate::EmbedderExt::embed_all) gets more texts than one call
/// holds, only duplicates within the same call are found. A cache finds them across calls.
///
/// # Errors
/// Those of the inner embedder. If texts repeat, a breach of the laws or a panic of the inner embedder is an error,
/// too. Indices in inner errors are turned into the caller's: a bad text is named at each of its places.
///
/// # Cancellation
/// Holds nothing between calls. Dropping the future drops the inner one.
///
/// # Stacking
/// For stacks without a cache: a cache finds duplicates itself, also across calls. Put `Dedup` outside retries and
/// limits, so that they see fewer texts.
///
/// # Cost
/// One hash of each text. Without duplicates, the batch and the result pass through unchanged. With duplicates, they
/// are copied once.
#[derive(Clone, Debug)]
pub struct Dedup<E> {
    inner: E,
}

impl<E> Dedup<E> {
    /// Wraps `inner`.
    pub const fn new(inner: E) -> Self {
        Self { inner }
    }

    /// Returns the wrapped embedder.
    pub const fn get_ref(&self) -> &E {
        &self.inner
    }

    /// Takes the wrapped embedder out.
    pub fn into_inner(self) -> E {
        self.inner
    }
}

impl<E: fmt::Display> fmt::Display for Dedup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dedup({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Dedup<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        // No checks here: the inner embedder makes them, and `places` turns its error's indices into the caller's.
        let Some(distinct) = Distinct::of(batch.texts()) else { return self.inner.embed(batch).await };
        let result = embed_checked(&self.inner, batch.pick(&distinct.firsts).batch()).await;
        let embeddings = result.map_err(|error| {
            let places = distinct.places();
            error.map_indices(|inner| places.get(inner).cloned().unwrap_or_default())
        })?;
        let saved = (batch.len() - distinct.firsts.len()) as u64;
        batch.tell(self, EventKind::Deduplicated { texts: saved });
        let saved = Usage::ZERO.with_deduplicated(saved);
        Ok(embeddings.select(&distinct.row_of).with_usage(saved))
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        let distinct = distinct(batch.texts());
        let saved = plural(batch.len() - distinct.len(), "repeated text");
        Explanation::new("Dedup")
            .with_fact(format!("saves {saved}"))
            .with_inner(self.inner.explain(&batch.with_texts(&distinct)))
    }
}

/// The distinct texts of a batch, and for each text which of them it is.
struct Distinct {
    /// The index at which each distinct text first appears, ascending.
    firsts: Vec<usize>,
    /// For each text of the batch, the number of its distinct text.
    row_of: Vec<usize>,
}

impl Distinct {
    /// Finds the distinct texts; `None` if all texts are distinct.
    fn of(all: &[&str]) -> Option<Self> {
        let mut seen = HashMap::with_capacity(all.len());
        let mut firsts = Vec::new();
        let row_of: Vec<usize> = all
            .iter()
            .enumerate()
            .map(|(place, &text)| {
                *seen.entry(text).or_insert_with(|| {
                    firsts.push(place);
                    firsts.len() - 1
                })
            })
            .collect();
        (firsts.len() < all.len()).then_some(Self { firsts, row_of })
    }

    /// Returns all indices of each distinct text.
    fn places(&self) -> Vec<Vec<usize>> {
        let mut places = vec![Vec::new(); self.firsts.len()];
        self.row_of.iter().enumerate().for_each(|(place, &text)| places[text].push(place));
        places
    }
}
