//! Says what failed with a file and what to do about it.

use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::{Error, ErrorKind};

/// What to do about a damaged file.
pub(super) const AFTER_DAMAGE: &str = "move it away and begin a new one; what it had is embedded again";

/// Says what failed and what to do.
pub(super) fn file_error(path: &Path, error: rusqlite::Error) -> Error {
    let file = path.display();
    let extended = error.sqlite_error().map(|error| error.extended_code);
    let message = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            format!("the disk of {file} is full: make room; the entries stored before are intact")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            format!("{file} was locked by another process for too long: find it, or allow more time for locks")
        }
        Some(ErrorCode::DatabaseCorrupt) => format!("{file} is damaged: {AFTER_DAMAGE}"),
        Some(ErrorCode::SystemIoFailure) if extended == Some(ffi::SQLITE_IOERR_CORRUPTFS) => {
            format!("{file} is damaged, and so may be its file system: {AFTER_DAMAGE}")
        }
        Some(ErrorCode::NotADatabase) => {
            format!("{file} is damaged or not an SQLite file: name another file, or move this one away")
        }
        Some(ErrorCode::SystemIoFailure) => {
            // What the system said is not to be had from here.
            let writes = [
                ffi::SQLITE_IOERR_WRITE,
                ffi::SQLITE_IOERR_FSYNC,
                ffi::SQLITE_IOERR_TRUNCATE,
                ffi::SQLITE_IOERR_SHMSIZE,
            ];
            if extended.is_some_and(|code| writes.contains(&code)) {
                format!(
                    "{file} could not be written: its disk, a quota or a limit on the size of files may be used up, or \
                     the disk may fail; the entries stored before are intact"
                )
            } else {
                format!("{file} could not be read or written: look at its disk")
            }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            format!(
                "{file} may not be written to: give this user the right to, for its folder, too, and for its -wal and \
                 -shm where another user has left them there"
            )
        }
        Some(ErrorCode::CannotOpen) => {
            format!("{file} cannot be opened: see whether this user may read and write it and its folder")
        }
        Some(ErrorCode::OutOfMemory) => format!("there was no memory to use {file}"),
        // A value of another type than the schema allows.
        None if matches!(error, rusqlite::Error::FromSqlConversionFailure(..)) => {
            format!("{file} is damaged: {AFTER_DAMAGE}")
        }
        _ => format!("SQLite failed with {file}: if this stays so, {AFTER_DAMAGE}"),
    };
    Error::new(ErrorKind::Cache, message).with_source(error)
}
