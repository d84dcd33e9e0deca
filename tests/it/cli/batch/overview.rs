//! Jobs are shown and removed.

use std::fs;

use super::{Desk, MODEL, WIDTH};
use crate::cli::{files, openai::program_without_account, rows, run, stderr, stdout};

#[test]
fn jobs_are_listed_for_people_and_for_programs() {
    let desk = Desk::new();
    let ids = [desk.submit(&desk.lines(3)), desk.submit(&desk.lines(12))];
    desk.pass_a_day();
    let done = desk.run("wait", &[&ids[0]]);
    assert!(done.status.success(), "{}", stderr(&done));

    // Nothing is sent, so no key and no server is needed.
    let requests = desk.simulator.counts().requests;
    let show = |arguments: &[&str]| {
        let mut command = program_without_account();
        let done = run(command.arg("batch").args(arguments).arg("--jobs").arg(desk.jobs()), b"");
        assert!(done.status.success(), "{}", stderr(&done));
        stdout(&done)
    };
    let table = show(&["list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "not aligned:\n{table}");
    for (line, (id, state, texts, batches)) in
        lines[1..].iter().zip([(&ids[0], "completed", "3", "1/1"), (&ids[1], "running", "12", "0/1")])
    {
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((cells[0], cells[1], cells[2]), (id.as_str(), state, MODEL));
        assert_eq!((cells[5], cells[9]), (texts, batches), "{line}");
    }

    let objects = rows(&show(&["list", "--json"]));
    assert_eq!(objects.len(), 2);
    let first = &objects[0];
    assert_eq!((first["id"].as_str(), first["state"].as_str()), (Some(ids[0].as_str()), Some("completed")));
    assert_eq!(
        (first["texts"].as_u64(), first["answered"].as_u64(), first["failed"].as_u64()),
        (Some(3), Some(3), Some(0))
    );
    assert_eq!((first["model"].as_str(), first["dimensions"].as_u64()), (Some(MODEL), Some(WIDTH as u64)));
    assert_eq!(first["tokens"], 6, "a text of 6 bytes has 2 tokens");
    let created = first["created"].as_str().expect("a moment");
    assert!(created.len() == "2026-11-28T14:52:09Z".len() && created.ends_with('Z'), "{created}");
    assert_eq!(rows(&show(&["status", &ids[1], "--json"]))[0], objects[1]);

    let status = show(&["status", &ids[1]]);
    assert!(status.contains(&format!("job                {}\n", ids[1])), "{status}");
    assert!(status.contains("state              running\n") && status.contains("\nnext               "), "{status}");
    assert_eq!(desk.simulator.counts().requests, requests);
}

#[test]
fn a_job_is_removed_when_it_has_ended() {
    let desk = Desk::new();
    let id = desk.submit(&desk.lines(3));
    let done = desk.run("remove", &[&id]);
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("has not ended"), "{}", stderr(&done));
    desk.pass_a_day();
    assert!(desk.run("wait", &[&id]).status.success());
    let mut remove = program_without_account();
    let done = run(remove.args(["batch", "remove", &id, "--jobs"]).arg(desk.jobs()), b"");
    assert!(done.status.success() && done.stdout.is_empty(), "{}", stderr(&done));
    assert!(!files(&desk.jobs()).contains(&id));
    let done = desk.run("list", &[]);
    assert!(done.status.success() && done.stdout.is_empty());
    assert!(stderr(&done).contains("there are no jobs in "), "{}", stderr(&done));
}

#[test]
fn a_job_that_cannot_be_read_is_not_passed_over() {
    let desk = Desk::new();
    let (sound, damaged) = (desk.submit(&desk.lines(1)), desk.submit(&desk.lines(2)));
    let journal = desk.jobs().join(&damaged).join("journal.jsonl");
    fs::write(&journal, "{\"format\":\"another\"}\n").expect("written");
    let done = desk.run("list", &[&"--json"]);
    assert!(done.status.success());
    assert_eq!(rows(&stdout(&done)).len(), 1);
    let said = format!("warning: {} cannot be read: it is damaged", journal.display());
    assert!(stderr(&done).contains(&said), "{}", stderr(&done));
    assert_eq!(desk.status(&sound)["texts"], 1);
    for command in ["status", "wait", "remove"] {
        let done = desk.run(command, &[&damaged]);
        assert_eq!(done.status.code(), Some(1));
        assert!(stderr(&done).contains("error: ") && stderr(&done).contains(" cannot be read"), "{}", stderr(&done));
    }
}

#[cfg(unix)]
#[test]
fn texts_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let desk = Desk::new();
    let id = desk.submit(&desk.lines(3));
    let folder = desk.jobs().join(&id);
    for name in files(&folder) {
        let mode = fs::metadata(folder.join(&name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} has {mode:o}");
    }
}

#[test]
fn jobs_that_are_not_there_are_named() {
    let desk = Desk::new();
    for (command, more) in [("status", None), ("wait", None), ("cancel", None), ("remove", None), ("list", Some(()))] {
        let done = if more.is_some() { desk.run(command, &[]) } else { desk.run(command, &[&"nobody"]) };
        assert_eq!(done.status.code(), Some(1), "{command}");
        let said = stderr(&done);
        assert!(said.contains("there are no jobs: the folder ") && said.contains("does not exist"), "{said}");
    }
    assert!(!desk.jobs().exists(), "looking made the folder");
    let id = desk.submit(&desk.lines(1));
    for command in ["status", "wait", "resume", "cancel", "remove"] {
        let done = desk.run(command, &[&"nobody"]);
        assert_eq!(done.status.code(), Some(1), "{command}");
        let said = stderr(&done);
        assert!(said.contains("there is no job nobody in ") && said.contains("`docvector-embed batch list`"), "{said}");
    }
    assert_eq!(desk.ids(), [id]);
}
