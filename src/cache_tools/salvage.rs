//! Finds the entries of an SQLite file page by page, without its indexes: [`SqlitePages`].

mod pages;
mod rows;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;

use self::{
    pages::Pages,
    rows::{Row, rows_of},
};
use super::EntrySource;
use crate::{Result, SpaceId, cache::ScanSink, planner::yield_once, stored_vectors::EntryInfo};

/// The bytes of entries that one part hands over.
const PART_BYTES: usize = 8 << 20;

/// The pages that are read before other tasks have their turn: a signal is one.
const PAGES_PER_TURN: u32 = 256;

/// The sizes of pages that SQLite has, and that of new files.
const PAGE_SIZES: [usize; 8] = [512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
const DEFAULT_PAGE_BYTES: usize = 16 << 10;

/// About how many pages are looked at to find their size.
const SAMPLED_PAGES: u32 = 500;

/// The entries of an SQLite file that is damaged: a source for a [`Transfer`](super::Transfer).
///
/// ```no_run
/// use docvector_embed::{cache::Sqlite, cache_tools::{SqlitePages, StoreTarget, Transfer}};
/// # async fn salvage() -> docvector_embed::Result<()> {
/// let mut pages = SqlitePages::open("damaged.sqlite")?;
/// let new = Sqlite::open("saved.sqlite")?;
/// let saved = Transfer::new().run(&mut pages, &mut StoreTarget::new(&new)).await?;
/// println!("{} entries were saved, {} were damaged", saved.copied, saved.damaged);
/// # Ok(()) }
/// ```
///
/// # Semantics
/// The file is only read. Each page that looks like one of rows is read by SQLite's file format (<https://sqlite.org/fileformat2.html>),
/// and what is in the `-wal` beside the file goes before what is in the file. No index and no list of pages is trusted, so
/// it does not matter which of them are damaged. A row that looks like an entry is handed over; its checksum tells whether
/// it is one. Pages that are not used any more may still hold entries that were removed: they are handed over as well.
///
/// Close the programs that use the file first: what they write meanwhile may be missed.
///
/// # Errors
/// [`Cache`](crate::ErrorKind::Cache) if the file cannot be read, or is too small to have a page.
#[derive(Debug)]
pub struct SqlitePages {
    pages: Pages,
    /// The number of the next page, from 1.
    next: u32,
    notes: BTreeMap<SpaceId, String>,
    /// Whether all pages were looked at for notes.
    has_all_notes: bool,
}

impl SqlitePages {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// As described under [errors](Self#errors).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path: PathBuf = path.as_ref().to_owned();
        let open = |page_bytes| Pages::open(path.clone(), page_bytes);
        let new = |pages| Self { pages, next: 1, notes: BTreeMap::new(), has_all_notes: false };
        let first = open(DEFAULT_PAGE_BYTES)?;
        if first.says_size() {
            return Ok(new(first));
        }
        // The size with which most entries are sound.
        let mut best = (0, first);
        for page_bytes in PAGE_SIZES {
            let mut tried = new(open(page_bytes)?);
            let sound = tried.sound_in_sample()?;
            if sound > best.0 {
                best = (sound, tried.pages);
            }
        }
        Ok(new(best.1))
    }

    /// Counts the sound entries on some pages from all of the file.
    fn sound_in_sample(&mut self) -> Result<usize> {
        let count = self.pages.count();
        let step = (count / SAMPLED_PAGES).max(1);
        let mut sound = 0;
        for number in (1..=count).step_by(step as usize) {
            self.read(number, &mut |key, value| sound += usize::from(EntryInfo::inspect(&key, value).is_some()))?;
        }
        self.notes.clear();
        Ok(sound)
    }

    /// Begins again with the first page.
    pub const fn rewind(&mut self) {
        self.next = 1;
    }

    /// Returns the number of pages that were read, and of all.
    pub const fn progress(&self) -> (u32, u32) {
        (self.next - 1, self.pages.count())
    }

    /// Returns the lines about spaces in the pages that were read so far.
    pub fn found_notes(&self) -> Vec<(SpaceId, String)> {
        self.notes.iter().map(|(space, about)| (*space, about.clone())).collect()
    }

    /// Reads a page; returns the bytes of the entries on it.
    fn read(&mut self, number: u32, sink: &mut ScanSink<'_>) -> Result<usize> {
        let Some(page) = self.pages.page(number)? else { return Ok(0) };
        let mut bytes = 0;
        let notes = &mut self.notes;
        rows_of(&page, number, &mut self.pages, &mut |row| match row {
            // Also a damaged one, so that it is counted.
            Row::Entry(key, value) => {
                bytes += value.len();
                sink(key, &value);
            }
            Row::Note(space, about) => _ = notes.entry(space).or_insert(about),
        })?;
        Ok(bytes)
    }
}

#[async_trait]
impl EntrySource for SqlitePages {
    async fn next(&mut self, sink: &mut ScanSink<'_>) -> Result<bool> {
        let mut bytes = 0;
        while self.next <= self.pages.count() && bytes < PART_BYTES {
            bytes += self.read(self.next, sink)?;
            self.next += 1;
            if self.next.is_multiple_of(PAGES_PER_TURN) {
                yield_once().await;
            }
        }
        Ok(self.next <= self.pages.count())
    }

    /// Looks for lines about spaces in all pages, once.
    async fn notes(&mut self) -> Result<Vec<(SpaceId, String)>> {
        let last = if self.has_all_notes { 0 } else { self.pages.count() };
        for number in 1..=last {
            self.read(number, &mut |_, _| {})?;
            if number.is_multiple_of(PAGES_PER_TURN) {
                yield_once().await;
            }
        }
        self.has_all_notes = true;
        Ok(self.found_notes())
    }
}
