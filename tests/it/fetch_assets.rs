//! `scripts/fetch-assets` says what is wrong, and fetches nothing that is there.
#![cfg(unix)]

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::support::{assets, root};

/// Makes a folder to fetch into. A fetch needs up to 420 MiB free there, or it asks pip for nothing. So it is on the
/// disk of the build, which needs more itself: the disk of temporary files may be small.
pub(crate) fn roomy_folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn fetch(change: impl FnOnce(&mut Command)) -> Output {
    command(change).output().expect("Python runs")
}

fn command(change: impl FnOnce(&mut Command)) -> Command {
    let mut command = Command::new(root().join("scripts/fetch-assets"));
    for name in ["PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"] {
        command.env_remove(name);
    }
    change(&mut command);
    command
}

/// Makes every download fail at once.
fn out_of_reach(command: &mut Command) {
    for (name, value) in [
        ("PIP_INDEX_URL", "http://127.0.0.1:9"),
        ("PIP_NO_CACHE_DIR", "1"),
        ("PIP_RETRIES", "0"),
        ("PIP_CONFIG_FILE", "/dev/null"),
    ] {
        command.env(name, value);
    }
}

/// Returns the names in a folder, sorted.
fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).expect("a folder").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn nothing_is_fetched_again() {
    // Without a network to speak of.
    let done = fetch(|command| {
        command.arg("--dir").arg(assets()).arg("--verify").env("PIP_INDEX_URL", "http://127.0.0.1:9");
    });
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(said.matches("already there").count(), 3, "{said}");
}

#[test]
fn parts_are_chosen_with_those_that_they_are_made_from() {
    for (part, count) in [("onnxruntime", 1), ("all-MiniLM-L6-v2", 1), ("all-MiniLM-L6-v2-int8", 2)] {
        let done = fetch(|command| {
            command.arg("--dir").arg(assets()).args(["--part", part]).env("PIP_INDEX_URL", "http://127.0.0.1:9");
        });
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!((said.matches("already there").count(), said.contains(part)), (count, true), "{said}");
    }
    let done = fetch(|command| {
        command.args(["--part", "no-such-part"]);
    });
    assert_eq!(done.status.code(), Some(2));
}

#[test]
fn an_unreachable_index_is_a_clear_error() {
    let folder = roomy_folder();
    let done = fetch(|command| out_of_reach(command.arg("--dir").arg(folder.path())));
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("onnxruntime") && said.contains("PIP_INDEX_URL") && !said.contains("Traceback"), "{said}");
    assert_eq!(names(&folder), [".lock"]);
}

/// The folder may be one with a user's own files.
#[test]
fn only_what_a_killed_run_left_is_removed() {
    let folder = roomy_folder();
    for name in [".docvector-embed-fetch-x7", ".fetch-mine"] {
        let inner = folder.path().join(name).join("inner");
        fs::create_dir_all(&inner).expect("a folder");
        fs::write(inner.join("file"), "some text").expect("written");
    }
    let done = fetch(|command| out_of_reach(command.arg("--dir").arg(folder.path())));
    assert_eq!(done.status.code(), Some(1), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(names(&folder), [".fetch-mine", ".lock"]);
    assert!(folder.path().join(".fetch-mine/inner/file").is_file());
}

#[test]
fn a_reader_that_is_gone_changes_nothing() {
    let unread = |change: &dyn Fn(&mut Command)| {
        let mut command = command(change);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("Python runs");
        drop((child.stdout.take(), child.stderr.take()));
        child.wait().expect("it ends").code()
    };
    assert_eq!(unread(&|command| out_of_reach(command.arg("--dir").arg(assets()))), Some(0));
    let folder = roomy_folder();
    assert_eq!(unread(&|command| out_of_reach(command.arg("--dir").arg(folder.path()))), Some(1));
    assert_eq!(names(&folder), [".lock"]);
}
