//! Defines what a store is: [`CacheStore`] and its laws.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::Key;
use crate::{Result, SpaceId};

/// Bytes to be stored under a key: see [`CacheStore::put`], and the [module](crate::cache) for an example.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The name of the entry.
    pub key: Key,
    /// The bytes.
    pub value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Makes an entry of a key and a value.
    pub const fn new(key: Key, value: &'a [u8]) -> Self {
        Self { key, value }
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("key", &self.key).field("bytes", &self.value.len()).finish()
    }
}

/// Receives what [`CacheStore::get`] finds: the place of the key among those asked for, and the value. See the
/// [module](crate::cache) for an example.
pub type Sink<'a> = dyn FnMut(usize, &[u8]) + Send + 'a;

/// Keeps bytes under keys.
///
/// [`Memory`](super::Memory) is the simplest store. The [module](crate::cache) has an example.
///
/// # Laws
/// 1. **Found.** After `put` returns `Ok`, `get` finds each value that was put, whole. It finds no other key, however
///    close. (A store with a bound may forget.)
/// 2. **First.** The first value of a key stays: within a put, between puts, and among concurrent puts. A later value
///    is no error and changes nothing. The entries that are put beside it are stored. All callers see the same value.
/// 3. **Nothing.** A call without keys or entries does no work and is no error.
/// 4. **Values.** Any bytes are a value, from none to megabytes.
/// 5. **Whole.** A `get` during a `put` finds the whole value or none.
/// 6. **Usable.** A dropped future leaves the store usable, and no part of a value. A dropped `put` may or may not have
///    stored its entries; they can be put again.
/// 7. **Places.** Each place whose key is there is handed over exactly once, with the value of its key. No other place
///    is handed over. Keys may be asked for in any order, several times, among unknown ones.
/// 8. **Number.** One call takes any number of keys or entries.
/// 9. **Upkeep.** `note` and `flush` can be called at any time, any number of times, and change no entry. `Display` is
///    one line.
/// 10. **Discard.** `discard` removes the entries that still have exactly the given value, and nothing else. The next
///     `put` of such a key is the first again. Another value of the key stays, and an unknown key is no error.
///
/// [`conformance::store`](fn@crate::conformance::store) checks them.
#[async_trait]
pub trait CacheStore: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Looks up keys and hands each value that is there to the sink, in any order.
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()>;

    /// Stores entries. `Ok` means that all of them are as durable as this store promises.
    async fn put(&self, entries: &[Entry<'_>]) -> Result<()>;

    /// Removes entries that are of no use, so that others can take their place: [`Cached`](crate::wrap::Cached)
    /// discards damaged ones. An entry whose value differs from the given one is left as it is.
    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()>;

    /// Keeps a line about a space, so that people can see later what the store holds.
    async fn note(&self, space: SpaceId, about: &str) -> Result<()>;

    /// Waits until everything that was accepted is durable.
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

/// Fails to compile if the trait stops being object-safe.
const _: fn(&dyn CacheStore) = |_| {};
