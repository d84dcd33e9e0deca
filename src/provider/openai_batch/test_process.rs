//! Starts one test of this program again, as a process of its own: [`TestProcess`].

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

/// Set where a test was started by itself, to what it is to do.
const INNER: &str = "DOCVECTOR_EMBED_TEST_INNER";

/// Returns the task of a test that was started by itself.
pub(super) fn inner() -> Option<String> {
    env::var(INNER).ok()
}

/// Tells a line to the test that started this one, and waits until that one answers or ends.
pub(super) fn tell(line: &str) {
    say(&format!("\ntold {line}"));
    let _ = io::stdin().lock().read_line(&mut String::new());
}

/// Writes a line to standard output.
pub(super) fn say(line: &str) {
    writeln!(io::stdout(), "{line}").expect("it is open");
}

/// Returns the command line that runs one test of a module (its `module_path!()`), and nothing else.
pub(super) fn alone(module: &str, test: &str) -> Vec<String> {
    let program = env::current_exe().expect("this program").display().to_string();
    let (_, module) = module.split_once("::").expect("the crate's name comes first");
    let test = format!("{module}::{test}");
    [&*program, "--exact", &*test, "--nocapture", "--test-threads", "1"].map(str::to_owned).to_vec()
}

/// Runs a command that starts one test with this task, to its end, and asserts that the test passed.
pub(super) fn assert_passes(command: &mut Command, task: &str) {
    let output = command.env(INNER, task).output().expect("it starts");
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains(" 1 passed"), "{told}\n{warned}");
}

/// A test in a process of its own, which is killed when this is dropped.
pub(super) struct TestProcess {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl TestProcess {
    /// Starts a test with this task.
    pub(super) fn start(module: &str, test: &str, task: &str) -> Self {
        let line = alone(module, test);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env(INNER, task).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let told = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, told }
    }

    /// Waits for the next line that it tells.
    pub(super) fn next(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.told.read_line(&mut line).expect("it is text") > 0, "it ended and told nothing");
            if let Some(told) = line.strip_prefix("told ") {
                return told.trim_end().to_owned();
            }
        }
    }

    /// Lets it go on after what it told.
    pub(super) fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().expect("it is piped")).expect("it listens");
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
