//! Opens a file as a store, with options: [`SqliteBuilder`].

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    beside::wal_of,
    failure::file_error,
    open::{FileOptions, OpenFile, check_library, checked_path},
    schema::Refusal,
    store::Sqlite,
    write::{DEFAULT_GROUP_ROWS, Writer},
};
use crate::{Error, ErrorKind, Result};

/// The size of pages in a new file.
///
/// A row does not share a page with a part of another row, so a page should hold several rows. A new key is a hash, so
/// it falls on an index page of its own, which is written whole: so a page should not be large. With pages of 16 KiB,
/// the file takes 1.11 bytes per byte of vectors (384 wide), 1.17 (512), 1.09 (768), 1.35 (1,024) and 1.34 (1,536).
/// Pages of 4 KiB take 1.37, 2.03, 1.35, 1.14 and 1.34, and write a million vectors of 768 at half the speed. Pages of
/// 32 KiB save a fifth at 1,024 and 1,536, but write half as much again per entry once the file is large.
pub(super) const DEFAULT_PAGE_BYTES: u32 = 16 << 10;

/// The size of the WAL that triggers a checkpoint. A page that was written several times is copied into the file once.
const DEFAULT_WAL_BYTES: u32 = 64 << 20;

/// The maximum number of readers. Each holds file handles and memory.
const MAX_READERS: usize = 256;

impl Sqlite {
    /// Opens the file, or creates it, with the default options: see [`SqliteBuilder::build`].
    ///
    /// # Errors
    /// Those of [`SqliteBuilder::build`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).build()
    }

    /// Returns a builder for a store in this file, to set other than the default options.
    pub fn builder(path: impl AsRef<Path>) -> SqliteBuilder {
        SqliteBuilder {
            path: path.as_ref().to_owned(),
            page_size: DEFAULT_PAGE_BYTES,
            readers: 4,
            group_rows: DEFAULT_GROUP_ROWS,
            group_wait: Duration::ZERO,
            busy_timeout: Duration::from_secs(30),
            wal_bytes: DEFAULT_WAL_BYTES,
            read_only: false,
        }
    }
}

/// Builds a [`Sqlite`].
///
/// ```
/// use std::time::Duration;
/// use docvector_embed::cache::Sqlite;
/// # fn main() -> docvector_embed::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("vectors.sqlite");
/// let store = Sqlite::builder(&path)
///     .with_readers(8)
///     .with_busy_timeout(Duration::from_secs(60))
///     .build()?;
/// assert!(store.path().is_absolute());
/// # Ok(()) }
/// ```
///
/// # Default
/// Pages of 16 KiB; 4 readers; transactions of all puts that wait, up to 10,000 rows or 16 MiB; 30 s to wait for a
/// lock.
#[derive(Clone, Debug)]
pub struct SqliteBuilder {
    path: PathBuf,
    page_size: u32,
    readers: usize,
    group_rows: usize,
    group_wait: Duration,
    busy_timeout: Duration,
    /// Smaller in tests.
    pub(super) wal_bytes: u32,
    read_only: bool,
}

impl SqliteBuilder {
    /// Sets the page size in bytes of a new file, a power of two from 512 to 65,536. An existing file keeps its own.
    /// The default suits vectors of 384 to 768 components; a large file of wider vectors takes less disk with 32 KiB.
    #[must_use]
    pub const fn with_page_size(mut self, bytes: u32) -> Self {
        self.page_size = bytes;
        self
    }

    /// Sets how many look-ups may read at a time, from 1 to 256.
    #[must_use]
    pub const fn with_readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Sets the number of rows that ends a transaction, at least 1, and how long the first row waits for more. Waiting
    /// makes each put slower. It only helps if many callers make many small puts one after another: puts that come
    /// while a transaction is being written share the next one anyway.
    #[must_use]
    pub const fn with_group(mut self, rows: usize, wait: Duration) -> Self {
        self.group_rows = rows;
        self.group_wait = wait;
        self
    }

    /// Sets how long to wait for a lock that another process holds. Some waits are done by SQLite, for at most 24 days.
    #[must_use]
    pub const fn with_busy_timeout(mut self, wait: Duration) -> Self {
        self.busy_timeout = wait;
        self
    }

    /// Opens the file for reading alone, and creates none: see [`Sqlite`] for what that means.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Opens the file, or creates it; its folder must exist. Reads and writes a little, and may wait while another
    /// process creates the same file.
    ///
    /// If the file exists and this process cannot write it, it is opened as with [`read_only`](Self::read_only), and a
    /// warning is logged: nothing is stored.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the page size, the readers or the rows of a transaction are out of range.
    /// [`Cache`](ErrorKind::Cache) if the file cannot be read, or not be created; is not a file of this store, or is
    /// damaged; lies on a network file system, or beside the write-ahead log of another file.
    pub fn build(self) -> Result<Sqlite> {
        if !(512..=65_536).contains(&self.page_size) || !self.page_size.is_power_of_two() {
            let message = format!("pages of {} bytes: set a power of two from 512 to 65536", self.page_size);
            return Err(Error::new(ErrorKind::Config, message));
        }
        if !(1..=MAX_READERS).contains(&self.readers) {
            let message = format!("{} readers: set from 1 to {MAX_READERS}", self.readers);
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.group_rows == 0 {
            return Err(Error::new(ErrorKind::Config, "transactions of 0 rows: set at least 1"));
        }
        check_library(rusqlite::version_number())?;
        let path = checked_path(&self.path)?;
        let OpenFile { writer, page_size } = self.file_options().open(&path).map_err(|refusal| match refusal {
            Refusal::Sqlite(error) => file_error(&path, error),
            Refusal::NotWritable => {
                let message = format!("{} is not writable: give this user write permission for it", path.display());
                Error::new(ErrorKind::Cache, message)
            }
            Refusal::Because(why) => Error::new(ErrorKind::Cache, format!("{} {why}", path.display())),
        })?;
        let Some(connection) = writer else {
            return Ok(Sqlite::for_reading(path, page_size, self.busy_timeout, self.readers));
        };
        let writer = |queue| Writer {
            connection,
            queue,
            path: path.clone(),
            group_rows: self.group_rows,
            group_wait: self.group_wait,
            busy_timeout: self.busy_timeout,
            wal: wal_of(&path),
            wal_bytes: self.wal_bytes.into(),
        };
        Sqlite::start(path.clone(), page_size, self.busy_timeout, self.readers, writer)
    }

    pub(super) const fn file_options(&self) -> FileOptions {
        let Self { page_size, busy_timeout, wal_bytes, read_only, .. } = *self;
        FileOptions { page_size, busy_timeout, wal_bytes, read_only }
    }
}
