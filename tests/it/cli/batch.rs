//! `docvector-embed batch`, and `embed` with a batch job, for which a simulator stands.
#![cfg(feature = "testing")]

mod embed;
mod failures;
mod overview;
mod two_steps;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use docvector_embed::testing::Simulator;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    openai::{MODEL, program_at},
    rows, run, stderr, stdout, until, with_default_signals,
};
use crate::support::npy;

/// Components of the vectors.
const WIDTH: usize = 8;

/// A simulator, and a folder for the jobs and files of one test.
struct Desk {
    simulator: Simulator,
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self::at(Simulator::start().expect("starts"))
    }

    fn at(simulator: Simulator) -> Self {
        Self { simulator, folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("written");
        path
    }

    /// Writes so many lines, `text 0` and on.
    fn lines(&self, count: usize) -> PathBuf {
        self.write("in.txt", &(0..count).map(|i| format!("text {i}\n")).collect::<String>())
    }

    fn jobs(&self) -> PathBuf {
        self.path("jobs")
    }

    /// Returns the program, whose jobs are in the folder.
    fn program(&self) -> Command {
        let mut command = program_at(&self.simulator);
        command.env("DOCVECTOR_EMBED_JOBS", self.jobs());
        command
    }

    fn batch(&self, command: &str, arguments: &[&dyn AsRef<OsStr>]) -> Command {
        let mut program = self.program();
        program.args(["batch", command]).args(arguments.iter().map(|argument| argument.as_ref()));
        if ["submit", "wait", "resume", "cancel"].contains(&command) {
            program.args(["--poll-seconds", "0.02"]);
        }
        program
    }

    fn run(&self, command: &str, arguments: &[&dyn AsRef<OsStr>]) -> Output {
        run(&mut self.batch(command, arguments), b"")
    }

    /// Submits a file, and returns the job's id.
    fn submit(&self, input: &Path) -> String {
        let done = self.run("submit", &[&"--model", &MODEL, &"--dimensions", &"8", &"--input", &input]);
        assert!(done.status.success(), "{}", stderr(&done));
        let printed = stdout(&done);
        let id = printed.trim_end();
        assert!(!id.is_empty() && !id.contains(char::is_whitespace), "{printed:?} is not an id alone");
        id.to_owned()
    }

    /// Returns what `status --json` says of a job.
    fn status(&self, id: &str) -> Value {
        let done = self.run("status", &[&id, &"--json"]);
        assert!(done.status.success(), "{}", stderr(&done));
        rows(&stdout(&done)).pop().expect("one line")
    }

    fn ids(&self) -> Vec<String> {
        let done = self.run("list", &[&"--json"]);
        let id = |row: &Value| row["id"].as_str().expect("an id").to_owned();
        rows(&stdout(&done)).iter().map(id).collect()
    }

    /// Fails unless a matrix has the rows of `text 0` and on, and each of these texts was billed once.
    fn check_rows(&self, path: &Path, count: usize) {
        let matrix = npy(path);
        assert_eq!(matrix.shape(), [count, WIDTH]);
        for (index, row) in matrix.rows().into_iter().enumerate() {
            let text = format!("text {index}");
            assert_eq!(row.to_vec(), self.simulator.vector(MODEL, WIDTH, &text), "{text}");
        }
        self.check_billed_once(count);
    }

    fn check_billed_once(&self, count: usize) {
        let bills = self.simulator.bills();
        assert_eq!((bills.texts, bills.most_per_text), (count as u64, 1));
    }

    /// Lets everything that is due within a day happen.
    fn pass_a_day(&self) {
        self.simulator.advance(Duration::from_secs(20 * 3600));
    }
}

/// Starts a command whose output nobody reads before it ends.
fn start(command: &mut Command) -> Child {
    with_default_signals(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}
