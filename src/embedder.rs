//! Defines what an embedder is: the [`Embedder`] trait and its laws.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{Batch, Embeddings, Limits, Result, Space};

/// Turns texts into vectors.
///
/// The trait is for those who write one; [`EmbedderExt`](crate::EmbedderExt) is for those who use one.
///
/// ```
/// use docvector_embed::{Batch, Embedder, Embeddings, Limits, Result, Space, Usage, async_trait};
///
/// /// Embeds a text as how often each byte occurs in it. Not a good model.
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
/// Three methods and no defaults: a wrapper that forgot to forward one would be silently wrong. `Display` gives a short
/// name that nests (`Dedup(fake)`) and holds no secret.
///
/// # Laws
/// Each has a check in [`conformance`](crate::conformance), to be run over every embedder and wrapper. **A wrapper is
/// right if the suite cannot tell that it is there.**
///
/// 1. **Shape.** The result has one row a text and the width of its space. No texts give no rows, without any work.
/// 2. **Order.** Row `i` belongs to text `i`.
/// 3. **Independence.** Row `i` depends on space, kind and text `i` alone, within a stated tolerance: not on its
///    neighbours, its place, the size of the batch, or what was embedded before.
/// 4. **All or nothing.** One `embed` call gives every row or an error, never fewer rows. Where many calls are made for
///    one, and one fails, the error gives the finished rows back: [`Error::into_partial`](crate::Error::into_partial).
/// 5. **Spaces.** Every result lies in one of [`spaces`](Self::spaces), which never change; a wanted space that is not
///    among them is [`SpaceMismatch`](crate::ErrorKind::SpaceMismatch) before any work.
/// 6. **Bad texts.** An empty text is [`InvalidInput`](crate::ErrorKind::InvalidInput) before any work. An error names
///    all bad texts at once, by the caller's indices, through every wrapper. A text that occurs twice is bad in both places.
/// 7. **Length.** A text over the limit is `InvalidInput`; or it is truncated, where the batch says so, and then the
///    result names it.
/// 8. **Cancellation.** Dropping the future withdraws what has not begun and leaves everything usable.
/// 9. **Usage.** Tokens and requests are conserved, and who is paid for them: no wrapper invents, doubles or loses any.
///
/// # Cancellation
/// `embed` is cancelled by dropping its future (law 8). What a provider has already begun may still be finished, and
/// paid, there.
#[async_trait]
pub trait Embedder: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Gives one vector a text, in order, for a batch within [`limits`](Self::limits).
    ///
    /// Implementations begin with [`Batch::check`].
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings>;

    /// The vector spaces that results can lie in: exactly one, except for a router across models. Constant from
    /// construction on.
    ///
    /// An embedder with several spaces is a router. Whoever searches an index has to come back to the space of its
    /// vectors, so a router owes its callers more than the laws say ([`conformance::router`](crate::conformance::router)
    /// checks it):
    /// - A wanted space is answered in, whatever the key. One that is not there is a
    ///   [`SpaceMismatch`](crate::ErrorKind::SpaceMismatch) before any work.
    /// - A routing key has one arm for good: for every kind, size and number of calls, after failures, and in every
    ///   process with the same configuration. An arm that is down is an error, and no reason to answer in another space.
    /// - A batch without a key and a wanted space has one fixed arm, or is a `SpaceMismatch` before any work. A random
    ///   arm would let one [`embed_all`](crate::EmbedderExt::embed_all) be answered in two spaces, and so be paid and fail.
    /// - Its [`limits`](Self::limits) fit every arm: [`Limits::combine`].
    fn spaces(&self) -> &[Space];

    /// What one call may hold, and how its tokens are counted.
    fn limits(&self) -> Limits;
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
        }
    )+};
}

pointers_are_embedders!(Arc<E>, Box<E>);

/// Fails to compile if the trait stops being object-safe.
const _: fn(&dyn Embedder) = |_| {};
