//! `docvector-embed embed` with a model at OpenAI, for which a simulator stands.
#![cfg(feature = "testing")]

use std::{fs, process::Command};

use docvector_embed::testing::{Fault, Route, Simulator};

use super::{files, program, rows, run, stderr, stdout, vector};
use crate::support::npy;

pub(super) const MODEL: &str = "text-embedding-3-small";

/// Returns the program, in an environment whose OpenAI is the simulator.
pub(super) fn program_at(simulator: &Simulator) -> Command {
    let mut command = program_without_account();
    command.env("OPENAI_BASE_URL", simulator.base_url()).env("OPENAI_API_KEY", "sk-test");
    command
}

/// Returns the program, in an environment that names no server, no key and nothing else of OpenAI's.
pub(super) fn program_without_account() -> Command {
    let mut command = program();
    for name in ["OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"] {
        command.env_remove(name);
    }
    command
}

#[test]
fn rows_come_in_order_and_each_text_is_paid_for_once() {
    let simulator = Simulator::start().expect("starts");
    // A busy server is asked again.
    simulator.fail_next(Route::Embeddings, 1, Fault::error(500, "server_error", "As scripted."));
    let lines: Vec<String> = (0..2500).map(|i| format!("line {i}")).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.npy");
    let model = format!("openai:{MODEL}");
    let cache = folder.path().join("cache.sqlite");
    let embed = || {
        let mut command = program_at(&simulator);
        command.args(["embed", "--model", &model, "--dimensions", "8", "--output"]).arg(&output);
        run(command.arg("--cache").arg(&cache), lines.join("\n").as_bytes())
    };
    let done = embed();
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stderr(&done).contains("2500 texts, 8 dimensions, "), "{}", stderr(&done));
    let have = npy(&output);
    assert_eq!(have.shape(), [2500, 8]);
    for (line, row) in lines.iter().zip(have.rows()) {
        assert_eq!(row.to_vec(), simulator.vector(MODEL, 8, line), "{line}");
    }
    fs::remove_file(&output).expect("removed");
    let done = embed();
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stderr(&done).contains("2500 of 2500 texts from the cache"), "{}", stderr(&done));
    assert_eq!(npy(&output), have);
    assert_eq!((simulator.bills().texts, simulator.bills().most_per_text), (2500, 1));
}

#[test]
fn bad_lines_are_treated_as_with_local_models() {
    let simulator = Simulator::start().expect("starts");
    let input = format!("{{\"text\":\"one\",\"n\":1}}\n{{\"text\":\"\"}}\n{{\"text\":\"{}\"}}\n", " a".repeat(9000));
    let embed = |arguments: &[&str]| {
        let mut command = program_at(&simulator);
        command.args(["embed", "--jsonl", "--model", "openai:text-embedding-3-small", "--dimensions", "4"]);
        run(command.args(arguments), input.as_bytes())
    };
    let done = embed(&["--too-long", "error"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("line 2: the text is empty"), "{}", stderr(&done));
    assert!(stderr(&done).contains("line 3: the text has at least "), "{}", stderr(&done));
    assert_eq!(simulator.counts().requests, 0);

    let done = embed(&["--on-error", "record"]);
    assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
    let rows = rows(&stdout(&done));
    assert_eq!(vector(&rows[0]), simulator.vector(MODEL, 4, "one"));
    assert_eq!((rows[0]["n"].as_u64(), rows[1]["error"].as_str()), (Some(1), Some("the text is empty")));
    assert_eq!(rows[2]["truncated"], true);
    assert!(stderr(&done).contains("1 text was truncated to 8191 tokens"), "{}", stderr(&done));
}

/// A cost is told only where the price of the server is in the table.
#[test]
fn a_server_without_a_known_price_gets_no_cost() {
    let simulator = Simulator::start().expect("starts");
    let mut command = program_at(&simulator);
    command.args(["embed", "--model", &format!("openai:{MODEL}"), "--dimensions", "8"]);
    let done = run(&mut command, b"one\ntwo\n");
    let said = stderr(&done);
    assert!(done.status.success(), "{said}");
    let time = said.strip_prefix("2 texts, 8 dimensions, ").and_then(|rest| rest.split(" tokens, ").nth(1));
    assert!(time.is_some_and(|time| time.contains(" s (")) && !said.contains('$'), "{said}");
}

#[test]
fn a_model_that_names_its_server_is_asked_there() {
    let simulator = Simulator::start().expect("starts");
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.jsonl");
    let named = |prefix: &str| format!("{prefix}:{MODEL}@{}", simulator.base_url());
    let command = |arguments: &[&str], prefix: &str| {
        let mut command = program_without_account();
        command.env("OPENAI_API_KEY", "sk-test").args(arguments).args(["--dimensions", "8", "--model", &named(prefix)]);
        command
    };
    let done = run(command(&["embed"], "openai").arg("--output").arg(&output), b"one\ntwo\n");
    assert!(done.status.success(), "{}", stderr(&done));
    let have = rows(&fs::read_to_string(&output).expect("there"));
    assert_eq!(vector(&have[1]), simulator.vector(MODEL, 8, "two"));

    let done = run(command(&["search", "two"], "openai").arg("--vectors").arg(&output), b"");
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stdout(&done).starts_with(" 1.000  2  two\n"), "{}", stdout(&done));

    let mut submit = command(&["batch", "submit", "--poll-seconds", "0.02"], "openai-batch");
    let done = run(submit.arg("--jobs").arg(folder.path().join("jobs")), b"three\n");
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(simulator.counts().creates, 1);
}

#[test]
fn two_servers_for_one_model_are_refused() {
    for (command, prefix) in [
        (&["embed"][..], "openai"),
        (&["embed"], "openai-batch"),
        (&["search", "--vectors", "none", "a question"], "openai"),
        (&["batch", "submit"], "openai-batch"),
        // The keys are not there, so that it ends in any case.
        (&["serve", "--api-keys", "no/such/file"], "openai"),
    ] {
        let model = format!("{prefix}:{MODEL}@http://127.0.0.1:1/v1");
        let mut program = program_without_account();
        program.args(command).args(["--model", &model, "--base-url", "http://127.0.0.1:2/v1"]);
        let done = run(&mut program, b"");
        assert_eq!(done.status.code(), Some(2), "{command:?}: {}", stderr(&done));
        assert!(stderr(&done).contains("--base-url and --model both name a server"), "{}", stderr(&done));
    }
}

#[test]
fn accounts_and_models_that_do_not_work_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.npy");
    let embed = |mut command: Command, model: &str| {
        let done = run(command.args(["embed", "--model", model, "--output"]).arg(&output), b"a\n");
        assert_eq!(done.status.code(), Some(1));
        stderr(&done)
    };
    let model = format!("openai:{MODEL}");
    let said = embed(program_without_account(), &model);
    assert!(said.contains("set OPENAI_API_KEY"), "{said}");

    let simulator = Simulator::builder().with_api_key("sk-another").start().expect("starts");
    let said = embed(program_at(&simulator), &model);
    assert!(said.contains("401") && !said.contains("sk-"), "{said}");
    let said = embed(program_at(&simulator), "openai:text-embedding-9");
    assert!(said.contains("text-embedding-9"), "{said}");
    let done = run(program_at(&simulator).args(["embed", "--model", "openai:", "--output"]).arg(&output), b"a\n");
    assert_eq!(done.status.code(), Some(2));
    assert!(stderr(&done).contains("a name is missing"), "{}", stderr(&done));
    assert_eq!(files(folder.path()), [""; 0]);
}
