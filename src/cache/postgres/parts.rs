//! Divides keys and entries into parts of bounded size: [`LookUp`], [`parts_of`], [`ValueSize`].

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::cache::{Entry, Key};

/// The bytes that one statement should return.
const REPLY_BYTES: usize = 4 << 20;

/// The most keys of one statement that returns values.
const MAX_KEYS: usize = 1_024;

/// The assumed size of a value before one was seen.
const FIRST_VALUE_BYTES: usize = 16 << 10;

/// The bytes of a row beside those of its value, in a message and in memory.
const ROW_OVERHEAD_BYTES: usize = 64;

/// The most bytes and rows of one statement that stores or removes entries.
const MAX_PART_BYTES: usize = 8 << 20;
const MAX_PART_ROWS: usize = 10_000;

/// The keys of a look-up, each with its place among those asked for.
pub(super) struct LookUp {
    keys: Vec<(Key, usize)>,
    /// The place where the run of each key begins.
    firsts: Vec<usize>,
}

impl LookUp {
    pub(super) fn of(keys: &[Key]) -> Self {
        let mut keys: Vec<(Key, usize)> = keys.iter().enumerate().map(|(place, &key)| (key, place)).collect();
        // Neighbours in the index are looked up one after another, and equal keys once.
        keys.sort_unstable();
        let firsts = (0..keys.len()).filter(|&at| at == 0 || keys[at - 1].0 != keys[at].0).collect();
        Self { keys, firsts }
    }

    /// Returns the number of distinct keys.
    pub(super) const fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Returns a key by its number among the distinct ones, in order.
    pub(super) fn key(&self, number: usize) -> &Key {
        &self.keys[self.firsts[number]].0
    }

    /// Returns the number of a key among those of a part.
    pub(super) fn find(&self, part: &Range<usize>, key: &[u8]) -> Option<usize> {
        let firsts = &self.firsts[part.clone()];
        let found = firsts.binary_search_by(|&first| self.keys[first].0.as_bytes().as_slice().cmp(key));
        found.ok().map(|at| part.start + at)
    }

    /// Iterates over the places of a key.
    pub(super) fn places(&self, number: usize) -> impl Iterator<Item = usize> {
        let end = self.firsts.get(number + 1).copied().unwrap_or(self.keys.len());
        self.keys[self.firsts[number]..end].iter().map(|&(_, place)| place)
    }
}

/// Divides entries into parts that one statement takes. A larger entry is alone.
pub(super) fn parts_of<'e, 'v>(entries: &'e [Entry<'v>]) -> impl Iterator<Item = &'e [Entry<'v>]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fits = rest.iter().take(MAX_PART_ROWS).take_while(|entry| {
            bytes = bytes.saturating_add(ROW_OVERHEAD_BYTES + entry.value.len());
            bytes <= MAX_PART_BYTES
        });
        let count = fits.count().max(1).min(rest.len());
        let (part, others) = rest.split_at(count);
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// Remembers about how large values are, so that a statement asks for as many as a reply should hold.
#[derive(Debug)]
pub(super) struct ValueSize(AtomicUsize);

impl Default for ValueSize {
    fn default() -> Self {
        Self(AtomicUsize::new(FIRST_VALUE_BYTES))
    }
}

impl ValueSize {
    /// Returns how many values one statement should ask for.
    pub(super) fn rows_per_reply(&self) -> usize {
        let row = self.0.load(Ordering::Relaxed).saturating_add(ROW_OVERHEAD_BYTES);
        (REPLY_BYTES / row).clamp(1, MAX_KEYS)
    }

    /// Takes note of the largest value of a reply. Large ones are forgotten slowly, so that one of them does not make
    /// all later replies small.
    pub(super) fn saw(&self, largest: usize) {
        let old = self.0.load(Ordering::Relaxed);
        self.0.store(largest.max(old - old / 4), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key::from_bytes([number; 32])
    }

    #[test]
    fn a_look_up_has_each_key_once_and_all_of_its_places() {
        let look_up = LookUp::of(&[key(5), key(1), key(5), key(3), key(1), key(5)]);
        assert_eq!(look_up.len(), 3);
        let places: Vec<(Key, Vec<usize>)> =
            (0..3).map(|number| (*look_up.key(number), look_up.places(number).collect())).collect();
        assert_eq!(places, [(key(1), vec![1, 4]), (key(3), vec![3]), (key(5), vec![0, 2, 5])]);
        assert_eq!(look_up.find(&(1..3), key(5).as_bytes()), Some(2));
        assert_eq!(look_up.find(&(1..3), key(1).as_bytes()), None, "it is not in this part");
        assert_eq!(look_up.find(&(0..3), b"short"), None);
        assert_eq!(LookUp::of(&[]).len(), 0);
    }

    #[test]
    fn parts_are_bounded_in_bytes_and_rows_and_lose_nothing() {
        let values = [vec![0; 5 << 20], vec![0; 3 << 19], vec![0; 2 << 20], vec![0; 20 << 20], vec![], vec![0; 9]];
        let entries: Vec<Entry<'_>> = values.iter().map(|value| Entry::new(key(0), value)).collect();
        let parts: Vec<usize> = parts_of(&entries).map(<[_]>::len).collect();
        assert_eq!(parts, [2, 1, 1, 2]);
        let many = vec![Entry::new(key(0), b""); 2 * MAX_PART_ROWS + 1];
        let parts: Vec<usize> = parts_of(&many).map(<[_]>::len).collect();
        assert_eq!(parts, [MAX_PART_ROWS, MAX_PART_ROWS, 1]);
        assert_eq!(parts_of(&[]).count(), 0);
    }

    #[test]
    fn replies_hold_as_many_values_as_the_last_ones_suggest() {
        let size = ValueSize::default();
        assert_eq!(size.rows_per_reply(), 255);
        size.saw(1 << 30);
        assert_eq!(size.rows_per_reply(), 1);
        for _ in 0..60 {
            size.saw(1_000);
        }
        assert_eq!(size.rows_per_reply(), MAX_KEYS);
        size.saw(64 << 10);
        assert_eq!(size.rows_per_reply(), 63);
    }
}
