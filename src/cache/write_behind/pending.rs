//! Keeps what waits to be written: [`Pending`].

use std::{
    collections::{HashMap, VecDeque, hash_map},
    sync::Arc,
};

use crate::{
    SpaceId,
    cache::{Entry, HashOfKey, Key},
};

/// The most entries and bytes of a batch.
const BATCH_ENTRIES: usize = 8_192;
const BATCH_BYTES: usize = 4 << 20;

/// A thing to be written.
enum What {
    /// The entry of this key, unless it was discarded.
    Entry(Key),
    Note(SpaceId, String),
}

struct Item {
    what: What,
    /// The pieces of room that are given back when it is finished.
    pieces: u32,
}

struct Value {
    bytes: Arc<[u8]>,
    /// Whether it is being written.
    is_in_batch: bool,
}

/// The queue, the batch that is being written, and the values of both.
#[derive(Default)]
pub(super) struct Pending {
    values: HashMap<Key, Value, HashOfKey>,
    queue: VecDeque<Item>,
    /// Kept until it is finished: a task that ends early has not written it.
    batch: Vec<Item>,
    /// How many things were accepted, and how many of them went into batches.
    accepted: u64,
    taken: u64,
    /// Whether a task is writing.
    is_running: bool,
}

/// A batch to be written.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<(Key, Arc<[u8]>)>,
    pub(super) notes: Vec<(SpaceId, String)>,
}

/// A batch that was written, or given up.
pub(super) struct Finished {
    pub(super) things: u64,
    pub(super) pieces: usize,
}

impl Pending {
    /// Returns how many entries wait.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns how many things were accepted so far.
    pub(super) const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Returns the values that wait, at the places of their keys; nothing if none waits at all.
    pub(super) fn find(&self, keys: &[Key]) -> Vec<Option<Arc<[u8]>>> {
        if self.values.is_empty() {
            return Vec::new();
        }
        keys.iter().map(|key| self.values.get(key).map(|value| value.bytes.clone())).collect()
    }

    /// Adds entries, which have taken so many pieces of room. Returns the pieces that were not needed, because all of
    /// their keys wait already: the first value stays.
    pub(super) fn push(&mut self, entries: &[Entry<'_>], pieces: u32) -> u32 {
        let before = self.accepted;
        for entry in entries {
            if let hash_map::Entry::Vacant(place) = self.values.entry(entry.key) {
                place.insert(Value { bytes: entry.value.into(), is_in_batch: false });
                self.queue.push_back(Item { what: What::Entry(entry.key), pieces: 0 });
                self.accepted += 1;
            }
        }
        match self.queue.back_mut() {
            Some(last) if before < self.accepted => last.pieces = pieces,
            _ => return pieces,
        }
        0
    }

    /// Adds a note, which has taken so many pieces of room.
    pub(super) fn push_note(&mut self, space: SpaceId, about: String, pieces: u32) -> u32 {
        self.queue.push_back(Item { what: What::Note(space, about), pieces });
        self.accepted += 1;
        0
    }

    /// Drops the entries that wait with exactly this value. Returns how many things must be finished before the inner
    /// store has all that is being written of these keys.
    pub(super) fn discard(&mut self, damaged: &[Entry<'_>]) -> u64 {
        let mut until = 0;
        for entry in damaged {
            if let hash_map::Entry::Occupied(value) = self.values.entry(entry.key) {
                if value.get().is_in_batch {
                    until = self.taken;
                } else if *value.get().bytes == *entry.value {
                    // Its place in the queue stays, and gives its room back in its turn.
                    value.remove();
                }
            }
        }
        until
    }

    /// Returns whether a task must be started, which the caller then does.
    pub(super) fn starts(&mut self) -> bool {
        let has_work = !self.queue.is_empty() || !self.batch.is_empty();
        let starts = has_work && !self.is_running;
        self.is_running |= starts;
        starts
    }

    /// Notes that the task has ended, or ends.
    pub(super) const fn end(&mut self) {
        self.is_running = false;
    }

    /// Returns the next batch: the last one again if it was not finished. `None` if there is none, and then the task has
    /// ended.
    pub(super) fn batch(&mut self) -> Option<Batch> {
        let mut bytes = 0;
        if self.batch.is_empty() {
            while bytes < BATCH_BYTES && self.batch.len() < BATCH_ENTRIES {
                let Some(item) = self.queue.pop_front() else { break };
                if let What::Entry(key) = &item.what
                    && let Some(value) = self.values.get_mut(key)
                {
                    value.is_in_batch = true;
                    bytes += value.bytes.len();
                }
                self.batch.push(item);
            }
            self.taken += self.batch.len() as u64;
        }
        if self.batch.is_empty() {
            self.end();
            return None;
        }
        let mut batch = Batch::default();
        for item in &self.batch {
            match &item.what {
                What::Entry(key) => batch.entries.extend(self.values.get(key).map(|value| (*key, value.bytes.clone()))),
                What::Note(space, about) => batch.notes.push((*space, about.clone())),
            }
        }
        Some(batch)
    }

    /// Forgets the batch.
    pub(super) fn finish(&mut self) -> Finished {
        let (mut things, mut pieces) = (0, 0);
        for item in self.batch.drain(..) {
            things += 1;
            pieces += item.pieces as usize;
            if let What::Entry(key) = item.what {
                self.values.remove(&key);
            }
        }
        Finished { things, pieces }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    fn put(pending: &mut Pending, entries: &[(u8, &[u8])], pieces: u32) -> u32 {
        let entries: Vec<Entry<'_>> = entries.iter().map(|(byte, value)| Entry::new(key(*byte), value)).collect();
        pending.push(&entries, pieces)
    }

    fn keys(batch: Option<Batch>) -> Vec<u8> {
        batch.expect("a batch").entries.iter().map(|(key, _)| key.as_bytes()[0]).collect()
    }

    #[test]
    fn the_first_value_stays_and_room_is_given_back() {
        let mut pending = Pending::default();
        assert_eq!(put(&mut pending, &[(1, b"one"), (2, b"two"), (1, b"later")], 5), 0);
        assert_eq!(put(&mut pending, &[(2, b"later")], 3), 3);
        assert_eq!((pending.len(), pending.accepted()), (2, 2));
        let found = pending.find(&[key(1), key(9), key(2)]);
        assert_eq!(found, [Some(b"one".as_slice().into()), None, Some(b"two".as_slice().into())]);
        assert!(pending.starts() && !pending.starts());
        assert_eq!(keys(pending.batch()), [1, 2]);
        let Finished { things, pieces } = pending.finish();
        assert_eq!((things, pieces, pending.len()), (2, 5, 0));
        assert!(pending.batch().is_none() && !pending.starts());
    }

    #[test]
    fn a_batch_that_was_not_finished_comes_again() {
        let mut pending = Pending::default();
        put(&mut pending, &[(1, b"one")], 1);
        assert!(pending.starts());
        assert_eq!(keys(pending.batch()), [1]);
        put(&mut pending, &[(2, b"two")], 1);
        pending.end();
        assert!(pending.starts());
        assert_eq!(keys(pending.batch()), [1]);
        pending.finish();
        assert_eq!(keys(pending.batch()), [2]);
    }

    #[test]
    fn what_is_discarded_is_not_written() {
        let mut pending = Pending::default();
        put(&mut pending, &[(1, b"one"), (2, b"two")], 4);
        assert_eq!(pending.discard(&[Entry::new(key(1), b"one"), Entry::new(key(2), b"another")]), 0);
        // The next value of the key is the first again.
        assert_eq!(put(&mut pending, &[(1, b"anew")], 2), 0);
        assert_eq!(keys(pending.batch()), [1, 2, 1]);
        assert_eq!(pending.discard(&[Entry::new(key(1), b"anew")]), 3);
        assert_eq!(pending.finish().pieces, 6);
        assert_eq!(pending.len(), 0);
    }
}
