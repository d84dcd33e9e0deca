//! A store of somebody else's making.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use docvector_embed::{
    Error, ErrorKind, Result, SpaceId, async_trait,
    cache::{CacheStore, Entry, Key, Sink},
};
use tokio::{sync::RwLock, task};

/// Keys or entries at a time: as many values are copied.
const PART: usize = 64;

/// Keeps each entry in a file named by its key. Several processes may share the folder, on a file system with hard links
/// and locks.
#[derive(Clone, Debug)]
pub struct Folder {
    root: Arc<Path>,
    /// Taken for reading by writes, which go on where nobody waits for them any more, and for writing by who waits for
    /// all of them.
    writes: Arc<RwLock<()>>,
}

/// An entry that may go to another thread.
type Owned = (Key, Vec<u8>);

impl Folder {
    /// Opens the store in this folder, or makes it.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root: PathBuf = root.into();
        let folder = Self { root: root.into(), writes: Arc::default() };
        let made = ["entries", "new", "spaces"].iter().try_for_each(|name| fs::create_dir_all(folder.root.join(name)));
        made.and_then(|()| sync(&folder.root)).map_err(|error| folder.failed(error))?;
        Ok(folder)
    }

    fn failed(&self, error: io::Error) -> Error {
        let message = format!("the store in {} could not be used: {error}", self.root.display());
        Error::new(ErrorKind::Cache, message).with_source(error)
    }

    /// Does on another thread what waits for a disk.
    async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    {
        let root = self.root.clone();
        let done = task::spawn_blocking(move || work(&root)).await;
        done.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(|error| self.failed(error))
    }

    /// The same for what changes something.
    async fn write<F>(&self, work: F) -> Result<()>
    where
        F: FnOnce(&Path) -> io::Result<()> + Send + 'static,
    {
        let held = self.writes.clone().read_owned().await;
        let work = move |root: &Path| {
            let _held = held;
            work(root)
        };
        self.run(work).await
    }
}

impl std::fmt::Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("folder")
    }
}

#[async_trait]
impl CacheStore for Folder {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        for (part, keys) in keys.chunks(PART).enumerate() {
            let keys = keys.to_vec();
            let read = move |root: &Path| keys.iter().map(|key| value(root, key)).collect::<io::Result<Vec<_>>>();
            for (place, value) in self.run(read).await?.iter().enumerate() {
                if let Some(value) = value {
                    sink(part * PART + place, value);
                }
            }
        }
        Ok(())
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        for part in entries.chunks(PART) {
            let part = owned(part);
            self.write(move |root| store(root, &part)).await?;
        }
        Ok(())
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        for part in damaged.chunks(PART) {
            let part = owned(part);
            self.write(move |root| remove(root, &part)).await?;
        }
        Ok(())
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        let about = about.to_owned();
        self.write(move |root| {
            let new = write_new(root, about.as_bytes())?;
            fs::rename(new, root.join("spaces").join(space.to_string()))?;
            sync(&root.join("spaces"))
        })
        .await
    }

    async fn flush(&self) -> Result<()> {
        drop(self.writes.write().await);
        Ok(())
    }
}

fn owned(entries: &[Entry<'_>]) -> Vec<Owned> {
    entries.iter().map(|entry| (entry.key, entry.value.to_vec())).collect()
}

fn place(root: &Path, key: &Key) -> PathBuf {
    root.join("entries").join(key.to_string())
}

fn value(root: &Path, key: &Key) -> io::Result<Option<Vec<u8>>> {
    match fs::read(place(root, key)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn store(root: &Path, entries: &[Owned]) -> io::Result<()> {
    for (key, value) in entries {
        let place = place(root, key);
        if place.try_exists()? {
            continue;
        }
        let new = write_new(root, value)?;
        // An entry has its name once it is whole, and who gives the name first stays.
        let linked = match fs::hard_link(&new, &place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        };
        fs::remove_file(new).and(linked)?;
    }
    // Also for those that others have put: their names may not be on the disk yet.
    sync(&root.join("entries"))
}

fn remove(root: &Path, damaged: &[Owned]) -> io::Result<()> {
    // Entries are removed under this lock only, so what is removed is what was compared. It is given back on closing.
    let lock = File::create(root.join("lock"))?;
    lock.lock()?;
    for (key, damaged) in damaged {
        if value(root, key)?.is_some_and(|value| value == *damaged) {
            fs::remove_file(place(root, key))?;
        }
    }
    sync(&root.join("entries"))
}

/// Writes a file under a name that nobody else has.
fn write_new(root: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let name = format!("{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = root.join("new").join(name);
        let mut file = match File::create_new(&path) {
            Ok(file) => file,
            // Of a process that was killed. It may be linked to an entry: writing to it would damage that.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_all()) {
            // The first error is the one to be told.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        return Ok(path);
    }
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
