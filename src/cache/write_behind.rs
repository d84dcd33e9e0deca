//! Lets callers go on while a slow store writes: [`WriteBehind`].

mod drain;
mod pending;
mod shared;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};

use self::{pending::Pending, shared::Shared};
use super::{CacheStore, Entry, Key, Sink};
use crate::{Error, ErrorKind, Result, SpaceId, sync::Mutex};

/// The bytes in which waiting entries are counted.
const PIECE_BYTES: usize = 1 << 10;

/// The bytes that an entry counts beside its value: its key and its places in tables.
const OVERHEAD_BYTES: usize = 128;

/// A store whose puts are written in the background: for a slow one, such as a server far away, where a caller would
/// rather go on than know that its vectors are safe. It is a store itself. Clones share.
///
/// ```
/// use docvector_embed::cache::{CacheStore, Entry, Key, Memory, WriteBehind};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// // Memory stands in for a store on a server.
/// let slow = Memory::new(64 << 20);
/// let store = WriteBehind::new(slow.clone(), 16 << 20);
/// assert_eq!(store.to_string(), "WriteBehind(memory)");
///
/// let key = Key::from_bytes([7; 32]);
/// store.put(&[Entry::new(key, b"bytes")]).await?;
/// // It is found at once, wherever it is by now.
/// store.get(&[key], &mut |_, value| assert_eq!(value, b"bytes")).await?;
/// // Before a program ends, it waits for what is still to be written.
/// store.flush().await?;
/// assert_eq!((slow.len(), store.counts().written, store.counts().lost), (1, 1, 0));
/// # Ok(()) }) }
/// ```
///
/// # What is lost, and when
/// An `Ok` of `put` means that the entries are in this process's memory, within the bound, and that they will be
/// written. **If the process crashes or ends without [`flush`](CacheStore::flush), up to `bytes` of entries are lost**:
/// their texts are embedded, and paid for, again. So are those of a batch that the inner store refused for as long as
/// [`with_patience`](Self::with_patience) says, and all batches after that until one succeeds; they are in [`counts`](Self::counts) as `lost`, a warning is logged, and
/// the next `flush` is an error. Do not use it where the inner store is as fast as the embedder.
///
/// # Semantics
/// `put` waits only while there is no room. Entries are written in the order in which they came, in batches, by one
/// task at a time. `get` finds those that wait; a value that the inner store has goes before a waiting one, since it was
/// first. So two processes may see different values of a key until the later one is written, and the same one from then
/// on. `discard` waits for a batch that holds one of its keys. `flush` waits until everything that was put before is
/// written, and then flushes the inner store.
///
/// # Errors
/// Those of the inner store, from `get`, `discard` and `flush`. A `get` that fails has handed over the entries that
/// wait. [`Cache`](ErrorKind::Cache) from `flush` if entries were lost since the last one.
///
/// # Cancellation
/// A dropped `put` is accepted as a whole, or not at all if it still waited for room. Other dropped calls change nothing
/// but what they had done.
///
/// # Cost
/// One copy of each value, one task while there is work, on the runtime of the first caller that needs one. Without a
/// tokio runtime, `put` writes at once. Memory is bounded by `bytes`; a larger put is let in alone.
pub struct WriteBehind<S>(Arc<Shared<S>>);

/// The counts of a [`WriteBehind`] so far, in entries: see there for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WriteBehindCounts {
    /// Entries that are in memory alone.
    pub waiting: u64,
    /// Entries that the inner store has taken.
    pub written: u64,
    /// Entries that the inner store has refused for too long.
    pub lost: u64,
}

impl<S: CacheStore> WriteBehind<S> {
    /// Puts a queue of at most so many bytes before a store.
    ///
    /// # Default
    /// A store that fails is tried again for 60 s.
    pub fn new(store: S, bytes: usize) -> Self {
        let pieces = u32::try_from((bytes / PIECE_BYTES).clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self(Arc::new(Shared {
            store,
            patience: Duration::from_secs(60),
            pending: Mutex::default(),
            room: Semaphore::new(pieces as usize),
            pieces,
            finished: watch::Sender::new(0),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }))
    }

    /// Sets how long a store that fails is tried again before entries are given up, and how long one call of it may take. Call it before the first clone and the first put:
    /// later it has no effect.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.patience = patience;
        }
        self
    }

    /// Returns the inner store. It does not have what still waits.
    pub fn store(&self) -> &S {
        &self.0.store
    }

    /// Returns what has happened so far.
    pub fn counts(&self) -> WriteBehindCounts {
        WriteBehindCounts {
            waiting: self.0.pending.with(|pending| pending.len() as u64),
            written: self.0.written.load(Ordering::Relaxed),
            lost: self.0.lost.load(Ordering::Relaxed),
        }
    }

    /// Adds to the queue, once there is room for so many bytes.
    async fn accept(&self, bytes: usize, runtime: &Handle, add: impl FnOnce(&mut Pending, u32) -> u32) -> Result<()> {
        let shared = &self.0;
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX).clamp(1, shared.pieces);
        let room = shared.room.acquire_many(pieces).await;
        let room = room.map_err(|error| Error::new(ErrorKind::Cache, "the queue has ended").with_source(error))?;
        // Given back when the last of these is written.
        room.forget();
        let (unneeded, starts) = shared.pending.with(|pending| (add(pending, pieces), pending.starts()));
        shared.room.add_permits(unneeded as usize);
        if starts {
            drain::start(shared.clone(), runtime);
        }
        Ok(())
    }

    /// Waits until so many of the accepted things are finished.
    async fn until(&self, finished: u64) {
        // A task that ended with its runtime is started again.
        if let Ok(runtime) = Handle::try_current()
            && self.0.pending.with(Pending::starts)
        {
            drain::start(self.0.clone(), &runtime);
        }
        let mut told = self.0.finished.subscribe();
        // The sender lives as long as this handle.
        let _ = told.wait_for(|done| *done >= finished).await;
    }
}

impl<S> Clone for WriteBehind<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: fmt::Display> fmt::Display for WriteBehind<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteBehind({})", self.0.store)
    }
}

impl<S: fmt::Debug> fmt::Debug for WriteBehind<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.0.pending.with(|pending| pending.len());
        f.debug_struct("WriteBehind").field("store", &self.0.store).field("waiting", &waiting).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CacheStore> CacheStore for WriteBehind<S> {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        // Taken before the store is asked: what is written meanwhile is found in one of the two places.
        let mut waiting = self.0.pending.with(|pending| pending.find(keys));
        let mut inner = |place: usize, value: &[u8]| {
            // The inner store's value was first.
            if let Some(waiting) = waiting.get_mut(place) {
                *waiting = None;
            }
            sink(place, value);
        };
        let asked = self.0.store.get(keys, &mut inner).await;
        for (place, value) in waiting.iter().enumerate() {
            value.iter().for_each(|value| sink(place, value));
        }
        asked
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let Ok(runtime) = Handle::try_current() else { return self.0.store.put(entries).await };
        let bytes = entries.iter().map(|entry| OVERHEAD_BYTES + entry.value.len()).sum();
        self.accept(bytes, &runtime, |pending, pieces| pending.push(entries, pieces)).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        if damaged.is_empty() {
            return Ok(());
        }
        let until = self.0.pending.with(|pending| pending.discard(damaged));
        self.until(until).await;
        self.0.store.discard(damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        let Ok(runtime) = Handle::try_current() else { return self.0.store.note(space, about).await };
        let bytes = OVERHEAD_BYTES + about.len();
        self.accept(bytes, &runtime, |pending, pieces| pending.push_note(space, about.to_owned(), pieces)).await
    }

    async fn flush(&self) -> Result<()> {
        let accepted = self.0.pending.with(|pending| pending.accepted());
        self.until(accepted).await;
        let lost = self.0.lost.load(Ordering::Relaxed);
        let told = self.0.told.swap(lost, Ordering::Relaxed);
        if lost > told {
            let message = format!(
                "{} entries were not written, because {} failed for {:?}: their texts will be embedded again",
                lost - told,
                self.0.store,
                self.0.patience
            );
            return Err(Error::new(ErrorKind::Cache, message));
        }
        self.0.store.flush().await
    }
}
