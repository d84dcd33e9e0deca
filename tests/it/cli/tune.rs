//! `docvector-embed tune`, and how later runs use the file that it stores.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{
    bench::{assert_quiet, table},
    files, program, run, stderr, stdout,
};
use crate::support::{golden, json, minilm};

/// Returns the program, with this file for tuned settings.
fn with_file(file: &Path) -> Command {
    let mut command = program();
    command.env("DOCVECTOR_EMBED_TUNING", file);
    command
}

fn tune(file: &Path, arguments: &[&str]) -> Output {
    let model = golden("tiny/bert-cls");
    run(with_file(file).args(["tune", "--seconds", "1", "--even-if-busy", "--model"]).arg(model).args(arguments), b"")
}

/// Runs `doctor` on a tiny model, and returns a look-up of its report by label.
fn doctor(file: &Path, model: &str, arguments: &[&str]) -> impl Fn(&str) -> String {
    let done = run(with_file(file).args(["doctor", "--model"]).arg(golden("tiny").join(model)).args(arguments), b"");
    let said = stdout(&done);
    assert!(done.status.success(), "{said}{}", stderr(&done));
    move |what| {
        let line = said.lines().find_map(|line| line.strip_prefix(&format!("  {what:17}")));
        line.unwrap_or_else(|| panic!("{what:?} is not in {said}")).to_owned()
    }
}

/// Changes the only entry of a file.
fn edit(file: &Path, change: impl Fn(&mut Value)) {
    let mut contents = json(file);
    change(&mut contents["entries"][0]);
    fs::write(file, contents.to_string()).expect("written");
}

#[test]
fn the_next_load_uses_what_was_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("new/tuning.json");
    let before = doctor(&file, "bert-cls", &[]);
    assert_eq!(before("settings"), "defaults");
    let done = tune(&file, &[]);
    let said = stdout(&done);
    assert!(done.status.success(), "{said}{}", stderr(&done));
    assert_quiet(&done);
    let stored = format!("stored in          {}: the next load uses it\n", file.display());
    assert!(said.contains(&stored) && said.contains("settings so far    defaults\n"), "{said}");
    let rows = table(&said, "compared ");
    // The defaults lead each comparison, and are compared with themselves.
    let leading: Vec<&[String]> = ["threads", "budgets", "final"]
        .iter()
        .map(|stage| rows.iter().find(|row| row[0] == *stage).expect("a comparison").as_slice())
        .collect();
    for row in leading {
        assert_eq!(row.last().map(String::as_str), Some("1.000"), "{said}");
        let numbers = &row[row.len() - 5..];
        assert_eq!(numbers[0], before("threads"));
        assert_eq!(numbers[1], before("batch tokens"));
    }

    // Other settings than the defaults, as if they had been found.
    edit(&file, |entry| {
        assert_eq!(entry["model"], "bert-cls");
        (entry["threads"], entry["batch_tokens"]) = (3.into(), 48.into());
    });
    let after = doctor(&file, "bert-cls", &[]);
    assert_eq!(after("settings"), format!("tuned, from {}", file.display()));
    assert_eq!((after("threads"), after("batch tokens")), ("3".to_owned(), "48".to_owned()));
    // Options take precedence, and a result holds only for the model and options that it was measured with.
    let given = doctor(&file, "bert-cls", &["--threads", "1"]);
    assert_eq!((given("threads"), given("settings")), ("1".to_owned(), "given".to_owned()));
    assert_eq!(given("batch tokens"), before("batch tokens"));
    assert_eq!(doctor(&file, "bert-cls", &["--max-tokens", "8"])("settings"), "defaults");
    assert_eq!(doctor(&file, "mpnet", &[])("settings"), "defaults");

    let embed = |file: &Path| {
        let model = golden("tiny/bert-cls");
        run(with_file(file).args(["embed", "--model"]).arg(model), b"a text\nanother\n")
    };
    let tuned = embed(&file);
    let says = format!("; settings: tuned, from {}; space ", file.display());
    assert!(tuned.status.success() && stderr(&tuned).contains(&says), "{}", stderr(&tuned));
    let plain = embed(Path::new(""));
    assert!(plain.status.success() && !stderr(&plain).contains("settings"), "{}", stderr(&plain));

    // Tuning again replaces the entry, and leaves no other file.
    let again = tune(&file, &["--max-tokens", "8"]);
    assert!(again.status.success() && stdout(&again).contains("settings so far    defaults"), "{}", stderr(&again));
    assert_eq!(json(&file)["entries"].as_array().map(Vec::len), Some(2));
    let again = tune(&file, &[]);
    assert!(stdout(&again).contains("settings so far    tuned, from "), "{}{}", stdout(&again), stderr(&again));
    assert_eq!(json(&file)["entries"].as_array().map(Vec::len), Some(2));
    assert_eq!(files(&folder.path().join("new")), ["tuning.json", "tuning.json.lock"]);
}

#[test]
fn a_dry_run_keeps_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tuning.json");
    let done = tune(&file, &["--dry-run"]);
    assert!(done.status.success(), "{}{}", stdout(&done), stderr(&done));
    assert!(stdout(&done).contains("stored             nothing, as --dry-run asks\n"), "{}", stdout(&done));
    assert!(files(folder.path()).is_empty());
    // A dry run needs no place to store settings.
    assert!(tune(Path::new(""), &["--dry-run"]).status.success());
}

/// A hundred and more passes over 16 long texts take longer than a second on every machine.
#[test]
fn a_time_that_is_too_short_is_told_before_the_measurement() {
    let folder = tempfile::tempdir().expect("a folder");
    let texts = folder.path().join("texts.txt");
    fs::write(&texts, format!("{}\n", "a long text of many words ".repeat(100)).repeat(16)).expect("written");
    let mut command = program();
    command.args(["tune", "--dry-run", "--seconds", "1", "--model"]).arg(minilm()).arg("--input").arg(&texts);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("UTF-8");
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(line.starts_with("this takes about ") && line.contains(" s, and not 1: "), "{line}");
}

#[test]
fn an_unusable_file_is_reported_and_harms_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tuning.json");
    for (contents, why) in [
        ("{\"format\": ", "is not JSON"),
        ("{\"format\": \"docvector-embed tuning\", \"version\": 2, \"entries\": []}", "is of version 2"),
        ("{}", "is not a file of docvector-embed's settings"),
    ] {
        fs::write(&file, contents).expect("written");
        let settings = doctor(&file, "bert-cls", &[])("settings");
        let says = format!("defaults, because {} {why}", file.display());
        assert!(settings.starts_with(&says), "{says:?} does not begin {settings:?}");
        // The file may be the user's own: it is refused before the measurement, and stays as it is.
        let done = tune(&file, &[]);
        assert_eq!((done.status.code(), stdout(&done).as_str()), (Some(1), ""));
        assert!(stderr(&done).contains(why) && stderr(&done).contains("move it away"), "{}", stderr(&done));
        assert_eq!(fs::read_to_string(&file).expect("still there"), contents);
    }
    // An entry with impossible settings is not used either, and tuning replaces it.
    fs::remove_file(&file).expect("removed");
    assert!(tune(&file, &[]).status.success());
    edit(&file, |entry| entry["threads"] = 100_000.into());
    let settings = doctor(&file, "bert-cls", &[])("settings");
    assert!(settings.contains("an entry for this model whose threads is 100000"), "{settings}");
    let mended = tune(&file, &[]);
    assert!(mended.status.success(), "{}", stderr(&mended));
    assert!(doctor(&file, "bert-cls", &[])("settings").starts_with("tuned, from "));
}

#[test]
fn what_cannot_be_tuned_is_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tuning.json");
    let empty = folder.path().join("empty.txt");
    fs::write(&empty, "").expect("written");
    for (file, arguments, why) in [
        (Path::new(""), &[][..], "set DOCVECTOR_EMBED_TUNING to a file"),
        (&file, &["--input", empty.to_str().expect("UTF-8")], "there is no text to measure with"),
        (&file, &["--input", "no-such-file"], "no-such-file cannot be read"),
        (&file, &["--file", "no-such-model.onnx"], "no-such-model.onnx does not exist"),
    ] {
        let done = tune(file, arguments);
        assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
        assert!(stderr(&done).contains(why), "{why:?} is not in {}", stderr(&done));
    }
    for arguments in [&["--threads", "1"][..], &["--seconds", "0"]] {
        assert_eq!(tune(&file, arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(files(folder.path()), ["empty.txt"]);
}
