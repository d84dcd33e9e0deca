//! Keeps which texts each line of an input file holds: [`IndexWriter`], [`ShardIndex`].
//!
//! An index is a file of this form. All numbers are little-endian.
//!
//! | bytes | meaning |
//! |---|---|
//! | 8 | `dvlines` and a zero |
//! | 4 | version, 1 |
//! | 4 | number of lines |
//! | any | the lines, in the order of the input file |
//! | 8 | xxh3-64 of all bytes before |
//!
//! A line, whose number is its place:
//!
//! | bytes | meaning |
//! |---|---|
//! | 8 | the hash in its `custom_id` |
//! | 4 | number of texts |
//! | 41 per text | the texts, in the order of the line |
//!
//! A text:
//!
//! | bytes | meaning |
//! |---|---|
//! | 8 | its index in the job |
//! | 32 | the key of its vector |
//! | 1 | 1 if it was truncated, else 0 |

use std::{
    fmt,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_64;

use super::{job_file, line_id::LineId};
use crate::{Error, ErrorKind, Result, cache::Key};

const MAGIC: [u8; 8] = *b"dvlines\0";
const VERSION: u32 = 1;
/// The place of the number of lines.
const LINES_AT: usize = 12;
const HEADER_BYTES: usize = 16;
const TEXT_BYTES: usize = 41;

/// A text of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexedText {
    /// Its index among the texts of the job.
    pub(super) index: u64,
    /// The key of its vector in a store.
    pub(super) key: Key,
    pub(super) truncated: bool,
}

/// A line and its texts, in the order of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexedLine {
    pub(super) id: LineId,
    pub(super) texts: Vec<IndexedText>,
}

/// An index that is being written. It is in memory until [`finish`](Self::finish): 41 bytes per text.
pub(super) struct IndexWriter {
    path: PathBuf,
    file: File,
    bytes: Vec<u8>,
    lines: u32,
}

impl IndexWriter {
    /// Creates the file, in place of one that an earlier run left unfinished.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = job_file::create(path)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        Ok(Self { path: path.to_owned(), file, bytes, lines: 0 })
    }

    /// Adds the next line.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it is not the next line.
    pub(super) fn push(&mut self, id: LineId, texts: &[IndexedText]) -> Result<()> {
        if id.number != self.lines {
            let message = format!("line {} of a shard comes in place of line {}", id.number, self.lines);
            return Err(Error::new(ErrorKind::Config, message));
        }
        self.lines += 1;
        self.bytes.extend_from_slice(&id.hash.to_le_bytes());
        self.bytes.extend_from_slice(&(texts.len() as u32).to_le_bytes());
        for text in texts {
            self.bytes.extend_from_slice(&text.index.to_le_bytes());
            self.bytes.extend_from_slice(text.key.as_bytes());
            self.bytes.push(u8::from(text.truncated));
        }
        Ok(())
    }

    /// Writes the file and syncs it.
    pub(super) fn finish(mut self) -> Result<()> {
        self.bytes[LINES_AT..HEADER_BYTES].copy_from_slice(&self.lines.to_le_bytes());
        self.bytes.extend_from_slice(&xxh3_64(&self.bytes).to_le_bytes());
        let written = self.file.write_all(&self.bytes).and_then(|()| self.file.sync_all());
        written.map_err(|error| job_file::unwritten(&self.path, error))
    }
}

/// The lines of an input file, and what each of them holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShardIndex {
    /// The lines by their number.
    pub(super) lines: Vec<IndexedLine>,
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it cannot be read, or is not what was written: damaged, cut, of another version.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        job_file::open(path)?.read_to_end(&mut bytes).map_err(|error| job_file::unread(path, error))?;
        let damaged = |what: &dyn fmt::Display| job_file::damaged(path, what);
        let mut rest = &bytes[..];
        if take(&mut rest) != Some(MAGIC) {
            return Err(damaged(&"it does not begin as the index of a shard"));
        }
        // Before the checksum: another version may have another one.
        let version = take(&mut rest).map(u32::from_le_bytes);
        if let Some(version) = version.filter(|&version| version != VERSION) {
            let message = format!(
                "{} has version {version}, this release reads version {VERSION}: resume the job with the release that \
                 began it",
                path.display()
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        let (content, sum) = bytes.split_last_chunk().ok_or_else(|| damaged(&"it is cut"))?;
        if xxh3_64(content) != u64::from_le_bytes(*sum) {
            return Err(damaged(&"its checksum is wrong"));
        }
        let lines = content.get(LINES_AT..).and_then(lines).ok_or_else(|| damaged(&"its lines are not whole"))?;
        Ok(Self { lines })
    }

    /// Returns the number of the line that has this name.
    pub(super) fn line_of(&self, custom_id: &str) -> Option<u32> {
        let id = LineId::parse(custom_id)?;
        let line = self.lines.get(usize::try_from(id.number).ok()?)?;
        (line.id == id).then_some(id.number)
    }

    /// Returns the texts of all lines, in their order.
    pub(super) fn texts(&self) -> impl Iterator<Item = &IndexedText> {
        self.lines.iter().flat_map(|line| &line.texts)
    }
}

/// Reads the number of lines, and the lines.
fn lines(mut bytes: &[u8]) -> Option<Vec<IndexedLine>> {
    let count = u32::from_le_bytes(take(&mut bytes)?);
    let mut lines = Vec::new();
    for number in 0..count {
        let hash = u64::from_le_bytes(take(&mut bytes)?);
        let texts = usize::try_from(u32::from_le_bytes(take(&mut bytes)?)).ok()?;
        let (of_line, rest) = bytes.split_at_checked(texts.checked_mul(TEXT_BYTES)?)?;
        bytes = rest;
        let texts = of_line.chunks_exact(TEXT_BYTES).map(text).collect::<Option<_>>()?;
        lines.push(IndexedLine { id: LineId { number, hash }, texts });
    }
    bytes.is_empty().then_some(lines)
}

fn text(mut bytes: &[u8]) -> Option<IndexedText> {
    let index = u64::from_le_bytes(take(&mut bytes)?);
    let key = Key::from_bytes(take(&mut bytes)?);
    let truncated = match bytes {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    Some(IndexedText { index, key, truncated })
}

/// Takes the next bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = IndexedText> {
        let parts = (any::<u64>(), any::<[u8; 32]>(), any::<bool>());
        parts.prop_map(|(index, key, truncated)| IndexedText { index, key: Key::from_bytes(key), truncated })
    }

    fn index() -> impl Strategy<Value = ShardIndex> {
        let line = (any::<u64>(), prop::collection::vec(text(), 0..4));
        prop::collection::vec(line, 0..6).prop_map(|lines| {
            let lines = lines.into_iter().zip(0..);
            let line = |((hash, texts), number)| IndexedLine { id: LineId { number, hash }, texts };
            ShardIndex { lines: lines.map(line).collect() }
        })
    }

    fn write(path: &Path, index: &ShardIndex) {
        let mut writer = IndexWriter::create(path).expect("created");
        for line in &index.lines {
            writer.push(line.id, &line.texts).expect("the next line");
        }
        writer.finish().expect("synced");
    }

    proptest! {
        #[test]
        fn an_index_is_read_back(index in index()) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("index");
            write(&path, &index);
            prop_assert_eq!(&ShardIndex::read(&path).expect("read"), &index);
            for line in &index.lines {
                prop_assert_eq!(index.line_of(&line.id.to_string()), Some(line.id.number));
                let other = LineId { hash: line.id.hash ^ 1, ..line.id };
                prop_assert_eq!(index.line_of(&other.to_string()), None);
            }
            let beyond = LineId { number: index.lines.len() as u32, hash: 0 };
            prop_assert_eq!(index.line_of(&beyond.to_string()), None);
        }

        #[test]
        fn a_damaged_index_is_an_error(
            index in index(), at: prop::sample::Index, by in 1_u8.., more in prop::collection::vec(any::<u8>(), 1..9),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("shard-00001.index");
            write(&path, &index);
            let sound = fs::read(&path).expect("there");
            let at = at.index(sound.len());
            let mut changed = sound.clone();
            changed[at] ^= by;
            for bytes in [changed, sound[..at].to_vec(), [sound.clone(), more].concat()] {
                fs::write(&path, bytes).expect("written");
                let error = ShardIndex::read(&path).expect_err("damaged");
                prop_assert_eq!(error.kind(), ErrorKind::Config);
                prop_assert!(error.to_string().contains("shard-00001.index"), "{}", error);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            _ = lines(&bytes);
            // Few lines, so that the reading comes to their texts.
            if let Some(count) = bytes.first_chunk_mut() {
                *count = 2_u32.to_le_bytes();
            }
            _ = lines(&bytes);
        }
    }

    /// A change here makes jobs that are under way unreadable.
    #[test]
    fn the_format_stays_what_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index");
        let text = IndexedText { index: 258, key: Key::from_bytes([7; 32]), truncated: true };
        let id = LineId { number: 0, hash: 0x0123_4567_89ab_cdef };
        write(&path, &ShardIndex { lines: vec![IndexedLine { id, texts: vec![text] }] });
        let hex: String = fs::read(&path).expect("there").iter().map(|byte| format!("{byte:02x}")).collect();
        let header = "64766c696e6573000100000001000000";
        let line = "efcdab8967452301010000000201000000000000";
        assert_eq!(hex, format!("{header}{line}{}01c457fd8f35fba09d", "07".repeat(32)));
    }

    #[test]
    fn another_version_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index");
        write(&path, &ShardIndex { lines: Vec::new() });
        let mut bytes = fs::read(&path).expect("there");
        bytes[8] = 2;
        fs::write(&path, bytes).expect("written");
        let error = ShardIndex::read(&path).expect_err("of another version").to_string();
        assert!(error.contains("has version 2, this release reads version 1: resume the job with"), "{error}");
    }

    #[test]
    fn lines_are_added_in_their_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = IndexWriter::create(&folder.path().join("index")).expect("created");
        assert!(writer.push(LineId { number: 1, hash: 0 }, &[]).is_err());
        assert!(writer.push(LineId { number: 0, hash: 0 }, &[]).is_ok());
    }
}
