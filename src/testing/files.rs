//! Keeps the files of a simulated account: [`StoredFile`].

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempPath;

use super::{
    clock::Clock,
    input_file::InputFile,
    results::{Results, ResultsReader},
};

/// The bytes that are read from a disk at once.
const PIECE: usize = 64 << 10;

/// A file of the account.
#[derive(Debug)]
pub(super) struct StoredFile {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) purpose: &'static str,
    pub(super) bytes: u64,
    pub(super) created: Duration,
    pub(super) expires: Option<Duration>,
    pub(super) content: Content,
}

/// The bytes of a file.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// On the disk, until the last of those that use it is dropped.
    Uploaded(Arc<TempPath>, Arc<InputFile>),
    /// Written as it is read.
    Results(Arc<Results>),
}

impl StoredFile {
    pub(super) fn to_json(&self, clock: &Clock) -> Value {
        json!({
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": clock.unix(self.created),
            "expires_at": self.expires.map(|expires| clock.unix(expires)),
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": null,
        })
    }
}

impl Content {
    pub(super) fn reader(&self) -> io::Result<ContentReader> {
        Ok(match self {
            Self::Uploaded(path, _) => ContentReader::Disk(File::open(&**path)?),
            Self::Results(results) => ContentReader::Results(ResultsReader::new(results.clone())),
        })
    }
}

/// Reads a file once, from its beginning.
pub(super) enum ContentReader {
    Disk(File),
    Results(ResultsReader),
}

impl ContentReader {
    /// Returns the next bytes; `None` at the end.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Disk(file) => {
                let mut piece = vec![0; PIECE];
                let read = file.read(&mut piece)?;
                piece.truncate(read);
                Ok((read > 0).then_some(piece))
            }
            Self::Results(results) => Ok(results.next_piece()),
        }
    }
}
