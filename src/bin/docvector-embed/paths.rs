//! Answers questions about paths: standard input or output, the same file, the format by the extension.

use std::{io, path::Path};

/// Returns whether a path stands for standard input or output.
pub(crate) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns whether a file has JSON lines, by its name.
pub(crate) fn is_json_lines(path: &Path) -> bool {
    has_extension(path, &["jsonl", "ndjson"])
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
