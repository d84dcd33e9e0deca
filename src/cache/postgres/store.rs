//! Reads and writes entries through connections to a server: [`Postgres`].

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{read, schema::Access, shared::Shared, write};
use crate::{
    Error, ErrorKind, Result, SpaceId,
    cache::{CacheStore, Entry, Key, Sink},
};

/// Keeps entries in a table of PostgreSQL, for many machines. Clones share.
///
/// ```no_run
/// use docvector_embed::cache::{CacheStore, Entry, Key, Postgres};
/// # async fn run() -> docvector_embed::Result<()> {
/// let store = Postgres::connect("postgres://me:password@localhost/vectors").await?;
/// let key = Key::from_bytes([7; 32]);
/// store.put(&[Entry::new(key, b"bytes")]).await?;
/// let mut found = Vec::new();
/// store.get(&[key], &mut |_, value| found.push(value.to_vec())).await?;
/// assert_eq!(found, [b"bytes"]);
/// # Ok(()) }
/// ```
///
/// # Semantics
/// An `Ok` of [`put`](CacheStore::put) means that the server has committed all entries. They survive a crash of the
/// server and a loss of power if its `synchronous_commit` and `fsync` are on, as they are by default; opening warns if
/// not. A put of more than 8 MiB takes several transactions, so a put that fails may have stored some of its entries.
///
/// No entry is ever replaced. Only [discarded](CacheStore::discard) entries are removed. Any number of processes and
/// machines may read and write one table at once: of several values for a key, the first one committed stays, and all
/// see it.
///
/// **The tables** are created at opening if they are missing: one row per entry, the key as primary key and no other
/// index, values uncompressed, because vectors do not compress. Two small tables beside it hold the format and the
/// [notes](CacheStore::note). A table of the same name that is not of this store is refused and not touched, and so is
/// one of a newer version, and an unlogged one, which a crash of the server would empty. PostgreSQL 13 or newer is
/// needed.
///
/// **A table that cannot be written is read.** If this user may not insert, or after
/// [`read_only`](super::PostgresBuilder::read_only), entries are found and nothing is stored: `put` is `Ok` and counts
/// its entries in [`skipped`](Self::skipped), and `discard` is an error. This is decided once, at opening. At a standby,
/// or where transactions are read-only by default, `put` is an error until the server takes writes.
///
/// **A connection that breaks** is replaced. Each statement is tried once more on a new one, because all of them may be
/// repeated. While the server takes no connections, calls fail at once with the last error, for 200 ms at first and up
/// to 5 s; then one call tries again.
///
/// **Poolers** such as PgBouncer work in all modes: no statement is prepared by name. In transaction mode, the
/// `statement_timeout` that each connection sets may reach other clients of the pooler.
///
/// # Errors
/// [`Cache`](ErrorKind::Cache), with the host, the database and what to do, if the server cannot be reached, does not
/// answer in time, refuses the user or a statement, has a full disk, or became read-only.
/// [`Config`](ErrorKind::Config) if the connection string or an option of the [builder](super::PostgresBuilder) is
/// wrong. No error, log line or `Debug` shows the password, a key or a value.
///
/// A `get` that fails has handed over some of the values.
///
/// # Cancellation
/// A dropped `put` may or may not have stored its entries, each transaction all of its entries or none. A connection on
/// which a dropped call has a statement under way is closed, so that no other call waits for it.
///
/// # Cost
/// One round trip per statement. A look-up asks for about 4 MiB of values and at most 1,024 keys per statement, and has
/// up to 4 statements under way. A put sends up to 8 MiB per statement, and has up to 2 under way. Values that are
/// looked up are handed over from the network's buffer, and values that are stored are copied once, into the message.
/// Memory is bounded by that per call, or by the largest value. Needs a tokio runtime with its network and its clock;
/// connections belong to the runtime on which they were made, and close when it ends.
#[derive(Clone)]
pub struct Postgres(Arc<Shared>);

impl Postgres {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Returns `true` if the table is only read, because that was asked for, or because this user or this server cannot
    /// write it. Before the first call of a store that was [built lazily](super::PostgresBuilder::build_lazy), only the
    /// former is known.
    pub fn is_read_only(&self) -> bool {
        self.0.is_read_only()
    }

    /// Returns how many entries were put and not stored, because the table is [only read](Self::is_read_only).
    pub fn skipped(&self) -> u64 {
        self.0.skipped()
    }
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres")
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("address", &self.0.pool.address())
            .field("table", &self.0.names.shown)
            .field("is_read_only", &self.is_read_only())
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheStore for Postgres {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.0.access().await?;
        read::get(&self.0, keys, sink).await
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.0.access().await? == Access::ReadOnly {
            self.0.skip(entries.len());
            return Ok(());
        }
        write::put(&self.0, entries).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        if damaged.is_empty() {
            return Ok(());
        }
        if self.0.access().await? == Access::ReadOnly {
            let (table, address) = (&self.0.names.shown, self.0.pool.address());
            let message = format!(
                "the table {table} in {address} is only read, so nothing was removed from it: grant this user INSERT \
                 and DELETE on a server that takes writes, or open it without `PostgresBuilder::read_only`"
            );
            return Err(Error::new(ErrorKind::Cache, message));
        }
        write::discard(&self.0, damaged).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        match self.0.access().await? {
            Access::ReadOnly => Ok(()),
            Access::ReadWrite => write::note(&self.0, space, about).await,
        }
    }

    async fn flush(&self) -> Result<()> {
        // Whatever was accepted is committed. This asks whether the server is there.
        match self.0.access().await? {
            Access::ReadOnly => Ok(()),
            Access::ReadWrite => self.0.execute("SELECT 1", &[]).await,
        }
    }
}
