//! Keeps entries in one SQLite file: [`Sqlite`].

use std::{
    fmt, fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, Transaction, TransactionBehavior, ffi, params};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use super::{CacheStore, Entry, Key, Sink};
use crate::{Error, ErrorKind, Result, SpaceId};

/// "DVEC": marks a file as one of these, for `file` and for us.
const APPLICATION: i32 = 0x4456_4543;

/// The version of the schema below. A change to it needs the next number, and a way from the one before.
const VERSION: i32 = 1;

/// SQLite keeps these words in the file, so they explain it to whoever opens it with another program.
///
/// Rows live in the table's own tree and keys in the index of `UNIQUE`: large rows in the tree of a key (`WITHOUT ROWID`)
/// would take up to four times their size.
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

const SELECT: &str = "SELECT value FROM entries WHERE key = ?1";
const SELECT_AFTER: &str = "SELECT id, key, value FROM entries WHERE id > ?1 ORDER BY id";
const INSERT: &str = "INSERT INTO entries (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING";
const DELETE: &str = "DELETE FROM entries WHERE key = ?1 AND value = ?2";
const NOTE: &str = "INSERT INTO spaces (id, about, noted) VALUES (?1, ?2, strftime('%Y-%m-%dT%H:%M:%SZ', 'now')) \
                    ON CONFLICT (id) DO NOTHING";

/// The first SQLite in which two connections that write and bring the journal home at once cannot damage the file.
const OLDEST_LIBRARY: i32 = 3_051_003;

/// How large pages are in a file that is made.
///
/// A row does not share its page with a part of another, so a page should hold several; and a new key, being a hash,
/// falls on a page of the index of its own, which is written whole, so a page should not be large. Bytes on disk for each
/// byte of vectors are 1.11 (384 wide), 1.17 (512), 1.09 (768), 1.35 (1,024) and 1.34 (1,536) with pages of 16 KiB, where
/// 4 KiB take 1.37, 2.03, 1.35, 1.14 and 1.34, and write a million vectors of 768 at half the speed. Of pages of 32 KiB,
/// which save a fifth at 1,024 and 1,536, half as much again is written for every entry once the file is large.
const PAGE_SIZE: u32 = 16 << 10;

/// The most rows and bytes of one transaction, and so of what waits for one write to the disk.
const GROUP_ROWS: usize = 10_000;
const GROUP_BYTES: usize = 16 << 20;

/// The bytes of all puts that wait, counted in pieces, of which each put has one at least; more wait before they are
/// copied.
const QUEUE_BYTES: usize = 64 << 20;
const QUEUE_PIECE: usize = 1 << 10;

/// What a row costs in the queue, its value left aside.
const ROW_BYTES: usize = 64;

/// The bytes and rows that a reader takes before they are handed on: they bound the memory of a look-up of any size, and
/// the time of a transaction.
const PART_BYTES: usize = 8 << 20;
const PART_ROWS: usize = 16_384;

/// The rows that [`Sqlite::stats`] counts in one transaction.
const COUNTED_AT_ONCE: i64 = 20_000;

/// SQLite takes a little less than a gigabyte a row; nobody has a vector of half of that.
const LARGEST_VALUE: usize = 512 << 20;

/// How long the journal gets before it is brought home. A page that is written often is brought home once.
const JOURNAL_BYTES: u32 = 64 << 20;

/// How many times as long it gets, where there is always somebody reading, before the writer waits for a moment in which
/// it can begin anew; and how long it waits.
const JOURNAL_PATIENCE: u64 = 4;
const JOURNAL_WAIT: Duration = Duration::from_secs(1);

/// The memory of a connection's own pages, in KiB: what the upper parts of a large index take, and then some.
const WRITER_PAGES: u32 = 32 << 10;
const READER_PAGES: u32 = 8 << 10;

/// The most readers: each holds file handles and memory.
const MOST_READERS: usize = 256;

/// How long to sleep before a lock is tried again. SQLite's own sleeps grow to a tenth of a second, in which a process that
/// writes without pause has the lock again and again.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Keeps entries in one SQLite file, for several processes on one machine. Clones share.
///
/// ```
/// use docvector_embed::cache::{CacheStore, Entry, Key, Sqlite};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("vectors.sqlite");
/// let store = Sqlite::open(&path)?;
/// let key = Key::from_bytes([7; 32]);
/// store.put(&[Entry::new(key, b"bytes")]).await?;
/// drop(store);
/// let mut found = Vec::new();
/// Sqlite::open(&path)?.get(&[key], &mut |_, value| found.push(value.to_vec())).await?;
/// assert_eq!(found, [b"bytes"]);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// An `Ok` of [`put`](CacheStore::put) means that the entries survive a crash of the program, of the system, and a loss
/// of power: the transaction is committed and the disk has confirmed it (journal mode WAL, synchronous FULL). Puts that
/// wait at the same time share a transaction, so many small ones cost little more than a large one; each still stores all
/// of its entries or none.
///
/// Nothing is ever replaced, and nothing removed but what is [discarded](CacheStore::discard). Several processes may read and write one file at once: readers never wait for
/// writers, writers wait for one another. Next to the file lie `-wal` and `-shm` while it is open: they are part of it.
///
/// **The file has to be on a disk of this machine.** Its locks and shared memory do not work over a network, and a shared
/// file is damaged sooner or later. On Linux, file systems that are known to be remote are refused; those in user space
/// (FUSE: sshfs, a bucket mounted as a folder) cannot be told from local ones, and elsewhere nothing is checked.
///
/// # Errors
/// [`Cache`](ErrorKind::Cache), with the file's path and what to do, where the file cannot be opened, read or written, is
/// damaged, of something else or of a newer version, where the disk is full, or where another process has held the lock
/// for too long. Where a transaction fails, all its puts do; later ones are tried anew. What was stored is not touched.
/// [`Config`](ErrorKind::Config) where the page size is not one.
///
/// # Cancellation
/// A dropped `put` is stored if it was in the queue already, and not if it still waited for room in it. A dropped `get`
/// ends with the part that it is reading.
///
/// # Cost
/// A thread for writing, which ends when the last clone is dropped; that waits for what is in the queue. Reading runs on
/// tokio's threads for blocking work, so it needs a tokio runtime. A look-up copies each value once. Memory is bounded:
/// 64 MiB of waiting puts (one larger put is let in alone), 8 MiB a look-up in progress, and SQLite's own pages, up to
/// 32 MiB for writing and 8 MiB a reader.
#[derive(Clone)]
pub struct Sqlite(Arc<Shared>);

struct Shared {
    path: PathBuf,
    page_size: u32,
    busy_timeout: Duration,
    /// To the writer, which ends when it is gone.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    /// Room in the queue.
    room: Arc<Semaphore>,
    /// One for each that may read at a time.
    readers: Arc<Semaphore>,
    /// Connections of readers that have ended.
    idle: Mutex<Vec<Connection>>,
}

/// What [`Sqlite::stats`] counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteStats {
    /// Entries.
    pub entries: u64,
    /// The bytes of their values.
    pub value_bytes: u64,
    /// The bytes of the file and its journal.
    pub file_bytes: u64,
    /// The spaces noted, and what was said about them, by id.
    pub spaces: Vec<(SpaceId, String)>,
}

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
            page_size: PAGE_SIZE,
            readers: 4,
            group_rows: GROUP_ROWS,
            group_wait: Duration::ZERO,
            busy_timeout: Duration::from_secs(30),
            journal_bytes: JOURNAL_BYTES,
        }
    }

    /// The file, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Counts what is in the file. Reads all of it except the values themselves, in short transactions, so what is
    /// written meanwhile may be counted or not.
    ///
    /// # Errors
    /// Those of [`CacheStore::get`].
    pub async fn stats(&self) -> Result<SqliteStats> {
        let mut stats = self.read(spaces).await?;
        let mut after = 0;
        while let Some((last, entries, bytes)) = self.read(move |connection| count_after(connection, after)).await? {
            // A damaged row may be in the wrong place: then the walk would go round for ever.
            if last <= after {
                return Err(self.out_of_order());
            }
            after = last;
            stats.entries += entries;
            stats.value_bytes += bytes;
        }
        let files = [self.0.path.clone(), journal_of(&self.0.path)];
        // The journal comes and goes.
        stats.file_bytes = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum();
        Ok(stats)
    }

    /// Shows every entry to `f`, in the order in which they were stored; for verification.
    ///
    /// # Errors
    /// Those of [`CacheStore::get`]. A row whose key is none is left out, and an error when all others were shown.
    pub async fn for_each(&self, mut f: impl FnMut(Key, &[u8]) + Send) -> Result<()> {
        let (mut after, mut keyless) = (0, None);
        loop {
            let part = self.read(move |connection| Part::after(connection, after)).await?;
            if part.found.is_empty() {
                let told = |id| format!("{} is damaged: row {id} has no key, nor may others", self.0.path.display());
                return keyless.map_or(Ok(()), |id| Err(Error::new(ErrorKind::Cache, told(id))));
            }
            for (id, key, range) in part.found {
                if id <= after {
                    return Err(self.out_of_order());
                }
                after = id;
                match key {
                    Some(key) => f(key, &part.bytes[range]),
                    None => keyless = keyless.or(Some(id)),
                }
            }
        }
    }

    fn out_of_order(&self) -> Error {
        let message = format!("{} is damaged: its rows are out of order; {AFTER_DAMAGE}", self.0.path.display());
        Error::new(ErrorKind::Cache, message)
    }

    /// Runs one short transaction's worth of reading on a thread for blocking work.
    async fn read<T: Send + 'static>(
        &self,
        part: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let ended =
            |why: String| Error::new(ErrorKind::Cache, format!("{} cannot be read: {why}", self.0.path.display()));
        let runtime = Handle::try_current().map_err(|_| ended("this needs a tokio runtime around it".into()))?;
        let turn = self.0.readers.clone().acquire_owned().await.map_err(|error| ended(error.to_string()))?;
        let shared = self.0.clone();
        let read = move || {
            // Kept where the caller goes away, too: as long as it reads, it is one that reads.
            let _turn = turn;
            let connection = shared.reader()?;
            // A connection that failed is not used again.
            let read = part(&connection).map_err(|error| failed(&shared.path, error))?;
            shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok(read)
        };
        runtime.spawn_blocking(read).await.map_err(|error| ended(error.to_string()))?
    }

    /// Hands work to the writer and waits until it is committed.
    async fn write(&self, work: Work, room: OwnedSemaphorePermit) -> Result<()> {
        let (done, committed) = oneshot::channel();
        let ended = || {
            let message =
                format!("nothing more is written to {}: the thread that writes has ended", self.0.path.display());
            Error::new(ErrorKind::Cache, message)
        };
        let jobs = self.0.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(Job { work, done, room }).map_err(|_| ended())?;
        committed.await.map_err(|_| ended())?
    }

    /// Waits for room in the queue. What is larger than the queue takes all of it.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let pieces = (1 + bytes / QUEUE_PIECE).min(QUEUE_BYTES / QUEUE_PIECE);
        let room = self.0.room.clone().acquire_many_owned(u32::try_from(pieces).unwrap_or(u32::MAX)).await;
        room.map_err(|error| Error::new(ErrorKind::Cache, "the queue of puts has ended").with_source(error))
    }

    /// Has SQLite check the file, and gives what it finds wrong, at most some 100 things; nothing where all is well. What is
    /// wrong within a value is found by [`inspect`](crate::wrap::cached::inspect). Reads all of the file in one
    /// transaction, so its journal grows as long as others write.
    ///
    /// # Errors
    /// Those of [`CacheStore::get`].
    pub async fn check_file(&self) -> Result<Vec<String>> {
        self.read(|connection| {
            let mut check = connection.prepare("PRAGMA integrity_check")?;
            let (mut lines, mut found) = (check.query([])?, Vec::new());
            loop {
                match lines.next() {
                    Ok(None) => return Ok(found),
                    Ok(Some(line)) => found.push(line.get::<_, String>(0)?),
                    // Some damage ends the check itself.
                    Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                        found.push(error.to_string());
                        return Ok(found);
                    }
                    Err(error) => return Err(error),
                }
                found.retain(|line| line != "ok");
            }
        })
        .await
    }
}

impl fmt::Display for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sqlite")
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("path", &self.0.path)
            .field("page_size", &self.0.page_size)
            .field("busy_timeout", &self.0.busy_timeout)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl CacheStore for Sqlite {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        let mut look_up = LookUp::of(keys);
        while look_up.next < look_up.keys.len() {
            let part;
            (look_up, part) = self.read(move |connection| Part::of(connection, look_up)).await?;
            for (first, range) in part.found {
                look_up.places(first).for_each(|place| sink(place, &part.bytes[range.clone()]));
            }
        }
        Ok(())
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        // One of these would make the transaction fail for all that share it.
        if let Some(entry) = entries.iter().find(|entry| entry.value.len() > LARGEST_VALUE) {
            let (bytes, file) = (entry.value.len(), self.0.path.display());
            let message =
                format!("an entry of {bytes} bytes cannot be put into {file}: it takes up to {LARGEST_VALUE}");
            return Err(Error::new(ErrorKind::Cache, message));
        }
        let bytes: usize = entries.iter().map(|entry| ROW_BYTES + entry.value.len()).sum();
        let room = self.room(bytes).await?;
        self.write(Work::Put(Rows::copy(entries)), room).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        if damaged.is_empty() {
            return Ok(());
        }
        let room = self.room(damaged.iter().map(|entry| ROW_BYTES + entry.value.len()).sum()).await?;
        self.write(Work::Discard(Rows::copy(damaged)), room).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        let room = self.room(ROW_BYTES + about.len()).await?;
        self.write(Work::Note(space, about.to_owned()), room).await
    }

    async fn flush(&self) -> Result<()> {
        let room = self.room(0).await?;
        self.write(Work::Flush, room).await
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
    journal_bytes: u32,
}

impl SqliteBuilder {
    /// Sets the bytes of a page, a power of two from 512 to 65,536, of a file that is made; one that is there keeps its
    /// own. The default suits vectors of 384 to 768 components; for a large file of wider ones, 32 KiB take less disk.
    #[must_use]
    pub const fn with_page_size(mut self, bytes: u32) -> Self {
        self.page_size = bytes;
        self
    }

    /// Sets how many look-ups read at a time (taken to be at least 1 and at most 256).
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
    /// [`Config`](ErrorKind::Config) where the page size is not one; [`Cache`](ErrorKind::Cache) where the file cannot be
    /// opened and written, is not one of these, is damaged, or lies on the network.
    pub fn build(self) -> Result<Sqlite> {
        if !(512..=65_536).contains(&self.page_size) || !self.page_size.is_power_of_two() {
            let message = format!("pages of {} bytes: must be a power of two from 512 to 65536", self.page_size);
            return Err(Error::new(ErrorKind::Config, message));
        }
        check_library(rusqlite::version_number())?;
        let path = usable(&self.path)?;
        let (connection, page_size) = self.make(&path).map_err(|refusal| match refusal {
            Refusal::Sqlite(error) => failed(&path, error),
            Refusal::Because(why) => Error::new(ErrorKind::Cache, format!("{} {why}", path.display())),
        })?;
        let (jobs, queue) = mpsc::channel();
        let writer = Writer {
            connection,
            queue,
            path: path.clone(),
            group_rows: self.group_rows.max(1),
            group_wait: self.group_wait,
            busy_timeout: self.busy_timeout,
            journal: journal_of(&path),
            journal_bytes: self.journal_bytes.into(),
        };
        let thread = thread::Builder::new().name("docvector-sqlite".into()).spawn(move || writer.run());
        let writer = thread.map_err(|error| {
            Error::new(ErrorKind::Cache, "the thread that writes cannot be started").with_source(error)
        })?;
        Ok(Sqlite(Arc::new(Shared {
            path,
            page_size,
            busy_timeout: self.busy_timeout,
            jobs: Some(jobs),
            writer: Some(writer),
            room: Arc::new(Semaphore::new(QUEUE_BYTES / QUEUE_PIECE)),
            readers: Arc::new(Semaphore::new(self.readers.clamp(1, MOST_READERS))),
            idle: Mutex::default(),
        })))
    }

    /// Opens the file for writing, and gives its page size.
    fn make(&self, path: &Path) -> Result<(Connection, u32), Refusal> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE, self.busy_timeout, WRITER_PAGES)?;
        if connection.is_readonly(MAIN_DB)? {
            return Err(Refusal::Because("may not be written to: give this user the right to".into()));
        }
        // Counts only as long as there is no page.
        connection.execute_batch(&format!("PRAGMA page_size = {}", self.page_size))?;
        // In one transaction: another process may be making the file.
        let look = connection.unchecked_transaction()?;
        let mut is_new = Identity::of(&look)?.check()?;
        look.commit()?;
        if is_new {
            // Whoever has the lock looks again.
            let lock = begin(&connection, self.busy_timeout)?;
            is_new = Identity::of(&lock)?.check()?;
            if is_new {
                lock.execute_batch(SCHEMA)?;
                let made_by = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
                let insert = "INSERT INTO meta (name, value) VALUES ('made by', ?1), \
                              ('made', strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))";
                lock.execute(insert, [made_by])?;
                lock.pragma_update(None, "application_id", APPLICATION)?;
                lock.pragma_update(None, "user_version", VERSION)?;
            }
            lock.commit()?;
        }
        keep_a_journal(&connection, self.busy_timeout)?;
        let page_size: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = self.journal_bytes / page_size.max(512);
        connection.pragma_update(None, "wal_autocheckpoint", pages)?;
        connection.execute_batch(&format!("PRAGMA journal_size_limit = {}", self.journal_bytes))?;
        // From here on, who waits for a lock is `begin`.
        connection.busy_timeout(Duration::ZERO)?;
        tracing::debug!(embed.cache.made = is_new, embed.cache.page_size = page_size, "opened an SQLite file");
        Ok((connection, page_size))
    }
}

/// Why a file was not opened.
#[derive(Debug)]
enum Refusal {
    Sqlite(rusqlite::Error),
    /// Goes on after the path.
    Because(String),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Whose file it is.
struct Identity {
    application: i32,
    version: i32,
    /// Tables, indices and what else there is.
    objects: i64,
}

impl Identity {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            objects: connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?,
            application: connection.pragma_query_value(None, "application_id", |row| row.get(0))?,
            version: connection.pragma_query_value(None, "user_version", |row| row.get(0))?,
        })
    }

    /// Says whether the file is new; refuses one that is not ours.
    fn check(&self) -> Result<bool, Refusal> {
        let refused = |why: String| Err(Refusal::Because(why));
        match (self.application, self.version, self.objects) {
            (0, 0, 0) => Ok(true),
            (APPLICATION, VERSION, 1..) => Ok(false),
            (APPLICATION, version, _) if version > VERSION => refused(format!(
                "was made by a newer version of this program (its format is {version}, the newest known here {VERSION}): \
                 update, or name another file"
            )),
            (APPLICATION, ..) => refused(format!("is damaged: {}", AFTER_DAMAGE)),
            (application, ..) => refused(format!(
                "is an SQLite file of something else (application id {application}): name another file"
            )),
        }
    }
}

/// What to do about a damaged file.
const AFTER_DAMAGE: &str = "move it away and begin a new one; what it had is embedded again";

/// Opens a connection with everything set that is set for a connection.
fn connect(path: &Path, create: OpenFlags, busy_timeout: Duration, pages: u32) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags | create)?;
    // More than it can count would be a panic.
    connection.busy_timeout(busy_timeout.min(Duration::from_millis(i32::MAX as u64)))?;
    // No page is mapped: a file that is cut from outside would be a signal, not an error. A damaged file should be found
    // out early, and what its schema says is not to be run. `fullfsync` is for macOS, where less is not durable.
    connection.execute_batch(&format!(
        "PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA mmap_size = 0;
         PRAGMA synchronous = FULL;
         PRAGMA fullfsync = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{pages};"
    ))?;
    Ok(connection)
}

/// Turns the write-ahead journal on, for good. That needs the file alone for a moment, for which SQLite does not wait.
fn keep_a_journal(connection: &Connection, patience: Duration) -> Result<(), Refusal> {
    let on = || connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
    let mode = patiently(patience, on)?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    Err(Refusal::Because(format!("cannot have a write-ahead journal here (it has '{mode}'): put it on a local disk")))
}

/// Begins a transaction that writes.
fn begin(connection: &Connection, patience: Duration) -> rusqlite::Result<Transaction<'_>> {
    patiently(patience, || Transaction::new_unchecked(connection, TransactionBehavior::Immediate))
}

/// Tries again as long as another process has the lock.
fn patiently<T>(patience: Duration, attempt: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let since = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && since.elapsed() < patience => thread::sleep(LOCK_POLL),
            result => return result,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

impl Shared {
    /// A connection for reading: one that is idle, or a new one.
    fn reader(&self) -> Result<Connection> {
        if let Some(connection) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(connection);
        }
        // Not with the flag for reading alone: the last to leave tidies up, whoever it is.
        let reader = connect(&self.path, OpenFlags::empty(), self.busy_timeout, READER_PAGES)
            .and_then(|connection| connection.execute_batch("PRAGMA query_only = ON").map(|()| connection));
        reader.map_err(|error| failed(&self.path, error))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The writer's connection should be the last, to bring the journal home.
        self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        self.jobs = None;
        // Telling a caller can drop what that caller held, on the thread that tells.
        if let Some(writer) = self.writer.take().filter(|writer| writer.thread().id() != thread::current().id()) {
            let _ = writer.join();
        }
    }
}

/// What is looked up: keys, each with its place in the question.
struct LookUp {
    keys: Vec<(Key, usize)>,
    /// The first that was not looked up yet.
    next: usize,
}

impl LookUp {
    fn of(keys: &[Key]) -> Self {
        Self { keys: keys.iter().enumerate().map(|(place, &key)| (key, place)).collect(), next: 0 }
    }

    /// The places of the key that begins here.
    fn places(&self, first: usize) -> impl Iterator<Item = usize> {
        let key = self.keys[first].0;
        self.keys[first..].iter().take_while(move |(other, _)| *other == key).map(|&(_, place)| place)
    }
}

/// What one transaction found, its values in one buffer.
struct Part<F> {
    bytes: Vec<u8>,
    found: Vec<F>,
}

impl<F> Part<F> {
    const fn new() -> Self {
        Self { bytes: Vec::new(), found: Vec::new() }
    }

    /// Copies a value; as many as `left` more like it may follow.
    fn push(&mut self, value: &[u8], left: usize) -> Range<usize> {
        if self.bytes.is_empty() {
            self.bytes.reserve(value.len().saturating_mul(left).min(PART_BYTES).max(value.len()));
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        start..self.bytes.len()
    }

    const fn is_full(&self) -> bool {
        self.bytes.len() >= PART_BYTES || self.found.len() >= PART_ROWS
    }
}

impl Part<(usize, Range<usize>)> {
    /// Looks up as many keys as fill a part: where each begins among the keys, and its value.
    ///
    /// A transaction a part, and none across them: entries do not change, so a later moment shows no less, and while a
    /// transaction lasts the journal cannot begin anew.
    fn of(connection: &Connection, mut look_up: LookUp) -> rusqlite::Result<(LookUp, Self)> {
        if look_up.next == 0 {
            // What was put together lies together in this order, and equal keys are looked up once.
            look_up.keys.sort_unstable();
        }
        let end = look_up.keys.len().min(look_up.next + PART_ROWS);
        let mut part = Self::new();
        let transaction = connection.unchecked_transaction()?;
        let mut select = transaction.prepare_cached(SELECT)?;
        while look_up.next < end && !part.is_full() {
            let first = look_up.next;
            let mut rows = select.query([look_up.keys[first].0.as_bytes().as_slice()])?;
            if let Some(row) = rows.next()? {
                let range = part.push(row.get_ref(0)?.as_blob()?, look_up.keys.len() - first);
                part.found.push((first, range));
            }
            look_up.next += look_up.places(first).count();
        }
        drop(select);
        transaction.commit()?;
        Ok((look_up, part))
    }
}

impl Part<(i64, Option<Key>, Range<usize>)> {
    /// The entries after this id: theirs, their keys (if they are keys), their values.
    fn after(connection: &Connection, id: i64) -> rusqlite::Result<Self> {
        let mut part = Self::new();
        let mut select = connection.prepare_cached(SELECT_AFTER)?;
        let mut rows = select.query([id])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(1)?.as_blob()?.try_into().ok().map(Key::from_bytes);
            let range = part.push(row.get_ref(2)?.as_blob()?, usize::MAX);
            part.found.push((row.get(0)?, key, range));
            if part.is_full() {
                break;
            }
        }
        Ok(part)
    }
}

/// The last id, the entries and their bytes, of some entries after this id; `None` where there are none.
fn count_after(connection: &Connection, id: i64) -> rusqlite::Result<Option<(i64, u64, u64)>> {
    // The length is in the row's header: values are not read.
    let sql = "SELECT max(id), count(*), coalesce(sum(length(value)), 0) \
               FROM (SELECT id, value FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2)";
    let mut select = connection.prepare_cached(sql)?;
    select.query_row([id, COUNTED_AT_ONCE], |row| {
        let last: Option<i64> = row.get(0)?;
        let (entries, bytes): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(last.map(|last| (last, entries.unsigned_abs(), bytes.unsigned_abs())))
    })
}

/// The spaces, as the beginning of stats.
fn spaces(connection: &Connection) -> rusqlite::Result<SqliteStats> {
    let mut select = connection.prepare("SELECT id, about FROM spaces ORDER BY id")?;
    let rows = select.query_map([], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?)))?;
    let spaces = rows.map(|row| row.map(|(id, about)| (SpaceId::from_bytes(id), about)));
    Ok(SqliteStats { spaces: spaces.collect::<rusqlite::Result<_>>()?, ..SqliteStats::default() })
}

/// Work for the writer, and whom to tell.
struct Job {
    work: Work,
    done: oneshot::Sender<Result<()>>,
    /// Given back when it is done.
    room: OwnedSemaphorePermit,
}

enum Work {
    Put(Rows),
    Discard(Rows),
    Note(SpaceId, String),
    /// Nothing to be done, after everything before it.
    Flush,
}

/// Entries of one put, their values in one buffer.
struct Rows {
    keys: Vec<Key>,
    /// Where each value ends.
    ends: Vec<usize>,
    values: Vec<u8>,
}

impl Rows {
    fn copy(entries: &[Entry<'_>]) -> Self {
        let mut values = Vec::with_capacity(entries.iter().map(|entry| entry.value.len()).sum());
        let mut ends = Vec::with_capacity(entries.len());
        for entry in entries {
            values.extend_from_slice(entry.value);
            ends.push(values.len());
        }
        Self { keys: entries.iter().map(|entry| entry.key).collect(), ends, values }
    }

    fn iter(&self) -> impl Iterator<Item = (&Key, &[u8])> {
        let mut start = 0;
        self.keys
            .iter()
            .zip(&self.ends)
            .map(move |(key, &end)| (key, &self.values[std::mem::replace(&mut start, end)..end]))
    }
}

/// The one that writes, on a thread of its own.
struct Writer {
    connection: Connection,
    queue: mpsc::Receiver<Job>,
    path: PathBuf,
    group_rows: usize,
    group_wait: Duration,
    busy_timeout: Duration,
    journal: PathBuf,
    journal_bytes: u64,
}

impl Writer {
    /// Until the last clone is gone and everything in the queue is done.
    fn run(self) {
        while let Ok(first) = self.queue.recv() {
            let group = self.gather(first);
            let result = self.write(&group).map_err(|error| failed(&self.path, error));
            if let Err(error) = &result {
                tracing::debug!(embed.cache.puts = group.len(), "a transaction failed: {error}");
            }
            for job in group {
                // The caller may have gone.
                let _ = job.done.send(result.clone());
            }
            self.bring_home();
        }
    }

    /// Keeps the journal from growing for ever. It begins anew when nobody reads from it, and where readers follow one
    /// another without a pause, that has to be waited for: those that come after all of it was brought home do not read
    /// from it.
    fn bring_home(&self) {
        let bytes = fs::metadata(&self.journal).map_or(0, |journal| journal.len());
        if bytes <= JOURNAL_PATIENCE * self.journal_bytes {
            return;
        }
        let restart = || -> rusqlite::Result<()> {
            self.connection.busy_timeout(JOURNAL_WAIT)?;
            self.connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
            self.connection.busy_timeout(Duration::ZERO)
        };
        if let Err(error) = restart() {
            // Another time, then: what is in the journal is as durable there.
            tracing::debug!(embed.cache.journal_bytes = bytes, "the journal could not be brought home: {error}");
        }
    }

    /// Takes what is waiting, and what comes while the first may wait, until a transaction is full.
    fn gather(&self, first: Job) -> Vec<Job> {
        let since = Instant::now();
        let (mut rows, mut pieces, mut wait) = (0, 0, self.group_wait);
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match &job.work {
                Work::Put(put) => rows += put.keys.len(),
                Work::Note(..) | Work::Discard(_) => {}
                Work::Flush => wait = Duration::ZERO,
            }
            pieces += job.room.num_permits();
            group.push(job);
            if rows >= self.group_rows || pieces >= GROUP_BYTES / QUEUE_PIECE {
                break;
            }
            // Without time left, what is there already.
            next = self.queue.recv_timeout(wait.saturating_sub(since.elapsed())).ok();
        }
        group
    }

    /// Writes a group in one transaction: all of it or nothing.
    fn write(&self, group: &[Job]) -> rusqlite::Result<()> {
        let puts = group.iter().filter_map(|job| if let Work::Put(rows) = &job.work { Some(rows) } else { None });
        let mut rows: Vec<(&Key, &[u8])> = puts.flat_map(Rows::iter).collect();
        // In order, each page of the index is visited once. Equal keys stay in theirs: the first wins.
        rows.sort_by_key(|(key, _)| *key);
        let mut notes = group
            .iter()
            .filter_map(|job| if let Work::Note(space, about) = &job.work { Some((space, about)) } else { None })
            .peekable();
        let discards =
            group.iter().filter_map(|job| if let Work::Discard(rows) = &job.work { Some(rows) } else { None });
        let mut discards = discards.flat_map(Rows::iter).peekable();
        if rows.is_empty() && notes.peek().is_none() && discards.peek().is_none() {
            return Ok(());
        }
        let transaction = begin(&self.connection, self.busy_timeout)?;
        // Before the puts, whichever came first: else one would lose to what another job is discarding.
        for (key, value) in discards {
            transaction.prepare_cached(DELETE)?.execute(params![key.as_bytes().as_slice(), value])?;
        }
        let mut insert = transaction.prepare_cached(INSERT)?;
        for (key, value) in rows {
            insert.execute(params![key.as_bytes().as_slice(), value])?;
        }
        drop(insert);
        for (space, about) in notes {
            transaction.prepare_cached(NOTE)?.execute(params![space.as_bytes().as_slice(), about])?;
        }
        transaction.commit()
    }
}

/// Says what failed and what to do.
fn failed(path: &Path, error: rusqlite::Error) -> Error {
    let file = path.display();
    let extended = error.sqlite_error().map(|error| error.extended_code);
    let message = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            format!("the disk of {file} is full: make room; the entries stored before are intact")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            format!("{file} was locked by another process for too long: find it, or allow more time for locks")
        }
        Some(ErrorCode::DatabaseCorrupt) => format!("{file} is damaged: {AFTER_DAMAGE}"),
        Some(ErrorCode::SystemIoFailure) if extended == Some(ffi::SQLITE_IOERR_CORRUPTFS) => {
            format!("{file} is damaged, and so may be its file system: {AFTER_DAMAGE}")
        }
        Some(ErrorCode::NotADatabase) => {
            format!("{file} is damaged or not an SQLite file: name another file, or move this one away")
        }
        Some(ErrorCode::SystemIoFailure) => {
            // What the system said is not to be had from here.
            let writes = [
                ffi::SQLITE_IOERR_WRITE,
                ffi::SQLITE_IOERR_FSYNC,
                ffi::SQLITE_IOERR_TRUNCATE,
                ffi::SQLITE_IOERR_SHMSIZE,
            ];
            if extended.is_some_and(|code| writes.contains(&code)) {
                format!(
                    "{file} could not be written: its disk, a quota or a limit on the size of files may be used up, or \
                     the disk may fail; the entries stored before are intact"
                )
            } else {
                format!("{file} could not be read or written: look at its disk")
            }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            format!(
                "{file} may not be written to: give this user the right to, for its folder, too, and for its -wal and \
                 -shm where another user has left them there"
            )
        }
        Some(ErrorCode::CannotOpen) => {
            format!("{file} cannot be opened: see whether this user may read and write it and its folder")
        }
        Some(ErrorCode::OutOfMemory) => format!("there was no memory to use {file}"),
        // A value of another type than the schema allows.
        None if matches!(error, rusqlite::Error::FromSqlConversionFailure(..)) => {
            format!("{file} is damaged: {AFTER_DAMAGE}")
        }
        _ => format!("SQLite failed with {file}: if this stays so, {AFTER_DAMAGE}"),
    };
    Error::new(ErrorKind::Cache, message).with_source(error)
}

/// The write-ahead journal of a file.
fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Refuses libraries with which files are not safe.
fn check_library(version: i32) -> Result<()> {
    if version >= OLDEST_LIBRARY {
        return Ok(());
    }
    let shown = |version: i32| format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000);
    let message = format!(
        "SQLite {} can damage files that two connections write: link {} or newer, as the bundled one is",
        shown(version),
        shown(OLDEST_LIBRARY)
    );
    Err(Error::new(ErrorKind::Cache, message))
}

/// Makes a path absolute, for SQLite takes some that are not for something else than a file, and looks at what can be said
/// about it better than SQLite does.
fn usable(path: &Path) -> Result<PathBuf> {
    let refused = |message: String| Error::new(ErrorKind::Cache, message);
    if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
        return Err(refused("no file is named: `cache::Memory` keeps entries in memory".into()));
    }
    let unusable = |error: std::io::Error| refused(format!("{} is no path", path.display())).with_source(error);
    let path = std::path::absolute(path).map_err(unusable)?;
    if path.is_dir() {
        return Err(refused(format!("{} is a folder: name a file in it", path.display())));
    }
    let folder = path.parent().unwrap_or(&path);
    if !folder.is_dir() {
        return Err(refused(format!("{} cannot be made: its folder is missing, make that first", path.display())));
    }
    #[cfg(target_os = "linux")]
    {
        // A file may be a link to elsewhere.
        let looked_at = if path.exists() { &path } else { folder };
        // Where it cannot be told, opening tells more.
        let kind = rustix::fs::statfs(looked_at).ok().and_then(|system| network_file_system(system.f_type as u32));
        if let Some(kind) = kind {
            return Err(refused(format!(
                "{} lies on {kind}, a network file system, where SQLite's locks do not hold: put it on a disk of this \
                 machine, or use a store that is made for several machines",
                path.display()
            )));
        }
    }
    Ok(path)
}

/// Names a file system that is remote, by the number that `statfs` gives (linux/magic.h, and the makers of the others).
#[cfg(target_os = "linux")]
const fn network_file_system(kind: u32) -> Option<&'static str> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_libraries_are_refused_by_their_numbers() {
        for version in [3_053_000, 3_051_003, 4_000_000] {
            check_library(version).expect("new enough");
        }
        for version in [3_051_002, 3_050_004, 3_007_000] {
            assert_eq!(check_library(version).expect_err("too old").kind(), ErrorKind::Cache);
        }
        let shown = check_library(3_050_004).expect_err("too old").to_string();
        assert!(shown.contains("SQLite 3.50.4") && shown.contains("3.51.3 or newer"), "{shown}");
    }

    #[test]
    fn connections_are_set_so_that_what_is_committed_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let store = Sqlite::open(&path).expect("it opens");
        let (writer, page_size) = Sqlite::builder(&path).make(&path).expect("it opens");
        let is = |connection: &Connection, name: &str, expected: &str| {
            let value: rusqlite::types::Value =
                connection.pragma_query_value(None, name, |row| row.get(0)).expect("it can be read");
            assert_eq!(format!("{value:?}"), expected, "{name}");
        };
        for connection in [&writer, &store.0.reader().expect("it opens")] {
            is(connection, "journal_mode", "Text(\"wal\")");
            is(connection, "synchronous", "Integer(2)");
            is(connection, "fullfsync", "Integer(1)");
            is(connection, "mmap_size", "Integer(0)");
            is(connection, "cell_size_check", "Integer(1)");
            is(connection, "trusted_schema", "Integer(0)");
        }
        assert_eq!(page_size, PAGE_SIZE);
        is(&writer, "wal_autocheckpoint", "Integer(4096)");
        is(&writer, "journal_size_limit", "Integer(67108864)");
    }

    /// With readers that overlap, the journal can begin anew only when the writer waits for it.
    #[test]
    fn the_journal_stays_small_beside_readers() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let mut builder = Sqlite::builder(&path);
        builder.journal_bytes = 256 << 10;
        let store = builder.build().expect("it opens");
        let (put, longest) = (20 << 20, 256 << 10 << 4);
        let stop = AtomicBool::new(false);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut seen = 0;
        thread::scope(|scope| {
            for reader in 0..4 {
                let (connection, stop) = (store.0.reader().expect("it opens"), &stop);
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(reader));
                    while !stop.load(Ordering::Relaxed) {
                        let transaction = connection.unchecked_transaction().expect("it begins");
                        let count: i64 = transaction
                            .query_row("SELECT count(*) FROM spaces", [], |row| row.get(0))
                            .expect("it reads");
                        assert_eq!(count, 0);
                        thread::sleep(Duration::from_millis(4));
                        transaction.commit().expect("it ends");
                    }
                });
            }
            let value = vec![7; 64 << 10];
            for number in 0..put / value.len() as u64 {
                let key = Key::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
                let result = runtime.block_on(store.put(&[Entry::new(key, &value)]));
                seen = seen.max(fs::metadata(journal_of(&path)).map_or(0, |journal| journal.len()));
                if result.is_err() || seen > longest {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(seen > 512 << 10, "the readers did not keep it from beginning anew: {seen}");
        assert!(seen <= longest, "{seen} bytes of journal for a file of {put}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        for (kind, name) in [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0x0bd0_0bd0, "Lustre"), (0x0102_1997, "9p")] {
            assert_eq!(network_file_system(kind), Some(name));
        }
        // ext4, XFS, Btrfs, ZFS, tmpfs, overlayfs, and FUSE, of which nothing can be said.
        for kind in [0xef53, 0x5846_5342, 0x9123_683e, 0x2fc1_2fc1, 0x0102_1994, 0x794c_7630, 0x6573_5546] {
            assert_eq!(network_file_system(kind), None);
        }
    }
}
