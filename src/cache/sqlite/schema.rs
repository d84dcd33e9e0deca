//! The tables of a file, their version, and whether a file is ours: [`Identity`].

use rusqlite::Connection;

use super::failure::AFTER_DAMAGE;

/// "DVEC": marks a file as ours, also for the program `file`.
const APPLICATION_ID: i32 = 0x4456_4543;

/// The version of the schema below. A change to the schema needs the next version, and a migration from the one before.
const SCHEMA_VERSION: i32 = 1;

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
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// Why a file was not opened.
#[derive(Debug)]
pub(super) enum Refusal {
    Sqlite(rusqlite::Error),
    /// The rest of a message that begins with the path.
    Because(String),
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
