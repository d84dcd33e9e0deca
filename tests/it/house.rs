//! `scripts/house` finds what breaks the rules of the house, and nothing else.
#![cfg(unix)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::support::root;

/// Checks a tree of these files.
fn check(files: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    check_tree(folder.path())
}

fn check_tree(tree: &Path) -> Output {
    let mut command = Command::new(root().join("scripts/house"));
    command.arg("--check").arg("--root").arg(tree).output().expect("Python runs")
}

/// The rules have tests of their own, in Python, each on small trees on both sides of its limit.
#[test]
fn the_rules_find_what_they_must() {
    let done = Command::new("python3").arg(root().join("scripts/house_tests.py")).output().expect("Python runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let ran = said.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(ran.is_some_and(|tests| tests >= 60), "{said}");
}

#[test]
fn a_fine_tree_passes() {
    let done = check(&[
        ("src/lib.rs", "//! Stores entries.\nmod a;\nmod b;\npub use a::A;\n"),
        ("src/a.rs", "//! Keeps one row per text.\nuse crate::b::B;\npub struct A(B);\n"),
        ("src/b.rs", "//! When a call fails, it is tried again.\n/// See [`A`](crate::A).\npub struct B;\n"),
        ("README.md", "# What it is\nThe store keeps normalized rows. Who needs it?\n"),
    ]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), &*said), (Some(0), ""));
}

#[test]
fn each_fault_fails() {
    let long_function = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(59));
    let long_file = "const A: u8 = 1;\n".repeat(651);
    let faults: [(&str, &str, &str); 6] = [
        ("README.md", "It gives one row a text.\n", "README.md:1: a-for-per: "),
        ("src/a.rs", "//! A file. It is short and\n//! good. What it costs is known.\n", "src/a.rs:2: clause: "),
        ("src/a.rs", "// It runs on a card.\n", "src/a.rs:1: word: card"),
        ("src/a.rs", "\nfn is_tokenised() {}\n", "src/a.rs:2: spelling: tokenised"),
        ("src/a.rs", long_function.as_str(), "src/a.rs:1: function: f: 61 lines"),
        ("src/a.rs", long_file.as_str(), "src/a.rs:1: file: 651 lines"),
    ];
    for (name, text, expected) in faults {
        let done = check(&[("src/lib.rs", "mod a;\n"), ("src/a.rs", ""), (name, text)]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{expected}: {said}");
        assert!(said.contains(expected), "{expected} is not in: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("house: ")).count(), 1, "{said}");
    }
}

#[test]
fn a_circle_through_a_reexport_fails() {
    let done = check(&[
        ("src/lib.rs", "mod a;\nmod b;\npub use self::{a::A, b::B};\n"),
        ("src/a.rs", "use crate::B;\npub struct A(B);\n"),
        ("src/b.rs", "use crate::{A};\npub struct B(A);\n"),
    ]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("a circle of 2 files: src/a.rs, src/b.rs"), "{said}");
}

#[test]
fn a_tree_without_sources_is_an_error() {
    let done = check(&[("README.md", "The store keeps rows.\n")]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("--root") && !said.contains("Traceback"), "{said}");
}
