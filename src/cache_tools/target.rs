//! Takes entries of a transfer: [`EntryTarget`], and a store as one.

use async_trait::async_trait;

use crate::{
    Error, ErrorKind, Result, SpaceId,
    cache::{CacheScan, Entry, Key, ScanPlace},
    stored_vectors::EntryInfo,
};

/// The fate of the entries that a target was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Taken {
    /// Entries that are new there.
    pub copied: u64,
    /// Entries whose keys were there already, with a sound value that stays.
    pub present: u64,
}

impl Taken {
    /// Makes a report of new entries and of those that were there.
    pub const fn new(copied: u64, present: u64) -> Self {
        Self { copied, present }
    }
}

/// Takes entries, part by part: a store, a file, or a target of your own. See the [module](crate::cache_tools) for an
/// example.
#[async_trait]
pub trait EntryTarget: Send {
    /// Keeps entries that are sound. `place` is that behind them in their source, for a target that can be continued.
    async fn take(&mut self, entries: &[Entry<'_>], place: Option<&ScanPlace>) -> Result<Taken>;

    /// Keeps the lines about spaces.
    async fn note(&mut self, notes: &[(SpaceId, String)]) -> Result<()>;

    /// Makes everything durable.
    async fn finish(&mut self) -> Result<()>;
}

/// A store that takes entries, and is asked whether it has them: see the [module](crate::cache_tools) for an example.
///
/// Keys that it has already are skipped, so a copy that was killed goes on where it was. A damaged entry that it has under
/// such a key is replaced. New entries are read again and compared.
#[derive(Debug)]
pub struct StoreTarget<'s>(&'s dyn CacheScan);

impl<'s> StoreTarget<'s> {
    /// Makes a target of a store.
    pub const fn new(store: &'s dyn CacheScan) -> Self {
        Self(store)
    }

    /// Returns whether the store has a sound entry under each key, and discards those that are damaged.
    async fn has(&self, keys: &[Key]) -> Result<Vec<bool>> {
        let mut sound = vec![false; keys.len()];
        let mut damaged = Vec::new();
        let mut sink = |place: usize, value: &[u8]| match EntryInfo::inspect(&keys[place], value) {
            Some(_) => sound[place] = true,
            None => damaged.push((keys[place], value.to_vec())),
        };
        self.0.get(keys, &mut sink).await?;
        if !damaged.is_empty() {
            let damaged: Vec<Entry<'_>> = damaged.iter().map(|(key, value)| Entry::new(*key, value)).collect();
            self.0.discard(&damaged).await?;
        }
        Ok(sound)
    }
}

#[async_trait]
impl EntryTarget for StoreTarget<'_> {
    async fn take(&mut self, entries: &[Entry<'_>], _: Option<&ScanPlace>) -> Result<Taken> {
        let keys: Vec<Key> = entries.iter().map(|entry| entry.key).collect();
        let there = self.0.contains(&keys).await?;
        // Mostly all are new, or all are there.
        let known: Vec<Key> = keys.iter().zip(&there).filter_map(|(key, there)| there.then_some(*key)).collect();
        let sound = if known.is_empty() { Vec::new() } else { self.has(&known).await? };
        let mut sound = sound.into_iter();
        let is_new = |there: &bool| !there || sound.next() == Some(false);
        let missing = there.iter().map(is_new).collect::<Vec<_>>();
        let new: Vec<Entry<'_>> =
            entries.iter().zip(&missing).filter_map(|(entry, missing)| missing.then_some(*entry)).collect();
        if new.is_empty() {
            return Ok(Taken::new(0, entries.len() as u64));
        }
        self.0.put(&new).await?;
        let keys: Vec<Key> = new.iter().map(|entry| entry.key).collect();
        let (mut ours, mut others) = (0, 0);
        let mut sink = |place: usize, value: &[u8]| {
            // Another writer may have been first, or the source had the key twice.
            if value == new[place].value { ours += 1 } else { others += 1 }
        };
        self.0.get(&keys, &mut sink).await?;
        let lost = new.len() as u64 - ours - others;
        if lost > 0 {
            let message = format!(
                "{} does not have {lost} of {} entries that it was given: it has no room for them, or loses what it has",
                self.0,
                new.len()
            );
            return Err(Error::new(ErrorKind::Cache, message));
        }
        Ok(Taken::new(ours, (entries.len() - new.len()) as u64 + others))
    }

    async fn note(&mut self, notes: &[(SpaceId, String)]) -> Result<()> {
        for (space, about) in notes {
            self.0.note(*space, about).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.0.flush().await
    }
}
