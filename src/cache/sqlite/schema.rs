//! The tables of a file, their version, and whether a file is ours: [`Identity`].

use std::{
    hash::{BuildHasher, RandomState},
    process,
    time::SystemTime,
};

use rusqlite::{Connection, ErrorCode};

use super::failure::AFTER_DAMAGE;

/// "DVEC": marks a file as ours, also for the program `file`.
const APPLICATION_ID: i32 = 0x4456_4543;

/// The version of the schema below. A change to the schema needs the next version, and a migration from the one before.
const SCHEMA_VERSION: i32 = 1;

/// The most changes of the schema by which a file and its WAL can differ. Cookies that were not made at random are
/// smaller: they count the changes since the file was made.
pub(super) const MAX_SCHEMA_CHANGES: u32 = 1 << 10;

/// SQLite keeps this text in the file, comments included, so that it explains the file to people.
///
/// Rows are in the table's own tree, and keys in the index of `UNIQUE`. With `WITHOUT ROWID`, large rows would be in
/// the tree of the keys, and take up to four times their size.
const SCHEMA: &str = "
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY
) STRICT;
CREATE TABLE spaces (
    id BLOB PRIMARY KEY,      -- the fingerprint of a vector space
    about TEXT NOT NULL,      -- what it is, for people
    noted TEXT                -- when it was first seen, UTC
) STRICT;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE, -- a hash of space, kind and text
    value BLOB NOT NULL       -- a header with a checksum, and the vector
) STRICT;
";

/// Creates the tables, and marks the file as ours.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)?;
    let made_by = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let insert = "INSERT INTO meta (name, value) VALUES ('made by', ?1), \
                  ('made', strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))";
    connection.execute(insert, [made_by])?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "schema_version", random_cookie())?;
    write_first_page(connection)
}

/// Makes this transaction write the first page, by setting the version that it has already: the WAL then holds the cookie
/// by which [`foreign_wal`](super::foreign_wal) knows whose it is. Most transactions write that page anyway.
pub(super) fn write_first_page(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// Returns a cookie for a new file.
fn random_cookie() -> u32 {
    let random = RandomState::new().hash_one((SystemTime::now(), process::id()));
    // SQLite takes it for a signed number of 32 bits. Room is left below and above for changes of the schema.
    let first = 2 * MAX_SCHEMA_CHANGES;
    first + (random % u64::from(i32::MAX.unsigned_abs() - 2 * first)) as u32
}

/// Why a file was not opened.
#[derive(Debug)]
pub(super) enum Refusal {
    Sqlite(rusqlite::Error),
    /// This process may read the file, and not write it.
    NotWritable,
    /// The rest of a message that begins with the path.
    Because(String),
}

impl Refusal {
    /// Returns `true` if the file can perhaps be read all the same.
    pub(super) fn is_of_writing(&self) -> bool {
        let codes = [ErrorCode::ReadOnly, ErrorCode::PermissionDenied, ErrorCode::CannotOpen];
        match self {
            Self::NotWritable => true,
            Self::Sqlite(error) => error.sqlite_error_code().is_some_and(|code| codes.contains(&code)),
            Self::Because(_) => false,
        }
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The owner that a file states.
pub(super) struct Identity {
    application: i32,
    version: i32,
    /// The number of tables, indexes and the like.
    objects: i64,
}

impl Identity {
    /// Reads the identity of a file.
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            objects: connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?,
            application: connection.pragma_query_value(None, "application_id", |row| row.get(0))?,
            version: connection.pragma_query_value(None, "user_version", |row| row.get(0))?,
        })
    }

    /// Returns whether the file is new; refuses a file that is not ours.
    pub(super) fn check(&self) -> Result<bool, Refusal> {
        let refused = |why: String| Err(Refusal::Because(why));
        match (self.application, self.version, self.objects) {
            (0, 0, 0) => Ok(true),
            (APPLICATION_ID, SCHEMA_VERSION, 1..) => Ok(false),
            (APPLICATION_ID, version, _) if version > SCHEMA_VERSION => refused(format!(
                "was made by a newer version of this program (its format is {version}, the newest known here is \
                 {SCHEMA_VERSION}): update, or name another file"
            )),
            (APPLICATION_ID, ..) => refused(format!("is damaged: {}", AFTER_DAMAGE)),
            (application, ..) => refused(format!(
                "is an SQLite file of another program (application id {application}): name another file"
            )),
        }
    }
}
