//! Names files that lie beside another one: [`beside`].

use std::path::{Path, PathBuf};

/// Returns the path of a file beside another, whose name has this end more.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
