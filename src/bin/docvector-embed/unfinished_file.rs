//! Writes a file that gets its name only when it is complete.

use std::{
    fs::{self, File, Metadata, Permissions, TryLockError as LockError},
    io::{self, Seek, SeekFrom, Write},
    mem,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    thread,
    time::{Duration, Instant},
};

use tempfile::NamedTempFile;

use crate::link::folder_of;

/// The most characters of the final name that the temporary name repeats, so that it is not too long.
const NAME_CHARS: usize = 40;
/// The random characters of a temporary name.
const RANDOM_CHARS: usize = 6;
const SUFFIX: &str = ".partial";

/// The time without a change after which a file that nobody has locked is stale. Some network file systems show locks to
/// their own machine alone, so a file that another machine still writes must not look stale.
const STALE: Duration = Duration::from_secs(60);

/// The longest wait for the list of temporary files at the end: a disk may hang.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The temporary files of this process, for a signal that ends it.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A temporary file in the folder of the final one. Dropping it removes it.
pub(crate) struct UnfinishedFile {
    /// Locked as long as it is open, so that others see that it is in use.
    file: NamedTempFile,
    target: PathBuf,
}

impl UnfinishedFile {
    /// Creates the temporary file for `target`, which is no link. Removes those of earlier runs that were killed.
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        if target.as_os_str().as_encoded_bytes().ends_with(b"/") || target.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it names a folder: name a file in it"));
        }
        let folder = folder_of(target);
        if !folder.is_dir() {
            let message = format!("the folder {} does not exist", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        let prefix = prefix(target);
        remove_stale(folder, &prefix);
        // Held meanwhile, so that a signal does not miss the file.
        let mut unfinished = unfinished();
        let file = temporary(folder, &prefix).map_err(|error| {
            // Without the temporary name, which says nothing to anybody.
            io::Error::new(
                error.kind(),
                format!("no file can be made in the folder {}: {}", folder.display(), error.kind()),
            )
        })?;
        unfinished.push(file.path().to_owned());
        Ok(Self { file, target: target.to_owned() })
    }

    pub(crate) fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.file.as_file().set_permissions(permissions)
    }

    /// Overwrites the first bytes of the file.
    pub(crate) fn overwrite_start(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_file_mut();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(bytes)
    }

    /// Writes all bytes to the disk, and returns how many there are.
    pub(crate) fn sync(&self) -> io::Result<u64> {
        self.file.as_file().sync_all()?;
        Ok(self.file.as_file().metadata()?.len())
    }

    /// Gives the file its final name.
    pub(crate) fn rename(self) -> io::Result<()> {
        let temporary = self.file.path().to_owned();
        let renamed = self.file.persist(&self.target).map(drop).map_err(|error| error.error);
        unfinished().retain(|path| *path != temporary);
        renamed
    }

    /// Writes all bytes to the disk, then gives the file its final name.
    pub(crate) fn persist(self) -> io::Result<()> {
        self.sync()?;
        self.rename()
    }
}

/// Past the name of the temporary file, which its own errors would tell.
impl Write for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

/// Removes all temporary files of this process, which ends.
pub(crate) fn remove_all() {
    let end = Instant::now() + LAST_WAIT;
    let mut unfinished = loop {
        match UNFINISHED.try_lock() {
            Ok(unfinished) => break unfinished,
            Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::WouldBlock) => return,
        }
    };
    for path in unfinished.drain(..) {
        let _ = fs::remove_file(path);
    }
    // Never unlocked, so that no other thread makes a file after this.
    mem::forget(unfinished);
}

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the metadata of the file at a path, if one exists.
pub(crate) fn existing(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(about) => Ok(Some(about)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the beginning of the temporary names for a file.
fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let beginning: String = name.chars().take(NAME_CHARS).collect();
    if beginning.len() == name.len() {
        return format!(".{name}.");
    }
    // Long names that begin alike, such as those of parts, are told apart by their hash.
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!(".{beginning}.{}.", &hash[..8])
}

/// Creates a file with an unused name in the folder of the final one, and locks it.
fn temporary(folder: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).rand_bytes(RANDOM_CHARS).suffix(SUFFIX);
    #[cfg(unix)]
    {
        // The usual permissions of a new file, before the umask. The default of `tempfile` is for secrets.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(Permissions::from_mode(0o666));
    }
    loop {
        let file = builder.tempfile_in(folder)?;
        match file.as_file().try_lock() {
            // Before it was locked, another run may have taken it for a stale one.
            Ok(()) if !file.path().exists() => {}
            Err(LockError::WouldBlock) => {}
            // Some file systems have no locks. Nothing is taken for a stale file there.
            Ok(()) | Err(LockError::Error(_)) => return Ok(file),
        }
    }
}

/// Removes the temporary files for the same name that no process has locked: those of runs that were killed.
fn remove_stale(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| is_temporary(name, prefix));
        // Anything but a file may block.
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            remove_if_stale(&entry.path());
        }
    }
}

fn remove_if_stale(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let changed = file.metadata().and_then(|about| about.modified());
    let is_old = changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age >= STALE));
    if is_old && file.try_lock().is_ok() {
        // Still locked, so that nobody begins to use it.
        let _ = fs::remove_file(path);
    }
}

/// Returns whether a file has a temporary name of this kind.
fn is_temporary(name: &str, prefix: &str) -> bool {
    let random = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(SUFFIX));
    random.is_some_and(|random| random.len() == RANDOM_CHARS && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let others =
            [".out.npy.x.abcdef.partial", ".out.npy.abcdefg.partial", "out.npy.abcdef.partial", ".out.abcdef.partial"];
        others.iter().for_each(|name| fs::write(at(name), "").expect("written"));
        let leave = |name: &str, age: u64| {
            let file = File::create(at(name)).expect("created");
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).expect("dated");
        };
        leave(".out.npy.aB3def.partial", 3600);
        leave(".out.npy.aB3deg.partial", 1);
        let living = UnfinishedFile::create(&at("out.npy")).expect("created");
        assert!(!at(".out.npy.aB3def.partial").exists() && at(".out.npy.aB3deg.partial").exists());
        let second = UnfinishedFile::create(&at("out.npy")).expect("created");
        assert!(living.file.path().exists() && second.file.path().exists());
        assert!(others.iter().all(|name| at(name).exists()));
        drop(living);
        second.persist().expect("finished");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), others.len() + 2);
    }

    #[test]
    fn long_names_that_begin_alike_are_told_apart() {
        let name = |part: u32| format!("{}-{part}.npy", "x".repeat(60));
        let prefixes = [1, 2].map(|part| prefix(Path::new(&name(part))));
        assert_ne!(prefixes[0], prefixes[1]);
        assert_eq!(prefix(Path::new("folder/out.npy")), ".out.npy.");
    }

    #[test]
    fn a_name_of_a_folder_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["new/", "new/..", "missing/file"] {
            assert!(UnfinishedFile::create(&folder.path().join(name)).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }
}
