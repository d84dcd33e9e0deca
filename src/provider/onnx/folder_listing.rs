//! Says what is in a folder, for an error about what is not.

use std::{collections::BTreeSet, fs, path::Path};

/// The most names that are shown.
const SHOWN: usize = 10;

/// Names the first entries of a folder and counts them, as in `it has 2 entries: a.json, onnx/`.
pub(super) fn listing(folder: &Path) -> String {
    let Ok(entries) = fs::read_dir(folder) else { return "its entries cannot be listed".to_owned() };
    let (mut names, mut count) = (BTreeSet::new(), 0_usize);
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        names.insert(if entry.path().is_dir() { format!("{name}/") } else { name });
        count += 1;
        // A folder may have millions of files.
        if names.len() > SHOWN {
            names.pop_last();
        }
    }
    let shown = names.into_iter().collect::<Vec<_>>().join(", ");
    match count {
        0 => "it is empty".to_owned(),
        1 => format!("it has one entry: {shown}"),
        _ if count > SHOWN => format!("it has {count} entries: {shown}, and {} more", count - SHOWN),
        _ => format!("it has {count} entries: {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_are_shown_and_all_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let listed = || listing(folder.path());
        assert_eq!(listed(), "it is empty");
        fs::create_dir(folder.path().join("onnx")).expect("a folder");
        assert_eq!(listed(), "it has one entry: onnx/");
        for at in 0..10 {
            fs::write(folder.path().join(format!("{at}.txt")), "").expect("written");
        }
        let first = (0..10).map(|at| format!("{at}.txt")).collect::<Vec<_>>().join(", ");
        assert_eq!(listed(), format!("it has 11 entries: {first}, and 1 more"));
        assert_eq!(listing(&folder.path().join("none")), "its entries cannot be listed");
    }
}
