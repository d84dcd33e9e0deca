//! Opens a file as one that does not change: [`open_immutable`].

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Opens a connection that reads the file alone: without its WAL, without locks, and without another file. If the file
/// changes meanwhile, what is read may be wrong.
///
/// Nothing else may open a file for reading: when a process closes a file by any descriptor, Unix drops all locks that
/// the process holds on it, those of SQLite's other connections too. SQLite knows that, and closes its own later.
pub(super) fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri(path), flags)
}

/// Returns the URI of a file that does not change.
fn uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    // `file:///C:/folder/file` on Windows.
    uri.push_str(if path.has_root() && cfg!(unix) { "" } else { "/" });
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri + "?immutable=1"
}
