//! Embeds any number of texts, and stacks wrappers: [`EmbedderExt`], what users of an embedder call.

mod each;
mod stream;

use std::time::Duration;

use futures_util::future::join_all;

pub use self::{each::Each, stream::StreamOptions};
use crate::{
    Batch, Embedder, Embeddings, Error, ErrorKind, InputKind, Result, Space, SpaceId,
    all::{embed_all, embed_all_with_progress},
    cache::CacheStore,
    observer::Observer,
    wrap::{
        Cached, Coalesce, Concurrency, Dedup, Metered, MetricsSink, Observed, RateLimit, RateLimiter, Resilient,
        ResilientBuilder, Retry, RetryPolicy, Timeout,
    },
};

/// The methods of every embedder for its users. Implemented for all embedders; do not implement it by hand.
///
/// ```
/// use docvector_embed::{EmbedderExt, Limits, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// // An embedder that takes 100 texts per call; we have more.
/// let embedder = Fake::builder().with_dimensions(16).with_limits(Limits::none().with_texts(100)).build()?.dedup();
/// let texts: Vec<String> = (0..1000).map(|i| format!("text {}", i % 900)).collect();
/// let embeddings = embedder.embed_documents(&texts).await?;
/// assert_eq!(embeddings.len(), 1000);
/// assert_eq!(embeddings.row(0), embeddings.row(900));
/// let query: Vec<f32> = embedder.embed_query_in(embeddings.space(), "which text?").await?;
/// assert_eq!(query.len(), embedder.dimensions()?);
/// # Ok(()) }) }
/// ```
///
/// # Cancellation
/// Dropping a future or stream drops its calls in flight. Finished rows that it has not returned yet are lost. To keep
/// each row once it is finished, embed through a cache.
pub trait EmbedderExt: Embedder {
    /// Embeds any number of documents; row `i` belongs to text `i`.
    ///
    /// A text that is too long is an error. To truncate it, or to set any other option of a [`Batch`], use
    /// [`embed_all`](Self::embed_all).
    ///
    /// # Errors
    /// Those of [`embed_all`](Self::embed_all).
    fn embed_documents<S: AsRef<str> + Sync>(&self, texts: &[S]) -> impl Future<Output = Result<Embeddings>> + Send {
        embed_kind(self, InputKind::Document, texts)
    }

    /// Embeds any number of queries; row `i` belongs to text `i`.
    ///
    /// # Errors
    /// Those of [`embed_all`](Self::embed_all).
    fn embed_queries<S: AsRef<str> + Sync>(&self, texts: &[S]) -> impl Future<Output = Result<Embeddings>> + Send {
        embed_kind(self, InputKind::Query, texts)
    }

    /// Embeds one query in the space of the vectors that it is compared with: a [`Space`], or its [`SpaceId`].
    ///
    /// ```
    /// use docvector_embed::{EmbedderExt, ErrorKind, Space, provider::Fake};
    /// # fn main() -> docvector_embed::Result<()> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let embedder = Fake::new(8);
    /// // Stored beside the collection by `Space::to_text` when the documents were embedded.
    /// let stored = embedder.embed_documents(&["a text"]).await?.space().to_text();
    /// let space: Space = stored.parse()?;
    /// let query: Vec<f32> = embedder.embed_query_in(&space, "which text?").await?;
    /// # assert_eq!(query.len(), 8);
    /// // An embedder of another space may give vectors of the same width. They are not comparable.
    /// let other = Space::builder("another-model", 8).build()?;
    /// let error = embedder.embed_query_in(&other, "which text?").await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    /// # Ok(()) }) }
    /// ```
    ///
    /// # Errors
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) before any work if this embedder does not have the space; those of
    /// [`embed_all`](Self::embed_all).
    fn embed_query_in(&self, space: impl Into<SpaceId>, text: &str) -> impl Future<Output = Result<Vec<f32>>> + Send {
        let space = space.into();
        async move { embed_one(self, Batch::queries(&[text]).with_space(space)).await }
    }

    /// Embeds one query in the embedder's space.
    ///
    /// The vector does not say which space it lies in. Nothing notices if it is compared with vectors of another one,
    /// such as int8 queries with fp32 documents: the widths are equal, and the results are wrong. To search, use
    /// [`embed_query_in`](Self::embed_query_in).
    ///
    /// # Errors
    /// Those of [`embed_all`](Self::embed_all).
    fn embed_query(&self, text: &str) -> impl Future<Output = Result<Vec<f32>>> + Send {
        async move { embed_one(self, Batch::queries(&[text])).await }
    }

    /// Embeds one query in every space of the embedder at once, in the order of [`spaces`](Embedder::spaces). A search
    /// covers several collections in this way while one of them replaces the other.
    ///
    /// ```
    /// use docvector_embed::{EmbedderExt, provider::Fake, wrap::AbSplit};
    /// # fn main() -> docvector_embed::Result<()> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let hosted = Fake::builder().with_model("hosted").with_dimensions(16).build()?;
    /// let own = Fake::builder().with_model("own").with_dimensions(8).build()?;
    /// let split = AbSplit::builder("migration").with_arm("hosted", 1, hosted).with_arm("own", 1, own).build()?;
    /// for (space, query) in split.embed_query_each("which text?").await {
    ///     // Search the collection of this space.
    ///     assert_eq!(query?.len(), space.dimensions());
    /// }
    /// # Ok(()) }) }
    /// ```
    ///
    /// # Errors
    /// Each space has a result of its own: one that fails does not fail the others. The errors are those of
    /// [`embed_query_in`](Self::embed_query_in).
    fn embed_query_each(&self, text: &str) -> impl Future<Output = Vec<(Space, Result<Vec<f32>>)>> + Send {
        join_all(self.spaces().iter().map(move |space| async move {
            let query = embed_one(self, Batch::queries(&[text]).with_space(space.id())).await;
            (space.clone(), query)
        }))
    }

    /// Embeds a batch of any size; row `i` belongs to text `i`.
    ///
    /// The batch is split by [`limits`](Embedder::limits). The embedder's limits also say how many calls are [in
    /// flight](crate::Limits::in_flight) at once; if they do not, there are four.
    ///
    /// # Errors
    /// The error of the first call that fails. After it no further calls begin, and those in flight are awaited;
    /// [`Error::into_partial`] returns the finished rows. Texts that no call can hold are found before the first call,
    /// all at once. If an embedder breaks the laws of shape or space, the error is [`Protocol`](ErrorKind::Protocol),
    /// and no wrong rows are returned; if it panics, the error is [`Inference`](ErrorKind::Inference).
    fn embed_all(&self, batch: Batch<'_>) -> impl Future<Output = Result<Embeddings>> + Send {
        embed_all(self, batch)
    }

    /// Does the same as [`embed_all`](Self::embed_all), and says how far it is: after each call that succeeds,
    /// `progress` is given the number of rows that are there so far.
    ///
    /// An embedder that takes any number of texts, such as `Onnx` or a cache, gets the batch in about 64 parts of 128 to
    /// 1,024 texts, because a single call would say nothing until its end.
    ///
    /// ```
    /// use docvector_embed::{Batch, EmbedderExt, provider::Fake};
    /// # fn main() -> docvector_embed::Result<()> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let texts = vec!["a text"; 1_000];
    /// let mut last = 0;
    /// let embedder = Fake::new(8);
    /// let rows = embedder.embed_all_with_progress(Batch::documents(&texts), |done| {
    ///     println!("{done} of {}", texts.len());
    ///     assert!(done > last);
    ///     last = done;
    /// });
    /// assert_eq!(rows.await?.len(), 1_000);
    /// # Ok(()) }) }
    /// ```
    ///
    /// Keep `progress` short: no call begins or ends meanwhile. The finished rows of a call that fails are not counted.
    ///
    /// # Errors
    /// Those of [`embed_all`](Self::embed_all).
    fn embed_all_with_progress(
        &self,
        batch: Batch<'_>,
        progress: impl FnMut(usize) + Send,
    ) -> impl Future<Output = Result<Embeddings>> + Send {
        embed_all_with_progress(self, batch, progress)
    }

    /// Embeds a batch of any size with one result per text, so that one bad text does not fail the others.
    ///
    /// If an error names bad texts, they are left out, and the rest of their call is sent again. A refused call that
    /// names no text is bisected. If both halves and three single texts are refused, the texts are not the cause.
    ///
    /// A server may fail for as long as one text is in the call: with status 500, say, or with a reply that is not JSON.
    /// Such a call is bisected too, and the text gets the error, named as
    /// [rejected](crate::BadTextReason::Rejected). The server must first prove that it answers for other texts. A bad
    /// text among `n` costs about `2 log2(n) + 2` requests, and a failing call at most 128. If the provider fails in
    /// another way (no connection, no time, status 503 or 504, a reply with rows of another width), its error is the
    /// result of all texts of that call. The run ends after a failure that will not pass (wrong key, no money), or
    /// after three failures in a row.
    fn embed_each(&self, batch: Batch<'_>) -> impl Future<Output = Each> + Send {
        each::embed_each(self, batch)
    }

    /// Embeds a corpus larger than memory: takes texts as they come, and returns windows of rows in the same order.
    ///
    /// Streams are those of the crate `futures-core`. To make one, use `futures-util` (`stream::iter` of an iterator).
    /// Pin the result to read it, as below.
    ///
    /// Memory is bounded by the [window and the number of windows at once](StreamOptions), whatever the length of the
    /// corpus. Indices in errors count from the stream's first text. The stream ends after an error. The error returns
    /// the finished rows of the failed window, and of later windows that had begun.
    ///
    /// On a tokio runtime, windows that have begun go on while the consumer is busy, so its loop may use the same
    /// embedder. (Elsewhere they go on only while the stream is polled.) Each window is a task that owns its texts and
    /// a clone of the embedder. Put an embedder that is not `Clone` into an `Arc`. Dropping the stream ends the tasks.
    ///
    /// ```
    /// use docvector_embed::{EmbedderExt, InputKind, StreamOptions, provider::Fake};
    /// use futures_util::{StreamExt, stream};
    /// # fn main() -> docvector_embed::Result<()> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let embedder = Fake::new(4);
    /// let corpus = stream::iter((0..10_000).map(|i| format!("line {i}")));
    /// let mut windows = std::pin::pin!(embedder.embed_stream(corpus, StreamOptions::new(InputKind::Document)));
    /// let mut rows = 0;
    /// while let Some(window) = windows.next().await {
    ///     rows += window?.len();
    /// }
    /// assert_eq!(rows, 10_000);
    /// # Ok(()) }) }
    /// ```
    fn embed_stream<T, S>(
        &self,
        texts: S,
        options: StreamOptions,
    ) -> impl futures_core::Stream<Item = Result<Embeddings>> + Send + use<Self, T, S>
    where
        Self: Clone,
        T: AsRef<str> + Send + Sync + 'static,
        S: futures_core::Stream<Item = T> + Send,
    {
        stream::embed_stream(self, texts, options)
    }

    /// Returns the one space that results lie in.
    ///
    /// # Errors
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) for a router across several spaces.
    fn space(&self) -> Result<&Space> {
        match self.spaces() {
            [space] => Ok(space),
            spaces => {
                let message = format!("{} has {} spaces, not one: set the wanted one on the batch", self, spaces.len());
                Err(Error::new(ErrorKind::SpaceMismatch, message))
            }
        }
    }

    /// Returns the number of components of a vector.
    ///
    /// # Errors
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) for a router across several spaces.
    fn dimensions(&self) -> Result<usize> {
        self.space().map(Space::dimensions)
    }

    /// Embeds each document once, ever: see [`Cached`]. This does not check that the stored vectors are those of this
    /// model: [`Cached::new_verified`] and [`Cached::check_model`] do.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a router across several spaces: cache each of them.
    fn cached(self, store: impl CacheStore) -> Result<Cached<Self>>
    where
        Self: Sized,
    {
        Cached::new(self, store)
    }

    /// Turns small concurrent calls that begin within `window` of each other into one: see [`Coalesce`].
    fn coalesce(self, window: Duration) -> Coalesce<Self>
    where
        Self: Sized,
    {
        Coalesce::new(self, window)
    }

    /// Lets at most this many calls run at once: see [`Concurrency`]. For a shared gate, or one with a bounded queue,
    /// see [`Concurrency::with_gate`].
    fn concurrency(self, calls: usize) -> Concurrency<Self>
    where
        Self: Sized,
    {
        Concurrency::new(self, calls)
    }

    /// Records in a [`MetricsSink`] what each call cost: see [`Metered`].
    fn metered(self, sink: impl MetricsSink) -> Metered<Self>
    where
        Self: Sized,
    {
        Metered::new(self, sink)
    }

    /// Lets an [`Observer`] hear what happens to all calls inside: see [`Observed`].
    fn observed(self, observer: impl Observer) -> Observed<Self>
    where
        Self: Sized,
    {
        Observed::new(self, observer)
    }

    /// Keeps calls within a number of requests and tokens per minute: see [`RateLimit`].
    fn rate_limit(self, limiter: RateLimiter) -> RateLimit<Self>
    where
        Self: Sized,
    {
        RateLimit::new(self, limiter)
    }

    /// Begins a stack that asks another member if this one fails: see [`Resilient`].
    ///
    /// ```
    /// use docvector_embed::{EmbedderExt, provider::Fake};
    /// # fn main() -> docvector_embed::Result<()> {
    /// let embedder = Fake::new(8).resilient().with_fallback(Fake::new(8)).with_trusted_spaces().build()?;
    /// assert_eq!(embedder.to_string(), "Resilient(fake, fake)");
    /// # Ok(()) }
    /// ```
    fn resilient(self) -> ResilientBuilder
    where
        Self: Sized,
    {
        Resilient::builder(self)
    }

    /// Repeats failed calls that may succeed: see [`Retry`].
    fn retry(self, policy: RetryPolicy) -> Retry<Self>
    where
        Self: Sized,
    {
        Retry::new(self, policy)
    }

    /// Ends a call that takes longer than `limit`: see [`Timeout`].
    fn timeout(self, limit: Duration) -> Timeout<Self>
    where
        Self: Sized,
    {
        Timeout::new(self, limit)
    }

    /// Embeds each distinct text of a call once: see [`Dedup`].
    fn dedup(self) -> Dedup<Self>
    where
        Self: Sized,
    {
        Dedup::new(self)
    }
}

impl<E: Embedder + ?Sized> EmbedderExt for E {}

async fn embed_one<E: Embedder + ?Sized>(embedder: &E, batch: Batch<'_>) -> Result<Vec<f32>> {
    let embeddings = embed_all(embedder, batch).await?;
    Ok(embeddings.into_vectors().into_raw_vec_and_offset().0)
}

async fn embed_kind<E, S>(embedder: &E, kind: InputKind, texts: &[S]) -> Result<Embeddings>
where
    E: Embedder + ?Sized,
    S: AsRef<str> + Sync,
{
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    embed_all(embedder, Batch::new(kind, &texts)).await
}
