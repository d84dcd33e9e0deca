//! Reads entries from an Arrow file: [`ArrowSource`].

use std::{
    fmt,
    fs::File,
    io::{BufReader, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_schema::SchemaRef;
use async_trait::async_trait;

use super::{
    batches::{Batches, Fault},
    schema::{Columns, check, notes},
};
use crate::{Error, ErrorKind, Result, SpaceId, cache::ScanSink, cache_tools::EntrySource};

/// The bytes after which a part ends. Batches of other programs may have any number of rows.
const PART_BYTES: usize = 8 << 20;

/// The entries of an Arrow file that [`ArrowTarget`](super::ArrowTarget) wrote, or another program in the same form: see
/// there for an example.
///
/// # Semantics
/// Columns may have any order, and additional ones are ignored. Their types must be those of an export. Some programs write
/// others, such as polars: `pyarrow.Table.cast` to the schema of an export makes the right ones. The file must not be
/// compressed. An export has a line about each space in the schema's metadata; they are optional.
///
/// A row that is not a whole entry, such as one with a component that is not a number, is handed over without a value, so
/// that it counts as damaged.
///
/// # Errors
/// [`Cache`](ErrorKind::Cache) if the file cannot be read, is damaged or compressed, has other columns, or a row without a
/// key.
///
/// # Cost
/// One batch of the file is in memory at a time.
pub struct ArrowSource {
    path: PathBuf,
    batches: Batches,
    /// The rest of a batch that is too large for one part.
    rest: Option<RecordBatch>,
    rows: u64,
}

impl ArrowSource {
    /// Opens a file.
    ///
    /// # Errors
    /// As described under [errors](Self#errors).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let shown = path.display();
        let opened = File::open(&path);
        let file = opened
            .map_err(|error| Error::new(ErrorKind::Cache, format!("{shown} cannot be read")).with_source(error))?;
        let batches = unpanicked(&path, || Batches::open(file))?;
        let columns = check(batches.schema());
        let columns = columns.map_err(|why| Error::new(ErrorKind::Cache, format!("{shown} {why}")))?;
        Ok(Self { batches: batches.with_columns(columns), path, rest: None, rows: 0 })
    }

    /// Returns the number of rows that were read.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the next rows: the rest of a batch, or a batch; `None` at the end.
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        match self.rest.take() {
            Some(rest) => Ok(Some(rest)),
            None => unpanicked(&self.path, || self.batches.next()),
        }
    }
}

impl fmt::Debug for ArrowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrowSource").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

#[async_trait]
impl EntrySource for ArrowSource {
    async fn next(&mut self, sink: &mut ScanSink<'_>) -> Result<bool> {
        let Some(batch) = self.batch()? else { return Ok(false) };
        let damaged = |why: String| Error::new(ErrorKind::Cache, format!("{} is damaged: {why}", self.path.display()));
        let columns = Columns::of(&batch).ok_or_else(|| damaged("a batch has other columns than the file".into()))?;
        let (mut row, mut bytes) = (0, 0);
        while row < batch.num_rows() && bytes < PART_BYTES {
            let without_key = || damaged(format!("row {} has no key", self.rows + row as u64));
            let (key, value) = columns.entry(row).ok_or_else(without_key)?;
            let value = value.unwrap_or_default();
            sink(key, &value);
            bytes += key.as_bytes().len() + value.len();
            row += 1;
        }
        self.rows += row as u64;
        self.rest = Some(batch.slice(row, batch.num_rows() - row)).filter(|rest| rest.num_rows() > 0);
        Ok(true)
    }

    async fn notes(&mut self) -> Result<Vec<(SpaceId, String)>> {
        Ok(notes(self.batches.schema()))
    }
}

/// Returns the schema of a file that has perhaps no end.
pub(super) fn schema_of_start(path: &Path) -> Option<SchemaRef> {
    let mut file = File::open(path).ok()?;
    // The rest of the file, behind its mark, has the form of a stream.
    file.seek(SeekFrom::Start(8)).ok()?;
    unpanicked(path, || StreamReader::try_new(BufReader::new(file), None)).ok().map(|reader| reader.schema())
}

/// Reads from a file. A reader that panics on a damaged file gives an error, as one that notices it does.
fn unpanicked<T, E: Into<Fault>>(path: &Path, read: impl FnOnce() -> Result<T, E>) -> Result<T> {
    let damaged = || {
        let message = format!("{} is damaged, or not a whole Arrow file: export it again", path.display());
        Error::new(ErrorKind::Cache, message)
    };
    match catch_unwind(AssertUnwindSafe(|| read().map_err(Into::into))) {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(Fault::Compressed)) => {
            let message = format!("{} is compressed, which is not supported: write it uncompressed", path.display());
            Err(Error::new(ErrorKind::Cache, message))
        }
        Ok(Err(Fault::Damaged(error))) => Err(damaged().with_source(error)),
        Err(_) => Err(damaged()),
    }
}
