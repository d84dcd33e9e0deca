//! What goes wrong is said, with what can be done.

use std::{fs, process::Command};

use docvector_embed::testing::{BatchPlan, LineFate, Simulator};

use super::{Desk, MODEL, WIDTH};
use crate::cli::{openai::program_without_account, rows, run, stderr, stdout, vector};

#[test]
fn arguments_that_do_not_go_together_are_refused() {
    let desk = Desk::new();
    for arguments in [
        &["submit"][..],
        &["submit", "--model", ""],
        &["submit", "--model", "openai:m"],
        &["submit", "--model", "m", "--output", "x.npy"],
        &["submit", "--model", "m", "--wait", "--output", "-", "--format", "npy"],
        &["submit", "--model", "m", "--poll-seconds", "0"],
        &["submit", "--model", "m", "--standby-after", "-1"],
        &["submit", "--model", "m", "--cache", "-"],
        &["wait"],
        &["wait", "job", "--output", "x.jsonl"],
        &["wait", "job", "--input", "x.jsonl"],
        &["wait", "job", "--output", "x.npy", "--on-error", "record"],
        &["wait", "job", "--output", "x.npy", "--cache", "./x.npy"],
        &["wait", "job", "--jsonl"],
        &["status"],
        &["remove"],
        &["list", "job"],
        &[],
    ] {
        let done = run(desk.program().arg("batch").args(arguments), b"a\n");
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", stderr(&done));
    }
    assert!(!desk.jobs().exists());
    assert_eq!(desk.simulator.counts().requests, 0);
}

#[test]
fn an_output_that_is_the_input_is_refused() {
    let desk = Desk::at(Simulator::builder().with_speed(5000.0).start().expect("starts"));
    let input = desk.lines(3);
    let before = fs::read(&input).expect("there");
    let id = desk.submit(&input);
    let requests = desk.simulator.counts().requests;
    let same = desk.path("jobs").join("../in.txt");
    for output in [&input, &same] {
        for done in [
            desk.run("submit", &[&"--model", &MODEL, &"--wait", &"--input", &input, &"--output", output]),
            desk.run("wait", &[&id, &"--input", &input, &"--output", output]),
        ] {
            assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
            assert!(stderr(&done).contains("--input and --output name the same file"), "{}", stderr(&done));
            assert_eq!(fs::read(&input).expect("there"), before);
        }
    }
    assert_eq!((desk.ids(), desk.simulator.counts().requests), (vec![id], requests));
}

#[test]
fn an_input_with_bad_lines_is_not_submitted() {
    let desk = Desk::new();
    let input = desk.write("in.jsonl", &format!("{{\"text\":\"\"}}\n{{\"text\":\"{}\"}}\n[]\n", " a".repeat(9000)));
    let submit = |more: &[&str]| {
        let mut command = desk.batch("submit", &[&"--model", &MODEL, &"--input", &input]);
        let done = run(command.args(more), b"");
        assert_eq!(done.status.code(), Some(1));
        assert!(done.stdout.is_empty(), "{}", stdout(&done));
        stderr(&done)
    };
    let said = submit(&[]);
    assert!(said.contains("line 1: the text is empty\nline 3: the line is JSON, but not an object\n"), "{said}");
    assert!(said.contains("error: 2 lines of 3 cannot be embedded; nothing was submitted"), "{said}");
    desk.write("in.jsonl", &format!("{{\"text\":\"b\"}}\n{{\"text\":\"{}\"}}\n", " a".repeat(9000)));
    let said = submit(&["--too-long", "error"]);
    assert!(said.contains("line 2: the text has at least ") && said.contains("nothing was submitted"), "{said}");
    desk.write("in.jsonl", "");
    let said = submit(&[]);
    assert!(said.contains("has no texts; nothing was submitted"), "{said}");
    let said = stderr(&desk.run("submit", &[&"--model", &MODEL, &"--input", &desk.path("missing")]));
    assert!(said.contains("missing cannot be read"), "{said}");
    assert_eq!((desk.ids().len(), desk.simulator.counts().requests), (0, 0));
}

#[test]
fn accounts_and_models_that_do_not_work_are_named() {
    let desk = Desk::new();
    let input = desk.lines(1);
    let submit = |mut command: Command, model: &str| {
        command.args(["batch", "submit", "--model", model, "--jobs"]).arg(desk.jobs()).arg("--input").arg(&input);
        let done = run(&mut command, b"");
        assert_eq!(done.status.code(), Some(1));
        stderr(&done)
    };
    let said = submit(program_without_account(), MODEL);
    assert!(said.contains("set OPENAI_API_KEY"), "{said}");
    let said = submit(desk.program(), "text-embedding-9");
    assert!(said.contains("text-embedding-9"), "{said}");
    // A job is of one server.
    let id = desk.submit(&input);
    let mut elsewhere = program_without_account();
    elsewhere.env("OPENAI_API_KEY", "sk-test").args(["batch", "wait", &id, "--jobs"]).arg(desk.jobs());
    let said = stderr(&run(&mut elsewhere, b""));
    assert!(said.contains("the server") && said.contains("127.0.0.1"), "{said}");
}

#[test]
fn a_text_that_openai_refuses_is_a_bad_line() {
    let desk = Desk::new();
    let refused = LineFate::status(400, "invalid_value", "Not this text.");
    desk.simulator.script_lines(refused, None, |line| line.texts.iter().any(|text| *text == "text 65"));
    desk.simulator.plan_all(BatchPlan::instant());
    let input = desk.lines(200);
    let id = desk.submit(&input);
    let output = desk.path("out.npy");
    let done = desk.run("wait", &[&id, &"--output", &output]);
    assert_eq!(done.status.code(), Some(1));
    let said = stderr(&done);
    assert!(said.contains("line 66: the text was refused by the provider"), "{said}");
    assert!(said.contains("error: 1 line of 200 cannot be embedded; nothing was written to"), "{said}");
    assert!(stdout(&done).contains("texts     199 of 200"), "{}", stdout(&done));
    assert!(!output.exists());
    let done = desk.run("wait", &[&id]);
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("1 text of 200 got no vector"), "{}", stderr(&done));

    let done = desk.run("wait", &[&id, &"--input", &input, &"--output", &"-", &"--on-error", &"record"]);
    assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
    let have = rows(&stdout(&done));
    assert_eq!(have[65]["line"], 66);
    assert!(have[65]["error"].as_str().is_some_and(|why| why.starts_with("the text was refused by the provider")));
    assert_eq!(vector(&have[66]), desk.simulator.vector(MODEL, WIDTH, "text 66"));
    desk.check_billed_once(199);
}

#[test]
fn a_job_without_money_is_paused_and_goes_on() {
    let desk = Desk::new();
    desk.simulator.plan_all(BatchPlan::instant());
    desk.simulator.set_credit(Some(150));
    let id = desk.submit(&desk.lines(200));
    let output = desk.path("out.npy");
    let done = desk.run("wait", &[&id, &"--output", &output]);
    assert_eq!(done.status.code(), Some(1));
    let said = stderr(&done);
    assert!(said.contains(&format!("error: the job {id} is paused; when the cause is gone, ")), "{said}");
    assert!(said.contains(&format!("`docvector-embed batch wait {id}` goes on")), "{said}");
    assert!(said.contains("caused by: ") && said.contains("insufficient_quota"), "{said}");
    let status = desk.status(&id);
    assert_eq!(status["state"], "paused");
    assert!(status["trouble"].is_string(), "{status}");
    let shown = stdout(&desk.run("status", &[&id]));
    assert!(shown.contains("when the cause is gone, "), "{shown}");

    desk.simulator.set_credit(None);
    let done = desk.run("wait", &[&id, &"--output", &output]);
    assert!(done.status.success(), "{}", stderr(&done));
    desk.check_rows(&output, 200);
}

#[test]
fn a_standby_answers_what_batches_have_not() {
    let desk = Desk::new();
    // Cancelling takes a minute.
    desk.simulator.set_speed(1000.0);
    let id = desk.submit(&desk.lines(200));
    let done = desk.run("wait", &[&id, &"--standby-after", &"0", &"--output", &desk.path("out.npy")]);
    assert!(done.status.success(), "{}", stderr(&done));
    desk.check_rows(&desk.path("out.npy"), 200);
    assert!(desk.simulator.bills().standard_tokens > 0);
}
