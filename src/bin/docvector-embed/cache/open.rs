//! Opens stores for the commands of `cache`.

use std::{fs, io, path::Path, sync::Arc};

use docvector_embed::cache::{CacheScan, CacheSpec, Sqlite};

use crate::{failure::Failure, log::log_warnings, wording::place_of};

/// Opens a store that exists. Looking at a cache never creates a file.
pub(super) async fn existing(spec: &CacheSpec) -> Result<Arc<dyn CacheScan>, Failure> {
    match spec {
        CacheSpec::Memory(_) => {
            Err(Failure::new("a cache in memory is empty when a command begins: name a file or a server"))
        }
        CacheSpec::Sqlite(path) => Ok(Arc::new(file(path)?)),
        server => connected(server).await,
    }
}

/// Opens a store that is written to: a file is created if it is missing.
pub(super) async fn for_writing(spec: &CacheSpec) -> Result<Arc<dyn CacheScan>, Failure> {
    match spec {
        CacheSpec::Memory(_) => {
            Err(Failure::new("a cache in memory is gone when the command ends: name a file or a server"))
        }
        CacheSpec::Sqlite(path) => writable(spec, Arc::new(Sqlite::open(path)?)),
        server => writable(spec, connected(server).await?),
    }
}

/// Connects to a server, whose warnings are shown.
async fn connected(server: &CacheSpec) -> Result<Arc<dyn CacheScan>, Failure> {
    log_warnings();
    Ok(server.open().await?)
}

/// Refuses a store that can only be read.
pub(super) fn writable(spec: &CacheSpec, store: Arc<dyn CacheScan>) -> Result<Arc<dyn CacheScan>, Failure> {
    if !store.is_read_only() {
        return Ok(store);
    }
    let what = match spec {
        CacheSpec::Sqlite(_) => "give this user write permission for the file and its folder",
        _ => "GRANT SELECT, INSERT, DELETE on its table and on the two beside it (_spaces, _meta) to this user",
    };
    Err(Failure::new(format!("{} cannot be written by this user: {what}", place_of(spec))))
}

/// Opens a file that exists.
pub(super) fn file(path: &Path) -> Result<Sqlite, Failure> {
    let name = path.display();
    match fs::metadata(path) {
        // SQLite also takes a file of one byte for an empty one.
        Ok(about) if about.is_file() && about.len() <= 1 => {
            Err(Failure::new(format!("{name} is empty: there is no cache in it")))
        }
        Ok(_) => Ok(Sqlite::open(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(format!("{name} does not exist: `docvector-embed embed --cache {name}` creates it")))
        }
        Err(error) => Err(Failure::with_cause(format!("{name} cannot be read"), error)),
    }
}
