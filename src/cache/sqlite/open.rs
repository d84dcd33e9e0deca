//! Opens a file, or creates it: which paths are safe, and how a connection is set.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, Transaction, TransactionBehavior};

use super::schema::{self, Identity, Refusal};
use crate::{Error, ErrorKind, Result, telemetry};

/// The first version of SQLite in which two connections that write and checkpoint at the same time cannot damage the
/// file.
const MIN_LIBRARY_VERSION: i32 = 3_051_003;

/// The page cache of the writer, in KiB: more than the upper levels of a large index take.
const WRITER_CACHE_KIB: u32 = 32 << 10;

/// How long to sleep before a lock is tried again. SQLite's own sleeps grow to a tenth of a second. In that time, a
/// process that writes without a pause gets the lock again and again.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How a file is opened for writing.
pub(super) struct FileOptions {
    pub(super) page_size: u32,
    pub(super) busy_timeout: Duration,
    pub(super) wal_bytes: u32,
}

impl FileOptions {
    /// Opens the file for writing; returns the connection and its page size.
    pub(super) fn open(&self, path: &Path) -> Result<(Connection, u32), Refusal> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE, self.busy_timeout, WRITER_CACHE_KIB)?;
        if connection.is_readonly(MAIN_DB)? {
            return Err(Refusal::Because("is not writable: give this user write permission for it".into()));
        }
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
pub(super) fn connect(
    path: &Path,
    create: OpenFlags,
    busy_timeout: Duration,
    cache_kib: u32,
) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags | create)?;
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

/// Returns the path of the WAL of a file.
pub(super) fn wal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
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
