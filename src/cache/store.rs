//! Defines what a store is: [`CacheStore`] and its laws.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::Key;
use crate::{Result, SpaceId};

/// Bytes to be stored under a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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

/// Fails to compile if the trait stops being object-safe.
const _: fn(&dyn CacheStore) = |_| {};
