//! `Sqlite`, by page size, width and group: writing beside a plain file, reading, and the size on the disk.

use std::{
    fmt,
    fs::{self, File},
    hint::black_box,
    io::Write as _,
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use docvector_embed::{
    Batch, Embedder as _, Error, SpaceId, async_trait,
    cache::{CacheStore, Entry, Key, Sink, Sqlite},
    provider::Fake,
    wrap::Cached,
};
use peers::{Args, Result, median};
use tokio::runtime::Runtime;

use crate::{HEADER, grouped, texts};

/// Keys or texts of a call that reads, and entries of a put, unless something else is said.
const BATCH: usize = 1_000;

/// Puts under way at once, unless something else is said.
const TASKS: usize = 8;

/// Rows after which the plain file is written to the disk.
const PLAIN_GROUP: usize = 10_000;

/// KiB of a page by default.
const DEFAULT_PAGE: u32 = 16;

/// The widths, with the KiB of the pages that each is measured with.
const PAGES: [(usize, &[u32]); 3] = [(768, &[4, 8, 16, 32, 64]), (384, &[4, 16, 32]), (1_536, &[4, 16, 32])];

/// For the table of groups: the width, whose transactions hold the most rows before they have the most bytes; the rows
/// of a group; and the entries of a put with how many are under way.
const GROUPS_OF: usize = 384;
const GROUPS: [usize; 3] = [1_000, 10_000, 100_000];
const PUTS: [(usize, usize); 3] = [(1_000, 8), (100, 100), (1_000, 1)];

pub fn run(args: &Args, folders: &[String]) -> Result<()> {
    let count: usize = args.get("entries")?.unwrap_or(200_000).max(1);
    let rounds: usize = args.get("rounds")?.unwrap_or(3).max(1);
    let parent: PathBuf = args.get("dir")?.unwrap_or_else(|| PathBuf::from("target"));
    let folder = Folder::make(&parent)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let texts = texts::read(folders, count)?;
    println!(
        "{} entries, {rounds} rounds in turns, medians. Writing: puts of {BATCH} by {TASKS} tasks until the last is \
         durable, and until the file is closed as well; the plain file takes the same keys and values in writes of \
         {BATCH} rows, with `fdatasync` after each {}. Reading: what was written is in the system's memory, {BATCH} \
         keys a call in random order, one call at a time. Bytes are those on the disk and those written, for each byte \
         of the vectors: as asked of the system, and as the system counts them for the disk.\n",
        grouped(count as f64),
        grouped(PLAIN_GROUP as f64)
    );
    println!(
        "| components | page, KiB | put, rows/s | and closed | plain file, rows/s | ratio | on the disk | written | to \
         the disk | `get`, rows/s | through `Cached`, rows/s |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (width, pages) in PAGES {
        let bench = Bench::new(&runtime, &folder, width, &texts)?;
        let mut measured = vec![Measured::default(); pages.len()];
        for round in 0..rounds {
            for turn in 0..pages.len() {
                // The order changes from round to round.
                let at = (turn + round) % pages.len();
                bench.measure(pages[at], round, &mut measured[at])?;
            }
        }
        for (page, measured) in pages.iter().zip(&measured) {
            measured.print(width, *page);
        }
    }

    let count = count.min(100_000);
    let bench = Bench::new(&runtime, &folder, GROUPS_OF, &texts[..count])?;
    println!(
        "\nGroups: {} entries of {GROUPS_OF} components, pages of {DEFAULT_PAGE} KiB. A transaction takes the puts \
         that wait, and ends at the given number of rows or at 16 MiB, which are about 10,000 rows here.\n",
        grouped(count as f64)
    );
    println!("| entries per put | puts at once | rows of a group, at most | put, rows/s | written |");
    println!("|---:|---:|---:|---:|---:|");
    for (rows_a_put, tasks) in PUTS {
        let mut measured: [(Vec<f64>, Vec<f64>); GROUPS.len()] = Default::default();
        for round in 0..rounds {
            for turn in 0..GROUPS.len() {
                let at = (turn + round) % GROUPS.len();
                let written = bench.write(DEFAULT_PAGE, Some(GROUPS[at]), rows_a_put, tasks)?;
                measured[at].0.push(written.rows_a_second);
                measured[at].1.push(written.asked);
                folder.clear()?;
            }
        }
        for (group, (rates, written)) in GROUPS.iter().zip(&measured) {
            println!(
                "| {} | {tasks} | {} | {} | {:.2} |",
                grouped(rows_a_put as f64),
                grouped(*group as f64),
                grouped(median(rates)),
                median(written)
            );
        }
    }
    println!(
        "\nWanted: reads of at least 100,000 rows/s; writes of at least 30,000 rows/s, or a fifth of the plain file's."
    );
    Ok(())
}

/// The data that all files of a width share.
struct Bench<'a> {
    runtime: &'a Runtime,
    folder: &'a Folder,
    fake: Fake,
    entries: Arc<Entries>,
    /// In the order in which they are asked for, which differs from that of the entries.
    texts: Vec<&'a str>,
    /// The same order.
    keys: Vec<Key>,
}

impl<'a> Bench<'a> {
    /// Lets `Cached` write the entries of all texts.
    fn new(runtime: &'a Runtime, folder: &'a Folder, width: usize, texts: &'a [String]) -> Result<Self> {
        let fake = Fake::builder().with_dimensions(width).without_log().build()?;
        let recorder = Recorder::with_room(texts.len(), width);
        let cached = Cached::new(fake.clone(), recorder.clone())?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        runtime.block_on(async {
            for texts in texts.chunks(BATCH) {
                cached.embed(Batch::documents(texts)).await?;
            }
            Ok::<_, Error>(())
        })?;
        let entries = Arc::new(mem::take(&mut *recorder.entries()));
        if entries.keys.len() != texts.len() || entries.values.len() != texts.len() * entries.size {
            return Err("an entry is not as large as it should be".into());
        }
        let mut order: Vec<usize> = (0..texts.len()).collect();
        fastrand::Rng::with_seed(7).shuffle(&mut order);
        let keys = order.iter().map(|&at| entries.keys[at]).collect();
        let texts = order.iter().map(|&at| texts[at]).collect();
        Ok(Self { runtime, folder, fake, entries, texts, keys })
    }

    /// Writes a file and reads it, beside a plain one.
    fn measure(&self, page: u32, round: usize, measured: &mut Measured) -> Result<()> {
        let (written, plain) = if round.is_multiple_of(2) {
            let written = self.write(page, None, BATCH, TASKS)?;
            (written, self.write_plain()?)
        } else {
            let plain = self.write_plain()?;
            (self.write(page, None, BATCH, TASKS)?, plain)
        };
        measured.put.push(written.rows_a_second);
        measured.closed.push(written.and_closed);
        measured.plain.push(plain);
        measured.ratio.push(written.rows_a_second / plain);
        measured.on_disk.push(written.on_disk);
        measured.asked.push(written.asked);
        measured.to_disk.push(written.to_disk);

        let store = Sqlite::open(self.folder.file())?;
        // From here on the file is in the system's memory.
        self.read(&store)?;
        let (read, through_cached) = if round.is_multiple_of(2) {
            let read = self.read(&store)?;
            (read, self.read_through_cached(&store)?)
        } else {
            let through_cached = self.read_through_cached(&store)?;
            (self.read(&store)?, through_cached)
        };
        measured.get.push(read);
        measured.through_cached.push(through_cached);
        drop(store);
        self.folder.clear()
    }

    /// Puts all entries into a new file.
    fn write(&self, page: u32, group: Option<usize>, rows_a_put: usize, tasks: usize) -> Result<Written> {
        let mut builder = Sqlite::builder(self.folder.file()).with_page_size(page << 10);
        if let Some(rows) = group {
            builder = builder.with_group(rows, Duration::ZERO);
        }
        let store = builder.build()?;
        let before = Io::now()?;
        let start = Instant::now();
        self.runtime.block_on(put_all(&store, &self.entries, rows_a_put, tasks))?;
        let put = start.elapsed().as_secs_f64();
        // Runs the checkpoint of the WAL.
        drop(store);
        let closed = start.elapsed().as_secs_f64();
        let after = Io::now()?;
        let (rows, raw) = (self.entries.keys.len() as f64, self.entries.raw() as f64);
        Ok(Written {
            rows_a_second: rows / put,
            and_closed: rows / closed,
            on_disk: fs::metadata(self.folder.file())?.len() as f64 / raw,
            asked: (after.asked - before.asked) as f64 / raw,
            to_disk: (after.to_disk - before.to_disk) as f64 / raw,
        })
    }

    /// Appends all keys and values to a new file; returns rows per second.
    fn write_plain(&self) -> Result<f64> {
        let path = self.folder.0.join("plain");
        let mut file = File::create(&path)?;
        let mut bytes = Vec::with_capacity(BATCH * (size_of::<Key>() + self.entries.size));
        let mut waiting = 0;
        let start = Instant::now();
        for (keys, values) in self.entries.keys.chunks(BATCH).zip(self.entries.values.chunks(BATCH * self.entries.size))
        {
            bytes.clear();
            for (key, value) in keys.iter().zip(values.chunks_exact(self.entries.size)) {
                bytes.extend_from_slice(key.as_bytes());
                bytes.extend_from_slice(value);
            }
            file.write_all(&bytes)?;
            waiting += keys.len();
            if waiting >= PLAIN_GROUP {
                file.sync_data()?;
                waiting = 0;
            }
        }
        file.sync_data()?;
        let seconds = start.elapsed().as_secs_f64();
        fs::remove_file(&path)?;
        Ok(self.entries.keys.len() as f64 / seconds)
    }

    /// Takes all rows out of the store, each call's into a matrix; returns rows per second.
    fn read(&self, store: &Sqlite) -> Result<f64> {
        let row = self.entries.size - HEADER;
        let mut matrix = vec![0_u8; BATCH * row];
        let mut found = 0;
        let start = Instant::now();
        self.runtime.block_on(async {
            for keys in self.keys.chunks(BATCH) {
                let mut sink = |place: usize, value: &[u8]| {
                    matrix[place * row..(place + 1) * row].copy_from_slice(&value[HEADER..]);
                    found += 1;
                };
                store.get(keys, &mut sink).await?;
                black_box(matrix.as_slice());
            }
            Ok::<_, Error>(())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        if found != self.keys.len() {
            return Err(format!("{found} of {} entries were found", self.keys.len()).into());
        }
        Ok(found as f64 / seconds)
    }

    /// Embeds all texts, which are all in the store; returns rows per second.
    fn read_through_cached(&self, store: &Sqlite) -> Result<f64> {
        let cached = Cached::new(self.fake.clone(), store.clone())?;
        let mut hits = 0;
        let start = Instant::now();
        self.runtime.block_on(async {
            for texts in self.texts.chunks(BATCH) {
                hits += black_box(cached.embed(Batch::documents(texts)).await?).usage().cached;
            }
            Ok::<_, Error>(())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        if hits != self.texts.len() as u64 {
            return Err(format!("{hits} of {} texts were hits", self.texts.len()).into());
        }
        Ok(hits as f64 / seconds)
    }
}

/// Puts all entries, in groups, from several tasks at once.
async fn put_all(store: &Sqlite, entries: &Arc<Entries>, rows_a_put: usize, tasks: usize) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, entries, next) = (store.clone(), entries.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let first = next.fetch_add(rows_a_put, Relaxed);
                    if first >= entries.keys.len() {
                        return Ok::<(), Error>(());
                    }
                    let put = entries.part(first, rows_a_put);
                    store.put(&put).await?;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// The results for one file; bytes are per byte of the vectors.
struct Written {
    rows_a_second: f64,
    and_closed: f64,
    on_disk: f64,
    asked: f64,
    to_disk: f64,
}

/// Round by round.
#[derive(Clone, Default)]
struct Measured {
    put: Vec<f64>,
    closed: Vec<f64>,
    plain: Vec<f64>,
    ratio: Vec<f64>,
    on_disk: Vec<f64>,
    asked: Vec<f64>,
    to_disk: Vec<f64>,
    get: Vec<f64>,
    through_cached: Vec<f64>,
}

impl Measured {
    fn print(&self, width: usize, page: u32) {
        println!(
            "| {} | {page}{} | {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} |",
            grouped(width as f64),
            if page == DEFAULT_PAGE { " (default)" } else { "" },
            grouped(median(&self.put)),
            grouped(median(&self.closed)),
            grouped(median(&self.plain)),
            median(&self.ratio),
            median(&self.on_disk),
            median(&self.asked),
            median(&self.to_disk),
            grouped(median(&self.get)),
            grouped(median(&self.through_cached))
        );
    }
}

/// Bytes that this process has written.
struct Io {
    /// As asked of the system.
    asked: u64,
    /// As the system counts them for the disk: bytes that stay in its memory, or are written again there, count once.
    to_disk: u64,
}

impl Io {
    fn now() -> Result<Self> {
        let told = fs::read_to_string("/proc/self/io").map_err(|error| format!("/proc/self/io: {error}"))?;
        let number = |name: &str| -> Result<u64> {
            let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            Ok(line.ok_or_else(|| format!("/proc/self/io has no {name}"))?.trim().parse()?)
        };
        Ok(Self { asked: number("wchar")?, to_disk: number("write_bytes")? })
    }
}

/// A folder of our own, which is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn make(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("bench-cache-{}", std::process::id()));
        fs::create_dir_all(parent)?;
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    /// Where the measured file is.
    fn file(&self) -> PathBuf {
        self.0.join("vectors.sqlite")
    }

    /// Removes its contents.
    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.0)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

/// Keys, and values of one size, as `Cached` writes them.
#[derive(Default)]
struct Entries {
    keys: Vec<Key>,
    values: Vec<u8>,
    /// Bytes of a value.
    size: usize,
}

impl Entries {
    /// Returns up to the given number of entries, from the first of them on.
    fn part(&self, first: usize, count: usize) -> Vec<Entry<'_>> {
        let values = self.values[first * self.size..].chunks_exact(self.size);
        self.keys[first..].iter().zip(values).take(count).map(|(&key, value)| Entry::new(key, value)).collect()
    }

    /// Bytes of the vectors.
    fn raw(&self) -> usize {
        self.keys.len() * (self.size - HEADER)
    }
}

/// A store that has nothing and accepts everything.
#[derive(Clone)]
struct Recorder(Arc<Mutex<Entries>>);

impl Recorder {
    fn with_room(entries: usize, width: usize) -> Self {
        let size = HEADER + width * size_of::<f32>();
        let (keys, values) = (Vec::with_capacity(entries), Vec::with_capacity(entries * size));
        Self(Arc::new(Mutex::new(Entries { keys, values, size })))
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("recorder")
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").finish_non_exhaustive()
    }
}

#[async_trait]
impl CacheStore for Recorder {
    async fn get(&self, _: &[Key], _: &mut Sink<'_>) -> docvector_embed::Result<()> {
        Ok(())
    }

    async fn put(&self, entries: &[Entry<'_>]) -> docvector_embed::Result<()> {
        let mut all = self.entries();
        for entry in entries {
            all.keys.push(entry.key);
            all.values.extend_from_slice(entry.value);
        }
        Ok(())
    }

    async fn discard(&self, _: &[Entry<'_>]) -> docvector_embed::Result<()> {
        Ok(())
    }

    async fn note(&self, _: SpaceId, _: &str) -> docvector_embed::Result<()> {
        Ok(())
    }

    async fn flush(&self) -> docvector_embed::Result<()> {
        Ok(())
    }
}
