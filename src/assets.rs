//! Finds the asset folder, which holds ONNX Runtime and models: [`asset_folder`]; and a model in it: [`find_model`].

use std::{
    env,
    path::{MAIN_SEPARATOR, Path, PathBuf},
};

use crate::{
    Error, ErrorKind, Result,
    user_folder::{Places, user_folder},
};

/// The variable that names the asset folder.
const VARIABLE: &str = "DOCVECTOR_EMBED_ASSETS";

/// The asset folder of a clone, for programs that run in the clone.
const IN_CLONE: &str = "assets";

/// The places for data that a program keeps until the user removes it.
const PLACES: Places =
    Places { xdg: "XDG_DATA_HOME", below_home: ".local/share", below_home_on_macos: "Library/Application Support" };

/// Returns the user's asset folder, whether or not it exists. `docvector-embed setup` fills it with ONNX Runtime and a
/// model. `provider::Onnx` finds the library there, and models by their names.
///
/// It is the folder that `DOCVECTOR_EMBED_ASSETS` names. If that is not set or empty, it is `docvector-embed` in the
/// user's data folder: `$XDG_DATA_HOME` or `~/.local/share` on Linux, `~/Library/Application Support` on macOS,
/// `%LOCALAPPDATA%` on Windows.
///
/// ```no_run
/// use docvector_embed::config::asset_folder;
/// # fn main() -> docvector_embed::Result<()> {
/// println!("models by name are looked for in {}", asset_folder()?.display());
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Config`](ErrorKind::Config) if the variable is not set and the user has no data folder.
pub fn asset_folder() -> Result<PathBuf> {
    named().or_else(of_user).ok_or_else(|| {
        let message = format!(
            "no asset folder: {VARIABLE} is not set, and the user has no home directory (on Windows: no LOCALAPPDATA); \
             set {VARIABLE} to a folder"
        );
        Error::new(ErrorKind::Config, message)
    })
}

/// Returns the asset folder that the environment names.
pub(crate) fn named() -> Option<PathBuf> {
    env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns the asset folder in the user's data folder, which nobody named.
pub(crate) fn of_user() -> Option<PathBuf> {
    user_folder(&PLACES, env::consts::OS, env::home_dir(), |name| env::var_os(name))
}

/// Finds the folder of a model by its path or its name. A name has no separator in it. If it is no folder here, it is
/// looked for in the asset folder: the named one, else that of a clone and that of the user.
///
/// The error lists the paths at which a name was looked for.
pub(crate) fn find_model(model: &Path) -> Result<PathBuf, Vec<PathBuf>> {
    if model.is_dir() || !is_bare_name(model) {
        return Ok(model.to_owned());
    }
    let folders = match named() {
        Some(folder) => vec![folder],
        None => [Some(PathBuf::from(IN_CLONE)), of_user()].into_iter().flatten().collect(),
    };
    let found = find_in(model, folders);
    // A file has this name. Loading says that it is no folder.
    if found.is_err() && model.exists() { Ok(model.to_owned()) } else { found }
}

fn find_in(name: &Path, folders: Vec<PathBuf>) -> Result<PathBuf, Vec<PathBuf>> {
    let mut looked_at = vec![Path::new(".").join(name)];
    for folder in folders {
        let path = folder.join(name);
        if path.is_dir() {
            return Ok(path);
        }
        looked_at.push(path);
    }
    Err(looked_at)
}

/// Returns whether a path is a name alone.
fn is_bare_name(path: &Path) -> bool {
    path.to_str().is_some_and(|path| !path.contains(['/', MAIN_SEPARATOR]) && !matches!(path, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs};

    use super::*;

    #[test]
    fn the_folder_is_where_the_system_keeps_data() {
        let home = || Some(PathBuf::from("/home/x"));
        let place = |os: &str, home: Option<PathBuf>, set: &[(&str, &str)]| {
            let variable = |name: &str| set.iter().find(|(of, _)| *of == name).map(|(_, value)| OsString::from(value));
            user_folder(&PLACES, os, home, variable).map(|path| path.to_string_lossy().replace('\\', "/"))
        };
        for (os, home, set, want) in [
            ("linux", home(), &[][..], Some("/home/x/.local/share/docvector-embed")),
            ("linux", home(), &[("XDG_DATA_HOME", "/d")], Some("/d/docvector-embed")),
            ("linux", None, &[("XDG_DATA_HOME", "/d")], Some("/d/docvector-embed")),
            ("linux", home(), &[("XDG_DATA_HOME", "")], Some("/home/x/.local/share/docvector-embed")),
            ("linux", home(), &[("XDG_DATA_HOME", "d")], Some("/home/x/.local/share/docvector-embed")),
            ("linux", None, &[], None),
            ("linux", Some(PathBuf::new()), &[], None),
            ("macos", home(), &[], Some("/home/x/Library/Application Support/docvector-embed")),
            ("windows", home(), &[("LOCALAPPDATA", "/d")], Some("/d/docvector-embed")),
            ("windows", home(), &[], None),
        ] {
            assert_eq!(place(os, home, set).as_deref(), want, "{os} {set:?}");
        }
    }

    #[test]
    fn names_have_no_separator() {
        let is_bare = |path: &str| is_bare_name(Path::new(path));
        assert_eq!(["a", "a.b", "a/b", "./a", "/a", "a/"].map(is_bare), [true, true, false, false, false, false]);
        assert_eq!(["", ".", ".."].map(is_bare), [false; 3]);
    }

    #[test]
    fn a_name_is_found_in_the_first_folder_that_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let [empty, first, second] = ["empty", "first", "second"].map(|name| folder.path().join(name));
        for asset_folder in [&first, &second] {
            fs::create_dir_all(asset_folder.join("a-model")).expect("made");
        }
        fs::write(first.join("a-file"), "").expect("written");
        let folders = || vec![empty.clone(), first.clone(), second.clone()];
        assert_eq!(find_in(Path::new("a-model"), folders()), Ok(first.join("a-model")));
        let looked_at = [Path::new("."), &empty, &first, &second].map(|folder| folder.join("a-file"));
        assert_eq!(find_in(Path::new("a-file"), folders()), Err(looked_at.to_vec()));
    }

    #[test]
    fn paths_and_files_stay_as_they_are() {
        for path in ["no/such/folder", "./no-such-folder", "src", "Cargo.toml"] {
            assert_eq!(find_model(Path::new(path)), Ok(PathBuf::from(path)));
        }
        let looked_at = find_model(Path::new("no-such-model")).expect_err("nowhere");
        assert_eq!(looked_at[0], Path::new(".").join("no-such-model"));
        assert!(looked_at.len() > 1, "{looked_at:?}");
    }
}
