//! Opens the files of a job, and makes errors of what fails with them: [`create`], [`open`].

use std::{fmt, fs::File, io, path::Path};

use super::disk;
use crate::{Error, ErrorKind, Result};

/// Creates a file, or empties the one that a run left there.
pub(super) fn create(path: &Path) -> Result<File> {
    let opened = disk::private_file().read(true).truncate(true).create(true).open(path);
    opened.map_err(|error| unwritten(path, error))
}

/// Opens a file to read and write it, and creates it if it is not there.
pub(super) fn open_or_create(path: &Path) -> Result<File> {
    let opened = disk::private_file().read(true).truncate(false).create(true).open(path);
    opened.map_err(|error| unwritten(path, error))
}

/// Opens a file that is there to read and write it.
pub(super) fn open_to_write(path: &Path) -> Result<File> {
    disk::private_file().read(true).open(path).map_err(|error| unread(path, error))
}

/// Opens a file to read it.
pub(super) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| unread(path, error))
}

/// Returns the error of a file that could not be created, written or synced.
pub(super) fn unwritten(path: &Path, error: io::Error) -> Error {
    disk::failed(path, "written", error)
}

/// Returns the error of a file that could not be read.
pub(super) fn unread(path: &Path, error: io::Error) -> Error {
    disk::failed(path, "read", error)
}

/// Returns the error of a file that does not hold what was written into it. `what` is wrong with it.
pub(super) fn damaged(path: &Path, what: impl fmt::Display) -> Error {
    let file = path.display();
    Error::new(ErrorKind::Config, format!("{file} is damaged: {what}; put a sound copy of the job's folder there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_what_to_do() {
        let path = Path::new("jobs/1/rows.f32");
        let cases = [
            (unwritten(path, io::ErrorKind::StorageFull.into()), "cannot be written: its disk is full, free"),
            (unread(path, io::ErrorKind::PermissionDenied.into()), "cannot be read: give this user"),
            (damaged(path, "its checksum is wrong"), "is damaged: its checksum is wrong; put a sound copy"),
        ];
        for (error, words) in cases {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("jobs/1/rows.f32"), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_user_can_read_a_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let mode = |file: File| file.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(create(&folder.path().join("a")).expect("created")), 0o600);
        assert_eq!(mode(open_or_create(&folder.path().join("b")).expect("created")), 0o600);
    }
}
