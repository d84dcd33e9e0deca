//! Wraps the cache of `embed`, and warns at its first failure.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use docvector_embed::{
    SpaceId,
    cache::{CacheSpec, CacheStore, Entry, Guarded, Key, Sink, Sqlite},
};

use crate::{command_words::in_command_words, failure::Failure, log::with_warnings, runtime::runtime};

/// How long a call of a server may take, and how long a server that fails is not asked.
const SERVER_TIME: Duration = Duration::from_secs(15);
const SERVER_PAUSE: Duration = Duration::from_secs(30);

/// The cache as `embed` uses it. It warns at the first failure, because the run goes on without the cache.
#[derive(Debug)]
pub(crate) struct CacheWithWarning {
    store: Arc<dyn CacheStore>,
    is_read_only: bool,
    has_failed: AtomicBool,
}

impl CacheWithWarning {
    /// Opens the store; a file is created if it is missing. Warns if nothing can be stored in it.
    pub(crate) fn open(spec: &CacheSpec) -> Result<Self, Failure> {
        let (store, is_read_only): (Arc<dyn CacheStore>, bool) = match spec {
            CacheSpec::Sqlite(path) => {
                let file = Sqlite::open(path)?;
                let is_read_only = file.is_read_only();
                if is_read_only {
                    let name = path.display();
                    let _ =
                        writeln!(io::stderr().lock(), "warning: {name} cannot be written: new vectors are not stored");
                }
                (Arc::new(file), is_read_only)
            }
            // Shows errors before the work begins. The connections end with this runtime; the store makes new ones.
            server => {
                // Shows errors before the work begins, and the warnings of a server that loses entries or takes none. The
                // connections end with this runtime; the store makes new ones.
                let runtime = runtime()?;
                let store = with_warnings(|| runtime.block_on(server.open()))?;
                let is_read_only = store.is_read_only();
                // A server that hangs costs some calls, and not each of them.
                let guarded = Guarded::new(store).with_read_limit(SERVER_TIME).with_write_limit(SERVER_TIME);
                (Arc::new(guarded.with_failures(2).with_pause(SERVER_PAUSE)), is_read_only)
            }
        };
        Ok(Self { store, is_read_only, has_failed: AtomicBool::new(false) })
    }

    pub(crate) const fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn warn_once(&self, result: docvector_embed::Result<()>) -> docvector_embed::Result<()> {
        if let Err(error) = &result
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            // A failed warning does not change the exit status.
            let _ = writeln!(
                io::stderr().lock(),
                "warning: the cache fails, and the run goes on; new vectors may not be stored: {}",
                in_command_words(&error.to_string())
            );
        }
        result
    }
}

impl fmt::Display for CacheWithWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.store, f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheStore for CacheWithWarning {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> docvector_embed::Result<()> {
        self.warn_once(self.store.get(keys, sink).await)
    }

    async fn put(&self, entries: &[Entry<'_>]) -> docvector_embed::Result<()> {
        self.warn_once(self.store.put(entries).await)
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> docvector_embed::Result<()> {
        self.warn_once(self.store.discard(damaged).await)
    }

    async fn note(&self, space: SpaceId, about: &str) -> docvector_embed::Result<()> {
        self.warn_once(self.store.note(space, about).await)
    }

    async fn flush(&self) -> docvector_embed::Result<()> {
        self.warn_once(self.store.flush().await)
    }
}
