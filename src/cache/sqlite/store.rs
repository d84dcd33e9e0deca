//! Reads and writes entries through one open file: [`Sqlite`].

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use super::{
    beside::wal_of,
    failure::{AFTER_DAMAGE, file_error},
    open::{FileState, connect, connect_for_reading},
    read::{LookUp, Part, count_after, spaces},
    write::{QUEUE_PIECE_BYTES, WriteJob, WriteRequest, Writer},
};
use crate::{
    Error, ErrorKind, Result, SpaceId,
    cache::{CacheScan, CacheStore, Entry, Key, Sink, owned_entries::OwnedEntries},
    sync::Mutex,
};

/// The maximum bytes of all puts in the queue. Further puts wait before they are copied.
const QUEUE_BYTES: usize = 64 << 20;

/// The bytes that a row counts in the queue, beside those of its value.
const ROW_OVERHEAD_BYTES: usize = 64;

/// The maximum size of a value. SQLite takes rows of a little less than a gigabyte; no vector is half as large.
const MAX_VALUE_BYTES: usize = 512 << 20;

/// The page cache of a reader, in KiB.
const READER_CACHE_KIB: u32 = 8 << 10;

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
/// An `Ok` of [`put`](CacheStore::put) means that the entries survive a crash of the program, a crash of the system,
/// and a loss of power: the transaction is committed and the disk has confirmed it (journal mode WAL, synchronous
/// FULL). Puts that wait at the same time share a transaction, so many small puts cost little more than a large one.
/// Each put still stores all of its entries or none.
///
/// No entry is ever replaced. Only [discarded](CacheStore::discard) entries are removed. Several processes may read and
/// write one file at once: readers never wait for writers, and writers wait for one another. While the file is open,
/// files with the endings `-wal` and `-shm` are next to it: they are part of it.
///
/// **A file that cannot be written is read.** If the file or its folder is not writable for this process (a read-only
/// mount, another user's file), or after [`read_only`](super::SqliteBuilder::read_only), entries are found and nothing is
/// stored: `put` is `Ok` and counts its entries in [`skipped`](Self::skipped), and `discard` is an error. A `-wal` with
/// content is read together with the file, for which SQLite needs the `-shm` beside it. Without a `-wal`, SQLite takes the
/// file for one that does not change, without locks. If a writer changes it all the same, it is opened again for the next
/// look-up; a look-up that is under way in that moment may fail. [`Cached`](crate::wrap::Cached) checks each entry, so no
/// wrong vector comes of it.
///
/// **To copy a file**, close every program that has it open (then the file is all there is), or let SQLite copy it: the
/// command `.backup` of its shell, or `VACUUM INTO`. Before you put a file in the place of another, remove the `-wal` and
/// `-shm` of the old one: SQLite would write the pages of the old file over those of the new one. Opening refuses a file
/// beside a log that is recognized as that of another one, and changes nothing. An old log of the same file cannot always
/// be recognized.
///
/// **The file must be on a disk of this machine.** The locks and the shared memory do not work over a network, and a
/// file that machines share is damaged sooner or later. On Linux, known network file systems are refused. File systems
/// in user space (FUSE: sshfs, a bucket mounted as a folder) cannot be told from local ones. On other systems nothing
/// is checked.
///
/// # Errors
/// [`Cache`](ErrorKind::Cache), with the path and what to do, if the file cannot be opened, read or written, is
/// damaged, of another program or of a newer version; if the disk is full; or if another process held the lock for too
/// long. If a transaction fails, all its puts fail; later puts are tried again. Stored entries are not touched.
/// [`Config`](ErrorKind::Config) if an option of the [builder](super::SqliteBuilder) is out of range.
///
/// # Cancellation
/// A dropped `put` is stored if it was in the queue already, and not stored if it still waited for room. A dropped
/// `get` ends after the part that it is reading.
///
/// # Cost
/// One thread for writing, which ends when the last clone is dropped. Dropping the last clone waits for everything in
/// the queue; [`close`](Self::close) does so without blocking. Reading runs on tokio's threads for blocking work, so it
/// needs a tokio runtime. A look-up copies each value once. Memory is bounded: 64 MiB of waiting puts (one larger put
/// is let in alone), 8 MiB per look-up in progress, and the page caches of SQLite, up to 32 MiB for writing and 8 MiB
/// per reader.
#[derive(Clone)]
pub struct Sqlite(pub(super) Arc<Shared>);

pub(super) struct Shared {
    path: PathBuf,
    page_size: u32,
    busy_timeout: Duration,
    /// The queue of the writer, which ends when this is dropped.
    jobs: Option<mpsc::Sender<WriteJob>>,
    writer: Option<JoinHandle<()>>,
    /// Room in the queue.
    room: Arc<Semaphore>,
    /// One permit per look-up that may read at a time.
    readers: Arc<Semaphore>,
    /// Connections that no reader is using, each with the state of a file that is only read.
    idle: Mutex<Vec<(Connection, Option<FileState>)>>,
    is_read_only: bool,
    /// The entries that were put into a file that is only read.
    skipped: AtomicU64,
}

/// The counts of [`Sqlite::stats`].
///
/// ```
/// use docvector_embed::cache::{CacheStore, Entry, Key, Sqlite};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("vectors.sqlite");
/// let store = Sqlite::open(&path)?;
/// store.put(&[Entry::new(Key::from_bytes([7; 32]), b"bytes")]).await?;
/// let stats = store.stats().await?;
/// assert_eq!((stats.entries, stats.value_bytes), (1, 5));
/// # Ok(()) }) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SqliteStats {
    /// The number of entries.
    pub entries: u64,
    /// The bytes of their values.
    pub value_bytes: u64,
    /// The bytes of the file and its WAL.
    pub file_bytes: u64,
    /// The noted spaces and the lines about them, ordered by id.
    pub spaces: Vec<(SpaceId, String)>,
}

impl Sqlite {
    /// Starts the thread that writes, around a file that is open.
    pub(super) fn start(
        path: PathBuf,
        page_size: u32,
        busy_timeout: Duration,
        readers: usize,
        writer: impl FnOnce(mpsc::Receiver<WriteJob>) -> Writer,
    ) -> Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let writer = writer(queue);
        let thread = thread::Builder::new().name("docvector-sqlite".into()).spawn(move || writer.run());
        let writer = thread.map_err(|error| {
            Error::new(ErrorKind::Cache, "the thread that writes cannot be started").with_source(error)
        })?;
        let writes = Some((jobs, writer));
        Ok(Self::new(path, page_size, busy_timeout, readers, writes))
    }

    /// Makes a store that only reads.
    pub(super) fn for_reading(path: PathBuf, page_size: u32, busy_timeout: Duration, readers: usize) -> Self {
        Self::new(path, page_size, busy_timeout, readers, None)
    }

    fn new(
        path: PathBuf,
        page_size: u32,
        busy_timeout: Duration,
        readers: usize,
        writes: Option<(mpsc::Sender<WriteJob>, JoinHandle<()>)>,
    ) -> Self {
        let is_read_only = writes.is_none();
        let (jobs, writer) = writes.unzip();
        Self(Arc::new(Shared {
            path,
            page_size,
            busy_timeout,
            jobs,
            writer,
            room: Arc::new(Semaphore::new(QUEUE_BYTES / QUEUE_PIECE_BYTES)),
            readers: Arc::new(Semaphore::new(readers)),
            idle: Mutex::default(),
            is_read_only,
            skipped: AtomicU64::new(0),
        }))
    }

    /// Closes this handle without blocking the thread; dropping the last clone blocks it.
    ///
    /// Waits until everything that was put is stored. If this is the last clone, it then waits until the thread that
    /// writes has ended, what is in the WAL is in the file, and the file is closed. Other clones keep the file open and
    /// keep working. So does a look-up whose future was dropped, until it has read its part.
    ///
    /// ```
    /// use docvector_embed::cache::{CacheStore, Entry, Key, Sqlite};
    /// # fn main() -> docvector_embed::Result<()> {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("vectors.sqlite");
    /// let store = Sqlite::open(&path)?;
    /// store.put(&[Entry::new(Key::from_bytes([7; 32]), b"bytes")]).await?;
    /// store.close().await?;
    /// // Now the file is all there is, and can be copied or moved.
    /// assert!(!path.with_extension("sqlite-wal").exists());
    /// # Ok(()) }) }
    /// ```
    ///
    /// # Errors
    /// Those of [`CacheStore::flush`]; [`Cache`](ErrorKind::Cache) if the thread that writes panicked, or if there is
    /// no tokio runtime to wait on. The handle is closed in each case.
    ///
    /// # Cancellation
    /// If the future is dropped, the handle is dropped, or goes on closing in the background.
    pub async fn close(self) -> Result<()> {
        let flushed = self.flush().await;
        let Some(mut shared) = Arc::into_inner(self.0) else { return flushed };
        let not_closed = {
            let file = shared.path.display().to_string();
            move |why: &str| Error::new(ErrorKind::Cache, format!("{file} was not closed in good order: {why}"))
        };
        let runtime = Handle::try_current().map_err(|_| not_closed("this needs a tokio runtime around it"))?;
        let ended = runtime.spawn_blocking(move || shared.end()).await;
        flushed.and(match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(not_closed("the thread that writes panicked")),
            Err(error) => Err(not_closed("the runtime ended").with_source(error)),
        })
    }

    /// Returns the path of the file, which is absolute.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns `true` if the file is only read, because that was asked for or because this process cannot write it.
    pub fn is_read_only(&self) -> bool {
        self.0.is_read_only
    }

    /// Returns how many entries were put and not stored, because the file is [only read](Self::is_read_only).
    pub fn skipped(&self) -> u64 {
        self.0.skipped.load(Ordering::Relaxed)
    }

    /// Counts the entries in the file. Reads all of it except the values themselves, in short transactions, so entries
    /// that are written meanwhile may or may not be counted.
    ///
    /// # Errors
    /// Those of [`CacheStore::get`].
    pub async fn stats(&self) -> Result<SqliteStats> {
        let mut stats = SqliteStats { spaces: self.read(spaces).await?, ..SqliteStats::default() };
        let mut after = 0;
        while let Some((last, entries, bytes)) = self.read(move |connection| count_after(connection, after)).await? {
            // A damaged row may be in the wrong place, and the walk would never end.
            if last <= after {
                return Err(self.out_of_order());
            }
            after = last;
            stats.entries += entries;
            stats.value_bytes += bytes;
        }
        let files = [self.0.path.clone(), wal_of(&self.0.path)];
        // The WAL may not exist.
        stats.file_bytes = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum();
        Ok(stats)
    }

    /// Shows each entry to `f`, in the order in which they were stored: for verification.
    ///
    /// # Errors
    /// Those of [`CacheStore::get`]. A row without a valid key is left out, and is an error after all others were
    /// shown.
    pub async fn for_each(&self, mut f: impl FnMut(Key, &[u8]) + Send) -> Result<()> {
        let mut place = None;
        loop {
            place = self.scan(place.as_ref(), &mut f).await?;
            if place.is_none() {
                return Ok(());
            }
        }
    }

    pub(super) fn out_of_order(&self) -> Error {
        let message = format!("{} is damaged: its rows are out of order; {AFTER_DAMAGE}", self.0.path.display());
        Error::new(ErrorKind::Cache, message)
    }

    /// Runs one short transaction on a thread for blocking work.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        part: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let ended =
            |why: String| Error::new(ErrorKind::Cache, format!("{} cannot be read: {why}", self.0.path.display()));
        let runtime = Handle::try_current().map_err(|_| ended("this needs a tokio runtime around it".into()))?;
        let turn = self.0.readers.clone().acquire_owned().await.map_err(|error| ended(error.to_string()))?;
        let shared = self.0.clone();
        let read = move || {
            // Kept until the reading ends, also if the caller leaves: it counts as a reader until then.
            let _turn = turn;
            let state = shared.is_read_only.then(|| FileState::of(&shared.path));
            let connection = shared.reader(state)?;
            // A connection that failed is not used again.
            let read = part(&connection).map_err(|error| file_error(&shared.path, error))?;
            shared.idle.with(|idle| idle.push((connection, state)));
            Ok(read)
        };
        runtime.spawn_blocking(read).await.map_err(|error| ended(error.to_string()))?
    }

    /// Hands a request to the writer and waits until it is committed.
    async fn write(&self, request: WriteRequest, room: OwnedSemaphorePermit) -> Result<()> {
        let (done, committed) = oneshot::channel();
        let ended = || {
            let message = format!("{} cannot be written: the thread that writes has ended", self.0.path.display());
            Error::new(ErrorKind::Cache, message)
        };
        let jobs = self.0.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(WriteJob { request, done, room }).map_err(|_| ended())?;
        committed.await.map_err(|_| ended())?
    }

    /// Waits for room in the queue. A request that is larger than the queue takes all of it.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let pieces = (1 + bytes / QUEUE_PIECE_BYTES).min(QUEUE_BYTES / QUEUE_PIECE_BYTES);
        let room = self.0.room.clone().acquire_many_owned(u32::try_from(pieces).unwrap_or(u32::MAX)).await;
        room.map_err(|error| Error::new(ErrorKind::Cache, "the queue of puts has ended").with_source(error))
    }

    /// Has SQLite check the file; returns the faults that it finds, at most about 100, or nothing if there is none.
    /// Faults within a value are found by [`inspect`](crate::wrap::EntryInfo::inspect). Reads all of the file in one
    /// transaction, so the WAL grows while others write.
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
        if self.0.is_read_only {
            self.0.skipped.fetch_add(entries.len() as u64, Ordering::Relaxed);
            return Ok(());
        }
        // One such entry would make the transaction fail for all puts that share it.
        if let Some(entry) = entries.iter().find(|entry| entry.value.len() > MAX_VALUE_BYTES) {
            let (bytes, file) = (entry.value.len(), self.0.path.display());
            let message =
                format!("an entry of {bytes} bytes cannot be put into {file}: the limit is {MAX_VALUE_BYTES}");
            return Err(Error::new(ErrorKind::Cache, message));
        }
        let bytes: usize = entries.iter().map(|entry| ROW_OVERHEAD_BYTES + entry.value.len()).sum();
        let room = self.room(bytes).await?;
        self.write(WriteRequest::Put(OwnedEntries::copy(entries)), room).await
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        if damaged.is_empty() {
            return Ok(());
        }
        if self.0.is_read_only {
            let file = self.0.path.display();
            let message = format!(
                "{file} is only read, so nothing was removed from it: give this user write permission for the file and \
                 its folder, or open it without `SqliteBuilder::read_only`"
            );
            return Err(Error::new(ErrorKind::Cache, message));
        }
        let room = self.room(damaged.iter().map(|entry| ROW_OVERHEAD_BYTES + entry.value.len()).sum()).await?;
        self.write(WriteRequest::Discard(OwnedEntries::copy(damaged)), room).await
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        if self.0.is_read_only {
            return Ok(());
        }
        let room = self.room(ROW_OVERHEAD_BYTES + about.len()).await?;
        self.write(WriteRequest::Note(space, about.to_owned()), room).await
    }

    async fn flush(&self) -> Result<()> {
        if self.0.is_read_only {
            return Ok(());
        }
        let room = self.room(0).await?;
        self.write(WriteRequest::Flush, room).await
    }
}

impl Shared {
    /// Returns a connection for reading: an idle one, or a new one. The state is that of a file that is only read: if it
    /// has changed, a writer is at work, and what older connections know of the file is of no use.
    pub(super) fn reader(&self, state: Option<FileState>) -> Result<Connection> {
        while let Some((connection, of)) = self.idle.with(Vec::pop) {
            if of == state {
                return Ok(connection);
            }
        }
        if let Some(state) = state {
            let reader = connect_for_reading(&self.path, state, self.busy_timeout, READER_CACHE_KIB);
            return reader.map_err(|error| file_error(&self.path, error));
        }
        // Not opened read-only: the last connection to close checkpoints, and it may be this one.
        let reader = connect(&self.path, self.busy_timeout, READER_CACHE_KIB)
            .and_then(|connection| connection.execute_batch("PRAGMA query_only = ON").map(|()| connection));
        reader.map_err(|error| file_error(&self.path, error))
    }

    /// Ends the thread that writes, after everything in the queue, and waits for it.
    fn end(&mut self) -> thread::Result<()> {
        // The connection of the writer should be the last to close: it checkpoints.
        self.idle.with(Vec::clear);
        self.jobs = None;
        // The thread that writes may drop the last clone itself: one that a caller held whom it tells. It cannot wait
        // for itself.
        let writer = self.writer.take().filter(|writer| writer.thread().id() != thread::current().id());
        writer.map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
