//! Lists the entries of a file.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};

use super::{
    read::{LookUp, Part, spaces},
    store::Sqlite,
};
use crate::{
    Error, ErrorKind, Result, SpaceId,
    cache::{CacheScan, Key, ScanPlace, ScanSink},
};

/// The keys that are looked for in one transaction.
const KEYS_PER_TRANSACTION: usize = 16_384;

/// A place in the table of entries.
#[derive(Clone, Copy, Default)]
struct RowPlace {
    /// The id of the last row that was read.
    after: i64,
    /// The id of the first row without a valid key; 0 if there was none.
    keyless: i64,
}

impl RowPlace {
    fn read(place: &ScanPlace) -> Option<Self> {
        let (after, keyless) = place.as_bytes().split_first_chunk()?;
        Some(Self { after: i64::from_be_bytes(*after), keyless: i64::from_be_bytes(keyless.try_into().ok()?) })
    }

    fn written(self) -> ScanPlace {
        ScanPlace::from_bytes(&[self.after.to_be_bytes(), self.keyless.to_be_bytes()].concat())
    }
}

#[async_trait]
impl CacheScan for Sqlite {
    /// Hands the entries over in the order in which they were stored. A row without a valid key is left out, and is an
    /// error at the end.
    async fn scan(&self, after: Option<&ScanPlace>, sink: &mut ScanSink<'_>) -> Result<Option<ScanPlace>> {
        let wrong = || Error::new(ErrorKind::Config, "the place in the scan is not one of an SQLite file");
        let mut place = after.map_or(Ok(RowPlace::default()), |after| RowPlace::read(after).ok_or_else(wrong))?;
        let from = place.after;
        let part = self.read(move |connection| Part::after(connection, from)).await?;
        if part.found.is_empty() {
            if place.keyless == 0 {
                return Ok(None);
            }
            let (file, row) = (self.path().display(), place.keyless);
            let message = format!("{file} is damaged: row {row}, and possibly others, has no valid key");
            return Err(Error::new(ErrorKind::Cache, message));
        }
        for (id, key, range) in part.found {
            if id <= place.after {
                return Err(self.out_of_order());
            }
            place.after = id;
            match key {
                Some(key) => sink(key, &part.bytes[range]),
                None if place.keyless == 0 => place.keyless = id,
                None => {}
            }
        }
        Ok(Some(place.written()))
    }

    async fn contains(&self, keys: &[Key]) -> Result<Vec<bool>> {
        let mut there = vec![false; keys.len()];
        for (part, there) in keys.chunks(KEYS_PER_TRANSACTION).zip(there.chunks_mut(KEYS_PER_TRANSACTION)) {
            let look_up = LookUp::of(part);
            for place in self.read(move |connection| places_of(connection, look_up)).await? {
                there[place] = true;
            }
        }
        Ok(there)
    }

    /// Returns the largest id of a row: more than the number of entries if some were discarded.
    async fn estimated_len(&self) -> Result<u64> {
        let largest = |connection: &Connection| {
            connection.query_row("SELECT coalesce(max(id), 0) FROM entries", [], |row| row.get::<_, i64>(0))
        };
        Ok(self.read(largest).await?.unsigned_abs())
    }

    fn is_read_only(&self) -> bool {
        Self::is_read_only(self)
    }

    async fn notes(&self) -> Result<Vec<(SpaceId, String)>> {
        self.read(spaces).await
    }
}

/// Returns the places of the keys that are there.
fn places_of(connection: &Connection, mut look_up: LookUp) -> rusqlite::Result<Vec<usize>> {
    look_up.keys.sort_unstable();
    let transaction = connection.unchecked_transaction()?;
    let mut select = transaction.prepare_cached("SELECT 1 FROM entries WHERE key = ?1")?;
    let mut places = Vec::new();
    for (key, place) in look_up.keys {
        if select.query_row([key.as_bytes().as_slice()], |_| Ok(())).optional()?.is_some() {
            places.push(place);
        }
    }
    drop(select);
    transaction.commit()?;
    Ok(places)
}
