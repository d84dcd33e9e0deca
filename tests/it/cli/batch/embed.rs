//! `embed --model openai-batch:..` works as `embed` does, and its job belongs to the texts.

use std::{fs, process::Command};

use docvector_embed::testing::{BatchPlan, LineFate, Simulator};

use super::{Desk, MODEL, WIDTH, start, until};
use crate::cli::{files, rows, run, stderr, stdout, vector};

impl Desk {
    fn embed(&self, arguments: &[&str]) -> Command {
        let mut command = self.program();
        command.args(["embed", "--model", "openai-batch:text-embedding-3-small", "--dimensions", "8"]);
        command.args(["--poll-seconds", "0.02"]).args(arguments);
        command
    }
}

#[test]
fn a_run_started_again_pays_nothing() {
    let desk = Desk::at(Simulator::builder().with_speed(5000.0).start().expect("starts"));
    let (input, output) = (desk.lines(2500), desk.path("out.npy"));
    for _ in 0..2 {
        let done = run(desk.embed(&["--input"]).arg(&input).arg("--output").arg(&output), b"");
        assert!(done.status.success(), "{}", stderr(&done));
        let said = stderr(&done);
        // The simulator has no price.
        assert!(said.contains("2500 texts, 8 dimensions, 6500 tokens; ") && !said.contains("$"), "{said}");
        assert!(said.contains(" stays in ") && said.contains("`docvector-embed batch remove "), "{said}");
        desk.check_rows(&output, 2500);
        fs::remove_file(&output).expect("removed");
    }
    assert_eq!((desk.ids().len(), desk.simulator.counts().creates), (1, 1));
    assert_eq!(files(desk.folder.path()), ["in.txt", "jobs", "out.npy.space"]);
}

#[test]
fn a_killed_run_attaches_to_its_job() {
    let desk = Desk::new();
    let (input, output) = (desk.lines(200), desk.path("out.npy"));
    for _ in 0..3 {
        let polls = desk.simulator.counts().polls;
        let mut embed = start(desk.embed(&["--input"]).arg(&input).arg("--output").arg(&output));
        until("a poll", || desk.simulator.counts().polls > polls);
        embed.kill().expect("killed");
        embed.wait().expect("ended");
    }
    assert!(!output.exists());
    desk.pass_a_day();
    let done = run(desk.embed(&["--input"]).arg(&input).arg("--output").arg(&output), b"");
    assert!(done.status.success(), "{}", stderr(&done));
    desk.check_rows(&output, 200);
    assert_eq!((desk.ids().len(), desk.simulator.counts().creates), (1, 1));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_that_the_same_command_goes_on() {
    let desk = Desk::new();
    let output = desk.path("out.npy");
    let embed = start(desk.embed(&["--input"]).arg(desk.lines(3)).arg("--output").arg(&output));
    until("a poll", || desk.simulator.counts().polls > 0);
    let said = crate::cli::embed::interrupted(embed);
    assert!(said.contains("is lost: the same command goes on"), "{said}");
    assert!(!output.exists());
    assert_eq!(files(desk.folder.path()), ["in.txt", "jobs"]);
}

#[test]
fn standard_input_is_read_once_and_written_with_its_fields() {
    let desk = Desk::new();
    desk.simulator.plan_all(BatchPlan::instant());
    let refused = LineFate::status(400, "invalid_value", "Not this text.");
    desk.simulator.script_lines(refused, None, |line| line.texts.iter().any(|text| text.contains("refused")));
    let long = " a".repeat(9000);
    let input = format!(
        "{{\"n\":1,\"text\":\"one\"}}\nbroken\n{{\"text\":\"to be refused\",\"n\":3}}\n{{\"text\":\"{long}\"}}\n{{\"text\":\"two\"}}\n"
    );
    let done = run(&mut desk.embed(&["--jsonl", "--on-error", "record", "--too-long", "error"]), input.as_bytes());
    assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
    let have = rows(&stdout(&done));
    assert_eq!(have.len(), 5);
    assert_eq!(vector(&have[0]), desk.simulator.vector(MODEL, WIDTH, "one"));
    assert_eq!((have[0]["n"].as_u64(), have[1]["line"].as_u64()), (Some(1), Some(2)));
    assert_eq!((have[2]["n"].as_u64(), have[2]["line"].as_u64()), (Some(3), Some(3)));
    assert!(have[3]["error"].as_str().is_some_and(|why| why.starts_with("the text has at least ")), "{}", have[3]);
    assert_eq!(vector(&have[4]), desk.simulator.vector(MODEL, WIDTH, "two"));
    assert!(stderr(&done).contains("3 lines of 5 have no embedding, but an error in its place"), "{}", stderr(&done));

    // The same lines, with truncation. Without recording, all bad lines are listed and nothing is written.
    let done = run(&mut desk.embed(&["--jsonl"]), input.replace("broken", "{\"text\":\"three\"}").as_bytes());
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("line 3: the text was refused by the provider"), "{}", stderr(&done));
    let done = run(&mut desk.embed(&["--jsonl"]), input.as_bytes());
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("line 2: ") && stderr(&done).contains("nothing was submitted"), "{}", stderr(&done));
}

#[test]
fn over_long_texts_are_truncated_and_marked() {
    let desk = Desk::new();
    desk.simulator.plan_all(BatchPlan::instant());
    let input = format!("short\n{}\n", " a".repeat(9000));
    let done = run(&mut desk.embed(&[]), input.as_bytes());
    assert!(done.status.success(), "{}", stderr(&done));
    let have = rows(&stdout(&done));
    assert_eq!((have[0].get("truncated"), have[1]["truncated"].as_bool()), (None, Some(true)));
    assert!(stderr(&done).contains("1 text was truncated to 8191 tokens"), "{}", stderr(&done));
    let done = run(&mut desk.embed(&["--too-long", "error"]), input.as_bytes());
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("line 2: the text has at least "), "{}", stderr(&done));
}

#[test]
fn no_texts_give_no_rows_and_no_job() {
    let desk = Desk::new();
    let done = run(&mut desk.embed(&[]), b"");
    assert!(done.status.success() && done.stdout.is_empty(), "{}", stderr(&done));
    let done = run(&mut desk.embed(&["--on-error", "record"]), b"\n");
    assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
    assert_eq!(stdout(&done), "{\"line\":1,\"error\":\"the text is empty\"}\n");
    assert_eq!((desk.ids().len(), desk.simulator.counts().requests), (0, 0));
}

#[test]
fn a_cache_is_one_for_jobs_and_for_calls() {
    let desk = Desk::new();
    desk.simulator.plan_all(BatchPlan::instant());
    let (input, cache) = (desk.lines(100), desk.path("cache.sqlite"));
    let embed = |model: &str, output: &str| {
        let mut command = desk.program();
        command.args(["embed", "--model", model, "--dimensions", "8", "--input"]).arg(&input);
        if model.starts_with("openai-batch:") {
            command.args(["--poll-seconds", "0.02"]);
        }
        let done = run(command.arg("--output").arg(desk.path(output)).arg("--cache").arg(&cache), b"");
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    };
    // A tenth is there already.
    desk.lines(10);
    embed("openai:text-embedding-3-small", "ten.npy");
    desk.lines(100);
    embed("openai-batch:text-embedding-3-small", "batch.npy");
    let said = embed("openai:text-embedding-3-small", "calls.npy");
    assert!(said.contains("100 of 100 texts from the cache"), "{said}");
    desk.check_rows(&desk.path("batch.npy"), 100);
    desk.check_rows(&desk.path("calls.npy"), 100);
}
