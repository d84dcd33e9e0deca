//! Keeps the rows of a job on disk, each at its place: [`RowsFile`].
//!
//! Row `i` of a width `w` is at byte `i * 4 * w`: its components as 32-bit floats, little-endian. There is nothing else
//! in the file. The places of rows that were not written are holes, which take no room on most disks.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::job_file;
use crate::{Error, ErrorKind, Result};

/// The bytes of consecutive rows that are written at once.
const BUFFER: usize = 1 << 20;

/// The rows of a job. A row that was never written reads as zeros, which no row of a model is.
///
/// Dropping it does not write the rows that were put since the last [`sync`](Self::sync). If a put or a sync fails,
/// all of these count as not kept: put them again.
pub(super) struct RowsFile {
    path: PathBuf,
    file: File,
    width: usize,
    /// The place of the first row that is not written yet.
    pending_at: u64,
    /// The rows from there on that are not written yet. They follow each other.
    pending: Vec<u8>,
}

impl RowsFile {
    /// Opens the file for rows of so many components, and creates it if it is not there.
    pub(super) fn open_or_create(path: &Path, width: usize) -> Result<Self> {
        let file = job_file::open_or_create(path)?;
        Ok(Self { path: path.to_owned(), file, width, pending_at: 0, pending: Vec::new() })
    }

    /// Opens the file, which is there.
    pub(super) fn open(path: &Path, width: usize) -> Result<Self> {
        let file = job_file::open_to_write(path)?;
        Ok(Self { path: path.to_owned(), file, width, pending_at: 0, pending: Vec::new() })
    }

    /// Puts a row at its place. Consecutive rows are written together.
    pub(super) fn put(&mut self, index: u64, row: &[f32]) -> Result<()> {
        if row.len() != self.width {
            let message =
                format!("a row has {} components, the rows of {} have {}", row.len(), self.path.display(), self.width);
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        let at = self.place_of(index)?;
        if self.pending_at.checked_add(self.pending.len() as u64) != Some(at) || self.pending.len() >= BUFFER {
            self.write_pending()?;
            self.pending_at = at;
        }
        if cfg!(target_endian = "little") {
            self.pending.extend_from_slice(bytemuck::cast_slice(row));
        } else {
            self.pending.extend(row.iter().flat_map(|number| number.to_le_bytes()));
        }
        Ok(())
    }

    /// Writes all rows to the disk itself.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.write_pending()?;
        self.file.sync_data().map_err(|error| job_file::unwritten(&self.path, error))
    }

    /// Reads a row. Returns `false`, with zeros in `row`, if there is none.
    #[cfg(test)]
    fn read(&self, index: u64, row: &mut [f32]) -> Result<bool> {
        self.read_range(index, row)?;
        Ok(Self::is_there(row))
    }

    /// Reads the rows from `first` on, as many as `rows` holds.
    pub(super) fn read_range(&self, first: u64, rows: &mut [f32]) -> Result<()> {
        let at = self.place_of(first)?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(rows);
        self.read_at(at, bytes).map_err(|error| job_file::unread(&self.path, error))?;
        // Some of them may not be in the file yet.
        let (end, pending_end) = (at + bytes.len() as u64, self.pending_at + self.pending.len() as u64);
        let (from, to) = (at.max(self.pending_at), end.min(pending_end));
        if from < to {
            let part = |start: u64| (from - start) as usize..(to - start) as usize;
            bytes[part(at)].copy_from_slice(&self.pending[part(self.pending_at)]);
        }
        if cfg!(target_endian = "big") {
            rows.iter_mut().for_each(|number| *number = f32::from_bits(number.to_bits().swap_bytes()));
        }
        Ok(())
    }

    /// Returns whether a row that was read is one that was written.
    pub(super) fn is_there(row: &[f32]) -> bool {
        row.iter().any(|number| number.to_bits() != 0)
    }

    fn place_of(&self, index: u64) -> Result<u64> {
        let bytes = (self.width as u64).checked_mul(4);
        let place = bytes.and_then(|bytes| bytes.checked_mul(index)).filter(|place| i64::try_from(*place).is_ok());
        place.ok_or_else(|| job_file::unwritten(&self.path, io::ErrorKind::FileTooLarge.into()))
    }

    fn write_pending(&mut self) -> Result<()> {
        let (mut at, mut rest) = (self.pending_at, &self.pending[..]);
        while !rest.is_empty() {
            let written = match write_at(&self.file, rest, at) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                written => written,
            };
            let written = written.map_err(|error| job_file::unwritten(&self.path, error))?;
            (at, rest) = (at + written as u64, &rest[written..]);
        }
        self.pending.clear();
        Ok(())
    }

    /// Fills `bytes` with those of the file from `at` on, and with zeros behind its end.
    fn read_at(&self, mut at: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match read_at(&self.file, bytes, at) {
                Ok(0) => {
                    bytes.fill(0);
                    return Ok(());
                }
                Ok(read) => (at, bytes) = (at + read as u64, &mut bytes[read..]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, at)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    // Windows has an error for a place behind the end.
    if at >= file.metadata()?.len() {
        return Ok(0);
    }
    std::os::windows::fs::FileExt::seek_read(file, bytes, at)
}

#[cfg(windows)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, at)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use proptest::prelude::*;

    use super::*;

    const WIDTH: usize = 3;

    fn row(number: u64, version: u16) -> [f32; WIDTH] {
        [number as f32 + 1.0, f32::from(version), -0.0]
    }

    /// A use of a file.
    #[derive(Clone, Debug)]
    enum Step {
        /// Rows from a place on, as many.
        Put(u64, u64),
        Sync,
        Reopen,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0_u64..40, 1_u64..6).prop_map(|(first, rows)| Step::Put(first, rows)),
            1 => Just(Step::Sync),
            1 => Just(Step::Reopen),
        ];
        prop::collection::vec(step, 0..30)
    }

    proptest! {
        #[test]
        fn each_row_is_at_its_place(steps in steps(), first in 0_u64..50, rows in 0_usize..50) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("rows.f32");
            let mut file = RowsFile::open_or_create(&path, WIDTH).expect("opened");
            let mut expected = BTreeMap::new();
            for (step, version) in steps.iter().zip(1..) {
                match *step {
                    Step::Put(first, rows) => (first..first + rows).for_each(|at| {
                        file.put(at, &row(at, version)).expect("put");
                        expected.insert(at, row(at, version));
                    }),
                    Step::Sync => file.sync().expect("synced"),
                    Step::Reopen => {
                        file.sync().expect("synced");
                        file = RowsFile::open_or_create(&path, WIDTH).expect("opened");
                    }
                }
            }
            let bits = |row: &[f32]| row.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
            for synced in [false, true] {
                let mut read = vec![7.0; rows * WIDTH];
                file.read_range(first, &mut read).expect("read");
                for (at, read) in (first..).zip(read.chunks(WIDTH)) {
                    let mut alone = [7.0; WIDTH];
                    prop_assert_eq!(file.read(at, &mut alone).expect("read"), expected.contains_key(&at));
                    prop_assert_eq!(RowsFile::is_there(read), expected.contains_key(&at));
                    let expected = expected.get(&at).copied().unwrap_or_default();
                    prop_assert_eq!((bits(read), bits(&alone)), (bits(&expected), bits(&expected)), "{}", synced);
                }
                file.sync().expect("synced");
            }
            let content = fs::read(&path).expect("there");
            for (at, row) in expected {
                let start = at as usize * WIDTH * 4;
                let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
                prop_assert_eq!(&content[start..start + WIDTH * 4], &bytes[..]);
            }
        }
    }

    #[test]
    fn rows_are_written_in_large_pieces() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.f32");
        let width = 1536;
        let mut file = RowsFile::open_or_create(&path, width).expect("opened");
        let row = vec![0.5; width];
        let length = || fs::metadata(&path).expect("there").len();
        let pieces: Vec<u64> = (0..400)
            .map(|index| {
                file.put(index, &row).expect("put");
                length()
            })
            .collect();
        // A megabyte is full after 171 rows.
        assert!(pieces.iter().enumerate().all(|(index, &bytes)| bytes == (index / 171 * 171 * width * 4) as u64));
        file.sync().expect("synced");
        assert_eq!(length(), 400 * 4 * width as u64);
        assert!(file.pending.capacity() < 3 * BUFFER);
    }

    #[test]
    fn a_row_far_away_takes_its_own_room_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.f32");
        let mut file = RowsFile::open_or_create(&path, WIDTH).expect("opened");
        file.put(100_000_000, &row(1, 1)).expect("put");
        file.sync().expect("synced");
        let mut read = [7.0; WIDTH];
        assert!(file.read(100_000_000, &mut read).expect("read"));
        assert!(!file.read(99_999_999, &mut read).expect("read"));
        assert!(!file.read(100_000_001, &mut read).expect("read"));
        #[cfg(target_os = "linux")]
        assert!(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).expect("there")) < 1000);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = RowsFile::open_or_create(&folder.path().join("rows.f32"), WIDTH).expect("opened");
        let error = file.put(0, &[1.0; WIDTH + 1]).expect_err("too wide");
        assert!(error.to_string().contains("a row has 4 components, the rows of "), "{error}");
        for index in [u64::MAX, u64::MAX / 12, i64::MAX as u64 / 12 + 1] {
            assert_eq!(file.put(index, &row(1, 1)).expect_err("too far").kind(), ErrorKind::Config);
            assert_eq!(file.read(index, &mut [0.0; WIDTH]).expect_err("too far").kind(), ErrorKind::Config);
        }
        file.sync().expect("synced");
        let missing = folder.path().join("no folder/rows.f32");
        let error = RowsFile::open_or_create(&missing, WIDTH).err().expect("no folder").to_string();
        assert!(error.contains("it is missing"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_again_and_again() {
        let mut file = RowsFile::open_or_create(Path::new("/dev/full"), WIDTH).expect("opened");
        file.put(0, &row(0, 1)).expect("held");
        for _ in 0..2 {
            let error = file.sync().expect_err("full");
            assert!(error.to_string().contains("/dev/full cannot be written: its disk is full"), "{error}");
            assert!(file.put(9, &row(9, 1)).is_err());
        }
    }
}
