//! Opens a file, or creates it: which paths are safe, how a connection is set, and what is done if nothing can be written.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, Transaction, TransactionBehavior};

use super::{
    beside::{beside, has_content},
    foreign_wal,
    immutable::open_immutable,
    schema::{self, Identity, Refusal},
};
use crate::{Error, ErrorKind, Result, telemetry};

/// The first version of SQLite in which two connections that write and checkpoint at the same time cannot damage the
/// file.
const MIN_LIBRARY_VERSION: i32 = 3_051_003;

/// The page cache of the writer, in KiB: more than the upper levels of a large index take.
const WRITER_CACHE_KIB: u32 = 32 << 10;

/// How long to sleep before a lock is tried again. SQLite's own sleeps grow to a tenth of a second. In that time, a
/// process that writes without a pause gets the lock again and again.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How a file is opened.
pub(super) struct FileOptions {
    pub(super) page_size: u32,
    pub(super) busy_timeout: Duration,
    pub(super) wal_bytes: u32,
    /// Whether it is only to be read.
    pub(super) read_only: bool,
}

/// A file that was opened.
pub(super) struct OpenFile {
    /// The connection that writes; `None` if the file is only read.
    pub(super) writer: Option<Connection>,
    pub(super) page_size: u32,
}

impl FileOptions {
    /// Opens the file: for reading alone if that is asked for, or if it exists and this process cannot write it.
    pub(super) fn open(&self, path: &Path) -> Result<OpenFile, Refusal> {
        foreign_wal::check(path)?;
        if !self.read_only {
            match self.open_for_writing(path) {
                Err(refusal) if refusal.is_of_writing() && has_content(path) => {}
                opened => return opened.map(|(writer, page_size)| OpenFile { writer: Some(writer), page_size }),
            }
        }
        let page_size = self.open_for_reading(path)?;
        if !self.read_only {
            tracing::warn!(
                { telemetry::FILE } = %path.display(),
                "the cache file cannot be written: what it has is read, and nothing is stored"
            );
        }
        Ok(OpenFile { writer: None, page_size })
    }

    /// Checks that the file is one of ours and can be read; returns its page size.
    fn open_for_reading(&self, path: &Path) -> Result<u32, Refusal> {
        let state = FileState::of(path);
        let connection = connect_for_reading(path, state, self.busy_timeout, WRITER_CACHE_KIB);
        let identity = connection.and_then(|connection| Identity::of(&connection).map(|found| (connection, found)));
        let (connection, identity) = identity.map_err(|error| {
            match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen) if state.has_log => Refusal::Because(
                "lies beside a write-ahead log (-wal), which can be read only together with the -shm of a program that \
                 has the file open, or with write permission for the folder: copy the file and its -wal into a folder \
                 of yours, or have a user who may write close the file"
                    .into(),
            ),
            _ => Refusal::Sqlite(error),
        }
        })?;
        if identity.check()? {
            return Err(Refusal::Because("is empty, and is opened for reading alone: there is no cache in it".into()));
        }
        Ok(connection.pragma_query_value(None, "page_size", |row| row.get(0))?)
    }

    /// Opens the file for writing; returns the connection and its page size.
    pub(super) fn open_for_writing(&self, path: &Path) -> Result<(Connection, u32), Refusal> {
        let connection = open_with(path, OpenFlags::SQLITE_OPEN_CREATE)?;
        // Before anything is read: SQLite would make a `-wal` and a `-shm` of this user, which lock the file's owner out.
        if connection.is_readonly(MAIN_DB)? {
            return Err(Refusal::NotWritable);
        }
        let connection = set(connection, self.busy_timeout, WRITER_CACHE_KIB)?;
        // Has an effect only while the file has no page.
        connection.execute_batch(&format!("PRAGMA page_size = {}", self.page_size))?;
        // In one transaction, because another process may be creating the file.
        let look = connection.unchecked_transaction()?;
        let mut is_new = Identity::of(&look)?.check()?;
        look.commit()?;
        if is_new {
            // Checked again under the lock: another process may have created the file meanwhile.
            let lock = begin(&connection, self.busy_timeout)?;
            is_new = Identity::of(&lock)?.check()?;
            if is_new {
                schema::create(&lock)?;
            }
            lock.commit()?;
        }
        turn_wal_on(&connection, self.busy_timeout)?;
        let page_size: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = self.wal_bytes / page_size.max(512);
        connection.pragma_update(None, "wal_autocheckpoint", pages)?;
        connection.execute_batch(&format!("PRAGMA journal_size_limit = {}", self.wal_bytes))?;
        // From here on, only `begin` waits for locks.
        connection.busy_timeout(Duration::ZERO)?;
        tracing::debug!(
            { telemetry::CACHE_MADE } = is_new,
            { telemetry::CACHE_PAGE_SIZE } = page_size,
            "opened an SQLite file"
        );
        Ok((connection, page_size))
    }
}

/// Opens a connection, and sets it so that commits are durable and damage is found.
pub(super) fn connect(path: &Path, busy_timeout: Duration, cache_kib: u32) -> rusqlite::Result<Connection> {
    set(open_with(path, OpenFlags::empty())?, busy_timeout, cache_kib)
}

fn open_with(path: &Path, create: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags | create)
}

/// Opens a connection that never writes, to a file that is in this state.
///
/// If a WAL with content lies beside the file, it is a part of it: SQLite reads both, with its locks, and needs the `-shm`
/// that a writer keeps there, or the right to make one. Otherwise the file is all there is, and SQLite is told that it does
/// not change: so it needs no other file, no lock, and no right but to read. [`FileState`] tells if that was wrong.
pub(super) fn connect_for_reading(
    path: &Path,
    state: FileState,
    busy_timeout: Duration,
    cache_kib: u32,
) -> rusqlite::Result<Connection> {
    let connection = if state.has_log {
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?
    } else {
        open_immutable(path)?
    };
    set(connection, busy_timeout, cache_kib)
}

/// The state of a file that is only read. Connections are used as long as it stays the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FileState {
    /// Whether a log with content lies beside it: a WAL, or the rollback journal of a file that was being made.
    has_log: bool,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl FileState {
    pub(super) fn of(path: &Path) -> Self {
        // SQLite follows links, so the log lies beside the file itself.
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let file = fs::metadata(&real).ok();
        Self {
            has_log: ["-wal", "-journal"].iter().any(|end| has_content(&beside(&real, end))),
            bytes: file.as_ref().map_or(0, fs::Metadata::len),
            modified: file.and_then(|file| file.modified().ok()),
        }
    }
}

fn set(connection: Connection, busy_timeout: Duration, cache_kib: u32) -> rusqlite::Result<Connection> {
    // A longer timeout would be a panic.
    connection.busy_timeout(busy_timeout.min(Duration::from_millis(i32::MAX as u64)))?;
    // No page is mapped into memory: if another program truncated the file, access would be a signal, not an error.
    // Damage should be found early, and code in the schema of a file must not run. On macOS, only `fullfsync` is
    // durable.
    connection.execute_batch(&format!(
        "PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA mmap_size = 0;
         PRAGMA synchronous = FULL;
         PRAGMA fullfsync = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{cache_kib};"
    ))?;
    Ok(connection)
}

/// Turns the write-ahead log (WAL) on, permanently. That needs exclusive access for a moment, for which SQLite itself
/// does not wait.
fn turn_wal_on(connection: &Connection, timeout: Duration) -> Result<(), Refusal> {
    let on = || connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
    let mode = retry_while_busy(timeout, on)?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    Err(Refusal::Because(format!(
        "cannot have a write-ahead log here (its journal mode is '{mode}'): put it on a local disk"
    )))
}

/// Begins a transaction that writes.
pub(super) fn begin(connection: &Connection, timeout: Duration) -> rusqlite::Result<Transaction<'_>> {
    retry_while_busy(timeout, || Transaction::new_unchecked(connection, TransactionBehavior::Immediate))
}

/// Tries again as long as another process has the lock.
fn retry_while_busy<T>(timeout: Duration, attempt: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let since = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && since.elapsed() < timeout => thread::sleep(LOCK_POLL_INTERVAL),
            result => return result,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Refuses versions of SQLite that can damage files.
pub(super) fn check_library(version: i32) -> Result<()> {
    if version >= MIN_LIBRARY_VERSION {
        return Ok(());
    }
    let shown = |version: i32| format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000);
    let message = format!(
        "SQLite {} can damage files that two connections write: link {} or newer, such as the bundled one",
        shown(version),
        shown(MIN_LIBRARY_VERSION)
    );
    Err(Error::new(ErrorKind::Cache, message))
}

/// Makes a path absolute, because SQLite takes some relative ones for something else than a file. Refuses paths that
/// are no usable files, with better errors than those of SQLite.
pub(super) fn checked_path(path: &Path) -> Result<PathBuf> {
    let refused = |message: String| Error::new(ErrorKind::Cache, message);
    if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
        return Err(refused("the path names no file: to keep entries in memory, use `cache::Memory`".into()));
    }
    let unusable =
        |error: std::io::Error| refused(format!("{} is not a valid path", path.display())).with_source(error);
    let path = std::path::absolute(path).map_err(unusable)?;
    if path.is_dir() {
        return Err(refused(format!("{} is a folder: name a file in it", path.display())));
    }
    let folder = path.parent().unwrap_or(&path);
    if !folder.is_dir() {
        return Err(refused(format!("{} cannot be created: its folder is missing, create it first", path.display())));
    }
    #[cfg(target_os = "linux")]
    {
        // A file may be a link to another file system.
        let looked_at = if path.exists() { &path } else { folder };
        // If this fails, opening the file gives the better error.
        let kind = rustix::fs::statfs(looked_at).ok().and_then(|system| network_file_system(system.f_type as u32));
        if let Some(kind) = kind {
            return Err(refused(format!(
                "{} is on {kind}, a network file system, where the locks of SQLite do not work: put it on a disk of \
                 this machine, or use a store that is made for several machines",
                path.display()
            )));
        }
    }
    Ok(path)
}

/// Returns the name of a network file system by its number from `statfs`, which is in linux/magic.h or in the sources
/// of the file system.
#[cfg(target_os = "linux")]
pub(super) const fn network_file_system(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0x6969 => "NFS",
        0x517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x564c => "NetWare",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0x7461_636f => "OCFS2",
        0x0116_1970 => "GFS2",
        0x0102_1997 => "9p",
        _ => return None,
    })
}
