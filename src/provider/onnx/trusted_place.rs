//! Tells whether others than the user may change a file, so that code in it must not be loaded unasked.

use std::path::Path;

/// Returns why a file without links in its path is not trusted: a sentence that names the place.
///
/// The file and each folder above it must belong to root, the user or the owner of this program, and nobody else may
/// write there. Two things are no fault: the right of a group whose only member is the owner, and a folder further up
/// that all may write, but in which only owners may replace what is there (sticky, such as `/tmp`).
#[cfg(unix)]
pub(super) fn fault(file: &Path) -> Option<String> {
    use std::{fs, os::unix::fs::MetadataExt};

    let owner = |path: &Path| fs::metadata(path).ok().map(|about| about.uid());
    // The kernel gives a process's own folder to its user.
    let own = [owner(Path::new("/proc/self")), std::env::current_exe().ok().and_then(|program| owner(&program))];
    for (level, place) in file.ancestors().enumerate() {
        let shown = place.display();
        let about = match fs::symlink_metadata(place) {
            Ok(about) => about,
            Err(error) => return Some(format!("{shown} cannot be looked at: {error}")),
        };
        let (mode, uid) = (about.mode(), about.uid());
        if uid != 0 && !own.contains(&Some(uid)) {
            return Some(format!("{shown} belongs to another user (number {uid})"));
        }
        let shared = mode & 0o002 != 0 || mode & 0o020 != 0 && !has_private_group(about.gid(), uid);
        // The library's own folder must not be shared at all: the library loads further files from there.
        let sticky = level > 1 && mode & 0o1000 != 0;
        if shared && !sticky {
            return Some(format!("others than its owner may write to {shown} (mode {:o})", mode & 0o7777));
        }
    }
    None
}

/// Other systems have other rights, which are not looked at.
#[cfg(not(unix))]
pub(super) fn fault(_: &Path) -> Option<String> {
    None
}

/// Returns whether a group is the one that many systems make for a user alone.
#[cfg(unix)]
fn has_private_group(group: u32, user: u32) -> bool {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    is_private(&read("/etc/group"), &read("/etc/passwd"), group, user)
}

/// The same by the contents of `/etc/group` and `/etc/passwd`. A group or a user that is not there is not private.
#[cfg(unix)]
fn is_private(groups: &str, users: &str, group: u32, user: u32) -> bool {
    fn rows(file: &str) -> impl Iterator<Item = Vec<&str>> {
        file.lines().map(|line| line.split(':').collect()).filter(|row: &Vec<&str>| row.len() >= 4)
    }
    let (group, user) = (group.to_string(), user.to_string());
    let Some(name) = rows(users).find(|row| row[2] == user).map(|row| row[0]) else { return false };
    let mut same = rows(groups).filter(|row| row[2] == group).peekable();
    let listed = same.peek().is_some();
    let alone = same.all(|row| row[3].split(',').all(|member| member.is_empty() || member == name));
    // A user's first group does not list the user.
    listed && alone && rows(users).all(|row| row[3] != group || row[2] == user)
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        path::PathBuf,
    };

    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn a_place_that_others_may_write_to_is_not_trusted() {
        let root = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(root.path()).expect("there");
        let folder = root.join("assets/onnxruntime");
        fs::create_dir_all(&folder).expect("made");
        let file = folder.join("library.so");
        fs::write(&file, "").expect("written");
        let places: [PathBuf; 4] = [file.clone(), folder, root.join("assets"), root];
        let reset = || places.iter().for_each(|place| set(place, 0o755));
        reset();
        assert_eq!(fault(&file), None);
        for (level, place) in places.iter().enumerate() {
            reset();
            set(place, 0o777);
            let why = format!("others than its owner may write to {} (mode 777)", place.display());
            assert_eq!(fault(&file), Some(why));
            // A sticky folder protects what is in it, but lets others add to it.
            set(place, 0o1777);
            assert_eq!(fault(&file).is_none(), level > 1, "{}", place.display());
        }
        reset();
        let missing = places[1].join("missing.so");
        assert!(fault(&missing).expect("not trusted").contains("cannot be looked at"));
    }

    #[test]
    fn a_group_of_one_is_private() {
        let groups = "root:x:0:\nann:x:1000:\nbob:x:1001:bob,ann\nstaff:x:50:ann\nusers:x:100:\nodd\n";
        let users = "root:x:0:0::\nann:x:1000:1000::\nbob:x:1001:1001::\ncal:x:1002:100::\ndee:x:1003:100::\n";
        for (group, user, private) in [
            (0, 0, true),
            (1000, 1000, true),
            (50, 1000, true),
            // Another member, another user's first group, no such group, no such user.
            (1001, 1001, false),
            (100, 1002, false),
            (77, 1000, false),
            (1000, 1001, false),
            (1000, 9, false),
        ] {
            assert_eq!(is_private(groups, users, group, user), private, "{group} {user}");
        }
    }
}
