//! Writes entries to an Arrow file: [`ArrowTarget`].

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use arrow_ipc::Block;
use arrow_schema::{ArrowError, SchemaRef};
use async_trait::async_trait;

use super::{
    footer::{walk, write_batch, write_footer, write_start},
    partial::Progress,
    schema::{batch, schema},
};
use crate::{
    Error, ErrorKind, Result, SpaceId,
    beside::beside,
    cache::{Entry, ScanPlace},
    cache_tools::{EntryTarget, Taken},
};

/// An Arrow file that entries are written to: the target of an export.
///
/// ```
/// use docvector_embed::{
///     EmbedderExt,
///     cache::Memory,
///     cache_tools::{ArrowSource, ArrowTarget, ScanSource, StoreTarget, Transfer},
///     provider::Fake,
/// };
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("vectors.arrow");
/// let (store, other) = (Memory::new(64 << 20), Memory::new(64 << 20));
/// Fake::new(8).cached(store.clone())?.embed_documents(&["one", "two"]).await?;
/// let mut file = ArrowTarget::create(&path, "memory")?;
/// let mut source = ScanSource::new(&store).after(file.place());
/// assert_eq!(Transfer::new().run(&mut source, &mut file).await?.copied, 2);
///
/// let mut file = ArrowSource::open(&path)?;
/// assert_eq!(Transfer::new().run(&mut file, &mut StoreTarget::new(&other)).await?.copied, 2);
/// # Ok(()) }) }
/// ```
///
/// # The file
/// It is an Arrow IPC file (also called Feather, version 2), without compression. Its columns are `key` (32 bytes), `space`
/// (the id of the space, text), `day` (a date), `truncated` and `half` (whether the store keeps 16 bits), and `vector` (a
/// list of 32-bit floats); the schema's metadata say what each space is. `pyarrow.feather.read_table`, `polars.read_ipc` and
/// `pandas.read_feather` read it.
///
/// # Semantics
/// While it is written, the file has the ending `.partial`, and beside it lies a note with the ending `.progress`, which
/// says how far it came. After a kill, [`create`](Self::create) goes on there: give its [`place`](Self::place) to the source.
/// At the end, the file gets its name, and the note is removed. Each part is on the disk before its note is.
///
/// # Errors
/// [`Cache`](ErrorKind::Cache) if the file cannot be written, exists already, is written by another export, or was begun
/// from another source. After an error, make a new target: it goes on from the last part.
pub struct ArrowTarget {
    path: PathBuf,
    source: String,
    /// The rest of an earlier export, or nothing yet: the schema has the lines about spaces, which come first.
    file: Option<Writing>,
    place: Option<ScanPlace>,
    rows: u64,
    /// Whether the file was begun: it is not begun again after a write that failed.
    is_begun: bool,
}

struct Writing {
    file: BufWriter<File>,
    schema: SchemaRef,
    blocks: Vec<Block>,
    bytes: u64,
}

impl ArrowTarget {
    /// Begins a file, or goes on with one that was not finished. `source` names where the entries come from: a file is
    /// only continued from the same source.
    ///
    /// # Errors
    /// As described under [errors](Self#errors).
    pub fn create(path: impl AsRef<Path>, source: &str) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let shown = path.display();
        if fs::symlink_metadata(&path).is_ok() {
            let message = format!("{shown} exists already: name another file, or remove it");
            return Err(Error::new(ErrorKind::Cache, message));
        }
        let source = source.replace(['\n', '\r'], " ");
        let mut target = Self { file: None, place: None, rows: 0, is_begun: false, source, path };
        let Some(progress) = Progress::read(&beside(&target.path, ".progress"))? else { return Ok(target) };
        if progress.source != target.source {
            let message = format!(
                "{}.partial was begun from {}, and not from {}: remove it and {}.progress to begin again",
                target.path.display(),
                progress.source,
                target.source,
                target.path.display()
            );
            return Err(Error::new(ErrorKind::Cache, message));
        }
        target.go_on(progress)?;
        Ok(target)
    }

    /// Returns the place from which the source goes on; `None` at the beginning.
    pub fn place(&self) -> Option<ScanPlace> {
        self.place.clone()
    }

    /// Returns the number of entries in the file so far.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Opens what is there of the file, and cuts off what came after the note.
    fn go_on(&mut self, progress: Progress) -> Result<()> {
        let partial = beside(&self.path, ".partial");
        let opened = || -> io::Result<Option<(File, super::footer::Walked)>> {
            let mut file = locked(&partial, false)?;
            let Some(walked) = walk(&mut file, progress.bytes)? else { return Ok(None) };
            file.set_len(walked.bytes)?;
            file.seek(SeekFrom::End(0))?;
            Ok(Some((file, walked)))
        };
        let unusable = |why: &str| {
            let message =
                format!("{} {why}: remove it and the file that ends in .progress, to begin again", partial.display());
            Error::new(ErrorKind::Cache, message)
        };
        let (file, walked) = opened()
            .map_err(|error| unusable("cannot be continued").with_source(error))?
            .filter(|(_, walked)| walked.bytes == progress.bytes)
            .ok_or_else(|| unusable("is not what its note says"))?;
        let schema = super::source::schema_of_start(&partial).ok_or_else(|| unusable("has no schema"))?;
        self.rows = walked.rows;
        self.file = Some(Writing { file: BufWriter::new(file), schema, blocks: walked.blocks, bytes: walked.bytes });
        self.place = Some(progress.place);
        self.is_begun = true;
        Ok(())
    }

    fn failed(&self, error: ArrowError) -> Error {
        let partial = beside(&self.path, ".partial");
        let what = match &error {
            ArrowError::IoError(_, error) => match error.kind() {
                io::ErrorKind::NotFound => "its folder is missing: create it first",
                io::ErrorKind::StorageFull => "its disk is full: free some space, and run it again to go on",
                io::ErrorKind::ResourceBusy => "another export writes it: wait for its end, or name another file",
                io::ErrorKind::AlreadyExists => "the file itself exists by now: another export has made it",
                _ => "check its disk",
            },
            _ => "begin again, to go on from where it was",
        };
        Error::new(ErrorKind::Cache, format!("{} cannot be written: {what}", partial.display())).with_source(error)
    }

    /// Begins the file, unless it is begun.
    fn begun(&mut self, notes: &[(SpaceId, String)]) -> Result<&mut Writing, ArrowError> {
        if !self.is_begun {
            let schema = schema(notes);
            let file = locked(&beside(&self.path, ".partial"), true)?;
            file.set_len(0)?;
            let mut file = BufWriter::new(file);
            let bytes = write_start(&mut file, &schema)?;
            self.file = Some(Writing { file, schema, blocks: Vec::new(), bytes });
            self.is_begun = true;
        }
        self.file.as_mut().ok_or_else(unusable)
    }

    fn write(&mut self, entries: &[Entry<'_>], place: Option<&ScanPlace>) -> Result<(), ArrowError> {
        // A write that fails may leave a half of a batch: then this target is of no more use, and a new one goes on.
        self.begun(&[])?;
        let mut writing = self.file.take().ok_or_else(unusable)?;
        let block = write_batch(&mut writing.file, &batch(&writing.schema, entries)?, writing.bytes)?;
        writing.bytes += (i64::from(block.metaDataLength()) + block.bodyLength()).unsigned_abs();
        writing.blocks.push(block);
        writing.file.flush()?;
        if let Some(place) = place {
            writing.file.get_ref().sync_data()?;
            let progress = Progress { source: self.source.clone(), bytes: writing.bytes, place: place.clone() };
            progress.write(&beside(&self.path, ".progress"))?;
        }
        self.rows += entries.len() as u64;
        self.file = Some(writing);
        Ok(())
    }

    fn end(&mut self) -> Result<(), ArrowError> {
        self.begun(&[])?;
        let mut writing = self.file.take().ok_or_else(unusable)?;
        write_footer(&mut writing.file, &writing.schema, &writing.blocks)?;
        writing.file.flush()?;
        writing.file.get_ref().sync_all()?;
        if fs::symlink_metadata(&self.path).is_ok() {
            let message = "the file exists by now: another export has made it";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message).into());
        }
        fs::rename(beside(&self.path, ".partial"), &self.path)?;
        match fs::remove_file(beside(&self.path, ".progress")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        sync_folder(&self.path);
        Ok(())
    }
}

/// The error of a target that failed before.
fn unusable() -> ArrowError {
    ArrowError::InvalidArgumentError("a write failed before: begin again, to go on from there".into())
}

/// Opens a file that nobody else writes.
fn locked(path: &Path, create: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = "another export writes this file: wait for its end, or name another file";
            Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
        }
        // A file system without locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes the names in the folder of this file durable, where the system can do so.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

impl fmt::Debug for ArrowTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrowTarget").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

#[async_trait]
impl EntryTarget for ArrowTarget {
    async fn take(&mut self, entries: &[Entry<'_>], place: Option<&ScanPlace>) -> Result<Taken> {
        self.write(entries, place).map_err(|error| self.failed(error))?;
        Ok(Taken::new(entries.len() as u64, 0))
    }

    async fn note(&mut self, notes: &[(SpaceId, String)]) -> Result<()> {
        self.begun(notes).map(drop).map_err(|error| self.failed(error))
    }

    async fn finish(&mut self) -> Result<()> {
        self.end().map_err(|error| self.failed(error))
    }
}
