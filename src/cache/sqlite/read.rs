//! Reads a file in short transactions: look-ups, walks over all entries, counts.

use std::ops::Range;

use rusqlite::Connection;

use crate::{SpaceId, cache::Key};

const SELECT: &str = "SELECT value FROM entries WHERE key = ?1";
const SELECT_AFTER: &str = "SELECT id, key, value FROM entries WHERE id > ?1 ORDER BY id";

/// The bytes and rows that a reader takes before it hands them on. They bound the memory of a look-up of any size, and
/// the duration of a transaction.
const MAX_PART_BYTES: usize = 8 << 20;
const MAX_PART_ROWS: usize = 16_384;

/// The rows that `Sqlite::stats` counts in one transaction.
const ROWS_COUNTED_PER_TRANSACTION: i64 = 20_000;

/// The keys of a look-up, each with its place among those asked for.
pub(super) struct LookUp {
    pub(super) keys: Vec<(Key, usize)>,
    /// The first key that was not looked up yet.
    pub(super) next: usize,
}

impl LookUp {
    pub(super) fn of(keys: &[Key]) -> Self {
        Self { keys: keys.iter().enumerate().map(|(place, &key)| (key, place)).collect(), next: 0 }
    }

    /// Iterates over the places of the key whose run of equal keys begins here.
    pub(super) fn places(&self, first: usize) -> impl Iterator<Item = usize> {
        let key = self.keys[first].0;
        self.keys[first..].iter().take_while(move |(other, _)| *other == key).map(|&(_, place)| place)
    }
}

/// The entries that one transaction found, their values in one buffer.
pub(super) struct Part<F> {
    pub(super) bytes: Vec<u8>,
    pub(super) found: Vec<F>,
}

impl<F> Part<F> {
    const fn new() -> Self {
        Self { bytes: Vec::new(), found: Vec::new() }
    }

    /// Copies a value. Up to `left` values of its size may follow.
    fn push(&mut self, value: &[u8], left: usize) -> Range<usize> {
        if self.bytes.is_empty() {
            self.bytes.reserve(value.len().saturating_mul(left).min(MAX_PART_BYTES).max(value.len()));
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        start..self.bytes.len()
    }

    const fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_PART_BYTES || self.found.len() >= MAX_PART_ROWS
    }
}

impl Part<(usize, Range<usize>)> {
    /// Looks up as many keys as fill a part: the place of each among the sorted keys, and its value.
    ///
    /// Each part has a transaction of its own. Entries do not change, so a later transaction shows no fewer of them,
    /// and a long one would keep the WAL from starting over.
    pub(super) fn of(connection: &Connection, mut look_up: LookUp) -> rusqlite::Result<(LookUp, Self)> {
        if look_up.next == 0 {
            // Rows of one transaction are stored in this order, so they are found together. Equal keys are looked up
            // once.
            look_up.keys.sort_unstable();
        }
        let end = look_up.keys.len().min(look_up.next + MAX_PART_ROWS);
        let mut part = Self::new();
        let transaction = connection.unchecked_transaction()?;
        let mut select = transaction.prepare_cached(SELECT)?;
        while look_up.next < end && !part.is_full() {
            let first = look_up.next;
            let mut rows = select.query([look_up.keys[first].0.as_bytes().as_slice()])?;
            if let Some(row) = rows.next()? {
                let range = part.push(row.get_ref(0)?.as_blob()?, look_up.keys.len() - first);
                part.found.push((first, range));
            }
            look_up.next += look_up.places(first).count();
        }
        drop(select);
        transaction.commit()?;
        Ok((look_up, part))
    }
}

impl Part<(i64, Option<Key>, Range<usize>)> {
    /// Reads the entries after this id: their ids, keys (`None` if it is not a valid key), and values.
    pub(super) fn after(connection: &Connection, id: i64) -> rusqlite::Result<Self> {
        let mut part = Self::new();
        let mut select = connection.prepare_cached(SELECT_AFTER)?;
        let mut rows = select.query([id])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(1)?.as_blob()?.try_into().ok().map(Key::from_bytes);
            let range = part.push(row.get_ref(2)?.as_blob()?, usize::MAX);
            part.found.push((row.get(0)?, key, range));
            if part.is_full() {
                break;
            }
        }
        Ok(part)
    }
}

/// Counts some entries after this id: the last id, the entries and their bytes; `None` if there are no more.
pub(super) fn count_after(connection: &Connection, id: i64) -> rusqlite::Result<Option<(i64, u64, u64)>> {
    // The length of a value is in the header of its row, so values are not read.
    let sql = "SELECT max(id), count(*), coalesce(sum(length(value)), 0) \
               FROM (SELECT id, value FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2)";
    let mut select = connection.prepare_cached(sql)?;
    select.query_row([id, ROWS_COUNTED_PER_TRANSACTION], |row| {
        let last: Option<i64> = row.get(0)?;
        let (entries, bytes): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(last.map(|last| (last, entries.unsigned_abs(), bytes.unsigned_abs())))
    })
}

/// Reads the noted spaces and the lines about them, ordered by id.
pub(super) fn spaces(connection: &Connection) -> rusqlite::Result<Vec<(SpaceId, String)>> {
    let mut select = connection.prepare("SELECT id, about FROM spaces ORDER BY id")?;
    let rows = select.query_map([], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?)))?;
    rows.map(|row| row.map(|(id, about)| (SpaceId::from_bytes(id), about))).collect()
}
