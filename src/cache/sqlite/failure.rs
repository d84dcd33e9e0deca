//! Turns errors of SQLite into errors that say what failed with the file, and what to do.

use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::{Error, ErrorKind};

/// The advice for a damaged file.
pub(super) const AFTER_DAMAGE: &str = "`docvector-embed cache salvage` saves its sound entries into a new file; or move it \
                                       away and begin a new one: its texts are embedded again";

/// Returns an error that says what failed and what to do.
pub(super) fn file_error(path: &Path, error: rusqlite::Error) -> Error {
    let file = path.display();
    let extended = error.sqlite_error().map(|error| error.extended_code);
    let message = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            format!("the disk of {file} is full: free some space; the entries stored before are intact")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            format!(
                "{file} was locked by another process for too long: find that process, or set a longer \
                 `with_busy_timeout`"
            )
        }
        Some(ErrorCode::DatabaseCorrupt) => format!("{file} is damaged: {AFTER_DAMAGE}"),
        Some(ErrorCode::SystemIoFailure) if extended == Some(ffi::SQLITE_IOERR_CORRUPTFS) => {
            format!("{file} is damaged, and so may be its file system: {AFTER_DAMAGE}")
        }
        Some(ErrorCode::NotADatabase) => {
            format!(
                "{file} is damaged or not an SQLite file: name another file; of a damaged one, `docvector-embed cache salvage` saves what is sound"
            )
        }
        Some(ErrorCode::SystemIoFailure) => {
            // The error of the system itself is not available here.
            let writes = [
                ffi::SQLITE_IOERR_WRITE,
                ffi::SQLITE_IOERR_FSYNC,
                ffi::SQLITE_IOERR_TRUNCATE,
                ffi::SQLITE_IOERR_SHMSIZE,
            ];
            if extended.is_some_and(|code| writes.contains(&code)) {
                format!(
                    "{file} could not be written: its disk may be full or failing, or a quota or a limit on file sizes \
                     may be reached; the entries stored before are intact"
                )
            } else {
                format!("{file} could not be read or written: check its disk")
            }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            format!(
                "{file} is not writable: give this user write permission for it, for its folder, and for its -wal and \
                 -shm files if another user left them there"
            )
        }
        Some(ErrorCode::CannotOpen) => {
            format!("{file} cannot be opened: check that this user may read and write it and its folder")
        }
        Some(ErrorCode::OutOfMemory) => format!("there was not enough memory to use {file}"),
        // A value of another type than the schema allows.
        None if matches!(error, rusqlite::Error::FromSqlConversionFailure(..)) => {
            format!("{file} is damaged: {AFTER_DAMAGE}")
        }
        _ => format!("SQLite failed with {file}: if this stays so, {AFTER_DAMAGE}"),
    };
    Error::new(ErrorKind::Cache, message).with_source(error)
}
