//! Files for the readers that take paths: written anew for each input, in one folder per process.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

/// The folder of this process.
pub fn folder(target: &str) -> PathBuf {
    env::temp_dir().join(format!("docvector-embed-{target}-{}", process::id()))
}

/// Writes a file and the folders that it lies in.
pub fn write(path: &Path, bytes: &[u8]) {
    let written = fs::write(path, bytes).or_else(|_| {
        fs::create_dir_all(path.parent().expect("a path in a folder")).and_then(|()| fs::write(path, bytes))
    });
    written.expect("a writable temporary folder");
}
