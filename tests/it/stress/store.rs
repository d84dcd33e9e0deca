//! Stands in for a store that is slow, fails or panics: [`Moody`].

use std::{
    fmt,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use docvector_embed::{
    Error, ErrorKind, Result, SpaceId, async_trait,
    cache::{CacheStore, Entry, Key, Memory, Sink},
};
use fastrand::Rng;

use super::takes::Takes;

/// The behavior of a store. A chance of `n` means one in `n` operations; 0 means never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moods {
    pub(super) get: Takes,
    pub(super) put: Takes,
    pub(super) fails: u8,
    pub(super) panics_in_get: u8,
    pub(super) panics_in_put: u8,
}

/// A store of the stress. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Moody(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    memory: Memory,
    moods: Moods,
    random: Mutex<Rng>,
    behaves: AtomicBool,
    panics_in_get: AtomicU64,
    panics_in_put: AtomicU64,
}

impl Moody {
    pub(super) fn new(seed: u64, moods: Moods) -> Self {
        Self(Arc::new(Shared {
            memory: Memory::unbounded(),
            moods,
            random: Mutex::new(Rng::with_seed(seed)),
            behaves: AtomicBool::new(false),
            panics_in_get: AtomicU64::new(0),
            panics_in_put: AtomicU64::new(0),
        }))
    }

    /// Ends all moods.
    pub(super) fn behave(&self) {
        self.0.behaves.store(true, Ordering::SeqCst);
    }

    /// Returns how often a look-up has panicked, and how often a write.
    pub(super) fn panics(&self) -> (u64, u64) {
        (self.0.panics_in_get.load(Ordering::SeqCst), self.0.panics_in_put.load(Ordering::SeqCst))
    }

    fn random(&self) -> MutexGuard<'_, Rng> {
        self.0.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happens(&self, one_in: u8) -> bool {
        one_in > 0 && !self.0.behaves.load(Ordering::SeqCst) && self.random().u8(..one_in) == 0
    }

    /// Behaves as its moods say, and counts its panics.
    async fn mood(&self, takes: Takes, panics: u8, count: &AtomicU64) -> Result<()> {
        if !self.0.behaves.load(Ordering::SeqCst) {
            // Without a deadline it waits to the end.
            let _ = takes.wait(None).await;
        }
        if self.happens(panics) {
            count.fetch_add(1, Ordering::SeqCst);
            // No message on the screen: the panic is part of the play.
            resume_unwind(Box::new("as scripted"));
        }
        if self.happens(self.0.moods.fails) {
            return Err(Error::new(ErrorKind::Cache, "as scripted"));
        }
        Ok(())
    }
}

impl fmt::Display for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moody")
    }
}

#[async_trait]
impl CacheStore for Moody {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        self.mood(self.0.moods.get, self.0.moods.panics_in_get, &self.0.panics_in_get).await?;
        self.0.memory.get(keys, sink).await?;
        // It may fail after it has returned all entries.
        self.mood(Takes::NoTime, 0, &self.0.panics_in_get).await
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.mood(self.0.moods.put, self.0.moods.panics_in_put, &self.0.panics_in_put).await?;
        self.0.memory.put(entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.0.memory.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.mood(Takes::Turns(1), 0, &self.0.panics_in_put).await?;
        self.0.memory.note(space, about).await
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}
