//! Owns entries, their values in one buffer: [`OwnedEntries`].

use super::{Entry, Key};
use crate::packed::PackedBytes;

/// Entries that outlive what they were taken from.
#[derive(Default)]
pub(crate) struct OwnedEntries {
    keys: Vec<Key>,
    values: PackedBytes,
}

impl OwnedEntries {
    /// Makes room for so many entries, whose values have so many bytes together.
    pub(crate) fn with_capacity(entries: usize, bytes: usize) -> Self {
        let values = PackedBytes::in_buffer(Vec::with_capacity(bytes), entries);
        Self { keys: Vec::with_capacity(entries), values }
    }

    /// Copies these entries.
    #[cfg(feature = "sqlite")]
    pub(crate) fn copy(entries: &[Entry<'_>]) -> Self {
        let mut owned = Self::with_capacity(entries.len(), entries.iter().map(|entry| entry.value.len()).sum());
        entries.iter().for_each(|entry| owned.push(entry.key, entry.value));
        owned
    }

    /// Adds an entry.
    pub(crate) fn push(&mut self, key: Key, value: &[u8]) {
        self.push_with(key, |values| values.extend_from_slice(value));
    }

    /// Adds an entry whose value is what `write` appends.
    pub(crate) fn push_with(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        self.values.push_with(write);
        self.keys.push(key);
    }

    #[cfg(feature = "sqlite")]
    pub(crate) const fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Iterates over the entries in the order in which they were added.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.keys.iter().zip(self.values.iter()).map(|(&key, value)| Entry::new(key, value))
    }
}
