//! Reads the rows of a page that look like ours: [`rows_of`].
//!
//! The format is that of <https://sqlite.org/fileformat2.html>: a leaf of a table has the type 13, a list of the places of its
//! rows, and rows whose ends may lie on a chain of other pages.

use super::pages::Pages;
use crate::{Result, SpaceId, cache::Key, stored_vectors::EntryInfo};

/// The type of a page with rows of a table.
const TABLE_LEAF: u8 = 13;
/// The bytes of a page's header.
const HEADER_BYTES: usize = 8;
/// The bytes of the file's header, which is on the first page.
const FILE_HEADER_BYTES: usize = 100;
/// The largest row that is read: no vector is half as large.
const MAX_ROW_BYTES: usize = 512 << 20;

/// The types of columns, as SQLite writes them: a blob of n bytes is 12 + 2n, a text of n bytes 13 + 2n.
const NULL: u64 = 0;
const BLOB_32: u64 = 12 + 2 * 32;
const BLOB_16: u64 = 12 + 2 * 16;

/// A row that looks like one of ours.
pub(super) enum Row {
    Entry(Key, Vec<u8>),
    Note(SpaceId, String),
}

/// Hands over the rows of a page, one by one. A page that is not one of rows has none.
pub(super) fn rows_of(page: &[u8], number: u32, pages: &mut Pages, row_found: &mut dyn FnMut(Row)) -> Result<()> {
    let start = if number == 1 { FILE_HEADER_BYTES } else { 0 };
    let (Some(&TABLE_LEAF), Some(count)) = (page.get(start), word(page, start + 3)) else { return Ok(()) };
    // A row takes more than its place in the list and two bytes. Damaged places may name one row many times.
    let mut places: Vec<u16> = (0..usize::from(count).min(pages.usable() / 4))
        .map_while(|place| word(page, start + HEADER_BYTES + 2 * place))
        .collect();
    places.sort_unstable();
    places.dedup();
    for at in places {
        if let Some(cell) = Cell::read(page, usize::from(at), pages)
            && let Some(payload) = cell.payload(page, pages)?
            && let Some(row) = row(&payload)
        {
            row_found(row);
        }
    }
    Ok(())
}

/// A row on a page.
struct Cell {
    /// The place of its payload, the bytes of it on this page, and its bytes in all.
    begin: usize,
    local: usize,
    length: usize,
}

impl Cell {
    fn read(page: &[u8], at: usize, pages: &Pages) -> Option<Self> {
        let (length, after) = varint(page, at)?;
        let (_, begin) = varint(page, after)?;
        let length = usize::try_from(length.min(pages.length() + 1)).ok();
        let length = length.filter(|length| *length <= MAX_ROW_BYTES && *length as u64 <= pages.length())?;
        Some(Self { begin, local: local_bytes(length, pages.usable()), length })
    }

    /// Returns all of the payload; `None` if it does not look like one of ours, or its chain is broken.
    fn payload(&self, page: &[u8], pages: &mut Pages) -> Result<Option<Vec<u8>>> {
        let Some(local) = page.get(self.begin..self.begin + self.local) else { return Ok(None) };
        // Before a chain is followed, which might be of any length.
        if !types(local).is_some_and(|types| types.is_plausible(local, self.length)) {
            return Ok(None);
        }
        let mut payload = local.to_vec();
        let mut next = dword(page, self.begin + self.local);
        while payload.len() < self.length {
            let Some(more) = next.map(|next| pages.page(next)).transpose()?.flatten() else { return Ok(None) };
            let bytes = (pages.usable() - 4).min(self.length - payload.len());
            payload.extend_from_slice(&more[4..4 + bytes]);
            next = dword(&more, 0);
        }
        Ok(Some(payload))
    }
}

/// Returns how many bytes of a payload are on the page of its row.
const fn local_bytes(length: usize, usable: usize) -> usize {
    let most = usable - 35;
    if length <= most {
        return length;
    }
    let least = (usable - 12) * 32 / 255 - 23;
    let fits = least + (length - least) % (usable - 4);
    if fits <= most { fits } else { least }
}

/// The types of the columns of a row of ours, and where the first column begins.
enum Types {
    Entry { value: usize, begin: usize },
    Note { about: usize, begin: usize },
}

impl Types {
    /// Whether the columns are as long as the payload, and an entry as long as its own header says.
    fn is_plausible(&self, local: &[u8], length: usize) -> bool {
        match *self {
            Self::Entry { value, begin } => {
                let head = local.get(begin + 32..).unwrap_or_default();
                begin + 32 + value == length && EntryInfo::says_length(head, value)
            }
            // The last column, the time of a note, is short.
            Self::Note { about, begin } => (about..about + 64).contains(&length.saturating_sub(begin + 16)),
        }
    }
}

/// Reads the header of a row.
fn types(payload: &[u8]) -> Option<Types> {
    let (header, after) = varint(payload, 0)?;
    let begin = usize::try_from(header).ok()?;
    let (first, after) = varint(payload, after)?;
    let (second, after) = varint(payload, after)?;
    let (third, after) = varint(payload, after)?;
    if after != begin {
        return None;
    }
    let bytes = |of: u64, base: u64| usize::try_from(of.checked_sub(base)? / 2).ok();
    match (first, second, third) {
        (NULL, BLOB_32, value) if value % 2 == 0 => Some(Types::Entry { value: bytes(value, 12)?, begin }),
        (BLOB_16, about, noted) if about % 2 == 1 && (noted % 2 == 1 || noted == NULL) => {
            Some(Types::Note { about: bytes(about, 13)?, begin })
        }
        _ => None,
    }
}

/// Reads a whole payload.
fn row(payload: &[u8]) -> Option<Row> {
    match types(payload)? {
        Types::Entry { value, begin } => {
            let key = payload.get(begin..begin + 32)?;
            let value = payload.get(begin + 32..(begin + 32).checked_add(value)?)?;
            Some(Row::Entry(Key::from_bytes(key.try_into().ok()?), value.to_vec()))
        }
        Types::Note { about, begin } => {
            let id = payload.get(begin..begin + 16)?;
            let about = payload.get(begin + 16..(begin + 16).checked_add(about)?)?;
            Some(Row::Note(SpaceId::from_bytes(id.try_into().ok()?), String::from_utf8(about.to_vec()).ok()?))
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}

fn dword(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// Reads a number of 1 to 9 bytes; returns it and the place behind it.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number = 0;
    for place in 0..8 {
        let byte = *bytes.get(at + place)?;
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((number, at + place + 1));
        }
    }
    Some((number << 8 | u64::from(*bytes.get(at + 8)?), at + 9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read() {
        for (bytes, number, after) in [
            (&[5_u8][..], 5, 1),
            (&[0x81, 0x00], 128, 2),
            (&[0xff; 9], u64::MAX, 9),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 7], 7, 9),
        ] {
            assert_eq!(varint(bytes, 0), Some((number, after)));
            assert_eq!(varint(&bytes[..bytes.len() - 1], 0), None);
        }
    }

    #[test]
    fn a_row_stays_on_its_page_or_goes_on_elsewhere() {
        // The examples follow from the formula of the format for pages of 4,096 bytes.
        assert_eq!(local_bytes(4_061, 4_096), 4_061);
        assert_eq!(local_bytes(4_062, 4_096), 489);
        assert_eq!(local_bytes(489 + 4_092, 4_096), 489);
        assert_eq!(local_bytes(489 + 4_092 + 100, 4_096), 589);
    }
}
