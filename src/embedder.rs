//! Defines what an embedder is: the [`Embedder`] trait and its laws.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{Batch, Embeddings, Limits, Result, Space, explanation::Explanation};

/// Turns texts into vectors.
///
/// Implement this trait to add an embedder. To use one, call the methods of [`EmbedderExt`](crate::EmbedderExt).
///
/// ```
/// use docvector_embed::{Batch, Embedder, Embeddings, Limits, Result, Space, Usage, async_trait};
///
/// /// Counts how often each byte occurs in a text. Not a good model.
/// #[derive(Debug)]
/// struct Bytes(Space);
///
/// impl std::fmt::Display for Bytes {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("bytes")
///     }
/// }
///
/// #[async_trait]
/// impl Embedder for Bytes {
///     async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
///         batch.check(self.spaces(), &self.limits())?;
///         if batch.is_empty() {
///             return Ok(Embeddings::empty(&self.0));
///         }
///         let mut components = vec![0.0; batch.len() * 256];
///         for (text, row) in batch.texts().iter().zip(components.chunks_mut(256)) {
///             text.bytes().for_each(|byte| row[usize::from(byte)] += 1.0);
///         }
///         Embeddings::new(batch.len(), &self.0, components, Usage::of_request(None))
///     }
///     fn spaces(&self) -> &[Space] {
///         std::slice::from_ref(&self.0)
///     }
///     fn limits(&self) -> Limits {
///         Limits::none()
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let bytes = Bytes(Space::builder("bytes", 256).build()?);
/// docvector_embed::conformance::Suite::new(&bytes).run().await?;
/// # Ok(()) }) }
/// ```
///
/// Three of the methods have no default: a wrapper that forgot to forward one would be silently wrong. The fourth,
/// [`explain`](Self::explain), makes no vectors and has one. `Display` shows a short name that nests (`Dedup(fake)`) and contains no secret.
///
/// # Laws
/// Each law has a check in [`conformance`](crate::conformance). Run the checks on every embedder and wrapper. **A
/// wrapper is correct if the suite cannot tell that it is there.**
///
/// 1. **Shape.** The result has one row per text, and each row has the width of the result's space. An empty batch
///    returns no rows and does no work.
/// 2. **Order.** Row `i` belongs to text `i`.
/// 3. **Independence.** Row `i` depends only on the space, the kind and text `i`, within a stated tolerance. It does
///    not depend on the other texts, its place, the size of the batch, or earlier calls. If the space has different
///    prompts for documents and queries, the kind makes a difference.
/// 4. **All or nothing.** One `embed` call returns every row or an error, never fewer rows. If an embedder makes
///    several calls for one and one of them fails, the error returns the finished rows:
///    [`Error::into_partial`](crate::Error::into_partial).
/// 5. **Spaces.** Every result lies in one of [`spaces`](Self::spaces), which never change. If the batch wants a space
///    that is not among them, the call fails with [`SpaceMismatch`](crate::ErrorKind::SpaceMismatch) before any work.
/// 6. **Bad texts.** If a text is empty, the call fails with [`InvalidInput`](crate::ErrorKind::InvalidInput) before
///    any work. An error names all bad texts at once, by the caller's indices, through every wrapper. A bad text that
///    occurs twice is named at both places.
/// 7. **Length.** If a text is over the limit, the call fails with `InvalidInput`. If the batch allows truncation, the
///    text is truncated instead, and the result names it.
/// 8. **Cancellation.** Dropping the future withdraws all work that has not begun, and the embedder stays usable.
/// 9. **Usage.** Tokens, requests and their payees are conserved: no wrapper invents, doubles or loses any.
///
/// # Cancellation
/// Dropping the future cancels `embed` (law 8). The provider may still finish, and bill, work that it has already
/// begun.
#[async_trait]
pub trait Embedder: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Returns one vector per text, in order, for a batch within [`limits`](Self::limits).
    ///
    /// An implementation calls [`Batch::check`] first.
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings>;

    /// Returns the vector spaces that results can lie in.
    ///
    /// There is exactly one, except for a router across models. The spaces never change after construction.
    ///
    /// An embedder with several spaces is a router, and the embedders behind it are its arms. A search needs the space
    /// that the vectors of the index lie in, so a router has duties beyond the laws
    /// ([`conformance::router`](crate::conformance::router) checks them):
    /// - If a batch wants a space, the rows lie in it, whatever the routing key. If no arm has that space, the call
    ///   fails with [`SpaceMismatch`](crate::ErrorKind::SpaceMismatch) before any work.
    /// - A routing key has the same arm forever: for every kind, size and number of calls, after failures, and in every
    ///   process with the same configuration. If the arm is down, the call fails: the router never answers in another
    ///   space instead.
    /// - A batch with neither a key nor a wanted space goes to one fixed arm, or fails with `SpaceMismatch` before any
    ///   work. With a random arm, one [`embed_all`](crate::EmbedderExt::embed_all) could get rows in two spaces: it
    ///   would be paid for and fail. ([`Resilient`](crate::wrap::Resilient) departs from this if it is told to.)
    /// - The router's [`limits`](Self::limits) fit every arm: see [`Limits::combine`].
    fn spaces(&self) -> &[Space];

    /// Returns what one call may hold, and how its tokens are counted.
    fn limits(&self) -> Limits;

    /// Says what this batch would meet here, without a call: see [`plan::explain`](crate::plan::explain). The batch may be
    /// larger than a call holds.
    ///
    /// The default shows an embedder by its name, spaces and limits. A wrapper overrides it, to show the embedders inside
    /// it, and a provider, to name its payee.
    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        Explanation::of_provider(format_args!("{self}"), batch, self.spaces(), &self.limits(), None)
    }
}

macro_rules! pointers_are_embedders {
    ($($pointer:ty),+) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<E: Embedder + ?Sized> Embedder for $pointer {
            async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
                (**self).embed(batch).await
            }

            fn spaces(&self) -> &[Space] {
                (**self).spaces()
            }

            fn limits(&self) -> Limits {
                (**self).limits()
            }

            fn explain(&self, batch: &Batch<'_>) -> Explanation {
                (**self).explain(batch)
            }
        }
    )+};
}

pointers_are_embedders!(Arc<E>, Box<E>);

/// Fails to compile if the trait stops being object-safe.
const _: fn(&dyn Embedder) = |_| {};
