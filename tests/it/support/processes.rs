//! Tests that start themselves again as processes of their own, to share files with them and to kill them.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

/// Set where a test was started by itself, to what it is to do.
pub(crate) const INNER: &str = "DOCVECTOR_EMBED_TEST_INNER";

/// Returns the task of a test that was started by itself.
pub(crate) fn inner() -> Option<Vec<String>> {
    Some(env::var(INNER).ok()?.lines().map(str::to_owned).collect())
}

/// The arguments that run one test of a module (its `module_path!()`), and nothing else.
pub(crate) fn alone(module: &str, test: &str) -> [String; 5] {
    let (_, module) = module.split_once("::").expect("the crate's name comes first");
    ["--exact".into(), format!("{module}::{test}"), "--nocapture".into(), "--test-threads".into(), "1".into()]
}

/// A process, killed when dropped, whose lines are handed on as they come, each with its number.
pub(crate) struct Running(Child);

impl Running {
    /// Starts this program with these arguments, of [`alone`], and these words for [`inner`].
    pub(crate) fn start(
        arguments: [String; 5],
        words: &[&str],
        number: usize,
        lines: mpsc::Sender<(usize, String)>,
    ) -> Self {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(arguments).env(INNER, words.join("\n")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut told = BufReader::new(child.stdout.take().expect("it is piped"));
        thread::spawn(move || {
            let mut line = String::new();
            // A line without an end was cut off.
            while told.read_line(&mut line).is_ok() && line.ends_with('\n') {
                if lines.send((number, line.trim_end().to_owned())).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Self(child)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for its end, and tells whether it was a good one.
    #[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
    pub(crate) fn ended(&mut self) -> bool {
        self.0.wait().expect("it ended").success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
