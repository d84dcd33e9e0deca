//! Stores and removes entries: [`put`], [`discard`], [`note`].

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio_postgres::types::Type;

use super::{parts::parts_of, shared::Shared};
use crate::{Error, ErrorKind, Result, SpaceId, cache::Entry};

/// The maximum size of a value. A message of PostgreSQL has a little less than a gigabyte; no vector is half as large.
const MAX_VALUE_BYTES: usize = 512 << 20;

/// The most parts of one put that are under way at a time. The next one is sent while the server commits the one
/// before.
const MAX_PARTS: usize = 2;

/// Stores entries, each part in a transaction of its own.
pub(super) async fn put(shared: &Shared, entries: &[Entry<'_>]) -> Result<()> {
    check_sizes(shared, entries)?;
    let mut rows = entries.to_vec();
    // All writers lock rows in one order, so they do not deadlock. The sort is stable: of equal keys, the first stays.
    rows.sort_by_key(|entry| entry.key);
    rows.dedup_by_key(|entry| entry.key);
    let mut parts = parts_of(&rows);
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < MAX_PARTS
            && let Some(part) = parts.next()
        {
            under_way.push(send(shared, &shared.statements.put, part));
        }
        match under_way.next().await {
            Some(done) => done?,
            None => return Ok(()),
        }
    }
}

/// Removes the entries that still have the given values.
pub(super) async fn discard(shared: &Shared, damaged: &[Entry<'_>]) -> Result<()> {
    // A larger value cannot be there.
    let fits = damaged.iter().filter(|entry| entry.value.len() <= MAX_VALUE_BYTES);
    let mut rows: Vec<Entry<'_>> = fits.copied().collect();
    rows.sort_by_key(|entry| entry.key);
    for part in parts_of(&rows) {
        send(shared, &shared.statements.discard, part).await?;
    }
    Ok(())
}

/// Sends entries as two arrays, without a copy of their values beside the message itself.
async fn send(shared: &Shared, sql: &str, part: &[Entry<'_>]) -> Result<()> {
    let keys: Vec<&[u8]> = part.iter().map(|entry| entry.key.as_bytes().as_slice()).collect();
    let values: Vec<&[u8]> = part.iter().map(|entry| entry.value).collect();
    shared.execute(sql, &[(&keys, Type::BYTEA_ARRAY), (&values, Type::BYTEA_ARRAY)]).await
}

/// Keeps a line about a space, unless there is one.
pub(super) async fn note(shared: &Shared, space: SpaceId, about: &str) -> Result<()> {
    // A text of PostgreSQL cannot have this character.
    let about = about.replace('\0', "\u{fffd}");
    let id = space.as_bytes().as_slice();
    shared.execute(&shared.statements.note, &[(&id, Type::BYTEA), (&about, Type::TEXT)]).await
}

fn check_sizes(shared: &Shared, entries: &[Entry<'_>]) -> Result<()> {
    let Some(entry) = entries.iter().find(|entry| entry.value.len() > MAX_VALUE_BYTES) else { return Ok(()) };
    let (bytes, table, address) = (entry.value.len(), &shared.names.shown, shared.pool.address());
    let message = format!(
        "an entry of {bytes} bytes cannot be put into the table {table} in {address}: the limit is {MAX_VALUE_BYTES}"
    );
    Err(Error::new(ErrorKind::Cache, message))
}
