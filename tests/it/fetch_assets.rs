//! `scripts/fetch-assets` says what is wrong, and fetches nothing that is there.
#![cfg(unix)]

use std::process::{Command, Output};

use crate::support::{assets, root};

fn fetch(change: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(root().join("scripts/fetch-assets"));
    for name in ["PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"] {
        command.env_remove(name);
    }
    change(&mut command);
    command.output().expect("Python runs")
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
fn an_unreachable_index_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let done = fetch(|command| {
        command.arg("--dir").arg(folder.path());
        for (name, value) in [
            ("PIP_INDEX_URL", "http://127.0.0.1:9"),
            ("PIP_NO_CACHE_DIR", "1"),
            ("PIP_RETRIES", "0"),
            ("PIP_CONFIG_FILE", "/dev/null"),
        ] {
            command.env(name, value);
        }
    });
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("onnxruntime") && said.contains("PIP_INDEX_URL") && !said.contains("Traceback"), "{said}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").flatten().filter(|entry| entry.path().is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}
