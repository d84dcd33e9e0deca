//! Notes how far an export came, so that it can go on after a kill: [`Progress`].

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use crate::{Error, ErrorKind, Result, beside::beside, cache::ScanPlace};

const TITLE: &str = "docvector-embed export 1";

/// The state of an export that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The name of the source, without a password.
    pub(super) source: String,
    /// The bytes of the file that are sound, and the place behind what is in them.
    pub(super) bytes: u64,
    pub(super) place: ScanPlace,
}

impl Progress {
    /// Reads the note; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let shown = path.display();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Error::new(ErrorKind::Cache, format!("{shown} cannot be read")).with_source(error));
            }
        };
        let damaged = || {
            let message = format!("{shown} is damaged: remove it and the file that ends in .partial, to begin again");
            Error::new(ErrorKind::Cache, message)
        };
        let mut lines = text.lines();
        let mut value = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).map(str::to_owned);
        let read = (|| {
            value(TITLE).filter(String::is_empty)?;
            Some(Self {
                source: value("source ")?,
                bytes: value("bytes ")?.parse().ok()?,
                place: value("place ")?.parse().ok()?,
            })
        })();
        read.map(Some).ok_or_else(damaged)
    }

    /// Writes the note in the place of the one before, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let new = beside(path, ".new");
        let mut file = fs::File::create(&new)?;
        write!(file, "{TITLE}\nsource {}\nbytes {}\nplace {}\n", self.source, self.bytes, self.place)?;
        // Otherwise a loss of power could leave an empty note.
        file.sync_all()?;
        fs::rename(new, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.arrow.progress");
        assert_eq!(Progress::read(&path).expect("nothing"), None);
        let place = ScanPlace::from_bytes(b"\x01\xff");
        let progress = Progress { source: "sqlite: a b".into(), bytes: 77, place };
        progress.write(&path).expect("written");
        assert_eq!(Progress::read(&path).expect("a note"), Some(progress));
        for wrong in ["", "docvector-embed export 2\n", "docvector-embed export 1\nsource x\nbytes y\nplace 00\n"] {
            fs::write(&path, wrong).expect("written");
            assert!(Progress::read(&path).is_err(), "{wrong}");
        }
    }
}
