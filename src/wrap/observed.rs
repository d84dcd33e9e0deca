//! Lets an observer hear what happens to all calls of a stack: [`Observed`].

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{Batch, Embedder, Embeddings, Limits, Result, Space, explanation::Explanation, observer::Observer};

/// Lets an observer hear what happens to all calls inside.
///
/// ```
/// use docvector_embed::{EmbedderExt, cache::Memory, observer::{Event, EventKind}, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let embedder = Fake::new(8).metered(()).cached(Memory::new(1 << 20))?.observed(|event: &Event<'_>| match event.kind {
///     EventKind::CacheLookUp { hits, misses, .. } => println!("{hits} hits, {misses} misses"),
///     EventKind::Call(call) => println!("{} took {:?}", call.embedder, call.latency),
///     _ => {}
/// });
/// embedder.embed_documents(&["a text"]).await?;
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Rows, space, usage and limits are the inner embedder's, and so is the batch, which carries the observer. If it carries
/// one already, from further out, both hear of each event, the outer one first. The module
/// [`observer`](crate::observer) says who tells what.
///
/// # Errors
/// Creates none. If the observer panics, there is a warning (through `tracing`), and the call goes on.
///
/// # Cancellation
/// Holds nothing between calls. Dropping the future drops the inner one.
///
/// # Stacking
/// Outside of everything that it is to hear. If several callers share a call, as in
/// [`Cached`](super::Cached), the observer of the caller that began it hears of what happens further in.
///
/// # Cost
/// The observer's own. Without one, a wrapper inside looks at one field. An observer further out costs one allocation
/// per call.
#[derive(Clone)]
pub struct Observed<E> {
    inner: E,
    observer: Arc<dyn Observer>,
}

impl<E> Observed<E> {
    /// Wraps `inner`, and lets `observer` hear what happens to its calls.
    pub fn new(inner: E, observer: impl Observer) -> Self {
        Self { inner, observer: Arc::new(observer) }
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

impl<E: fmt::Display> fmt::Display for Observed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observed({})", self.inner)
    }
}

impl<E: fmt::Debug> fmt::Debug for Observed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Observed<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        match batch.observer() {
            None => self.inner.embed(batch.with_observer(&self.observer)).await,
            Some(outer) => {
                let both: Arc<dyn Observer> = Arc::new((outer.clone(), self.observer.clone()));
                self.inner.embed(batch.with_observer(&both)).await
            }
        }
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        Explanation::new("Observed").with_inner(self.inner.explain(batch))
    }
}
