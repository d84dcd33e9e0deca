//! Lists what a table holds: implements [`CacheScan`] for [`Postgres`].

use std::pin::pin;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use tokio_postgres::types::Type;

use super::{read, shared::Shared, statements::MAX_COUNTED_ROWS, store::Postgres, tries::Tries};
use crate::{
    Error, ErrorKind, Result, SpaceId,
    cache::{CacheScan, Key, ScanPlace, ScanSink},
};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheScan for Postgres {
    async fn scan(&self, after: Option<&ScanPlace>, sink: &mut ScanSink<'_>) -> Result<Option<ScanPlace>> {
        let after = after.map(key_of).transpose()?;
        self.shared().access().await?;
        let last = scan_part(self.shared(), after, sink).await?;
        Ok(last.map(|last| ScanPlace::from_bytes(last.as_bytes())))
    }

    async fn contains(&self, keys: &[Key]) -> Result<Vec<bool>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.shared().access().await?;
        read::contains(self.shared(), keys).await
    }

    async fn estimated_len(&self) -> Result<u64> {
        let shared = self.shared();
        shared.access().await?;
        let rows = shared.rows(shared.statements.estimate, &[(&shared.names.entries, Type::TEXT)]).await?;
        let estimate = rows.first().and_then(|row| row.try_get::<_, f64>(0).ok()).unwrap_or(-1.0);
        if estimate >= f64::from(MAX_COUNTED_ROWS) {
            return Ok(estimate as u64);
        }
        let rows = shared.rows(&shared.statements.count, &[]).await?;
        let count = rows.first().and_then(|row| row.try_get::<_, i64>(0).ok());
        count.map(i64::unsigned_abs).ok_or_else(|| shared.damaged("its rows cannot be counted"))
    }

    fn is_read_only(&self) -> bool {
        Self::is_read_only(self)
    }

    async fn notes(&self) -> Result<Vec<(SpaceId, String)>> {
        self.shared().access().await?;
        notes(self.shared()).await
    }
}

/// Reads the noted spaces and the lines about them, ordered by id.
pub(super) async fn notes(shared: &Shared) -> Result<Vec<(SpaceId, String)>> {
    let rows = shared.rows(&shared.statements.notes, &[]).await?;
    let note = |row: &tokio_postgres::Row| {
        let id: [u8; 16] = row.try_get::<_, &[u8]>(0).ok()?.try_into().ok()?;
        Some((SpaceId::from_bytes(id), row.try_get(1).ok()?))
    };
    let notes: Option<Vec<_>> = rows.iter().map(note).collect();
    notes.ok_or_else(|| shared.damaged("the id of a space does not have 16 bytes"))
}

/// Returns the key after which a scan goes on.
fn key_of(place: &ScanPlace) -> Result<Key> {
    let bytes = place.as_bytes();
    bytes.try_into().map(Key::from_bytes).map_err(|_| {
        let message = format!(
            "a scan of a table in PostgreSQL cannot go on from this place: it has {} bytes, and 32 are expected; use a \
             place that a scan of this store returned",
            bytes.len()
        );
        Error::new(ErrorKind::Config, message)
    })
}

/// Hands over the entries after a key, in the order of keys; returns the last key if there may be more.
async fn scan_part(shared: &Shared, after: Option<Key>, sink: &mut ScanSink<'_>) -> Result<Option<Key>> {
    let limit = shared.value_size.rows_per_reply();
    let (mut last, mut count) = (after, 0);
    let mut tries = Tries::default();
    loop {
        let failure = {
            let lease = shared.pool.lease(tries.needs_fresh()).await?;
            // After a broken connection, the scan goes on behind what was handed over.
            let (from, left) = (last.map(|key| key.as_bytes().to_vec()).unwrap_or_default(), (limit - count) as i64);
            let read = async {
                let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
                    [(&from, Type::BYTEA), (&left, Type::INT8)];
                let mut rows = pin!(lease.client().query_typed_raw(&shared.statements.scan, parameters).await?);
                let (mut largest, mut is_sound) = (0, true);
                while let Some(row) = rows.try_next().await? {
                    let (key, value): (&[u8], &[u8]) = (row.try_get(0)?, row.try_get(1)?);
                    count += 1;
                    match key.try_into().map(Key::from_bytes) {
                        Ok(key) => {
                            last = Some(key);
                            largest = largest.max(value.len());
                            sink(key, value);
                        }
                        Err(_) => is_sound = false,
                    }
                }
                Ok((largest, is_sound))
            };
            match lease.run(read).await {
                Ok((_, false)) => return Err(shared.damaged("a key does not have 32 bytes")),
                Ok((largest, true)) => {
                    if largest > 0 {
                        shared.value_size.saw(largest);
                    }
                    return Ok(last.filter(|_| count >= limit));
                }
                Err(failure) => failure,
            }
        };
        if count >= limit {
            return Ok(last);
        }
        tries.again(&shared.pool, failure).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_other_stores_are_refused() {
        let place = ScanPlace::from_bytes(&[7; 32]);
        assert_eq!(key_of(&place).expect("it is ours"), Key::from_bytes([7; 32]));
        for bytes in [&[][..], &[0; 8], &[0; 33]] {
            let error = key_of(&ScanPlace::from_bytes(bytes)).expect_err("it is of another store");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}
