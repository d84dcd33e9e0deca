//! Owns entries, their values in one piece of memory: [`OwnedEntries`].

use super::{Entry, Key};

/// Entries that outlive what they were taken from.
#[derive(Default)]
pub(crate) struct OwnedEntries {
    keys: Vec<Key>,
    /// Where each value ends.
    ends: Vec<usize>,
    values: Vec<u8>,
}

impl OwnedEntries {
    pub(crate) fn with_capacity(entries: usize, bytes: usize) -> Self {
        Self { keys: Vec::with_capacity(entries), ends: Vec::with_capacity(entries), values: Vec::with_capacity(bytes) }
    }

    #[cfg(feature = "sqlite")]
    pub(crate) fn of(entries: &[Entry<'_>]) -> Self {
        let mut copies = Self::with_capacity(entries.len(), entries.iter().map(|entry| entry.value.len()).sum());
        entries.iter().for_each(|entry| copies.push(entry.key, entry.value));
        copies
    }

    pub(crate) fn push(&mut self, key: Key, value: &[u8]) {
        self.push_with(key, |values| values.extend_from_slice(value));
    }

    /// Adds an entry whose value is what `write` appends.
    pub(crate) fn push_with(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.values);
        self.keys.push(key);
        self.ends.push(self.values.len());
    }

    #[cfg(feature = "sqlite")]
    pub(crate) const fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut start = 0;
        self.keys
            .iter()
            .zip(&self.ends)
            .map(move |(&key, &end)| Entry::new(key, &self.values[std::mem::replace(&mut start, end)..end]))
    }
}
