//! Answers questions about paths: standard input or output, the same file, the format by the extension.

#[cfg(unix)]
use std::fs::{File, Metadata};
use std::{io, path::Path};

/// Returns whether a path stands for standard input or output.
pub(crate) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns whether two paths lead to the same file, which need not exist yet.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    let resolved = |path: &Path| {
        path.canonicalize().or_else(|_| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize()?;
            Ok::<_, io::Error>(folder.join(path.file_name().unwrap_or_default()))
        })
    };
    // If the folder does not exist either, no file can be created there.
    resolved(one).is_ok_and(|one| resolved(other).is_ok_and(|other| one == other))
}

/// Returns whether an output is the file that is read, each perhaps by a standard stream. Devices such as a terminal may be
/// both.
pub(crate) fn is_same_input(input: &Path, output: &Path) -> bool {
    #[cfg(unix)]
    {
        let identity = |path: &Path, stream: Option<File>| match is_standard(path) {
            true => stream.and_then(|file| identity(&file.metadata().ok()?)),
            false => path.metadata().ok().and_then(|about| identity(&about)),
        };
        let output = identity(output, regular_file(io::stdout()));
        let input = identity(input, regular_file(io::stdin()));
        output.is_some() && output == input
    }
    #[cfg(not(unix))]
    {
        !is_standard(input) && !is_standard(output) && output.is_file() && is_same_file(input, output)
    }
}

/// Returns the device and the number of a regular file.
#[cfg(unix)]
fn identity(about: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    about.is_file().then(|| (about.dev(), about.ino()))
}

/// Returns a standard stream as a file, if it is a regular one. Both share the place in it.
#[cfg(unix)]
pub(crate) fn regular_file(stream: impl std::os::fd::AsFd) -> Option<File> {
    let file = File::from(stream.as_fd().try_clone_to_owned().ok()?);
    Some(file).filter(|file| file.metadata().is_ok_and(|about| about.is_file()))
}

/// Returns whether a file's name has one of these extensions, in upper or lower case.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|own| extensions.iter().any(|extension| own.eq_ignore_ascii_case(extension)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_dots_lead_to_the_same_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "").expect("written");
        assert!(is_same_file(&file, &folder.path().join("./file")) && !is_same_file(&file, &link));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&file, &link).expect("linked");
            assert!(is_same_file(&link, &file));
        }
        assert!(!is_same_file(&folder.path().join("missing/a"), &folder.path().join("missing/b")));
    }
}
