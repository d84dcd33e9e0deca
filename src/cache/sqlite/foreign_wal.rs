//! Finds a write-ahead log (WAL) that belongs to another file than the one that it lies beside: [`check`].
//!
//! SQLite replays whatever lies in `<file>-wal`. If a file is copied over an older one whose WAL was left behind, the
//! pages of the old file replace those of the new one, and entries are lost without an error. Nothing in SQLite's formats
//! ties a WAL to its file, so two facts about files of this store are used:
//! - The schema cookie, a number in the header of the file, begins at random in each new file. SQLite adds one for each
//!   change of the schema, `VACUUM` included. Every transaction of this store writes the first page, so its WAL holds the
//!   cookie, too.
//! - A file does not shrink without `VACUUM`, so the last transaction of its WAL leaves at least as many pages as the file
//!   has. This finds the WAL of an older copy of the same file, and that of a file from before cookies were random.

use std::{
    fs::{self, File},
    io::{self, BufReader, ErrorKind, Read},
    path::Path,
};

use super::{
    beside::{beside, has_content, wal_of},
    immutable::open_immutable,
    schema::{MAX_SCHEMA_CHANGES, Refusal},
};

/// The place of the schema cookie in the first page.
const COOKIE_AT: usize = 40;

const WAL_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The first four bytes of a WAL, whose checksums are of little-endian numbers; one more if they are of big-endian ones.
const WAL_MAGIC: u32 = 0x377f_0682;

/// How often a WAL is read again that starts over while it is read.
const MAX_ATTEMPTS: usize = 10;

/// What a file or the last transaction of a WAL says.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    pages: u32,
    /// `None` if no transaction of the WAL wrote the first page.
    cookie: Option<u32>,
}

/// Refuses a file beside which a WAL of another file lies. Reads both, before SQLite replays the WAL, and changes nothing.
pub(super) fn check(path: &Path) -> Result<(), Refusal> {
    // SQLite follows links, so the WAL lies beside the file itself. A file that cannot be read is SQLite's to refuse.
    let Ok(path) = fs::canonicalize(path) else { return Ok(()) };
    let wal = wal_of(&path);
    if !has_content(&wal) {
        return Ok(());
    }
    // The file first: a process that has it open may write both meanwhile, and the WAL never falls behind.
    let Ok(Some(file)) = facts_of_file(&path) else { return Ok(()) };
    let Ok(Some(last)) = facts_of_wal(&wal) else { return Ok(()) };
    let changes = file.cookie.zip(last.cookie).map_or(0, |(file, last)| last.wrapping_sub(file));
    let belongs = match changes {
        0 => last.pages >= file.pages,
        changes => changes <= MAX_SCHEMA_CHANGES,
    };
    if belongs {
        return Ok(());
    }
    let (wal, shm) = (wal.display(), beside(&path, "-shm"));
    Err(Refusal::Because(format!(
        "lies beside a write-ahead log of another file, which would replace its entries: if it was copied here without \
         its own log, move {wal} and {} away and open it again; if not, copy it again together with its -wal, or while no \
         program has it open",
        shm.display()
    )))
}

/// Reads what the file says, without its WAL; `None` if it has no page.
fn facts_of_file(path: &Path) -> rusqlite::Result<Option<Facts>> {
    let connection = open_immutable(path)?;
    let pages: u32 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let cookie: u32 = connection.pragma_query_value(None, "schema_version", |row| row.get(0))?;
    Ok((pages > 0).then_some(Facts { pages, cookie: Some(cookie) }))
}

/// Reads the last transaction of a WAL; `None` if it has none that SQLite would replay.
fn facts_of_wal(path: &Path) -> io::Result<Option<Facts>> {
    for _ in 0..MAX_ATTEMPTS {
        let Some(before) = header_of_wal(path)? else { return Ok(None) };
        let facts = last_transaction(path, &before)?;
        // A process that has the file open may have started the WAL over meanwhile.
        if header_of_wal(path)? == Some(before) {
            return Ok(facts);
        }
    }
    Ok(None)
}

fn header_of_wal(path: &Path) -> io::Result<Option<[u8; WAL_HEADER_BYTES]>> {
    let mut header = [0; WAL_HEADER_BYTES];
    Ok(fill(&mut File::open(path)?, &mut header)?.then_some(header))
}

/// Reads the frames that belong to this header, up to the first one that is not whole, as SQLite does.
fn last_transaction(path: &Path, header: &[u8; WAL_HEADER_BYTES]) -> io::Result<Option<Facts>> {
    let magic = number_at(header, 0);
    let page_bytes = number_at(header, 8) as usize;
    if magic & !1 != WAL_MAGIC || !(512..=65_536).contains(&page_bytes) {
        return Ok(None);
    }
    let mut sum = Checksum { big_endian: magic & 1 == 1, sums: [0; 2] };
    sum.add(&header[..24]);
    if sum.sums != [number_at(header, 24), number_at(header, 28)] {
        return Ok(None);
    }
    let mut wal = BufReader::with_capacity(1 << 20, File::open(path)?);
    let (mut frame, mut page) = ([0; FRAME_HEADER_BYTES], vec![0; page_bytes]);
    if !fill(&mut wal, &mut [0; WAL_HEADER_BYTES])? {
        return Ok(None);
    }
    let (mut cookie, mut last) = (None, None);
    while fill(&mut wal, &mut frame)? && fill(&mut wal, &mut page)? {
        sum.add(&frame[..8]);
        sum.add(&page);
        let is_whole = frame[8..16] == header[16..24] && sum.sums == [number_at(&frame, 16), number_at(&frame, 20)];
        if !is_whole {
            break;
        }
        if number_at(&frame, 0) == 1 {
            cookie = Some(number_at(&page, COOKIE_AT));
        }
        // The last frame of a transaction says how many pages the file has after it.
        let pages = number_at(&frame, 4);
        if pages > 0 {
            last = Some(Facts { pages, cookie });
        }
    }
    Ok(last)
}

/// The running checksum of a WAL.
struct Checksum {
    big_endian: bool,
    sums: [u32; 2],
}

impl Checksum {
    /// Adds bytes, whose number is a multiple of eight.
    fn add(&mut self, bytes: &[u8]) {
        let [mut one, mut two] = self.sums;
        let (pairs, _) = bytes.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in pairs {
            let (first, second) = if self.big_endian {
                (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
            } else {
                (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
            };
            one = one.wrapping_add(first).wrapping_add(two);
            two = two.wrapping_add(second).wrapping_add(one);
        }
        self.sums = [one, two];
    }
}

/// Reads a big-endian number; 0 past the end.
fn number_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |number| u32::from_be_bytes(*number))
}

/// Fills a buffer; returns `false` if the file ends first.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
