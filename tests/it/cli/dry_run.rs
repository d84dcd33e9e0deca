//! `docvector-embed embed --dry-run`: what is counted, what it would cost, and that nothing is sent or written.
#![cfg(feature = "testing")]

use std::{
    fs,
    process::{Command, Output},
};

use docvector_embed::{price, testing::Simulator};

use super::{
    files,
    openai::{MODEL, program_at, program_without_account},
    program, run, stderr, stdout,
};
use crate::support::minilm;

/// Three texts, of one or two tokens of OpenAI's each.
const TEXTS: &[u8] = b"one\ntwo words\nlast\n";

fn dry_run(mut program: Command, arguments: &[&str], input: &[u8]) -> Output {
    run(program.args(["embed", "--dry-run"]).args(arguments), input)
}

/// Returns the value that a report has beside this label.
fn value(done: &Output, label: &str) -> Option<String> {
    let report = stdout(done);
    let value = report.lines().find_map(|line| line.strip_prefix(&format!("{label:19}")));
    value.map(str::to_owned)
}

/// Fails unless the report has this line.
fn has(done: &Output, label: &str, expected: &str) {
    assert!(done.status.success(), "{}", stderr(done));
    assert_eq!(value(done, label).as_deref(), Some(expected), "{label} in {}", stdout(done));
}

#[test]
fn a_model_on_this_machine_costs_nothing_and_gets_the_tokens_of_its_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, output) = (minilm().display().to_string(), folder.path().join("out.npy").display().to_string());
    let arguments = ["--model", &model, "--output", &output];
    let counted = dry_run(program(), &arguments, TEXTS);
    has(&counted, "texts", "3");
    has(&counted, "cost", "nothing: the model runs here");
    assert_eq!((value(&counted, "requests"), value(&counted, "as a batch job")), (None, None));
    assert_eq!(files(folder.path()), [""; 0], "nothing is written");

    let done = run(program().arg("embed").args(arguments), TEXTS);
    let said = stderr(&done);
    let tokens = value(&counted, "tokens").expect("a number");
    assert!(said.starts_with(&format!("3 texts, 384 dimensions, {tokens} tokens, ")), "{said}");
    let space = value(&counted, "space").expect("an id");
    assert!(said.trim_end().ends_with(&format!("; space {space}")), "{said}");
}

/// Nothing is sent, so no account is needed.
#[test]
fn the_price_of_openai_is_told_without_a_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, jobs) = (folder.path().join("in.txt"), folder.path().join("jobs"));
    fs::write(&input, TEXTS).expect("written");
    let price = price::of("openai", MODEL).expect("in the table");
    for prefix in ["openai", "openai-batch"] {
        let mut program = program_without_account();
        // Should anything be sent, it goes nowhere.
        program.env("HTTPS_PROXY", "http://127.0.0.1:1").env("DOCVECTOR_EMBED_JOBS", &jobs);
        let model = format!("{prefix}:{MODEL}");
        let done = dry_run(program, &["--model", &model, "--input", input.to_str().expect("UTF-8")], b"");
        has(&done, "texts", "3");
        has(&done, "tokens", "4");
        has(&done, "requests", "1");
        let batch = price.batch_cost(4).expect("in the table");
        for (label, amount) in [("cost", price.cost(4)), ("as a batch job", batch)] {
            let told = value(&done, label).unwrap_or_default();
            assert!(told.starts_with(&format!("{amount}, ")), "{label} in {}", stdout(&done));
        }
        assert_eq!(files(folder.path()), ["in.txt"]);
    }
}

#[test]
fn nothing_is_sent_and_the_run_sends_as_many_requests_as_were_told() {
    let simulator = Simulator::start().expect("starts");
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("in.txt");
    fs::write(&input, (0..2500).map(|i| format!("line {i}\n")).collect::<String>()).expect("written");
    let model = format!("openai:{MODEL}");
    let arguments = ["--model", &model, "--dimensions", "8", "--input", input.to_str().expect("UTF-8")];
    let counted = dry_run(program_at(&simulator), &arguments, b"");
    has(&counted, "texts", "2500");
    // OpenAI's price is not that of other servers.
    assert!(value(&counted, "cost").is_some_and(|cost| cost.starts_with("not known")), "{}", stdout(&counted));
    assert_eq!(value(&counted, "as a batch job"), None);
    assert_eq!(simulator.counts().requests, 0);

    let done = run(program_at(&simulator).arg("embed").args(arguments), b"");
    assert!(done.status.success(), "{}", stderr(&done));
    has(&counted, "requests", &simulator.counts().embeddings.to_string());
}

#[test]
fn lines_that_cannot_be_embedded_are_listed_as_by_a_run() {
    let long = format!("one\n{}\nlast\n", " a".repeat(9000)).into_bytes();
    let empty = b"one\n\nlast\n";
    for model in [minilm().display().to_string(), format!("openai:{MODEL}")] {
        let counted = |more: &[&str], input: &[u8]| {
            dry_run(program_without_account(), &[&["--model", &model], more].concat(), input)
        };
        for (more, input, why) in [
            (&["--too-long", "error"][..], &long[..], "line 2: the text has at least "),
            (&[], empty, "line 2: the text is empty"),
        ] {
            let done = counted(more, input);
            let said = stderr(&done);
            assert_eq!(done.status.code(), Some(1), "{model}: {said}");
            assert!(said.contains(why) && said.contains(" cannot be embedded"), "{said}");
        }
        has(&counted(&[], &long), "texts", "3");
        // As the run would end.
        let done = counted(&["--on-error", "record"], empty);
        assert_eq!(done.status.code(), Some(3), "{model}: {}", stderr(&done));
        assert_eq!(value(&done, "texts").as_deref(), Some("2"));
    }
}

#[test]
fn another_space_than_the_expected_one_is_refused() {
    for model in [minilm().display().to_string(), format!("openai:{MODEL}")] {
        let counted = |more: &[&str]| {
            let arguments = [&["--model", &model], more].concat();
            dry_run(program_without_account(), &arguments, TEXTS)
        };
        let own = value(&counted(&[]), "space").expect("an id");
        has(&counted(&["--expect-space", &own]), "space", &own);
        let other = "0".repeat(32);
        let done = counted(&["--expect-space", &other]);
        let said = stderr(&done);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains(&own) && said.contains(&other), "{said}");
    }
}
