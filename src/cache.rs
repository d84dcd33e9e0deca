//! Stores for [`Cached`](crate::wrap::Cached): bytes under keys, kept for ever or as long as there is room.
//!
//! ```
//! use docvector_embed::cache::{CacheStore, Entry, Key, Memory};
//! # fn main() -> docvector_embed::Result<()> {
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Memory::new(1 << 20);
//! let key = Key::from_bytes([7; 32]);
//! store.put(&[Entry::new(key, b"bytes")]).await?;
//! let mut found = Vec::new();
//! store.get(&[key, Key::from_bytes([8; 32])], &mut |place, value| found.push((place, value.to_vec()))).await?;
//! assert_eq!(found, [(0, b"bytes".to_vec())]);
//! # Ok(()) }) }
//! ```
//!
//! What an entry means, and whether it is whole, is [`Cached`](crate::wrap::Cached)'s business: no store can get it wrong.
//! Write a store of your own by implementing [`CacheStore`], and check it with
//! [`conformance::store`](fn@crate::conformance::store).

mod guarded;
mod memory;
pub(crate) mod owned_entries;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tiered;

use std::{
    fmt,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use async_trait::async_trait;

#[cfg(feature = "sqlite")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "sqlite")))]
pub use self::sqlite::{Sqlite, SqliteBuilder, SqliteStats};
pub use self::{
    guarded::{BreakerState, Guarded},
    memory::Memory,
    tiered::Tiered,
};
use crate::{Result, SpaceId};

/// Names an entry: 32 bytes that no two entries share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Takes the bytes of a key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Bytes to be stored under a key.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The name.
    pub key: Key,
    /// The bytes, whatever they mean.
    pub value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Puts a value under a key.
    pub const fn new(key: Key, value: &'a [u8]) -> Self {
        Self { key, value }
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("key", &self.key).field("bytes", &self.value.len()).finish()
    }
}

/// Takes what was found: the place of the key among those asked for, and the value.
pub type Sink<'a> = dyn FnMut(usize, &[u8]) + Send + 'a;

/// Keeps bytes under keys. Dropping a future leaves the store usable; a dropped [`put`](Self::put) may or may not have
/// stored.
///
/// # Laws
/// 1. **Found.** Once `put` is `Ok`, `get` finds what was put, whole; what was not put is not found, however close its
///    key. (A store with a bound may forget.)
/// 2. **First.** The first value of a key stays: within a put, between puts, and among puts at once. A later one is no
///    error and changes nothing, what is put beside it is stored, and all see the same value.
/// 3. **Nothing.** No keys and no entries are no work and no error.
/// 4. **Values.** Any bytes are a value, from none to megabytes.
/// 5. **Whole.** A `get` beside a `put` finds the whole value or none.
/// 6. **Usable.** Dropped futures leave everything usable and no part of a value; what a dropped `put` had can be put
///    again.
/// 7. **Places.** Each place whose key is there is handed over exactly once, with the value of its key, and no other
///    place is: keys may be asked for in any order, several times, among unknown ones.
/// 8. **Number.** One call takes any number of keys or entries.
/// 9. **Upkeep.** `note` and `flush` can be called at any time, any number of times, and change no entry. `Display` is
///    one line.
/// 10. **Discard.** `discard` removes the entries that still have exactly the value that is given, and nothing else; the
///     next `put` of such a key is the first again. Another value of the key stays, and a key that is not there is no
///     error.
///
/// [`conformance::store`](fn@crate::conformance::store) checks them.
#[async_trait]
pub trait CacheStore: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Looks keys up and hands each value that is there to the sink, in any order.
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()>;

    /// Stores entries. `Ok` means that they are as durable as this store promises: all of them.
    async fn put(&self, entries: &[Entry<'_>]) -> Result<()>;

    /// Removes entries that are of no use, so that others can take their place: [`Cached`](crate::wrap::Cached) gives
    /// those that are damaged. One whose value is another than the one given by now is left as it is.
    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()>;

    /// Keeps a line about a space that people can read, so that a store can be explained later.
    async fn note(&self, space: SpaceId, about: &str) -> Result<()>;

    /// Waits until everything accepted is durable.
    async fn flush(&self) -> Result<()>;
}

macro_rules! pointers_are_stores {
    ($($pointer:ty),+) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: CacheStore + ?Sized> CacheStore for $pointer {
            async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
                (**self).get(keys, sink).await
            }

            async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
                (**self).put(entries).await
            }

            async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
                (**self).discard(damaged).await
            }

            async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
                (**self).note(space, about).await
            }

            async fn flush(&self) -> Result<()> {
                (**self).flush().await
            }
        }
    )+};
}

pointers_are_stores!(Arc<S>, Box<S>);

/// Takes the first eight bytes of a key for its hash: a key is a hash already.
pub(crate) type HashOfKey = BuildHasherDefault<EightBytes>;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EightBytes(u64);

impl Hasher for EightBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(bytes) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*bytes);
        }
    }

    /// A key's length, which says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Fails to compile if the trait stops being object-safe.
const _: fn(&dyn CacheStore) = |_| {};

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn eight_bytes_of_a_key_are_its_hash() {
        // Were they not, all keys would have one hash, and every lookup would go through all entries.
        for number in 0..10 {
            let key = Key::from_bytes(*blake3::hash(&[number]).as_bytes());
            assert_eq!(HashOfKey::default().hash_one(key).to_le_bytes(), key.as_bytes()[..8]);
        }
    }
}
