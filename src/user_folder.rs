//! Finds the folder in which a system keeps one user's files of this program: [`user_folder`].

use std::{ffi::OsString, path::PathBuf};

/// The places for one kind of files, by system. Windows has one place for all kinds.
pub(crate) struct Places {
    /// The variable of the XDG Base Directory Specification, on Linux and its kin.
    pub(crate) xdg: &'static str,
    /// The folder below the home directory if that variable is not set.
    pub(crate) below_home: &'static str,
    /// The folder below the home directory on macOS.
    pub(crate) below_home_on_macos: &'static str,
}

/// Returns this program's folder, whether or not it exists; `None` if the user has no place for one.
pub(crate) fn user_folder(
    places: &Places,
    os: &str,
    home: Option<PathBuf>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    // The definition of the XDG variables says to ignore relative paths: their meaning depends on the current folder.
    let named = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.has_root());
    let home = home.filter(|path| path.has_root());
    let folder = match os {
        "windows" => named("LOCALAPPDATA"),
        "macos" | "ios" => home.map(|home| home.join(places.below_home_on_macos)),
        _ => named(places.xdg).or_else(|| home.map(|home| home.join(places.below_home))),
    };
    folder.map(|folder| folder.join("docvector-embed"))
}
