//! Embeds each text once, ever: [`Cached`], over any [`CacheStore`].

mod counts;
mod in_flight;
mod inner;
mod new_call;
mod work;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use async_trait::async_trait;

pub use self::counts::CacheCounts;
use self::{inner::Inner, work::Work};
#[cfg(fuzzing)]
pub use crate::stored_vectors::fuzz;
pub use crate::stored_vectors::{EntryInfo, VectorEncoding};
use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space, Truncation,
    cache::CacheStore,
    checked::embed_checked,
    explanation::{Explanation, distinct, plural},
    numerics::cosine,
    stored_vectors::{Keys, VectorStore},
    sync::Mutex,
};

/// The text whose vector identifies a model. Any text would do, but it must never change.
const PROBE: &str = "The quick brown fox jumps over the lazy dog; 0123456789, ÄÖÜ and 中文.";

/// The cosine that two vectors of the probe text must have to be of one model. Repeated calls of a hosted model differ
/// by at most 3e-4 (Cohere's embed-v4).
const MIN_PROBE_COSINE: f32 = 0.999;

/// The calls in flight if a remote inner embedder does not say how many.
const DEFAULT_CALLS_IN_FLIGHT: usize = 4;

/// The texts per call, and the calls in flight, if the inner embedder takes any number of texts, as local models do.
/// They keep it busy. More would lose more work when a run ends early.
const LOCAL_TEXTS_PER_CALL: usize = 128;
const LOCAL_CALLS_IN_FLIGHT: usize = 2;

/// Embeds each document once, ever.
///
/// ```
/// use docvector_embed::{EmbedderExt, cache::Memory, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let fake = Fake::new(8);
/// let embedder = fake.clone().cached(Memory::new(64 << 20))?;
/// let first = embedder.embed_documents(&["one", "two", "one"]).await?;
/// let again = embedder.embed_documents(&["two", "three"]).await?;
/// assert_eq!(first.row(1), again.row(0));
/// assert_eq!(again.usage().cached, 1);
/// // The provider has seen each text once.
/// let asked: Vec<String> = fake.calls().into_iter().flat_map(|call| call.texts).collect();
/// assert_eq!(asked, ["one", "two", "three"]);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// The key of a text is the blake3 hash of its space, kind, truncation and bytes; nothing is trimmed or folded. Vectors
/// that the store has come from there and cost nothing. The other texts go to the inner embedder in calls within its
/// limits. The rows of each call are stored as soon as they arrive, before they are handed out. Rows come in the
/// caller's order, wherever they come from. Each vector is stored with the mark whether its text was truncated.
///
/// Queries are looked up and share calls, too, but their vectors are not stored: they rarely come again, cost little,
/// and would wait for the disk. [`with_stored_queries`](CachedBuilder::with_stored_queries) stores them.
///
/// Concurrent calls that miss the same text share one inner call ("single flight"). The call continues as long as one
/// of its callers waits for it: a caller that leaves does not end it for the others. An interactive call never waits
/// for a bulk call of the same text: it asks again, and that text is paid for twice.
///
/// One caller is told what a shared call cost: the first that has its whole answer. A caller that leaves earlier takes
/// no bill with it. If all callers have left, the cost is in [`CacheCounts::unclaimed`].
///
/// An entry that is damaged (another length, a wrong checksum, the entry of another key) is counted, logged and
/// discarded, never returned. If no tier has a sound one, the text is embedded again and stored. A store that fails to
/// read or write causes a warning, and costs no vector.
///
/// # Space
/// One store holds any number of spaces without mixing them. An embedder with several spaces is an error: cache each of
/// its parts. [`new_verified`](Cached::new_verified) detects a model that was changed under the same name: it embeds a
/// probe text and compares the vector with the stored one.
///
/// # Errors
/// Those of the inner embedder, with the caller's indices. The error has all rows that are there, from the store and
/// from finished calls. [`Config`](crate::ErrorKind::Config) when building, if there is more than one space.
///
/// # Cancellation
/// If you drop the future, calls that other callers wait for continue; the others end. Rows that have arrived are still
/// stored: on a tokio runtime, storing continues without a caller. A batch with a deadline needs that runtime and its
/// clock. At the deadline, rows that have arrived are handed out even if the store is still writing them; a look-up
/// ends.
///
/// # Stacking
/// Outside everything that costs or waits: `Cached(Retry(... provider))`. It makes [`Dedup`](crate::wrap::Dedup)
/// superfluous. Clones share the calls in flight.
///
/// # Cost
/// One hash per text and one look-up per call. A hit costs a checksum and a copy into the result.
pub struct Cached<E>(Arc<Inner<E>>);

impl<E> Clone for Cached<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: Embedder> Cached<E> {
    /// Caches the vectors of `embedder` in `store`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the embedder has more than one space.
    pub fn new(embedder: E, store: impl CacheStore) -> Result<Self> {
        Self::builder(embedder, store).build()
    }

    /// Returns a builder, to set how vectors are stored.
    pub fn builder(embedder: E, store: impl CacheStore) -> CachedBuilder<E> {
        let encoding = VectorEncoding::default();
        CachedBuilder { embedder, store: Arc::new(store), encoding, stores_queries: false }
    }

    /// Does the same as [`new`](Self::new), and checks that the model is the one whose vectors are stored: see
    /// [`check_model`](Self::check_model).
    ///
    /// # Errors
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) if the vectors differ; those of [`new`](Self::new), of the embedder,
    /// and of the store.
    pub async fn new_verified(embedder: E, store: impl CacheStore) -> Result<Self> {
        Self::builder(embedder, store).build_verified().await
    }

    /// Embeds a probe text and compares its vector with the stored one, or stores it if there is none. Costs one call
    /// of about 30 tokens.
    ///
    /// # Errors
    /// Those of [`new_verified`](Self::new_verified).
    pub async fn check_model(&self) -> Result<()> {
        let inner = &*self.0;
        let space = &inner.spaces[0];
        let key = Keys::of_probe(space.id()).key(PROBE);
        let probe = Batch::documents(&[PROBE]).with_truncation(Truncation::Truncate);
        let fresh = embed_checked(&inner.embedder, probe).await?;
        let mut stored = inner.vectors.probe(key).await?;
        if stored.is_none() {
            inner.vectors.put_probe(key, fresh.row(0)).await?;
            // Another process may have stored first. A store that keeps nothing cannot hold wrong vectors.
            stored = inner.vectors.probe(key).await?;
        }
        let Some(stored) = stored else { return Ok(()) };
        let similarity = cosine(&stored, fresh.row(0)) as f32;
        if similarity >= MIN_PROBE_COSINE {
            return Ok(());
        }
        let message = format!(
            "the model behind {space} is not the one whose vectors the cache holds: the cosine of its probe text is \
             {similarity:.4}, the same model gives at least {MIN_PROBE_COSINE}; give the space another \
             revision, or take another store"
        );
        Err(Error::new(ErrorKind::SpaceMismatch, message).with_embedder(self))
    }
}

/// Builds a [`Cached`].
///
/// ```
/// use docvector_embed::{EmbedderExt, cache::Memory, provider::Fake, wrap::{Cached, VectorEncoding}};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let cached = Cached::builder(Fake::new(8), Memory::new(64 << 20))
///     .with_vector_encoding(VectorEncoding::Half)
///     .build_verified()
///     .await?;
/// assert_eq!(cached.embed_documents(&["half the room"]).await?.len(), 1);
/// # Ok(()) }) }
/// ```
///
/// # Default
/// Vectors are stored exactly. Those of queries are not stored.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct CachedBuilder<E> {
    embedder: E,
    store: Arc<dyn CacheStore>,
    encoding: VectorEncoding,
    stores_queries: bool,
}

impl<E: Embedder> CachedBuilder<E> {
    /// Sets how vectors are stored.
    pub const fn with_vector_encoding(mut self, encoding: VectorEncoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Sets whether the vectors of queries are stored, as those of documents are. Turn it on if the same queries come
    /// again and again, or if a file of queries is embedded in one run that may be repeated.
    ///
    /// Every new query then waits for the store, and the store grows with the queries. A key in it tells whoever can
    /// guess a query that it was asked.
    pub const fn with_stored_queries(mut self, stored: bool) -> Self {
        self.stores_queries = stored;
        self
    }

    /// Builds the cache.
    ///
    /// # Errors
    /// Those of [`Cached::new`].
    pub fn build(self) -> Result<Cached<E>> {
        let Self { embedder, store, encoding, stores_queries } = self;
        let space = match embedder.spaces() {
            [space] => space.clone(),
            spaces => {
                let message = format!("{embedder} lies in {} spaces: cache each of its parts", spaces.len());
                return Err(Error::new(ErrorKind::Config, message));
            }
        };
        Ok(Cached(Arc::new(Inner {
            embedder,
            vectors: VectorStore::new(store, encoding, space.clone()),
            spaces: [space],
            stores_queries,
            in_flight: Mutex::default(),
            calls: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            counts: Arc::default(),
        })))
    }

    /// Builds the cache, and checks that the model is the one whose vectors are stored: see [`Cached::check_model`].
    ///
    /// # Errors
    /// Those of [`Cached::new_verified`].
    pub async fn build_verified(self) -> Result<Cached<E>> {
        let cached = self.build()?;
        cached.check_model().await?;
        Ok(cached)
    }
}

impl<E> Cached<E> {
    /// Returns what this cache has done so far. Clones count together.
    pub fn counts(&self) -> CacheCounts {
        self.0.counts.snapshot(self.0.vectors.counts())
    }

    /// Returns the cost that no caller was told of, by payee: see [`CacheCounts::unclaimed`].
    pub fn unclaimed(&self) -> Charges {
        self.0.counts.unclaimed.with(|unclaimed| unclaimed.clone())
    }

    /// Returns the wrapped embedder.
    pub fn get_ref(&self) -> &E {
        &self.0.embedder
    }

    /// Returns the store.
    pub fn store(&self) -> &dyn CacheStore {
        self.0.vectors.store()
    }
}

impl<E: fmt::Display> fmt::Display for Cached<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cached({})", self.0.embedder)
    }
}

impl<E: fmt::Debug> fmt::Debug for Cached<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("inner", &self.0.embedder)
            .field("store", &self.0.vectors.store())
            .field("encoding", &self.0.vectors.encoding())
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Cached<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let inner = &self.0;
        batch.check_space(&inner.spaces).map_err(|error| error.with_embedder(self))?;
        let limits = inner.embedder.limits();
        let bad = batch.bad_texts(&limits);
        if !bad.is_empty() {
            return Err(Error::invalid_texts(bad).with_embedder(self));
        }
        let calls = limits.in_flight.unwrap_or(if limits.texts.is_some() {
            DEFAULT_CALLS_IN_FLIGHT
        } else {
            LOCAL_CALLS_IN_FLIGHT
        });
        let texts = limits.texts.unwrap_or(LOCAL_TEXTS_PER_CALL);
        let limits = limits.with_texts(texts).with_in_flight(calls);
        let work = Work::new(inner, batch, &limits).await;
        work.run(&limits).await.map_err(|error| error.with_embedder(self))
    }

    fn spaces(&self) -> &[Space] {
        &self.0.spaces
    }

    /// Returns no limits per call, because calls are split here, and the inner embedder's limits per text.
    fn limits(&self) -> Limits {
        let inner = self.0.embedder.limits();
        let mut limits = Limits::none().with_tokens(inner.tokens.clone());
        limits.tokens_per_text = inner.tokens_of_one_text();
        limits
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        let distinct: Vec<&str> = distinct(batch.texts());
        let looked_up = plural(distinct.len(), "distinct text");
        Explanation::new("Cached")
            .with_fact(format!("looks {looked_up} up in {}; those that it has cost nothing", self.store()))
            .with_inner(self.0.embedder.explain(&batch.with_texts(&distinct)))
    }
}
