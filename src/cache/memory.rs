//! Keeps entries in memory, within a bound: [`Memory`].

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use async_trait::async_trait;
use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle, EntryAction, EntryResult},
};

use super::{CacheStore, Entry, HashOfKey, Key, Sink};
use crate::{Result, SpaceId, plan::yield_once};

/// The least bytes of a part of the table. Each part has a lock and a bound of its own.
const MIN_PART_BYTES: u64 = 64 << 20;

/// The size that entries are taken to have, to tell how many there may be: the table remembers the hashes of half as
/// many that were let go, and keeps what comes back of them.
const TYPICAL_ENTRY_BYTES: u64 = 2 << 10;

/// Entries that are handled before other tasks have their turn.
const ENTRIES_PER_TURN: usize = 1024;

/// Keeps entries in memory, within a bound of bytes. Clones share.
///
/// ```
/// use docvector_embed::cache::{CacheStore, Entry, Key, Memory};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = Memory::new(256 << 20);
/// let key = Key::from_bytes([7; 32]);
/// store.put(&[Entry::new(key, b"the first")]).await?;
/// store.put(&[Entry::new(key, b"the second")]).await?;
/// store.get(&[key], &mut |_, value| assert_eq!(value, b"the first")).await?;
/// assert_eq!(store.bytes(), 32 + 9 + Memory::OVERHEAD);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// The first value of a key stays for as long as the key is held. Where there is no room left, the entries of the least
/// use are let go: those that nobody asked for since they came, before those that were asked for again. So a run over
/// a whole corpus does not push out what is asked for all day. A key that was let go is not found, and whoever puts it
/// next is its first writer.
///
/// # The bound
/// An entry counts the bytes of its key, those of its value, and [`OVERHEAD`](Self::OVERHEAD). The bound is never
/// passed, not for a moment. A bound of 128 MiB or more is shared out evenly to parts of at least 64 MiB, so that
/// threads seldom wait for each other: a full part lets go while another still has room. An entry that takes more than
/// 97 % of its part is not kept, which is no error. [Notes](Self::notes) are not counted.
///
/// # Errors
/// None.
///
/// # Cancellation
/// A dropped `put` has stored the first of its entries, each of them whole.
///
/// # Durability
/// `Ok` means until the last clone is dropped; `flush` has nothing to do.
///
/// # Cost
/// A lookup copies and allocates nothing: the value is handed over where it lies, with no lock held. Storing copies the
/// value once. Keys are taken to be uniform, as [`Cached`](crate::wrap::Cached)'s are: eight bytes of a key serve as
/// its hash. Other tasks have their turn every thousand entries.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

struct Shared {
    table: Table,
    bound: Option<u64>,
    /// What no part holds, for being more than a whole one.
    too_large: u64,
    notes: Mutex<BTreeMap<SpaceId, String>>,
}

type Table = Cache<Key, Arc<[u8]>, Weigh, HashOfKey>;

impl Memory {
    /// What an entry counts beside the bytes of its key and value: about what its places in the table, the pointer to
    /// its value and the allocator take.
    pub const OVERHEAD: u64 = 128;

    /// Makes a store of at most so many bytes. With 0, it keeps nothing.
    pub fn new(bytes: u64) -> Self {
        Self::with_parts(Some(bytes), MIN_PART_BYTES)
    }

    /// Makes a store that keeps everything: for tests, and for what is known to be small.
    pub fn unbounded() -> Self {
        Self::with_parts(None, MIN_PART_BYTES)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.table.is_empty()
    }

    /// The bytes that the entries count, as said under [the bound](Self#the-bound).
    pub fn bytes(&self) -> u64 {
        self.0.table.weight()
    }

    /// The bytes that there may be, as given; `None` without a bound.
    pub fn bound(&self) -> Option<u64> {
        self.0.bound
    }

    /// The lines that were kept about spaces, in the order of the spaces' ids.
    pub fn notes(&self) -> Vec<(SpaceId, String)> {
        self.0.notes().iter().map(|(space, about)| (*space, about.clone())).collect()
    }

    fn with_parts(bound: Option<u64>, part: u64) -> Self {
        let bytes = bound.unwrap_or(u64::MAX);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let most = 4 * threads.next_power_of_two() as u64;
        let parts = most.min(1_u64 << (bytes / part).max(1).ilog2());
        let mut options = OptionsBuilder::new();
        options
            .shards(parts as usize)
            // What does not divide evenly would be rounded up, to more than the bound.
            .weight_capacity(bytes - bytes % parts)
            .estimated_items_capacity(usize::try_from(bytes / TYPICAL_ENTRY_BYTES).unwrap_or(usize::MAX));
        let options = match options.build() {
            Ok(options) => options,
            Err(error) => unreachable!("both capacities are set: {error}"),
        };
        let table = Table::with_options(options, Weigh, HashOfKey::default(), DefaultLifecycle::default());
        let too_large = table.shard_capacity().saturating_add(1);
        Self(Arc::new(Shared { table, bound, too_large, notes: Mutex::default() }))
    }
}

impl Shared {
    fn put(&self, entry: &Entry<'_>) {
        if weight(entry.value) >= self.too_large {
            return;
        }
        // Whoever gets the vacant place is the first writer; others of this moment wait for its copy.
        let place = self.table.entry(&entry.key, None, |_, _| EntryAction::Retain(()));
        if let EntryResult::Vacant(place) = place {
            // Where the place was taken away meanwhile, the value is as if it had been let go at once.
            let _ = place.insert(Arc::from(entry.value));
        }
    }

    fn notes(&self) -> MutexGuard<'_, BTreeMap<SpaceId, String>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("bound", &self.bound())
            .field("bytes", &self.bytes())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheStore for Memory {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        for (turn, keys) in keys.chunks(ENTRIES_PER_TURN).enumerate() {
            if turn > 0 {
                yield_once().await;
            }
            for (place, key) in keys.iter().enumerate() {
                if let Some(value) = self.0.table.get(key) {
                    sink(turn * ENTRIES_PER_TURN + place, &value);
                }
            }
        }
        Ok(())
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        for (turn, entries) in entries.chunks(ENTRIES_PER_TURN).enumerate() {
            if turn > 0 {
                yield_once().await;
            }
            entries.iter().for_each(|entry| self.0.put(entry));
        }
        Ok(())
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        for entry in damaged {
            self.0.table.remove_if(&entry.key, |value| **value == *entry.value);
        }
        Ok(())
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        self.0.notes().entry(space).or_insert_with(|| about.to_owned());
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// What an entry with this value counts.
const fn weight(value: &[u8]) -> u64 {
    size_of::<Key>() as u64 + value.len() as u64 + Memory::OVERHEAD
}

/// Weighs entries. None weighs nothing, which the table would never let go.
#[derive(Clone, Copy, Debug)]
struct Weigh;

impl Weighter<Key, Arc<[u8]>> for Weigh {
    fn weight(&self, _: &Key, value: &Arc<[u8]>) -> u64 {
        weight(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        Key::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn parts_that_do_not_divide_the_bound_keep_it() {
        let bound = 300_003;
        let memory = Memory::with_parts(Some(bound), 64 << 10);
        assert_eq!(memory.0.table.num_shards(), 4);
        for number in 0..2_000 {
            memory.0.put(&Entry::new(key(number), &vec![0; number as usize % 1_500]));
            assert!(memory.bytes() <= bound, "{memory:?}");
        }
        assert!(memory.bytes() > bound * 9 / 10, "there is room left that is not used: {memory:?}");
    }
}
