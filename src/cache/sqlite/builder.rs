//! Opens a file with options: [`SqliteBuilder`].

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    failure::file_error,
    open::{FileOptions, check_library, checked_path, wal_of},
    schema::Refusal,
    store::Sqlite,
    write::{DEFAULT_GROUP_ROWS, Writer},
};
use crate::{Error, ErrorKind, Result};

/// How large pages are in a file that is made.
///
/// A row does not share its page with a part of another, so a page should hold several; and a new key, being a hash,
/// falls on a page of the index of its own, which is written whole, so a page should not be large. Bytes on disk for each
/// byte of vectors are 1.11 (384 wide), 1.17 (512), 1.09 (768), 1.35 (1,024) and 1.34 (1,536) with pages of 16 KiB, where
/// 4 KiB take 1.37, 2.03, 1.35, 1.14 and 1.34, and write a million vectors of 768 at half the speed. Of pages of 32 KiB,
/// which save a fifth at 1,024 and 1,536, half as much again is written for every entry once the file is large.
pub(super) const DEFAULT_PAGE_BYTES: u32 = 16 << 10;

/// How long the journal gets before it is brought home. A page that is written often is brought home once.
const DEFAULT_WAL_BYTES: u32 = 64 << 20;

/// The most readers: each holds file handles and memory.
const MAX_READERS: usize = 256;

impl Sqlite {
    /// Opens the file, or makes it, with the default options. See [`SqliteBuilder::build`].
    ///
    /// # Errors
    /// Those of [`SqliteBuilder::build`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).build()
    }

    /// Begins a store in this file with other than the default options.
    pub fn builder(path: impl AsRef<Path>) -> SqliteBuilder {
        SqliteBuilder {
            path: path.as_ref().to_owned(),
            page_size: DEFAULT_PAGE_BYTES,
            readers: 4,
            group_rows: DEFAULT_GROUP_ROWS,
            group_wait: Duration::ZERO,
            busy_timeout: Duration::from_secs(30),
            wal_bytes: DEFAULT_WAL_BYTES,
        }
    }
}

/// Builds a [`Sqlite`].
///
/// # Default
/// Pages of 16 KiB, 4 readers, transactions of what is waiting, up to 10,000 rows or 16 MiB, 30 seconds for a lock.
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
}

impl SqliteBuilder {
    /// Sets the bytes of a page, a power of two from 512 to 65,536, of a file that is made; one that is there keeps its
    /// own. The default suits vectors of 384 to 768 components; for a large file of wider ones, 32 KiB take less disk.
    #[must_use]
    pub const fn with_page_size(mut self, bytes: u32) -> Self {
        self.page_size = bytes;
        self
    }

    /// Sets how many look-ups read at a time, from 1 to 256.
    #[must_use]
    pub const fn with_readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Sets the rows that end a transaction (at least 1), and how long the first of them waits for more to come. Waiting
    /// makes each put slower and is of use only where many small ones come one after another from many callers: those
    /// that come while a transaction is being written share the next one anyway.
    #[must_use]
    pub const fn with_group(mut self, rows: usize, wait: Duration) -> Self {
        self.group_rows = rows;
        self.group_wait = wait;
        self
    }

    /// Sets how long to wait for a lock that another process holds.
    #[must_use]
    pub const fn with_busy_timeout(mut self, wait: Duration) -> Self {
        self.busy_timeout = wait;
        self
    }

    /// Opens the file, or makes it where there is none; its folder has to be there. Reads and writes a little, and may
    /// wait while another process makes the same file.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the page size, the readers or the rows of a group are out of range; [`Cache`](ErrorKind::Cache) where the file cannot be
    /// opened and written, is not one of these, is damaged, or lies on the network.
    pub fn build(self) -> Result<Sqlite> {
        if !(512..=65_536).contains(&self.page_size) || !self.page_size.is_power_of_two() {
            let message = format!("pages of {} bytes: must be a power of two from 512 to 65536", self.page_size);
            return Err(Error::new(ErrorKind::Config, message));
        }
        if !(1..=MAX_READERS).contains(&self.readers) {
            let message = format!("{} readers: must be at least 1 and at most {MAX_READERS}", self.readers);
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.group_rows == 0 {
            return Err(Error::new(ErrorKind::Config, "transactions of 0 rows: must be at least 1"));
        }
        check_library(rusqlite::version_number())?;
        let path = checked_path(&self.path)?;
        let (connection, page_size) = self.file_options().open(&path).map_err(|refusal| match refusal {
            Refusal::Sqlite(error) => file_error(&path, error),
            Refusal::Because(why) => Error::new(ErrorKind::Cache, format!("{} {why}", path.display())),
        })?;
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
        FileOptions { page_size: self.page_size, busy_timeout: self.busy_timeout, wal_bytes: self.wal_bytes }
    }
}
