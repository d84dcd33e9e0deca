//! Keeps entries in one SQLite file: [`Sqlite`].

mod failure;
mod open;
mod read;
mod write;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use self::{
    failure::{AFTER_DAMAGE, failed},
    open::{Refusal, check_library, connect, journal_of, usable},
    read::{LookUp, Part, count_after, spaces},
    write::{GROUP_ROWS, Job, Work, Writer},
};
use super::{CacheStore, Entry, Key, Sink, owned_entries::OwnedEntries};
use crate::{Error, ErrorKind, Result, SpaceId};

/// How large pages are in a file that is made.
///
/// A row does not share its page with a part of another, so a page should hold several; and a new key, being a hash,
/// falls on a page of the index of its own, which is written whole, so a page should not be large. Bytes on disk for each
/// byte of vectors are 1.11 (384 wide), 1.17 (512), 1.09 (768), 1.35 (1,024) and 1.34 (1,536) with pages of 16 KiB, where
/// 4 KiB take 1.37, 2.03, 1.35, 1.14 and 1.34, and write a million vectors of 768 at half the speed. Of pages of 32 KiB,
/// which save a fifth at 1,024 and 1,536, half as much again is written for every entry once the file is large.
const PAGE_SIZE: u32 = 16 << 10;

/// The bytes of all puts that wait, counted in pieces, of which each put has one at least; more wait before they are
/// copied.
const QUEUE_BYTES: usize = 64 << 20;
const QUEUE_PIECE: usize = 1 << 10;

/// What a row costs in the queue, its value left aside.
const ROW_BYTES: usize = 64;

/// SQLite takes a little less than a gigabyte a row; nobody has a vector of half of that.
const LARGEST_VALUE: usize = 512 << 20;

/// How long the journal gets before it is brought home. A page that is written often is brought home once.
const JOURNAL_BYTES: u32 = 64 << 20;

/// The memory of a reader's own pages, in KiB.
const READER_PAGES: u32 = 8 << 10;

/// The most readers: each holds file handles and memory.
const MOST_READERS: usize = 256;

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
/// Nothing is ever replaced, and nothing removed but what is [discarded](CacheStore::discard). Several processes may
/// read and write one file at once: readers never wait for writers, writers wait for one another. Next to the file lie
/// `-wal` and `-shm` while it is open: they are part of it.
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
    /// wrong within a value is found by [`inspect`](crate::wrap::EntryInfo::inspect). Reads all of the file in one
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
        self.write(Work::Put(OwnedEntries::of(entries)), room).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        if damaged.is_empty() {
            return Ok(());
        }
        let room = self.room(damaged.iter().map(|entry| ROW_BYTES + entry.value.len()).sum()).await?;
        self.write(Work::Discard(OwnedEntries::of(damaged)), room).await
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
        use super::open::network_file_system;

        for (kind, name) in [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0x0bd0_0bd0, "Lustre"), (0x0102_1997, "9p")] {
            assert_eq!(network_file_system(kind), Some(name));
        }
        // ext4, XFS, Btrfs, ZFS, tmpfs, overlayfs, and FUSE, of which nothing can be said.
        for kind in [0xef53, 0x5846_5342, 0x9123_683e, 0x2fc1_2fc1, 0x0102_1994, 0x794c_7630, 0x6573_5546] {
            assert_eq!(network_file_system(kind), None);
        }
    }
}
