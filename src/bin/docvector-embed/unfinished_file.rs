//! Writes a file that gets its name only when it is complete.

use std::{
    fs::{self, Metadata, Permissions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// The most characters of the final name that the temporary name repeats, so that it is not too long.
const NAME_CHARS: usize = 40;

/// A temporary file in the folder of the final one. Dropping it removes it.
pub(crate) struct UnfinishedFile {
    file: NamedTempFile,
    target: PathBuf,
}

impl UnfinishedFile {
    /// Creates the temporary file for `path`, where a file may exist already.
    pub(crate) fn create(path: &Path, exists: bool) -> io::Result<Self> {
        // Replace the file that a link points to, not the link.
        let target = if exists { fs::canonicalize(path)? } else { path.to_owned() };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            let message = format!("the folder {} does not exist", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        let file = temporary(folder, &target)?;
        Ok(Self { file, target })
    }

    pub(crate) fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.file.as_file().set_permissions(permissions)
    }

    /// Overwrites the first bytes of the file.
    pub(crate) fn overwrite_start(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(bytes)
    }

    /// Writes all bytes to the disk, then gives the file its final name.
    pub(crate) fn persist(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.target).map(drop).map_err(|error| error.error)
    }
}

impl Write for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Returns the metadata of the file at a path, if one exists.
pub(crate) fn existing(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(about) => Ok(Some(about)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a file with an unused name in the folder of the final one.
fn temporary(folder: &Path, target: &Path) -> io::Result<NamedTempFile> {
    let name: String = target.file_name().unwrap_or_default().to_string_lossy().chars().take(NAME_CHARS).collect();
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".partial");
    #[cfg(unix)]
    {
        // The usual permissions of a new file, before the umask. The default of `tempfile` is for secrets.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}
