//! Reads the pages of an SQLite file, and those of the log beside it: [`Pages`].

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::{Error, ErrorKind, Result, beside::beside};

/// How a file of SQLite begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const WAL_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The pages of a file; a page of the log goes before the same one of the file.
#[derive(Debug)]
pub(super) struct Pages {
    path: PathBuf,
    file: File,
    log: Option<File>,
    /// The place in the log of the latest version of a page.
    logged: HashMap<u32, u64>,
    page_bytes: usize,
    /// The bytes of the file and its log.
    length: u64,
    /// Whether the file says the size of its pages.
    says_size: bool,
    /// The bytes at the end of each page that SQLite leaves alone.
    reserved: usize,
    count: u32,
}

impl Pages {
    /// Opens a file. `page_bytes` is used if the file itself does not say the size of its pages.
    pub(super) fn open(path: PathBuf, page_bytes: usize) -> Result<Self> {
        let unreadable = |error| unreadable(&path, error);
        let mut file = File::open(&path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut head = [0; 100];
        let has_head = fill(&mut file, 0, &mut head).map_err(unreadable)? && head.starts_with(MAGIC);
        let said = match u16::from_be_bytes([head[16], head[17]]) {
            1 => 65_536,
            said => usize::from(said),
        };
        let is_size = (512..=65_536).contains(&said) && said.is_power_of_two();
        let says_size = has_head && is_size;
        let page_bytes = if says_size { said } else { page_bytes };
        let reserved = if says_size { usize::from(head[20]) } else { 0 };
        let reserved = if reserved + 480 <= page_bytes { reserved } else { 0 };
        let mut log = File::open(beside(&path, "-wal")).ok();
        let logged =
            log.as_mut().map(|log| frames(log, page_bytes)).transpose().map_err(unreadable)?.unwrap_or_default();
        let in_file = u32::try_from(length.div_ceil(page_bytes as u64)).unwrap_or(u32::MAX - 1);
        // A log only adds pages one after another: a number beyond that is damaged.
        let most = in_file.saturating_add(u32::try_from(logged.len()).unwrap_or(u32::MAX)).min(u32::MAX - 1);
        let mut logged = logged;
        logged.retain(|number, _| *number <= most);
        let count = logged.keys().copied().max().unwrap_or(0).max(in_file);
        if count == 0 {
            let message = format!("{} is empty: there is nothing to save in it", path.display());
            return Err(Error::new(ErrorKind::Cache, message));
        }
        let length = length + log.as_ref().and_then(|log| log.metadata().ok()).map_or(0, |about| about.len());
        Ok(Self { path, file, log, logged, page_bytes, length, says_size, reserved, count })
    }

    /// Returns whether the file says the size of its pages.
    pub(super) const fn says_size(&self) -> bool {
        self.says_size
    }

    /// Returns the bytes of the file and its log. No row is longer.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Returns the number of the last page.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Returns the bytes of a page that SQLite uses.
    pub(super) const fn usable(&self) -> usize {
        self.page_bytes - self.reserved
    }

    /// Reads a page; `None` if there is none of this number. A page that the file holds only in part ends in zeros.
    pub(super) fn page(&mut self, number: u32) -> Result<Option<Vec<u8>>> {
        if number == 0 || number > self.count {
            return Ok(None);
        }
        let mut page = vec![0; self.page_bytes];
        let read = match (self.logged.get(&number), &mut self.log) {
            (Some(&at), Some(log)) => fill(log, at, &mut page),
            _ => fill(&mut self.file, u64::from(number - 1) * self.page_bytes as u64, &mut page),
        };
        match read {
            Ok(_) => Ok(Some(page)),
            // A sector that the disk cannot read is damage like any other.
            Err(error) if error.raw_os_error().is_some() => Ok(None),
            Err(error) => Err(unreadable(&self.path, error)),
        }
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Cache, format!("{} cannot be read", path.display())).with_source(error)
}

/// Fills the buffer from this place on, as far as the file goes; returns whether it went far enough.
fn fill(file: &mut File, at: u64, buffer: &mut [u8]) -> io::Result<bool> {
    file.seek(SeekFrom::Start(at))?;
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(false),
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Returns where a log has the latest version of each page, up to its last commit.
fn frames(log: &mut File, page_bytes: usize) -> io::Result<HashMap<u32, u64>> {
    let (mut found, mut committed) = (Vec::new(), 0);
    let mut header = [0; WAL_HEADER_BYTES];
    let word = |bytes: &[u8], at: usize| {
        let four: Option<&[u8; 4]> = bytes.get(at..).and_then(<[u8]>::first_chunk);
        four.map_or(0, |four| u32::from_be_bytes(*four))
    };
    if !fill(log, 0, &mut header)? || word(&header, 8) as usize != page_bytes {
        return Ok(HashMap::new());
    }
    let mut at = WAL_HEADER_BYTES as u64;
    let mut frame = [0; FRAME_HEADER_BYTES];
    // Frames of another turn of the log have other salts.
    while fill(log, at, &mut frame)? && frame[8..16] == header[16..24] {
        found.push((word(&frame, 0), at + FRAME_HEADER_BYTES as u64));
        if word(&frame, 4) > 0 {
            committed = found.len();
        }
        at += (FRAME_HEADER_BYTES + page_bytes) as u64;
    }
    found.truncate(committed);
    // Of the frames of a page, the last counts.
    Ok(found.into_iter().collect())
}
