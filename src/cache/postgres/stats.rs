//! Counts what a table holds: [`PostgresStats`].

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{scan::notes, shared::Shared, store::Postgres, tries::Tries};
use crate::{Result, SpaceId};

/// The counts of [`Postgres::stats`](super::Postgres::stats).
///
/// ```no_run
/// use docvector_embed::cache::Postgres;
/// # async fn run() -> docvector_embed::Result<()> {
/// let stats = Postgres::connect("postgres://me@localhost/vectors").await?.stats().await?;
/// println!("{} entries take {} bytes", stats.entries, stats.table_bytes);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PostgresStats {
    /// The number of entries.
    pub entries: u64,
    /// The bytes of their values.
    pub value_bytes: u64,
    /// The bytes that the table takes on the server's disk, with its index and its large values.
    pub table_bytes: u64,
    /// The noted spaces and the lines about them, ordered by id.
    pub spaces: Vec<(SpaceId, String)>,
}

impl Postgres {
    /// Counts the entries in the table. The server reads all rows except large values, which takes minutes for many
    /// millions of entries. It has no time limit; drop the future to give up.
    ///
    /// # Errors
    /// Those of [`CacheStore::get`](crate::cache::CacheStore::get).
    pub async fn stats(&self) -> Result<PostgresStats> {
        self.shared().access().await?;
        stats(self.shared()).await
    }
}

/// Counts all entries, however long it takes.
async fn stats(shared: &Shared) -> Result<PostgresStats> {
    let mut tries = Tries::default();
    let row = loop {
        let failure = {
            let lease = shared.pool.lease(tries.needs_fresh()).await?;
            let client = lease.client();
            // If this fails or is dropped, the transaction goes with its connection, and so does its time limit of 0.
            lease.taint(true);
            let count = async {
                client.batch_execute("BEGIN READ ONLY; SET LOCAL statement_timeout = 0").await?;
                let table: &(dyn ToSql + Sync) = &shared.names.entries;
                let row = client.query_typed_one(&shared.statements.stats, &[(table, Type::TEXT)]).await?;
                client.batch_execute("COMMIT").await?;
                Ok(row)
            };
            match lease.run_without_limit(count).await {
                Ok(row) => {
                    lease.taint(false);
                    break row;
                }
                Err(failure) => failure,
            }
        };
        tries.again(&shared.pool, failure).await?;
    };
    let counts = of_row(&row).ok_or_else(|| shared.damaged("its rows cannot be counted"))?;
    Ok(PostgresStats { spaces: notes(shared).await?, ..counts })
}

fn of_row(row: &Row) -> Option<PostgresStats> {
    let number = |at| row.try_get::<usize, i64>(at).ok().map(i64::unsigned_abs);
    Some(PostgresStats { entries: number(0)?, value_bytes: number(1)?, table_bytes: number(2)?, spaces: Vec::new() })
}
