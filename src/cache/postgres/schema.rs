//! The tables, their version, and whether those of the server are ours: [`open`].

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{
    failure::Failure,
    names::Names,
    pool::{Lease, Pool},
    tries::Tries,
};
use crate::{Error, ErrorKind, Result, telemetry};

/// The version of the tables below. A change to them needs the next version, and a migration from the one before.
const FORMAT: i64 = 1;

/// The first version of PostgreSQL that knows the options of the table.
const OLDEST_SERVER: i64 = 130_000;

/// The lock that is held while tables are created: "docvec" in ASCII.
const CREATION_LOCK: i64 = 0x646f_6376_6563;

/// The columns of the three tables.
const ENTRIES: &str = "key bytea, value bytea";
const SPACES: &str = "id bytea, about text, noted timestamp with time zone";
const META: &str = "name text, value text";

const SERVER: &str = "SELECT current_setting('server_version_num')::int8, current_setting('server_version'), \
                      current_setting('transaction_read_only') = 'on', current_setting('synchronous_commit'), \
                      current_setting('fsync')";

const TABLE: &str = "
SELECT c.relkind::text, c.relpersistence::text,
    has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'),
    coalesce((SELECT string_agg(a.attname || ' ' || pg_catalog.format_type(a.atttypid, NULL), ', ' ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), ''),
    EXISTS (SELECT 1 FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL
            AND a.attnum = 1)
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)";

/// Whether entries can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    ReadWrite,
    ReadOnly,
}

/// Creates the tables if they are missing, or checks that they are ours; returns whether entries can be stored.
pub(super) async fn open(pool: &Pool, names: &Names, asked_read_only: bool) -> Result<Access> {
    let mut tries = Tries::default();
    loop {
        let failure = {
            let lease = pool.lease(tries.needs_fresh()).await?;
            match (Opening { lease, names, address: pool.address() }).open(asked_read_only).await {
                Ok(access) => return Ok(access),
                Err(failure) => failure,
            }
        };
        tries.again(pool, failure).await?;
    }
}

/// The properties of the server.
struct Server {
    version: i64,
    version_name: String,
    is_read_only: bool,
    synchronous_commit: String,
    fsync: String,
}

/// The properties of a table.
struct Table {
    kind: String,
    persistence: String,
    may_read: bool,
    may_write: bool,
    columns: String,
    has_unique_first_column: bool,
}

struct Opening<'a> {
    lease: Lease<'a>,
    names: &'a Names,
    address: &'a str,
}

impl Opening<'_> {
    async fn open(&self, asked_read_only: bool) -> Result<Access, Failure> {
        let server = self.server().await?;
        if server.version < OLDEST_SERVER {
            return self.refuse(&format!("the server is PostgreSQL {}: update to 13 or newer", server.version_name));
        }
        let entries = match self.table(&self.names.entries).await? {
            Some(entries) => entries,
            None if asked_read_only || server.is_read_only => {
                return self.refuse("it does not exist, and is only read: let a user who may create it open it once");
            }
            None => self.create().await?,
        };
        self.check_entries(&entries)?;
        let spaces = self.table(&self.names.spaces).await?;
        let spaces_may_write = self.check_beside("_spaces", SPACES, spaces)?;
        let meta = self.table(&self.names.meta).await?;
        self.check_beside("_meta", META, meta)?;
        self.check_format().await?;
        if asked_read_only {
            return Ok(Access::ReadOnly);
        }
        if !(entries.may_write && spaces_may_write) {
            self.warn("is only read, because this user may not insert: nothing is stored");
            return Ok(Access::ReadOnly);
        }
        if server.is_read_only {
            // It may be a standby that takes writes later, so this is not settled.
            self.warn("takes no entries now, because the server is a standby or its transactions are read-only");
        }
        self.warn_of_losses(&server);
        Ok(Access::ReadWrite)
    }

    async fn server(&self) -> Result<Server, Failure> {
        let row = self.one_row(SERVER, &[]).await?;
        let read = |row: &Row| -> Result<Server, tokio_postgres::Error> {
            Ok(Server {
                version: row.try_get(0)?,
                version_name: row.try_get(1)?,
                is_read_only: row.try_get(2)?,
                synchronous_commit: row.try_get(3)?,
                fsync: row.try_get(4)?,
            })
        };
        match row {
            Some(row) => read(&row).map_err(Failure::Server),
            None => self.refuse("the server does not say what it is"),
        }
    }

    async fn table(&self, name: &str) -> Result<Option<Table>, Failure> {
        let read = |row: Row| -> Result<Table, tokio_postgres::Error> {
            Ok(Table {
                kind: row.try_get(0)?,
                persistence: row.try_get(1)?,
                may_read: row.try_get(2)?,
                may_write: row.try_get(3)?,
                columns: row.try_get(4)?,
                has_unique_first_column: row.try_get(5)?,
            })
        };
        let row = self.one_row(TABLE, &[(&name, Type::TEXT)]).await?;
        row.map(read).transpose().map_err(Failure::Server)
    }

    async fn one_row(&self, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Option<Row>, Failure> {
        self.lease.run(self.lease.client().query_typed_opt(sql, parameters)).await
    }

    /// Creates the tables, unless another process is first.
    async fn create(&self) -> Result<Table, Failure> {
        // An open transaction goes with its connection if this fails or is dropped.
        self.lease.taint(true);
        match self.create_under_lock().await {
            Ok(()) => self.lease.taint(false),
            // Not by this program, which would have waited for the lock.
            Err(failure) if failure.is_duplicate() => {
                self.batch("ROLLBACK").await?;
                self.lease.taint(false);
            }
            Err(failure) => return Err(failure),
        }
        match self.table(&self.names.entries).await? {
            Some(entries) => Ok(entries),
            None => self.refuse("it was created, and is not found: check the search path of this user"),
        }
    }

    async fn create_under_lock(&self) -> Result<(), Failure> {
        // A snapshot per statement, whatever the server's default is: what another process created is seen.
        self.batch("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
        self.batch(&format!("SELECT pg_catalog.pg_advisory_xact_lock({CREATION_LOCK})")).await?;
        for (name, sql) in [
            (&self.names.entries, entries_table(self.names)),
            (&self.names.spaces, spaces_table(self.names)),
            (&self.names.meta, meta_table(self.names)),
        ] {
            // One may be left of tables that were dropped.
            if self.table(name).await?.is_none() {
                self.batch(&sql).await?;
            }
        }
        tracing::info!("the table {} was created in {}", self.names.shown, self.address);
        self.batch("COMMIT").await
    }

    async fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.lease.run(self.lease.client().batch_execute(sql)).await
    }

    /// Refuses a table of entries that is not ours, or that loses entries.
    fn check_entries(&self, table: &Table) -> Result<(), Failure> {
        if table.kind != "r" || table.columns != ENTRIES || !table.has_unique_first_column {
            return self.refuse(&format!(
                "it is not a table of this store (its columns are: {}; expected: {ENTRIES}, with a primary key): name \
                 another one",
                table.columns
            ));
        }
        if table.persistence == "u" {
            return self.refuse(&format!(
                "it is unlogged, so a crash of the server empties it: `ALTER TABLE {} SET LOGGED`",
                self.names.entries
            ));
        }
        if table.persistence != "p" {
            return self.refuse("it is a temporary table: drop it, or name another one");
        }
        if !table.may_read {
            return self.refuse("this user may not read it: grant SELECT on it and on the two tables beside it");
        }
        Ok(())
    }

    /// Refuses one of the two small tables if it is not ours; returns whether it can be written.
    fn check_beside(&self, ending: &str, expected: &str, table: Option<Table>) -> Result<bool, Failure> {
        match table {
            Some(table) if table.columns == expected && table.may_read => Ok(table.may_write),
            Some(table) if table.columns == expected => self
                .refuse(&format!("this user may not read the table beside it that ends with {ending}: grant SELECT")),
            _ => self.refuse(&format!(
                "the table beside it that ends with {ending} is missing or has other columns, so it is not of this \
                 store: name another one, or restore all three"
            )),
        }
    }

    async fn check_format(&self) -> Result<(), Failure> {
        let sql = format!("SELECT value FROM {} WHERE name = 'format'", self.names.meta);
        let row = self.one_row(&sql, &[]).await?;
        let format = row.map(|row| row.try_get::<_, String>(0)).transpose().map_err(Failure::Server)?;
        match format.as_deref().map(str::parse) {
            Some(Ok(FORMAT)) => Ok(()),
            Some(Ok(newer)) if newer > FORMAT => self.refuse(&format!(
                "it was made by a newer version of this program (its format is {newer}, the newest known here is \
                 {FORMAT}): update, or name another table"
            )),
            _ => self.refuse("it does not say which format it has: name another one, or restore it"),
        }
    }

    fn refuse<T>(&self, why: &str) -> Result<T, Failure> {
        let message = format!("the table {} in {} cannot be used: {why}", self.names.shown, self.address);
        Err(Failure::Refused(Error::new(ErrorKind::Cache, message)))
    }

    fn warn(&self, what: &str) {
        let (table, address) = (&self.names.shown, self.address);
        tracing::warn!({ telemetry::STORE } = "postgres", "the table {table} in {address} {what}");
    }

    fn warn_of_losses(&self, server: &Server) {
        let (address, commit, fsync) = (self.address, &server.synchronous_commit, &server.fsync);
        if commit == "off" || fsync != "on" {
            tracing::warn!(
                { telemetry::STORE } = "postgres",
                "{address} has synchronous_commit = {commit} and fsync = {fsync}: a crash of the server may lose \
                 entries that were confirmed; set both to on"
            );
        }
    }
}

/// The statements that create the table of entries. The comments explain it to people.
fn entries_table(names: &Names) -> String {
    let entries = &names.entries;
    // Vectors do not compress: EXTERNAL spares the server the attempt. Rows of up to a page stay in the table, because
    // larger values than two kilobytes would be read from a second table, piece by piece. Rows are never updated, so
    // pages can be full. Vacuums after inserts keep the visibility map and the statistics fresh.
    format!(
        "CREATE TABLE {entries} (
    key bytea PRIMARY KEY CHECK (octet_length(key) = 32),
    value bytea NOT NULL
) WITH (
    fillfactor = 100,
    toast_tuple_target = 8160,
    autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05,
    toast.autovacuum_vacuum_insert_threshold = 100000,
    toast.autovacuum_vacuum_insert_scale_factor = 0.05
);
ALTER TABLE {entries} ALTER COLUMN value SET STORAGE EXTERNAL;
COMMENT ON TABLE {entries} IS 'Vectors of texts, cached by docvector-embed. Rows are never changed.';
COMMENT ON COLUMN {entries}.key IS 'A hash of space, kind and text';
COMMENT ON COLUMN {entries}.value IS 'A header with a checksum, and the vector';"
    )
}

fn spaces_table(names: &Names) -> String {
    let spaces = &names.spaces;
    format!(
        "CREATE TABLE {spaces} (
    id bytea PRIMARY KEY,
    about text NOT NULL,
    noted timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE {spaces} IS 'The vector spaces of the cached vectors, for people';
COMMENT ON COLUMN {spaces}.id IS 'The fingerprint of a vector space';
COMMENT ON COLUMN {spaces}.about IS 'What it is';
COMMENT ON COLUMN {spaces}.noted IS 'When it was first seen';"
    )
}

fn meta_table(names: &Names) -> String {
    let meta = &names.meta;
    let made_by = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    format!(
        "CREATE TABLE {meta} (
    name text PRIMARY KEY,
    value text NOT NULL
);
COMMENT ON TABLE {meta} IS 'The format of the cached vectors, and what made the tables';
INSERT INTO {meta} (name, value) VALUES ('format', '{FORMAT}'), ('made by', '{made_by}'), ('made', now()::text);"
    )
}
