//! Keeps entries in memory, within a bound: [`Memory`].

use std::{collections::BTreeMap, fmt, num::NonZero, sync::Arc, thread};

use async_trait::async_trait;
use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle, EntryAction, EntryResult},
};

use super::{CacheScan, CacheStore, Entry, HashOfKey, Key, ScanPlace, ScanSink, Sink};
use crate::{Error, ErrorKind, Result, SpaceId, planner::yield_once, sync::Mutex};

/// The minimum size of a part of the table. Each part has a lock and a bound of its own.
const MIN_PART_BYTES: u64 = 64 << 20;

/// The assumed size of an entry, from which the table's capacity in entries follows: it remembers the hashes of half as
/// many evicted entries, and keeps those that come back.
const TYPICAL_ENTRY_BYTES: u64 = 2 << 10;

/// The most entries and bytes that one step of a scan hands over.
const ENTRIES_PER_SCAN: usize = 16_384;
const BYTES_PER_SCAN: usize = 8 << 20;

/// The entries that are handled before other tasks have their turn.
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
/// The first value of a key stays as long as the key is there. When there is no room left, the least useful entries are
/// evicted: those that were never looked up, before those that were looked up again. So a run over a whole corpus does
/// not evict the entries that are looked up all day. An evicted key is not found, and the next put of it is the first.
///
/// # The bound
/// An entry counts the bytes of its key, those of its value, and [`OVERHEAD`](Self::OVERHEAD). The entries never exceed
/// the bound, not for a moment. A bound of 128 MiB or more is divided evenly into parts of at least 64 MiB, so that
/// threads seldom wait for each other: a full part evicts while another still has room. An entry that takes more than
/// 97 % of its part is not kept, which is no error. [Notes](Self::notes) are not counted.
///
/// # Errors
/// None.
///
/// # Cancellation
/// A dropped `put` has stored some of its entries, from the first on, each of them whole.
///
/// # Durability
/// Entries last until the last clone is dropped. `flush` has nothing to do.
///
/// # Cost
/// A look-up copies and allocates nothing: the value is handed over in place, with no lock held. Storing copies the
/// value once. Keys should be uniformly distributed, as those of [`Cached`](crate::wrap::Cached) are: eight bytes of a
/// key serve as its hash. Other tasks have their turn every thousand entries.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

struct Shared {
    table: Table,
    bound: Option<u64>,
    /// The weight from which on an entry fits no part.
    too_large: u64,
    notes: Mutex<BTreeMap<SpaceId, String>>,
}

type Table = Cache<Key, Arc<[u8]>, Weigh, HashOfKey>;

impl Memory {
    /// The bytes that an entry counts beside its key and value: about the size of its places in the table, the pointer
    /// to its value, and what the allocator adds.
    pub const OVERHEAD: u64 = 128;

    /// Makes a store of at most so many bytes. A store of 0 bytes is valid and keeps nothing; so does one that is
    /// smaller than each entry.
    pub fn new(bytes: u64) -> Self {
        Self::with_parts(Some(bytes), MIN_PART_BYTES)
    }

    /// Makes a store that keeps everything: for tests, and for sets that are known to be small.
    pub fn unbounded() -> Self {
        Self::with_parts(None, MIN_PART_BYTES)
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.0.table.len()
    }

    /// Returns whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.table.is_empty()
    }

    /// Returns the bytes that the entries count, as described under [the bound](Self#the-bound).
    pub fn bytes(&self) -> u64 {
        self.0.table.weight()
    }

    /// Returns the bound in bytes, as it was given; `None` if there is none.
    pub fn bound(&self) -> Option<u64> {
        self.0.bound
    }

    /// Returns the lines that were noted about spaces, ordered by the ids of the spaces.
    pub fn notes(&self) -> Vec<(SpaceId, String)> {
        self.0.notes.with(|notes| notes.iter().map(|(space, about)| (*space, about.clone())).collect())
    }

    fn with_parts(bound: Option<u64>, part: u64) -> Self {
        let bytes = bound.unwrap_or(u64::MAX);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let most = 4 * threads.next_power_of_two() as u64;
        let parts = most.min(1_u64 << (bytes / part).max(1).ilog2());
        let mut options = OptionsBuilder::new();
        options
            .shards(parts as usize)
            // The table rounds a capacity that does not divide evenly up, to more than the bound.
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
        // The caller that gets the vacant place is the first writer. Concurrent ones wait until it has copied its
        // value.
        let place = self.table.entry(&entry.key, None, |_, _| EntryAction::Retain(()));
        if let EntryResult::Vacant(place) = place {
            // If the place was evicted meanwhile, the value counts as evicted at once.
            let _ = place.insert(Arc::from(entry.value));
        }
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
        self.0.notes.with(|notes| _ = notes.entry(space).or_insert_with(|| about.to_owned()));
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl CacheScan for Memory {
    /// Hands the entries over in the order of their keys. Each call looks at all keys.
    async fn scan(&self, after: Option<&ScanPlace>, sink: &mut ScanSink<'_>) -> Result<Option<ScanPlace>> {
        let wrong = |_| Error::new(ErrorKind::Config, "the place in the scan is not one of a store in memory");
        let after: Option<[u8; 32]> = after.map(|after| after.as_bytes().try_into()).transpose().map_err(wrong)?;
        let is_next = |key: &Key| after.is_none_or(|after| *key.as_bytes() > after);
        let mut keys: Vec<Key> = self.0.table.iter().map(|(key, _)| key).filter(is_next).collect();
        if keys.len() > ENTRIES_PER_SCAN {
            keys.select_nth_unstable(ENTRIES_PER_SCAN);
            keys.truncate(ENTRIES_PER_SCAN);
        }
        keys.sort_unstable();
        let (mut last, mut bytes) = (None, 0);
        for key in keys {
            // An entry that was evicted meanwhile is not there any more.
            if let Some(value) = self.0.table.peek(&key) {
                sink(key, &value);
                bytes += value.len();
            }
            last = Some(ScanPlace::from_bytes(key.as_bytes()));
            if bytes >= BYTES_PER_SCAN {
                break;
            }
        }
        Ok(last)
    }

    async fn contains(&self, keys: &[Key]) -> Result<Vec<bool>> {
        Ok(keys.iter().map(|key| self.0.table.contains_key(key)).collect())
    }

    async fn estimated_len(&self) -> Result<u64> {
        Ok(self.len() as u64)
    }

    async fn notes(&self) -> Result<Vec<(SpaceId, String)>> {
        Ok(Self::notes(self))
    }
}

/// Returns the bytes that an entry with this value counts.
const fn weight(value: &[u8]) -> u64 {
    size_of::<Key>() as u64 + value.len() as u64 + Memory::OVERHEAD
}

/// Weighs entries. Each weighs something: the table would never evict an entry of weight 0.
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
