//! Reads and writes the vectors of one space in any [`CacheStore`]: [`VectorStore`].

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt;

use super::{
    counts::StoreCounts,
    entry::{self, MAX_OVERHEAD, Stamp, VectorEncoding},
    rows::Rows,
};
use crate::{
    Embeddings, Error, ErrorKind, Result, Space,
    cache::{CacheStore, Entry, Key, owned_entries::OwnedEntries},
    telemetry,
};

/// How often a store is asked again for an entry that was damaged. Each of its tiers may have a damaged one; more than
/// four tiers are not expected.
const MAX_LOOKUPS_AFTER_DAMAGE: usize = 4;

/// The vectors of one space in a store. A store that fails or panics causes a warning. Damaged entries are discarded.
pub(crate) struct VectorStore {
    store: Arc<dyn CacheStore>,
    encoding: VectorEncoding,
    space: Space,
    counts: StoreCounts,
    /// Whether the store has a note about the space.
    noted: AtomicBool,
}

impl VectorStore {
    pub(crate) fn new(store: Arc<dyn CacheStore>, encoding: VectorEncoding, space: Space) -> Self {
        Self { store, encoding, space, counts: StoreCounts::default(), noted: AtomicBool::new(false) }
    }

    /// Returns the store itself.
    pub(crate) fn store(&self) -> &dyn CacheStore {
        &*self.store
    }

    /// Returns how vectors are stored.
    pub(crate) const fn encoding(&self) -> VectorEncoding {
        self.encoding
    }

    /// Returns what has happened so far.
    pub(crate) const fn counts(&self) -> &StoreCounts {
        &self.counts
    }

    /// Counts a failure of the store, and warns of it.
    pub(crate) fn failed(&self, error: &Error, what: &str) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!({ telemetry::STORE } = %self.store, { telemetry::ERROR } = %error, "the cache {what}");
    }

    /// Takes the missing rows that the store has. Returns the number of damaged entries.
    pub(crate) async fn look_up(&self, keys: &[Key], rows: &mut Rows) -> u64 {
        // Mostly, all rows are missing.
        let mut damaged = if rows.left() == keys.len() {
            self.look(keys, |at| at, rows).await
        } else {
            let missing: Vec<usize> = rows.missing().collect();
            let keys: Vec<Key> = missing.iter().map(|&place| keys[place]).collect();
            self.look(&keys, |at| missing[at], rows).await
        };
        let mut found = 0;
        for _ in 0..MAX_LOOKUPS_AFTER_DAMAGE {
            found += damaged.len() as u64;
            if damaged.is_empty() || !self.discard(&mut damaged).await {
                break;
            }
            // A store of several tiers may have a sound entry of the same key.
            let again: Vec<usize> =
                rows.missing().filter(|&place| damaged.iter().any(|(key, _)| *key == keys[place])).collect();
            let keys: Vec<Key> = again.iter().map(|&place| keys[place]).collect();
            damaged = self.look(&keys, |at| again[at], rows).await;
        }
        found
    }

    /// Returns the rows that the store has of these keys, each at the place of its key.
    #[cfg(feature = "openai")]
    #[allow(dead_code)]
    pub(crate) async fn rows_of(&self, keys: &[Key]) -> Rows {
        let mut rows = Rows::new(keys.len(), self.space.dimensions());
        self.look_up(keys, &mut rows).await;
        rows
    }

    /// Takes what the store has under these keys; returns the damaged entries.
    async fn look(
        &self,
        keys: &[Key],
        place_of: impl Fn(usize) -> usize + Send + Sync,
        rows: &mut Rows,
    ) -> Vec<(Key, Vec<u8>)> {
        let mut damaged = Vec::new();
        if keys.is_empty() {
            return damaged;
        }
        let mut sink = |at: usize, value: &[u8]| {
            // A store that hands over a place twice, or a place that does not exist, does no harm.
            let Some(key) = keys.get(at) else { return };
            let is_read = !rows.is_missing(place_of(at)) || rows.read(place_of(at), key, value);
            if !is_read && !entry::is_of_newer_version(value, key) {
                damaged.push((*key, value.to_vec()));
            }
        };
        if let Err(error) = unpanicked(async { self.store.get(keys, &mut sink).await }).await {
            self.failed(&error, "could not be read: the texts that it did not give are embedded");
        }
        damaged
    }

    /// Discards damaged entries; returns whether that succeeded.
    async fn discard(&self, damaged: &mut Vec<(Key, Vec<u8>)>) -> bool {
        damaged.sort_unstable();
        damaged.dedup();
        self.counts.damaged.fetch_add(damaged.len() as u64, Ordering::Relaxed);
        tracing::warn!(
            { telemetry::STORE } = %self.store,
            { telemetry::DAMAGED } = damaged.len(),
            "damaged entries are discarded"
        );
        let entries: Vec<Entry<'_>> = damaged.iter().map(|(key, value)| Entry::new(*key, value)).collect();
        let discarded = unpanicked(async { self.store.discard(&entries).await }).await;
        if let Err(error) = &discarded {
            self.failed(error, "could not discard damaged entries: their texts will be embedded again later");
        }
        discarded.is_ok()
    }

    /// Reads the stored vector of the probe text.
    pub(crate) async fn probe(&self, key: Key) -> Result<Option<Vec<f32>>> {
        let mut stored = vec![0.0; self.space.dimensions()];
        for _ in 0..MAX_LOOKUPS_AFTER_DAMAGE {
            let (mut found, mut damaged) = (false, None);
            let mut sink = |_: usize, value: &[u8]| {
                found = entry::read(value, &key, &mut stored).is_some();
                damaged = (!found).then(|| (key, value.to_vec()));
            };
            unpanicked(async { self.store.get(&[key], &mut sink).await }).await?;
            match damaged {
                Some(damaged) => self.discard(&mut vec![damaged]).await,
                None => return Ok(found.then_some(stored)),
            };
        }
        Ok(None)
    }

    /// Stores the vector of the probe text, exactly.
    pub(crate) async fn put_probe(&self, key: Key, row: &[f32]) -> Result<()> {
        let mut value = Vec::new();
        let stamp = Some(Stamp::now(self.space.id()));
        entry::write(&mut value, &key, row, false, VectorEncoding::Exact, stamp);
        unpanicked(async { self.store.put(&[Entry::new(key, &value)]).await }).await?;
        self.note().await
    }

    /// Notes in the store what the space is, once.
    async fn note(&self) -> Result<()> {
        if self.noted.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let space = &self.space;
        // So that people can tell two revisions of a model apart.
        let about = space.revision().map_or(space.to_string(), |revision| format!("{space}, revision {revision}"));
        unpanicked(async { self.store.note(space.id(), &about).await })
            .await
            .inspect_err(|_| self.noted.store(false, Ordering::Relaxed))
    }

    /// Stores rows under keys. A failure causes a warning.
    pub(crate) async fn keep(&self, keys: &[Key], rows: &Embeddings) {
        let mut entries = OwnedEntries::with_capacity(keys.len(), keys.len() * (rows.dimensions() * 4 + MAX_OVERHEAD));
        let stamp = Some(Stamp::now(self.space.id()));
        for (row, &key) in keys.iter().enumerate() {
            let cut = rows.is_truncated(row);
            entries.push_with(key, |value| entry::write(value, &key, rows.row(row), cut, self.encoding, stamp));
        }
        let entries: Vec<Entry<'_>> = entries.iter().collect();
        if let Err(error) = unpanicked(async { self.store.put(&entries).await }).await {
            self.failed(&error, "could not be written: its texts will be embedded again later");
            return;
        }
        self.counts.stored.fetch_add(keys.len() as u64, Ordering::Relaxed);
        if let Err(error) = self.note().await {
            self.failed(&error, "could not note the space");
        }
    }
}

/// Turns a panic of the store into an error: it is a failure of the store, and no caller should see it.
async fn unpanicked<T: Send>(work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let panicked = |_| Err(Error::new(ErrorKind::Cache, "the store panicked"));
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(panicked)
}

#[cfg(all(test, feature = "openai"))]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{
        InputKind, SpaceId, Truncation, Usage,
        cache::{Memory, Sink},
        stored_vectors::key::Keys,
    };

    const WIDTH: usize = 2;

    fn space() -> Space {
        Space::builder("a-model", WIDTH).build().expect("a space")
    }

    fn keys(texts: &[&str]) -> Vec<Key> {
        let keys = Keys::new(space().id(), InputKind::Document, Truncation::Truncate, Some(9));
        texts.iter().map(|text| keys.key(text)).collect()
    }

    #[tokio::test]
    async fn each_row_that_was_kept_is_at_the_place_of_its_key() {
        let vectors = VectorStore::new(Arc::new(Memory::new(1 << 20)), VectorEncoding::Exact, space());
        let rows = Embeddings::new(2, &space(), vec![1.0, 2.0, 3.0, 4.0], Usage::ZERO).expect("rows");
        vectors.keep(&keys(&["one", "two"]), &rows.with_truncated(vec![1])).await;
        let rows = vectors.rows_of(&keys(&["two", "three", "one", "two"])).await;
        let there: Vec<Option<&[f32]>> = (0..5).map(|place| rows.row(place)).collect();
        assert_eq!(there, [Some(&[3.0, 4.0][..]), None, Some(&[1.0, 2.0]), Some(&[3.0, 4.0]), None]);
        assert_eq!((rows.missing().collect::<Vec<_>>(), rows.hits), (vec![1], 3));
        let mut truncated = rows.truncated().to_vec();
        truncated.sort_unstable();
        assert_eq!(truncated, [0, 3]);
        assert_eq!(vectors.counts().stored.load(Ordering::Relaxed), 2);
    }

    /// Fails or panics.
    #[derive(Debug)]
    struct Broken(bool);

    impl std::fmt::Display for Broken {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("broken")
        }
    }

    impl Broken {
        fn fail(&self) -> Result<()> {
            assert!(!self.0, "told to");
            Err(Error::new(ErrorKind::Cache, "told to"))
        }
    }

    #[async_trait]
    impl CacheStore for Broken {
        async fn get(&self, _: &[Key], _: &mut Sink<'_>) -> Result<()> {
            self.fail()
        }

        async fn put(&self, _: &[Entry<'_>]) -> Result<()> {
            self.fail()
        }

        async fn discard(&self, _: &[Entry<'_>]) -> Result<()> {
            self.fail()
        }

        async fn note(&self, _: SpaceId, _: &str) -> Result<()> {
            self.fail()
        }

        async fn flush(&self) -> Result<()> {
            self.fail()
        }
    }

    #[tokio::test]
    async fn a_store_that_fails_has_nothing_and_stops_nobody() {
        for panics in [false, true] {
            let vectors = VectorStore::new(Arc::new(Broken(panics)), VectorEncoding::Exact, space());
            let row = Embeddings::new(1, &space(), vec![1.0, 2.0], Usage::ZERO).expect("a row");
            vectors.keep(&keys(&["one"]), &row).await;
            assert_eq!(vectors.rows_of(&keys(&["one", "two"])).await.left(), 2);
            let counts = vectors.counts();
            assert_eq!((counts.failures.load(Ordering::Relaxed), counts.stored.load(Ordering::Relaxed)), (2, 0));
        }
    }
}
