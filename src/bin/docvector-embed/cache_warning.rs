//! Wraps the cache of `embed`, and warns at its first failure.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use docvector_embed::{
    SpaceId,
    cache::{CacheStore, Entry, Key, Sink, Sqlite},
};

use crate::failure::Failure;

/// The cache file as `embed` uses it. It warns at the first failure, because the run goes on without the cache.
#[derive(Debug)]
pub(crate) struct CacheWithWarning {
    file: Sqlite,
    has_failed: AtomicBool,
}

impl CacheWithWarning {
    /// Opens the file, or creates it. Warns if nothing can be stored in it.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let file = Sqlite::open(path)?;
        if file.is_read_only() {
            let name = path.display();
            let _ = writeln!(io::stderr().lock(), "warning: {name} cannot be written: new vectors are not stored");
        }
        Ok(Self { file, has_failed: AtomicBool::new(false) })
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.file.is_read_only()
    }

    fn warn_once(&self, result: docvector_embed::Result<()>) -> docvector_embed::Result<()> {
        if let Err(error) = &result
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            // A failed warning does not change the exit status.
            let _ = writeln!(
                io::stderr().lock(),
                "warning: the cache fails, and the run goes on; new vectors may not be stored: {error}"
            );
        }
        result
    }
}

impl fmt::Display for CacheWithWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.file, f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheStore for CacheWithWarning {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> docvector_embed::Result<()> {
        self.warn_once(self.file.get(keys, sink).await)
    }

    async fn put(&self, entries: &[Entry<'_>]) -> docvector_embed::Result<()> {
        self.warn_once(self.file.put(entries).await)
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> docvector_embed::Result<()> {
        self.warn_once(self.file.discard(damaged).await)
    }

    async fn note(&self, space: SpaceId, about: &str) -> docvector_embed::Result<()> {
        self.warn_once(self.file.note(space, about).await)
    }

    async fn flush(&self) -> docvector_embed::Result<()> {
        self.warn_once(self.file.flush().await)
    }
}
