//! A job is submitted by one command, and its rows are written by another.

use std::{fs, io::Write, time::Duration};

use docvector_embed::testing::{BatchPlan, Fault, LineOrder, Route, Simulator};
use flate2::{Compression, write::GzEncoder};

use super::{Desk, MODEL, WIDTH, start, until};
use crate::cli::{files, rows, run, run_unread, stderr, stdout, vector};

#[test]
fn an_id_alone_is_printed_and_wait_writes_a_matrix() {
    let desk = Desk::new();
    desk.simulator.plan_all(BatchPlan::default().with_order(LineOrder::Shuffled(7)));
    let input = desk.lines(2500);
    let id = desk.submit(&input);
    assert_eq!((desk.simulator.counts().creates, desk.simulator.bills().texts), (1, 0));
    assert_eq!(desk.status(&id)["state"], "running");

    desk.pass_a_day();
    let output = desk.path("out.npy");
    let done = desk.run("wait", &[&id, &"--output", &output]);
    assert!(done.status.success(), "{}", stderr(&done));
    desk.check_rows(&output, 2500);
    let report = stdout(&done);
    assert!(report.contains(&format!("job       {id}\n")), "{report}");
    assert!(report.contains("texts     2500 of 2500\n") && report.contains("tokens    6500\n"), "{report}");
    // The simulator has no price.
    assert!(report.ends_with("cost      unknown (answered at once: unknown)\n"), "{report}");
    assert!(stderr(&done).contains(&format!("job {id}: running, batches: 1, ended: 0")), "{}", stderr(&done));

    // It has ended, and waiting once more costs nothing. Quiet means quiet.
    let done = desk.run("wait", &[&id, &"--quiet", &"--input", &input, &"--output", &output]);
    assert!(done.status.success() && done.stdout.is_empty() && done.stderr.is_empty(), "{}", stderr(&done));
    desk.check_rows(&output, 2500);
    assert_eq!(files(desk.folder.path()), ["in.txt", "jobs", "out.npy", "out.npy.space"]);
}

#[test]
fn json_lines_keep_their_fields_and_their_places() {
    let desk = Desk::new();
    let input = desk.write("chunks.jsonl", "{\"id\":1.50,\"text\":\"one\"}\n{\"text\":\"two\",\"tags\":[]}\n");
    let id = desk.submit(&input);
    desk.pass_a_day();
    let output = desk.path("embedded.jsonl");
    let done = desk.run("wait", &[&id, &"--input", &input, &"--output", &output]);
    assert!(done.status.success(), "{}", stderr(&done));
    let written = fs::read_to_string(&output).expect("written");
    assert!(written.starts_with("{\"id\":1.50,\"text\":\"one\",\"embedding\":["), "{written}");
    let have = rows(&written);
    assert_eq!(vector(&have[0]), desk.simulator.vector(MODEL, WIDTH, "one"));
    assert_eq!(vector(&have[1]), desk.simulator.vector(MODEL, WIDTH, "two"));

    // On standard output, the rows are alone.
    let done = desk.run("wait", &[&id, &"--input", &input, &"--output", &"-"]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(stdout(&done), written);
    assert!(stderr(&done).contains("cost      "), "{}", stderr(&done));

    // Rows never go to other texts than their own.
    for other in ["{\"text\":\"two\"}\n{\"text\":\"one\"}\n", "{\"text\":\"one\"}\n", "one\ntwo\nthree\n"] {
        let name = if other.starts_with('{') { "other.jsonl" } else { "other.txt" };
        let other = desk.write(name, other);
        let done = desk.run("wait", &[&id, &"--input", &other, &"--output", &desk.path("wrong.jsonl")]);
        assert_eq!(done.status.code(), Some(1));
        assert!(stderr(&done).contains(&format!("has other texts than the job {id}")), "{}", stderr(&done));
    }
    assert!(!desk.path("wrong.jsonl").exists());
}

#[test]
fn a_compressed_table_keeps_its_cells() {
    let desk = Desk::new();
    let input = desk.path("articles.csv.gz");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(b"id,body\r\n1.50,one\r\n2,\"two,\nlines\"\r\n").expect("a vector takes everything");
    fs::write(&input, gzip.finish().expect("a vector takes everything")).expect("written");
    let done = desk.run("submit", &[&"--model", &MODEL, &"--dimensions", &"8", &"--input", &input]);
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("there is no column `text`: the columns are `id` and `body`"), "{}", stderr(&done));
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 8] =
        [&"--model", &MODEL, &"--dimensions", &"8", &"--column", &"body", &"--input", &input];
    let done = desk.run("submit", &arguments);
    assert!(done.status.success(), "{}", stderr(&done));
    let id = stdout(&done).trim_end().to_owned();
    desk.pass_a_day();
    let done = desk.run("wait", &[&id, &"--column", &"body", &"--input", &input, &"--output", &"-"]);
    assert!(done.status.success(), "{}", stderr(&done));
    let have = rows(&stdout(&done));
    assert!(stdout(&done).starts_with("{\"id\":\"1.50\",\"body\":\"one\",\"embedding\":["), "{}", stdout(&done));
    assert_eq!(vector(&have[0]), desk.simulator.vector(MODEL, WIDTH, "one"));
    assert_eq!(vector(&have[1]), desk.simulator.vector(MODEL, WIDTH, "two,\nlines"));
}

#[test]
fn one_command_submits_and_waits() {
    let desk = Desk::at(Simulator::builder().with_speed(5000.0).start().expect("starts"));
    let output = desk.path("out.npy");
    let mut submit = desk.batch("submit", &[&"--model", &"openai-batch:text-embedding-3-small", &"--wait"]);
    let texts: String = (0..70).map(|i| format!("text {i}\n")).collect();
    let done = run(submit.args(["--dimensions", "8", "--output"]).arg(&output), texts.as_bytes());
    assert!(done.status.success(), "{}", stderr(&done));
    desk.check_rows(&output, 70);
    assert_eq!(desk.ids(), [stdout(&done).trim_end()]);
    assert!(stderr(&done).contains("texts     70 of 70"), "{}", stderr(&done));
}

/// Nobody reads the id.
#[test]
fn rows_are_written_though_standard_output_is_closed() {
    let desk = Desk::at(Simulator::builder().with_speed(5000.0).start().expect("starts"));
    let output = desk.path("out.npy");
    let mut submit = desk.batch("submit", &[&"--model", &MODEL, &"--dimensions", &"8", &"--wait"]);
    let done = run_unread(submit.arg("--input").arg(desk.lines(70)).arg("--output").arg(&output));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    desk.check_rows(&output, 70);
}

#[test]
fn each_submit_is_a_job_of_its_own() {
    let desk = Desk::new();
    let input = desk.lines(3);
    let ids = [desk.submit(&input), desk.submit(&input)];
    assert_eq!(desk.ids(), ids);
    assert_eq!(desk.simulator.counts().creates, 2);
}

#[test]
fn a_killed_wait_loses_nothing() {
    let desk = Desk::new();
    let id = desk.submit(&desk.lines(200));
    for _ in 0..3 {
        let polls = desk.simulator.counts().polls;
        let mut wait = start(&mut desk.batch("wait", &[&id, &"--output", &desk.path("out.npy")]));
        until("a poll", || desk.simulator.counts().polls > polls);
        wait.kill().expect("killed");
        wait.wait().expect("ended");
    }
    desk.pass_a_day();
    let done = desk.run("wait", &[&id, &"--output", &desk.path("out.npy")]);
    assert!(done.status.success(), "{}", stderr(&done));
    desk.check_rows(&desk.path("out.npy"), 200);
    assert_eq!((desk.simulator.counts().creates, desk.simulator.counts().uploads), (1, 1));
}

#[test]
fn a_job_whose_submission_was_killed_is_resumed() {
    let desk = Desk::new();
    let input = desk.lines(200);
    // The answer to the create is lost, and the list hangs: the process is killed while it looks for the batch.
    desk.simulator.fail_next(Route::CreateBatch, 1, Fault::lost_answer());
    desk.simulator.fail_next(Route::ListBatches, 1, Fault::hang());
    let mut submit = desk.batch("submit", &[&"--model", &MODEL, &"--dimensions", &"8", &"--input", &input]);
    let mut submit = start(&mut submit);
    until("a list that hangs", || desk.simulator.counts().faults == 2);
    submit.kill().expect("killed");
    submit.wait().expect("ended");

    let ids = desk.ids();
    let done = desk.run("resume", &[&ids[0]]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stderr(&done).contains("all batches are at OpenAI"), "{}", stderr(&done));
    assert_eq!((ids.len(), desk.simulator.counts().creates), (1, 1));
    assert_eq!(desk.status(&ids[0])["batches_sent"], 1);
    desk.pass_a_day();
    let done = desk.run("wait", &[&ids[0], &"--output", &desk.path("out.npy")]);
    assert!(done.status.success(), "{}", stderr(&done));
    desk.check_rows(&desk.path("out.npy"), 200);
}

#[cfg(unix)]
#[test]
fn an_interrupted_wait_says_how_to_go_on() {
    let desk = Desk::new();
    let id = desk.submit(&desk.lines(3));
    let polls = desk.simulator.counts().polls;
    let wait = start(&mut desk.batch("wait", &[&id, &"--jobs", &desk.jobs()]));
    until("a poll", || desk.simulator.counts().polls > polls);
    let said = crate::cli::embed::interrupted(wait);
    assert!(said.contains(&format!("interrupted; nothing of the job {id} is lost")), "{said}");
    assert!(said.contains(&format!("`docvector-embed batch wait {id} --jobs {}`", desk.jobs().display())), "{said}");
}

#[test]
fn a_second_process_waits_for_the_first() {
    let desk = Desk::new();
    let id = desk.submit(&desk.lines(200));
    let wait = |name: &str| start(&mut desk.batch("wait", &[&id, &"--output", &desk.path(name)]));
    let polls = desk.simulator.counts().polls;
    let first = wait("first.npy");
    until("a poll", || desk.simulator.counts().polls > polls);
    let second = wait("second.npy");
    desk.pass_a_day();
    for waiting in [first, second] {
        let done = waiting.wait_with_output().expect("ended");
        assert!(done.status.success(), "{}", stderr(&done));
    }
    desk.check_rows(&desk.path("first.npy"), 200);
    desk.check_rows(&desk.path("second.npy"), 200);
}

#[test]
fn a_cancelled_job_keeps_what_was_finished() {
    let desk = Desk::new();
    let input = desk.lines(640);
    let id = desk.submit(&input);
    // Ten lines of 64 texts take ten minutes: some of them are done.
    desk.simulator.advance(Duration::from_secs(315));
    desk.simulator.set_speed(1000.0);
    let done = desk.run("cancel", &[&id]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stdout(&done).contains("state     cancelled"), "{}", stdout(&done));
    let status = desk.status(&id);
    let answered = status["answered"].as_u64().expect("a number");
    assert!(answered > 0 && answered < 640 && answered.is_multiple_of(64), "{status}");
    desk.check_billed_once(answered as usize);

    let output = desk.path("out.npy");
    let done = desk.run("wait", &[&id, &"--output", &output]);
    assert_eq!(done.status.code(), Some(1));
    let said = stderr(&done);
    let missing = 640 - answered;
    assert!(
        said.contains(&format!("error: {missing} lines of 640 cannot be embedded; nothing was written to")),
        "{said}"
    );
    assert!(said.contains(": the job was cancelled before the text was answered"), "{said}");
    assert!(!output.exists());
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 7] =
        [&id, &"--input", &input, &"--output", &"-", &"--on-error", &"record"];
    let done = desk.run("wait", &arguments);
    assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
    let have = rows(&stdout(&done));
    assert_eq!(have.iter().filter(|row| row.get("error").is_some()).count() as u64, missing);
    for row in have.iter().filter(|row| row.get("error").is_none()) {
        let text = row["text"].as_str().expect("a text");
        assert_eq!(vector(row), desk.simulator.vector(MODEL, WIDTH, text));
    }
}

#[test]
fn batches_that_find_no_room_are_sent_later() {
    let desk = Desk::new();
    // The texts have about 4,200 tokens.
    desk.simulator.set_enqueued_tokens(Some(2_000));
    let id = desk.submit(&desk.lines(2_000));
    assert_eq!(desk.status(&id)["batches_sent"], 1);
    // The batch is refused when it is validated. The first process that looks learns of that, and divides it.
    desk.simulator.advance(Duration::from_secs(30));
    let mut wait = start(&mut desk.batch("wait", &[&id]));
    until("a part that is sent", || desk.status(&id)["batches_sent"] == 2);
    wait.kill().expect("killed");
    wait.wait().expect("ended");

    // The next process tries again. What is refused costs nothing.
    let done = desk.run("resume", &[&id]);
    assert!(done.status.success(), "{}", stderr(&done));
    desk.simulator.set_speed(5000.0);
    let done = desk.run("wait", &[&id, &"--output", &desk.path("out.npy")]);
    assert!(done.status.success(), "{}", stderr(&done));
    desk.check_rows(&desk.path("out.npy"), 2_000);
}
