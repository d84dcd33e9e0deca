//! Locks files against all others who lock them, in this process and in others: [`LockedFile`].

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use super::disk::{failed, private_file};
use crate::{Error, ErrorKind, Result};

/// An open file that is locked as long as this lives. The end of the process ends the lock, too.
#[derive(Debug)]
pub(super) struct LockedFile(File);

impl LockedFile {
    /// Locks a file that was opened for writing; returns `None` if somebody else has locked it.
    pub(super) fn try_new(file: File, path: &Path) -> Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(not_locked(path, error)),
        }
    }

    /// Locks the file at a path, which is made if it is missing. This blocks the thread until all others have unlocked
    /// it.
    pub(super) fn wait(path: &Path) -> Result<Self> {
        let opened = private_file().create(true).truncate(false).open(path);
        let file = opened.map_err(|error| failed(path, "opened", error))?;
        loop {
            match file.lock() {
                Ok(()) => return Ok(Self(file)),
                // A signal came.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(not_locked(path, error)),
            }
        }
    }

    /// Returns whether the file still has this path. Another process may have removed it before it was locked.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (own, there) = (self.0.metadata()?, fs::metadata(path)?);
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
        }
        // Elsewhere, an open file keeps its path.
        #[cfg(not(unix))]
        Ok(own.is_file() && there.is_file())
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // Closing is not enough: a process that this one starts at this moment has the file open, too, until its program
        // runs, and the lock with it. If this fails, the end of all of them unlocks it.
        let _ = self.0.unlock();
    }
}

fn not_locked(path: &Path, error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::Unsupported {
        return failed(path, "locked", error);
    }
    let message = format!(
        "{} cannot be locked, because its disk has no locks: name a folder on another disk, so that no two processes \
         can pay for the same texts",
        path.display()
    );
    Error::new(ErrorKind::Config, message).with_source(error)
}
