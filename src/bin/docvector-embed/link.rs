//! Follows links to what an output is written to: [`follow`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The most links that are followed, as in Linux.
const MAX_LINKS: usize = 40;

/// The end of a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A path that is no link. There may be nothing yet.
    Path(PathBuf),
    /// A file that this process has open already, by its number: 1 for `/dev/stdout`. It belongs to who opened it, so it
    /// is written to where it is, and never replaced.
    Own(u32),
    /// A file that another process has open.
    Other(PathBuf),
}

/// Follows a path to its end. A link to nothing leads to the file that is to be made.
pub(crate) fn follow(path: &Path) -> io::Result<Destination> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        if let Some(number) = descriptor(&path) {
            return Ok(if is_own(&path) { Destination::Own(number) } else { Destination::Other(path) });
        }
        match fs::symlink_metadata(&path) {
            Ok(about) if about.is_symlink() => path = folder_of(&path).join(fs::read_link(&path)?),
            Ok(_) => return Ok(Destination::Path(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Destination::Path(path)),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("more than {MAX_LINKS} links lead from one to the next")))
}

/// Returns the folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the number of an open file that a path names, such as `/proc/self/fd/1` or `/dev/fd/1`.
fn descriptor(path: &Path) -> Option<u32> {
    let number = path.file_name()?.to_str()?.parse().ok()?;
    let folder = folder_of(path);
    let is_folder_of_descriptors = folder == Path::new("/dev/fd")
        || folder.canonicalize().is_ok_and(|folder| folder.starts_with("/proc") && folder.ends_with("fd"));
    is_folder_of_descriptors.then_some(number)
}

/// Returns whether such a path is one of this process.
fn is_own(path: &Path) -> bool {
    let own = Path::new("/proc/self/fd").canonicalize();
    // A system without /proc has the files of this process alone in /dev/fd.
    own.map_or(true, |own| folder_of(path).canonicalize().is_ok_and(|folder| folder == own))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_to_what_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        assert_eq!(follow(&at("new")).expect("followed"), Destination::Path(at("new")));
        symlink("new", at("one")).expect("linked");
        symlink(at("one"), at("two")).expect("linked");
        assert_eq!(follow(&at("two")).expect("followed"), Destination::Path(at("new")));
        symlink("loop", at("loop")).expect("linked");
        assert!(follow(&at("loop")).is_err_and(|error| error.to_string().contains("40 links")));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn open_files_are_told_apart() {
        for (path, number) in [("/dev/stdout", 1), ("/dev/fd/2", 2), ("/proc/self/fd/7", 7)] {
            assert_eq!(follow(Path::new(path)).expect("followed"), Destination::Own(number), "{path}");
        }
        let parent = format!("/proc/{}/fd/1", std::os::unix::process::parent_id());
        assert_eq!(follow(Path::new(&parent)).expect("followed"), Destination::Other(parent.into()));
        let folder = tempfile::tempdir().expect("a folder");
        symlink("/dev/stdout", folder.path().join("link")).expect("linked");
        assert_eq!(follow(&folder.path().join("link")).expect("followed"), Destination::Own(1));
        assert_eq!(follow(Path::new("/dev/null")).expect("followed"), Destination::Path("/dev/null".into()));
    }
}
