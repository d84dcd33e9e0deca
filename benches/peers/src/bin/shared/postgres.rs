//! `cache::Postgres` beside a bare client of tokio-postgres ([`run`]), and what is asked of a server ([`Admin`]).

use std::{pin::pin, sync::Arc};

use docvector_embed::{
    async_trait,
    cache::{Entry, Key, Postgres},
};
use futures_util::TryStreamExt as _;
use peers::{Args, Result};
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, Statement, types::ToSql};

use crate::{
    client::{Client, Fault, Found, Ours, wait},
    contest::{Contest, Server},
    grouped,
};

/// The table of our store, unless it is told otherwise. The bare client uses the same one.
pub const TABLE: &str = "docvector_cache";

pub fn run(args: &Args, runtime: &Runtime, url: &str) -> Result<()> {
    let entries: u64 = args.get("entries")?.unwrap_or(65_536).max(1);
    let rounds: usize = args.get("rounds")?.unwrap_or(5).max(1);
    let (store, admin, one, each) = wait(runtime, async {
        let store = Postgres::connect(url).await?;
        Ok((store, Admin::connect(url).await?, Bare::new(url, 1).await?, Bare::new(url, 4).await?))
    })?;
    println!(
        "{} entries, {rounds} rounds in turns, medians; {} that syncs each commit. The bare client sends a batch as \
         one prepared statement to the same table, `INSERT ... SELECT unnest ... ON CONFLICT DO NOTHING` or `SELECT \
         ... WHERE key = ANY`, and adds up the lengths of values. It has one `Client` for all batches at once, and in \
         the last columns one per batch. Our store has its default of 8 connections.\n",
        grouped(entries as f64),
        wait(runtime, admin.version())?
    );
    let contest = Contest {
        runtime,
        server: &admin,
        ours: Arc::new(Ours(store)),
        one: Arc::new(one),
        each: Arc::new(each),
        entries,
        rounds,
    };
    contest.run()
}

async fn connect(url: &str) -> Result<tokio_postgres::Client, Fault> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("a connection ended: {error}");
        }
    });
    Ok(client)
}

/// The tokio-postgres crate as it is.
struct Bare(Vec<Prepared>);

struct Prepared {
    client: tokio_postgres::Client,
    put: Statement,
    get: Statement,
}

impl Bare {
    async fn new(url: &str, clients: usize) -> Result<Self, Fault> {
        let mut made = Vec::with_capacity(clients);
        for _ in 0..clients {
            let client = connect(url).await?;
            let put = format!(
                "INSERT INTO {TABLE} (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT (key) DO \
                 NOTHING"
            );
            let put = client.prepare(&put).await?;
            let get = client.prepare(&format!("SELECT key, value FROM {TABLE} WHERE key = ANY($1)")).await?;
            made.push(Prepared { client, put, get });
        }
        Ok(Self(made))
    }
}

#[async_trait]
impl Client for Bare {
    async fn put(&self, caller: usize, entries: &[Entry<'_>]) -> Result<(), Fault> {
        let Prepared { client, put, .. } = &self.0[caller % self.0.len()];
        let keys: Vec<&[u8]> = entries.iter().map(|entry| entry.key.as_bytes().as_slice()).collect();
        let values: Vec<&[u8]> = entries.iter().map(|entry| entry.value).collect();
        let stored = client.execute(put, &[&keys, &values]).await?;
        // The table is empty before, so that each entry is a new one.
        if stored == entries.len() as u64 {
            Ok(())
        } else {
            Err(format!("{stored} of {} were stored", entries.len()).into())
        }
    }

    async fn get(&self, caller: usize, keys: &[Key]) -> Result<Found, Fault> {
        let Prepared { client, get, .. } = &self.0[caller % self.0.len()];
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes().as_slice()).collect();
        let parameters: [&(dyn ToSql + Sync); 1] = [&keys];
        let mut rows = pin!(client.query_raw(get, parameters).await?);
        let mut found = Found::default();
        while let Some(row) = rows.try_next().await? {
            found.add(row.try_get(1)?);
        }
        Ok(found)
    }
}

/// Asks a server for what no store does.
pub struct Admin(tokio_postgres::Client);

impl Admin {
    pub async fn connect(url: &str) -> Result<Self, Fault> {
        Ok(Self(connect(url).await?))
    }

    pub async fn version(&self) -> Result<String, Fault> {
        let version: String = self.0.query_one("SELECT current_setting('server_version')", &[]).await?.try_get(0)?;
        Ok(format!("PostgreSQL {}", version.split(' ').next().unwrap_or_default()))
    }

    /// Runs statements, each in a transaction of its own.
    pub async fn run(&self, statements: &[&str]) -> Result<(), Fault> {
        for statement in statements {
            self.0.batch_execute(statement).await?;
        }
        Ok(())
    }

    /// Clears and counts a table after writes, as the server would do it sooner or later.
    pub async fn vacuum(&self, table: &str) -> Result<(), Fault> {
        self.run(&[&format!("VACUUM (ANALYZE) {table}"), "CHECKPOINT"]).await
    }

    pub async fn size(&self, table: &str) -> Result<Size, Fault> {
        let sql = "SELECT pg_total_relation_size(c.oid), pg_relation_size(c.oid), pg_indexes_size(c.oid), \
                   CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE pg_total_relation_size(c.reltoastrelid) END \
                   FROM pg_class c WHERE c.oid = to_regclass($1)";
        let row = self.0.query_one(sql, &[&table]).await?;
        let bytes = |at: usize| row.try_get::<_, i64>(at).map(|bytes| bytes as f64);
        Ok(Size { all: bytes(0)?, heap: bytes(1)?, index: bytes(2)?, toast: bytes(3)? })
    }
}

/// The bytes of a table on the disk. The maps of its free and of its visible rows are in `all` alone.
pub struct Size {
    pub all: f64,
    pub heap: f64,
    pub index: f64,
    /// With its index.
    pub toast: f64,
}

#[async_trait]
impl Server for Admin {
    async fn empty(&self) -> Result<(), Fault> {
        self.run(&[&format!("TRUNCATE {TABLE}"), "CHECKPOINT"]).await
    }

    async fn settle(&self) -> Result<(), Fault> {
        self.vacuum(TABLE).await
    }
}
