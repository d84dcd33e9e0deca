//! What `docvector-embed embed --output` may name, and what it leaves: the space beside it, and what was there before.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use super::{files, program, run, stderr, stdout};
use crate::support::golden;

/// Returns `embed` with a tiny model.
fn embed(output: &Path) -> Command {
    let mut command = program();
    command.args(["embed", "--model"]).arg(golden("tiny/bert-cls")).arg("--output").arg(output);
    command
}

/// Returns `embed` with a model that is not there: what is refused must be refused before it is looked for.
fn embed_without_model() -> Command {
    let mut command = program();
    command.args(["embed", "--model", "no/such/model"]);
    command
}

/// Fails unless such a run ended with this status and said this, and nothing of its model.
fn assert_refused(done: &Output, status: i32, why: &str) {
    let said = stderr(done);
    assert_eq!(done.status.code(), Some(status), "{said}");
    assert!(said.contains(why) && !said.contains("no/such/model"), "{why:?} is not all of {said}");
}

/// A limit on the size of files is a disk of 4 KiB: what is written beyond it fails.
#[cfg(target_os = "linux")]
#[test]
fn rows_that_do_not_fit_leave_the_folder_as_it_was() {
    use super::shell;
    use crate::support::minilm;

    let script = "ulimit -f 8; trap '' XFSZ; exec \"$0\" embed --model \"$1\" --output \"$2\"";
    let cases = ["out.jsonl", "out.npy"].into_iter().flat_map(|name| [(name, None), (name, Some("what was there"))]);
    for (name, before) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join(name);
        if let Some(before) = before {
            fs::write(&output, before).expect("written");
        }
        let done = run(shell("sh", script).arg(minilm()).arg(&output), "a text\n".repeat(20).as_bytes());
        let said = stderr(&done);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{} cannot be written", output.display())), "{said}");
        assert!(!said.contains(".partial"), "{said}");
        assert_eq!(fs::read_to_string(&output).ok().as_deref(), before);
        assert_eq!(files(folder.path()).len(), before.iter().len(), "{:?}", files(folder.path()));
    }
}

#[test]
fn the_space_of_vectors_behind_a_link_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let (link, real) = (folder.path().join("link.npy"), folder.path().join("sub/real.npy"));
    fs::create_dir(folder.path().join("sub")).expect("made");
    symlink("sub/real.npy", &link).expect("linked");
    let done = run(&mut embed(&link), b"one\n");
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(link.is_symlink() && !real.is_symlink());
    for vectors in [link, real] {
        let mut search = program();
        search.args(["search", "a question", "--model"]).arg(golden("tiny/bert-cls"));
        let done = run(search.arg("--vectors").arg(&vectors), b"");
        assert!(done.status.success() && stdout(&done).lines().count() == 1, "{}", stderr(&done));
        assert_eq!(stderr(&done), "", "{}", vectors.display());
    }
}

#[test]
fn what_has_the_name_of_the_space_and_is_none_is_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let (output, space) = (folder.path().join("out.npy"), folder.path().join("out.npy.space"));
    let refused = || {
        let done = run(embed_without_model().arg("--output").arg(&output), b"one\n");
        assert_refused(&done, 1, &space.display().to_string());
        assert_eq!(files(folder.path()), ["out.npy.space"]);
    };
    fs::create_dir(&space).expect("made");
    refused();
    fs::remove_dir(&space).expect("still a folder");
    fs::write(&space, "notes of the user\n").expect("written");
    refused();
    assert_eq!(fs::read_to_string(&space).expect("there"), "notes of the user\n");
}

#[test]
fn the_file_of_the_space_is_no_other_file_of_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let with_two_files = |output: &str, option: &str, file: &str| {
        let mut command = embed_without_model();
        run(command.arg("--output").arg(at(output)).arg(option).arg(at(file)), b"one\n")
    };
    assert_refused(&with_two_files("out.npy", "--cache", "out.npy.space"), 2, "--cache");
    fs::write(at("words.space"), "one\n").expect("written");
    assert_refused(&with_two_files("words", "--input", "words.space"), 2, "--input");
    assert_eq!(fs::read_to_string(at("words.space")).expect("there"), "one\n");
    assert_eq!(files(folder.path()), ["words.space"]);
}

/// The shell goes on from where the program has written to.
#[cfg(target_os = "linux")]
#[test]
fn nothing_that_the_shell_writes_before_and_after_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("log");
    for (output, number) in [("/dev/stdout", 1), ("/dev/fd/1", 1), ("/dev/stderr", 2), ("/dev/fd/2", 2)] {
        let run_embed = format!("\"$0\" embed --model \"$1\" --output {output}");
        let script = format!("{{ echo before >&{number} && {run_embed} && echo after >&{number}; }} {number}> \"$2\"");
        let done = run(super::shell("sh", &script).arg(golden("tiny/bert-cls")).arg(&file), b"one\n");
        let log = fs::read_to_string(&file).expect("there");
        assert!(done.status.success(), "{output}: {}{log}", stderr(&done));
        let lines: Vec<&str> = log.lines().collect();
        // Standard error gets the summary, too.
        assert_eq!((lines.len(), lines[0], lines.last()), (2 + number, "before", Some(&"after")), "{output}: {log}");
        assert_eq!(super::vector(&super::rows(lines[1])[0]).len(), 16, "{output}: {log}");
    }
    assert_eq!(files(folder.path()), ["log"]);
}

/// A file that is opened again has a place of its own, at its start.
#[cfg(target_os = "linux")]
#[test]
fn a_descriptor_that_does_not_append_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("log");
    for output in ["/dev/fd/3", "/proc/self/fd/3"] {
        let script = format!("{{ echo before >&3; \"$0\" embed --model no/such/model --output {output}; }} 3> \"$1\"");
        let done = run(super::shell("sh", &script).arg(&file), b"one\n");
        assert_refused(&done, 1, "3>>");
        assert_eq!(fs::read_to_string(&file).expect("there"), "before\n");
    }
    assert_eq!(files(folder.path()), ["log"]);
}
