//! Puts a fast store before a slow one: [`Tiered`].

use std::fmt;

use async_trait::async_trait;

use super::{CacheStore, Entry, Key, Sink, owned_entries::OwnedEntries};
use crate::{Result, SpaceId, telemetry};

/// The keys per look-up in the slow store. Their values are held until the fast store has them.
const KEYS_PER_LOOKUP: usize = 4_096;

/// A fast store before a slow one: memory before a file, a file before a server. It is a store, so tiers nest.
///
/// ```
/// use docvector_embed::cache::{CacheStore, Entry, Key, Memory, Tiered};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (fast, slow) = (Memory::new(64 << 20), Memory::unbounded());
/// let store = Tiered::new(fast.clone(), slow.clone());
/// assert_eq!(store.to_string(), "Tiered(memory, memory)");
///
/// let key = Key::from_bytes([7; 32]);
/// store.put(&[Entry::new(key, b"bytes")]).await?;
/// assert_eq!((fast.len(), slow.len()), (0, 1));
/// // The first look-up copies it into the fast store.
/// store.get(&[key], &mut |_, value| assert_eq!(value, b"bytes")).await?;
/// assert_eq!(fast.len(), 1);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// A `get` asks the fast store, then the slow one for the missing keys, and stores in the fast one what the slow one
/// had. A `put` goes to the slow store alone, whose `Ok` is the promised durability. `discard`, `note` and `flush` go
/// to both.
///
/// The fast store only gets values that were read from the slow one. If `put` wrote to both, a writer that lost against
/// another one at the slow store would leave its own value in the fast one, in front of the winner's. To find out who
/// won, each value would have to be read again, and most are not looked up soon. So the fast store never holds another
/// value than the slow one, however many callers write, as long as
/// - nothing else writes to the fast store: share it among tiers over one slow store, not over several;
/// - the slow store does not forget: after forgetting, it may take another value while the fast one still has the
///   first.
///
/// # Errors
/// Those of the slow store. A `get` that fails has handed over the values of the fast store, and those that the slow
/// one gave before it failed. A failure of the fast store is a warning and no error: the slow store is asked for the
/// values that it did not give, and nothing is stored in it after a failed look-up.
///
/// # Cancellation
/// A dropped `get` may or may not leave what it found in the fast store. A dropped `put` is one of the slow store.
///
/// # Cost
/// If the fast store has all keys: one byte per key, no copies. Values of the slow store are copied once, and held
/// until the fast store has them: at most 4,096 values at a time.
#[derive(Clone, Debug)]
pub struct Tiered<F, S> {
    fast: F,
    slow: S,
}

impl<F, S> Tiered<F, S> {
    /// Puts `fast` before `slow`.
    pub const fn new(fast: F, slow: S) -> Self {
        Self { fast, slow }
    }

    /// Returns the store that is asked first.
    pub const fn fast(&self) -> &F {
        &self.fast
    }

    /// Returns the store that is written to, and asked for the keys that the fast one does not have.
    pub const fn slow(&self) -> &S {
        &self.slow
    }

    /// Returns both stores, the fast one first.
    pub fn into_parts(self) -> (F, S) {
        (self.fast, self.slow)
    }
}

impl<F: CacheStore, S> Tiered<F, S> {
    /// Turns a failure of the fast store into a warning.
    fn warn(&self, result: Result<()>, what: &str) {
        if let Err(error) = result {
            tracing::warn!(
                { telemetry::STORE } = %self.fast,
                { telemetry::ERROR } = %error,
                "the fast cache store {what}"
            );
        }
    }
}

impl<F: fmt::Display, S: fmt::Display> fmt::Display for Tiered<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tiered({}, {})", self.fast, self.slow)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<F: CacheStore, S: CacheStore> CacheStore for Tiered<F, S> {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut found = vec![false; keys.len()];
        let mut first = |place: usize, value: &[u8]| match found.get_mut(place) {
            Some(found) if !*found => {
                *found = true;
                sink(place, value);
            }
            // A place that comes twice, or that does not exist, breaks a law. This store does not pass it on.
            _ => {}
        };
        let fast = self.fast.get(keys, &mut first).await;
        let missing: Vec<usize> = (0..keys.len()).filter(|&place| !found[place]).collect();
        let fills = fast.is_ok();
        self.warn(fast, "could not be read: the slow one is asked for what it did not give");
        if missing.is_empty() {
            return Ok(());
        }

        for missing in missing.chunks(KEYS_PER_LOOKUP) {
            let asked: Vec<Key> = missing.iter().map(|&place| keys[place]).collect();
            let mut owned = OwnedEntries::default();
            let mut second = |place: usize, value: &[u8]| {
                if let (Some(&place), Some(&key)) = (missing.get(place), asked.get(place)) {
                    sink(place, value);
                    if fills {
                        owned.push(key, value);
                    }
                }
            };
            let slow = self.slow.get(&asked, &mut second).await;
            // Values that came before a failure are as good as the others.
            if !owned.is_empty() {
                let filled = self.fast.put(&owned.iter().collect::<Vec<_>>()).await;
                self.warn(filled, "could not be written: the slow one will be asked again");
            }
            slow?;
        }
        Ok(())
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.slow.put(entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        // The slow store first: a value that it no longer has cannot come back into the fast one.
        let slow = self.slow.discard(damaged).await;
        self.warn(self.fast.discard(damaged).await, "could not discard damaged entries");
        slow
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        let slow = self.slow.note(space, about).await;
        self.warn(self.fast.note(space, about).await, "could not keep a note");
        slow
    }

    async fn flush(&self) -> Result<()> {
        let slow = self.slow.flush().await;
        self.warn(self.fast.flush().await, "could not be flushed: what it lost, the slow one has");
        slow
    }
}
