//! Divides look-ups and puts into parts of a bounded size: [`ReplySizes`] and [`parts_of`].

use std::{
    collections::HashSet,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::cache::{Entry, HashOfKey, Key};

/// The aimed size of a part, in bytes. A larger one makes other callers of the connection wait.
const PART_BYTES: usize = 1 << 20;

/// The bytes that an entry takes beside its value: its key, the words of the command, and their lengths.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// The maximum number of keys in a part. The server handles no other client meanwhile.
const MAX_PART_KEYS: usize = 512;

/// The number of keys in the first part, while the size of values is not known.
const FIRST_PART_KEYS: usize = 64;

/// Remembers how large values are, to tell how many of them make a part.
#[derive(Debug, Default)]
pub(super) struct ReplySizes {
    /// The size of the largest value of late, and 1 more; 0 if none was seen.
    largest: AtomicUsize,
}

impl ReplySizes {
    /// Returns `false` until a value was seen.
    pub(super) fn is_known(&self) -> bool {
        self.largest.load(Ordering::Relaxed) > 0
    }

    /// Returns how many values make a part.
    pub(super) fn keys_per_part(&self) -> usize {
        match self.largest.load(Ordering::Relaxed) {
            0 => FIRST_PART_KEYS,
            largest => (PART_BYTES / largest).clamp(1, MAX_PART_KEYS),
        }
    }

    /// Learns from the largest value of a reply. One large value is forgotten after some replies of smaller ones.
    pub(super) fn learn(&self, largest: Option<usize>) {
        let Some(seen) = largest else { return };
        let before = self.largest.load(Ordering::Relaxed);
        // Calls at the same time may overwrite each other: it is an estimate.
        self.largest.store((before - before / 8).max(seen.saturating_add(1)), Ordering::Relaxed);
    }
}

/// Iterates over ranges of entries that take about a megabyte together, or one larger entry.
pub(super) fn parts_of<'a>(entries: &'a [Entry<'_>]) -> impl Iterator<Item = Range<usize>> + Send + 'a {
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |entry: &&Entry<'_>| {
            bytes += ENTRY_OVERHEAD_BYTES + entry.value.len();
            bytes <= PART_BYTES
        };
        let count = entries[start..].iter().take_while(fits).count().max(1);
        let part = start..entries.len().min(start + count);
        start = part.end;
        (!part.is_empty()).then_some(part)
    })
}

/// Returns the first entry of each key. Parts are sent at the same time, so that a later entry could arrive before the
/// first one of its key.
pub(super) fn first_of_each_key<'a>(entries: &[Entry<'a>]) -> Vec<Entry<'a>> {
    let mut seen: HashSet<Key, HashOfKey> = HashSet::with_capacity_and_hasher(entries.len(), HashOfKey::default());
    entries.iter().filter(|entry| seen.insert(entry.key)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_and_leave_nothing_out() {
        let (small, large) = (vec![0; 1000], vec![0; 3 << 20]);
        let entry = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            Entry::new(Key::from_bytes(key), if number % 1000 == 999 { &large } else { &small })
        };
        let entries: Vec<Entry<'_>> = (0..3001).map(entry).collect();
        let parts: Vec<Range<usize>> = parts_of(&entries).collect();
        assert!(parts.iter().any(|part| part.len() == 1 && entries[part.start].value.len() == large.len()));
        let mut next = 0;
        for part in parts {
            assert_eq!(part.start, next);
            let bytes: usize = entries[part.clone()].iter().map(|entry| entry.value.len()).sum();
            assert!(part.len() == 1 || bytes <= PART_BYTES);
            next = part.end;
        }
        assert_eq!(next, entries.len());
        assert_eq!(parts_of(&[]).count(), 0);
    }

    #[test]
    fn the_first_entry_of_a_key_is_kept() {
        let entry = |key, value: &'static [u8]| Entry::new(Key::from_bytes([key; 32]), value);
        let entries = [entry(1, b"a"), entry(2, b"b"), entry(1, b"c"), entry(2, b"b")];
        assert_eq!(first_of_each_key(&entries), [entry(1, b"a"), entry(2, b"b")]);
    }

    #[test]
    fn parts_follow_the_size_of_values() {
        let sizes = ReplySizes::default();
        assert!(!sizes.is_known() && sizes.keys_per_part() == FIRST_PART_KEYS);
        sizes.learn(None);
        assert!(!sizes.is_known());
        sizes.learn(Some(0));
        assert!(sizes.is_known() && sizes.keys_per_part() == MAX_PART_KEYS);
        sizes.learn(Some(8 << 20));
        assert_eq!(sizes.keys_per_part(), 1);
        (0..100).for_each(|_| sizes.learn(Some(1500)));
        assert!(sizes.keys_per_part() > 500);
        sizes.learn(Some(usize::MAX));
        assert_eq!(sizes.keys_per_part(), 1);
    }
}
