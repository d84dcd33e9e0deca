//! Keeps the records of a job in a file that is only ever appended to: [`Journal`].
//!
//! The first line names the format and its version. Each further line is one record: 16 hex digits, a space, JSON. The
//! digits are the xxh3-64 of the JSON, seeded with that of the line before, and so with all lines before: a line that is
//! changed, lost, doubled or moved does not fit.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    disk::{failed, private_file, sync_folder},
    locked_file::LockedFile,
};
use crate::{Error, ErrorKind, Result, telemetry};

#[cfg(test)]
mod tests;

const FORMAT: &str = "docvector-embed batch journal";
const VERSION: u64 = 1;
const HEADER: &str = "{\"format\":\"docvector-embed batch journal\",\"version\":1}\n";
/// The most bytes of a first line that are read: another file may have no lines.
const HEADER_BYTES: u64 = 1_024;
/// The hex digits of a checksum.
const DIGITS: usize = 16;
/// The advice for a file that cannot be used as it is.
const AFTER_DAMAGE: &str =
    "put back a copy of the file, or move the job's folder away and submit its texts again, which costs again";

/// The open journal of a job. Nobody else can open it as long as this lives, here or in another process.
#[derive(Debug)]
pub(super) struct Journal {
    file: LockedFile,
    path: PathBuf,
    end: End,
    /// Whether something may stand behind `end` that could not be cut off.
    is_broken: bool,
}

/// The end of the lines that are whole.
#[derive(Clone, Copy, Debug)]
struct End {
    bytes: u64,
    /// The checksum of the last line, which is the seed of the next one.
    checksum: u64,
}

impl Journal {
    /// Makes the file, with this first record. Both are on the disk when this returns, and so is the file's name.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the file is there already, or cannot be made, locked or written.
    pub(super) fn create<R: Serialize>(path: &Path, first: &R) -> Result<Self> {
        let failed = |error| failed(path, "made", error);
        let file = private_file().create_new(true).open(path).map_err(failed)?;
        let Some(file) = LockedFile::try_new(file, path)? else {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        };
        let mut journal = Self { file, path: path.to_owned(), end: End::of_header(), is_broken: false };
        journal.file.file().write_all(HEADER.as_bytes()).map_err(failed)?;
        journal.append(first)?;
        path.parent().map_or(Ok(()), sync_folder).map_err(failed)?;
        Ok(journal)
    }

    /// Opens and locks the file, and returns its records; `None` if somebody else has it open.
    ///
    /// A last line that was not written to its end is cut off: whoever wrote it died before he acted on it. So there may
    /// be no record at all.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the file is missing, cannot be read or written, is damaged, or is of another
    /// version.
    pub(super) fn open<R: DeserializeOwned>(path: &Path) -> Result<Option<(Self, Vec<R>)>> {
        let failed = |error| failed(path, "opened", error);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let Some(mut file) = LockedFile::try_new(file, path)? else {
            return Ok(None);
        };
        // The process that had the lock before may have removed the job.
        if !file.is_at(path).map_err(failed)? {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        let (records, end, is_torn) = read_all(file.file(), path)?;
        let mut journal = Self { file, path: path.to_owned(), end, is_broken: false };
        if is_torn {
            journal.cut_back().map_err(failed)?;
            tracing::warn!(
                { telemetry::FILE } = %path.display(),
                "the last line of a journal was not written to its end, and is cut off"
            );
        }
        Ok(Some((journal, records)))
    }

    /// Reads the records without opening the journal, whoever has it open. A last line that is not written to its end is
    /// left out.
    ///
    /// # Errors
    /// Those of [`open`](Self::open). On Windows, a locked file cannot be read, which is an error that says so.
    pub(super) fn read<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>> {
        let file = File::open(path).map_err(|error| failed(path, "opened", error))?;
        let (records, ..) = read_all(file, path)?;
        Ok(records)
    }

    /// Appends a record, which is on the disk when this returns.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it cannot be written. The journal is as it was, and a later call may succeed:
    /// when there is space again. If this process dies right then, though, the record may be found when the file is
    /// opened. If the journal could not be put back in order, all later calls fail, until it is opened again.
    pub(super) fn append<R: Serialize>(&mut self, record: &R) -> Result<()> {
        if self.is_broken {
            let message = format!(
                "{} cannot be written since an earlier failure: check its disk, then open the job again",
                self.path.display()
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        let (line, checksum) = line(record, self.end.checksum)
            .map_err(|why| wrong(format!("a record for {} {why}: this is a bug", self.path.display())))?;
        let file = self.file.file();
        let written = file
            .seek(SeekFrom::Start(self.end.bytes))
            .and_then(|_| file.write_all(&line))
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            self.is_broken = self.cut_back().is_err();
            return Err(failed(&self.path, "written", error));
        }
        self.end = End { bytes: self.end.bytes + line.len() as u64, checksum };
        Ok(())
    }

    /// Cuts off what stands behind the lines that are whole.
    fn cut_back(&mut self) -> io::Result<()> {
        let file = self.file.file();
        file.set_len(self.end.bytes)?;
        file.sync_all()
    }
}

impl End {
    fn of_header() -> Self {
        Self { bytes: HEADER.len() as u64, checksum: xxh3_64(HEADER.as_bytes()) }
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Returns the line of a record, and its checksum.
fn line<R: Serialize>(record: &R, seed: u64) -> Result<(Vec<u8>, u64), &'static str> {
    let mut line = vec![b' '; DIGITS + 1];
    serde_json::to_writer(&mut line, record).map_err(|_| "cannot be written as JSON")?;
    let json = &line[DIGITS + 1..];
    if json.contains(&b'\n') {
        return Err("has a line break");
    }
    let checksum = xxh3_64_with_seed(json, seed);
    line[..DIGITS].copy_from_slice(digits(checksum).as_bytes());
    line.push(b'\n');
    Ok((line, checksum))
}

fn digits(checksum: u64) -> String {
    format!("{checksum:0DIGITS$x}")
}

/// Returns the JSON of a line that is whole, and its checksum.
fn judged(line: &[u8], seed: u64) -> Option<(&[u8], u64)> {
    let (given, rest) = line.strip_suffix(b"\n")?.split_at_checked(DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    let checksum = xxh3_64_with_seed(json, seed);
    (given == digits(checksum).as_bytes()).then_some((json, checksum))
}

/// Returns whether a last line that does not fit is one that was not written to its end: it has no line break, or the
/// disk lost a part of it with its power, which reads as zeros. Another one was whole once, and its record acted on.
fn is_torn(line: &[u8]) -> bool {
    !line.ends_with(b"\n") || line.contains(&0)
}

/// Reads all records; returns the end of the lines that are whole, too, and whether a torn one stands behind it.
fn read_all<R: DeserializeOwned>(file: impl Read, path: &Path) -> Result<(Vec<R>, End, bool)> {
    let unreadable = |error: io::Error| {
        // ERROR_LOCK_VIOLATION: there, a lock keeps readers out, too.
        if cfg!(windows) && error.raw_os_error() == Some(33) {
            let message = format!(
                "{} cannot be read while a process works on its job, as Windows keeps locked files from all others: \
                 ask that process, or wait for its end",
                path.display()
            );
            return wrong(message).with_source(error);
        }
        failed(path, "read", error)
    };
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    file.by_ref().take(HEADER_BYTES).read_until(b'\n', &mut line).map_err(unreadable)?;
    if line != HEADER.as_bytes() {
        return Err(wrong(format!("{} {}", path.display(), fault_of_header(&line))));
    }
    let (mut records, mut end) = (Vec::new(), End::of_header());
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return Ok((records, end, false));
        }
        let (shown, number) = (path.display(), records.len() + 2);
        let Some((json, checksum)) = judged(&line, end.checksum) else {
            // A line without a break was the last one when it was read, even if it has grown since then.
            let is_last = !line.ends_with(b"\n") || file.fill_buf().map_err(unreadable)?.is_empty();
            if is_last && is_torn(&line) {
                return Ok((records, end, true));
            }
            let cut = if is_last { "if the machine lost its power, remove that last line; otherwise, " } else { "" };
            return Err(wrong(format!("line {number} of {shown} is damaged: {cut}{AFTER_DAMAGE}")));
        };
        // The words of serde may quote what is in the record.
        let record = serde_json::from_slice(json).map_err(|error| {
            wrong(format!(
                "line {number} of {shown} is a record that this version does not know, from column {} on: a newer \
                 version of docvector-embed wrote it, use that one",
                DIGITS + 1 + error.column()
            ))
        })?;
        records.push(record);
        end = End { bytes: end.bytes + line.len() as u64, checksum };
    }
}

/// Says what is wrong with a first line, and what to do.
fn fault_of_header(line: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Header<'a> {
        format: &'a str,
        version: u64,
    }
    if line.is_empty() {
        return format!("is empty: {AFTER_DAMAGE}");
    }
    match serde_json::from_slice(line) {
        Ok(Header { format: FORMAT, version }) if version != VERSION => format!(
            "is of version {version}, but only version {VERSION} is known here: use the version of docvector-embed that \
             wrote it"
        ),
        _ => format!("is damaged in line 1, or no journal of a batch job: {AFTER_DAMAGE}"),
    }
}
