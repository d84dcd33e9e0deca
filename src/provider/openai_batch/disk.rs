//! Makes files and folders that only this user may read, syncs names, and says what failed with a path: [`failed`].

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    path::Path,
};

use crate::{Error, ErrorKind};

/// Returns options for a file that is written. If they make it, only this user may read it: it may hold texts.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a folder that only this user may look into.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    private_folder().create(path)
}

/// Makes a folder, and those above it that are missing, for this user alone. A folder that is there stays as it is.
pub(super) fn make_folders(path: &Path) -> io::Result<()> {
    private_folder().recursive(true).create(path)
}

fn private_folder() -> DirBuilder {
    #[cfg_attr(not(unix), allow(unused_mut, reason = "other systems have no mode"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Makes the names in a folder last: of files that were made, renamed or removed there.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    // Elsewhere, a folder cannot be opened, and there is no call for this.
    if !cfg!(unix) {
        return Ok(());
    }
    match fs::File::open(path)?.sync_all() {
        // Some network drives have no such call for folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Returns an error that says what failed and what to do: "PATH cannot be `what`". The kind is
/// [`Config`](ErrorKind::Config), which nobody tries again by himself: space on a disk and rights come from people.
pub(super) fn failed(path: &Path, what: &str, error: io::Error) -> Error {
    let path = path.display();
    let message = match error.kind() {
        io::ErrorKind::StorageFull => format!("{path} cannot be {what}: its disk is full, free some space"),
        io::ErrorKind::QuotaExceeded => {
            format!("{path} cannot be {what}: the disk quota is used up, free some space or have it raised")
        }
        io::ErrorKind::FileTooLarge => {
            format!("{path} cannot be {what}: it reached the limit on the size of files, raise that (`ulimit -f`)")
        }
        io::ErrorKind::NotFound => {
            format!("{path} cannot be {what}: it is missing, so bring it back or name another folder")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{path} cannot be {what}: give this user the right to read and write it and its folder")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("{path} cannot be {what}: its disk is mounted for reading alone, name a folder on another one")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            format!("{path} cannot be {what}: something else is there, so move that away or name another folder")
        }
        _ => format!("{path} cannot be {what}: check its disk"),
    };
    Error::new(ErrorKind::Config, message).with_source(error)
}
