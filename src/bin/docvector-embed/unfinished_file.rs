//! Makes the file that gets its final name when it is complete.

use std::{fs, io, path::Path};

use tempfile::NamedTempFile;

/// The most characters of the final name in that of the temporary file: the two together must be a valid name.
const NAME_CHARS: usize = 40;

/// Makes a file of an unused name beside the final one.
pub(crate) fn temporary(folder: &Path, target: &Path) -> io::Result<NamedTempFile> {
    let name: String = target.file_name().unwrap_or_default().to_string_lossy().chars().take(NAME_CHARS).collect();
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".partial");
    #[cfg(unix)]
    {
        // The permissions of any new file, from which the system takes the umask; not those of a secret.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}
