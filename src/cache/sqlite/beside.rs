//! Names the files that SQLite keeps beside a file: [`wal_of`].

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(super) use crate::beside::beside;

/// Returns the path of the WAL of a file.
pub(super) fn wal_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// Returns `true` if there is such a file, and it is not empty.
pub(super) fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0)
}
