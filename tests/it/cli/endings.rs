//! How `docvector-embed` ends: signals at every stage, readers that are gone, and what files are left.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    cache::damage, embed::endless, files, program, run, run_unread, shell, stderr, until, with_default_signals,
};
use crate::support::{golden, minilm};

/// The longest that a command may take to end after a signal, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest that a row may take whose model has to be loaded first.
const LOADING: Duration = Duration::from_secs(180);

/// Sends a signal to a command.
pub(super) fn signal(child: &Child, name: &str) {
    // `env`, which starts the program, still ignores what the tests ignore.
    let running = format!("/proc/{}/comm", child.id());
    while fs::read_to_string(&running).is_ok_and(|name| name == "env\n") {
        thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
}

/// Waits for the end of a command, which must come.
pub(super) fn ended(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().expect("waited for") {
            Some(status) => return status,
            None if Instant::now() > end => {
                child.kill().expect("killed");
                panic!("it did not end");
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Starts `embed` of an input that does not end. Returns the run, and the number of lines that it has got so far.
fn endless_run(arguments: &[&str], stdout: Stdio) -> (Child, Arc<AtomicUsize>) {
    let mut command = program();
    command.args(["embed", "--model"]).arg(minilm()).args(arguments);
    let mut command = with_default_signals(&command);
    let mut child = command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let lines = Arc::new(AtomicUsize::new(0));
    let written = lines.clone();
    // The thread ends with the run.
    thread::spawn(move || {
        while stdin.write_all(endless(written.load(Ordering::Relaxed)).as_bytes()).is_ok() {
            written.fetch_add(1, Ordering::Relaxed);
        }
    });
    (child, lines)
}

/// Waits until a count has not grown for a second.
fn until_unmoved(count: &AtomicUsize) {
    let end = Instant::now() + LOADING;
    let (mut last, mut since) = (count.load(Ordering::Relaxed), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        assert!(Instant::now() < end, "it still grows");
        thread::sleep(Duration::from_millis(10));
        let now = count.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// From before the model is loaded until rows are written: the signal is what ends the run, and no file is left.
#[test]
fn a_signal_at_any_moment_ends_a_run_and_leaves_no_file() {
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        for after in [5, 20, 60, 150, 400, 1500] {
            let folder = tempfile::tempdir().expect("a folder");
            let output = folder.path().join("out.jsonl");
            let (mut child, _) = endless_run(&["--output", output.to_str().expect("UTF-8")], Stdio::null());
            // Not before signals are watched, which is within a few milliseconds.
            thread::sleep(Duration::from_millis(after));
            signal(&child, name);
            assert_eq!(ended(&mut child).signal(), Some(number), "{name} after {after} ms");
            assert_eq!(files(folder.path()), [""; 0], "{name} after {after} ms");
        }
    }
}

/// The pipe of the output is full, and nobody reads it.
#[test]
fn a_run_whose_output_is_stuck_can_be_ended() {
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        let (mut child, lines) = endless_run(&[], Stdio::piped());
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_exact(&mut [0; 1]).expect("a first byte");
        // A run that cannot write does not read on, either.
        until_unmoved(&lines);
        assert!(child.try_wait().expect("waited for").is_none(), "it is stuck");
        signal(&child, name);
        assert_eq!(ended(&mut child).signal(), Some(number), "{name}");
    }
}

/// Fills a pipe to its last byte, whatever it holds.
#[cfg(target_os = "linux")]
fn fill(fifo: &Path) {
    use std::os::unix::fs::OpenOptionsExt;

    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut pipe = fs::OpenOptions::new().write(true).custom_flags(flags).open(fifo).expect("opened");
    let mut held = 0;
    for size in [64 << 10, 1] {
        let bytes = vec![b'x'; size];
        let full = loop {
            match pipe.write(&bytes) {
                Ok(count) => held += count,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    }
    assert!(held > 0);
}

/// A report whose reader does not read: nothing waits for a signal any more, so it ends the command at once.
#[cfg(target_os = "linux")]
#[test]
fn a_report_that_is_stuck_can_be_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    // Opened for both, so that opening does not wait.
    let pipe = fs::OpenOptions::new().read(true).write(true).open(&fifo).expect("opened");
    fill(&fifo);
    let mut command = with_default_signals(program().arg("doctor"));
    let mut child = command.stdout(pipe.try_clone().expect("cloned")).spawn().expect("starts");
    thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().expect("waited for").is_none(), "it is stuck");
    signal(&child, "TERM");
    assert_eq!(ended(&mut child).signal(), Some(15));
}

/// `nohup`, and shells that start something in the background: what is ignored stays ignored.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_was_ignored_at_the_start_ends_nothing() {
    use std::{
        io::{BufRead, BufReader},
        sync::mpsc,
    };

    let mut command = shell("sh", "trap '' HUP INT; exec \"$0\" embed --model \"$1\"");
    let command = command.arg(minilm()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let (sending, lines) = mpsc::channel();
    thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sending.send(line)));
    let has_row_of = |text: &str, child: &mut Child| {
        let row = lines.recv_timeout(LOADING);
        if row.is_err() {
            child.kill().expect("killed");
        }
        assert!(row.as_ref().is_ok_and(|row| row.contains(text)), "{row:?}");
    };
    stdin.write_all(b"one\n").expect("written");
    has_row_of("one", &mut child);
    signal(&child, "HUP");
    signal(&child, "INT");
    stdin.write_all(b"two\n").expect("written");
    drop(stdin);
    has_row_of("two", &mut child);
    assert!(ended(&mut child).success());
}

/// A shell's loop ends with the command that a signal ended. `dash` would end in any case, by its own interrupt.
#[test]
fn a_loop_in_a_shell_ends_with_an_interrupted_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "for i in 1 2 3; do \"$0\" embed --model \"$1\" --output \"$2\"; echo \"$?\"; done";
    let mut command = with_default_signals(shell("bash", script).arg(minilm()).arg(folder.path().join("out.jsonl")));
    // The group of its own gets the signal, as from a terminal.
    let command = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    until("a run that has begun", || !files(folder.path()).is_empty());
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().expect("kill runs").success());
    assert_eq!(ended(&mut child).signal(), Some(2));
    let mut said = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    assert_eq!(said, "", "no later command ran");
    assert_eq!(files(folder.path()), [""; 0]);
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.npy");
    let arguments = ["--output", output.to_str().expect("UTF-8")];
    let (mut child, _) = endless_run(&arguments, Stdio::null());
    until("a run that has begun", || !files(folder.path()).is_empty());
    child.kill().expect("killed");
    child.wait().expect("ended");
    let left = files(folder.path());
    assert!(!left.is_empty() && left.iter().all(|name| name.ends_with(".partial")), "{left:?}");
    // What is younger than a minute may belong to a run on another machine.
    for name in left {
        let file = fs::File::options().write(true).open(folder.path().join(name)).expect("opened");
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("dated");
    }
    let done = super::embed(&arguments, b"one\n");
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(files(folder.path()), ["out.npy", "out.npy.space"]);
}

/// The work is done, and the exit status tells how it went, though nobody reads the report.
#[test]
fn an_unread_report_does_not_change_what_is_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let with_tiny = |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).arg("--model").arg(golden("tiny/bert-cls"));
        command
    };
    // These are not the vectors of the reference.
    let done = run_unread(&mut with_tiny(&["doctor", "--reference"]));
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));

    let plot = at("plot.svg");
    let done = run_unread(&mut with_tiny(&["bench", "--seconds", "1", "--budgets", "64", "--plot", &plot]));
    assert!(done.status.success() && Path::new(&plot).exists(), "{}", stderr(&done));

    let tuning = at("tuning.json");
    let mut tune = with_tiny(&["tune", "--seconds", "1", "--even-if-busy"]);
    let done = run_unread(tune.env("DOCVECTOR_EMBED_TUNING", &tuning));
    assert!(done.status.success() && Path::new(&tuning).exists(), "{}", stderr(&done));

    let cache = at("cache.sqlite");
    let done = super::embed(&["--cache", &cache, "--output", &at("out.jsonl")], b"one\ntwo\nthree\n");
    assert!(done.status.success(), "{}", stderr(&done));
    damage(Path::new(&cache), 0);
    let verified = |more: &[&str]| run_unread(program().args(["cache", "verify", &cache]).args(more));
    assert_eq!(verified(&[]).status.code(), Some(1));
    verified(&["--remove"]);
    let done = verified(&[]);
    assert!(done.status.success(), "the damaged entry was removed: {}", stderr(&done));
}

#[test]
fn an_output_that_cannot_be_is_refused_before_any_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("in.txt"), "one\n").expect("written");
    // No model is there: an error about the output comes first.
    let embed = |output: &str| {
        run(program().args(["embed", "--model", "none", "--input", &at("in.txt"), "--output", output]), b"")
    };
    for (output, says) in [("new/", "names a folder"), ("missing/out.npy", "missing does not exist")] {
        let done = embed(&at(output));
        assert!(stderr(&done).contains(says) && stderr(&done).contains(output), "{}", stderr(&done));
        assert_eq!(done.status.code(), Some(1));
    }
    for output in ["in.txt", "./in.txt"] {
        let done = embed(&at(output));
        assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
        assert!(stderr(&done).contains("--input and --output name the same file"), "{}", stderr(&done));
    }
    std::os::unix::fs::symlink("in.txt", at("link")).expect("linked");
    assert_eq!(embed(&at("link")).status.code(), Some(2));
    // The same through the shell.
    let mut redirected = shell("sh", "exec \"$0\" embed --model none --output \"$1\" < \"$1\"");
    assert_eq!(run(redirected.arg(at("in.txt")), b"").status.code(), Some(2));
    assert_eq!(fs::read_to_string(at("in.txt")).expect("there"), "one\n");
    assert_eq!(files(folder.path()), ["in.txt", "link"]);
}

/// What the shell has opened is written where the shell is in it.
#[cfg(target_os = "linux")]
#[test]
fn an_output_that_the_shell_has_opened_is_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("log");
    for (output, redirect) in
        [("/dev/stdout", ">>"), ("/dev/fd/1", ">>"), ("/dev/fd/3", "3>>"), ("/proc/self/fd/3", "3>>")]
    {
        fs::write(&file, "before\n").expect("written");
        let script = format!("{{ \"$0\" embed --quiet --model \"$1\" --output {output}; }} {redirect} \"$2\"");
        let done = run(shell("sh", &script).arg(minilm()).arg(&file), b"one\n");
        assert!(done.status.success(), "{output}: {}", stderr(&done));
        let lines = fs::read_to_string(&file).expect("there");
        assert!(lines.starts_with("before\n{\"text\":\"one\"") && lines.lines().count() == 2, "{output}: {lines:.99}");
    }
    assert_eq!(files(folder.path()), ["log"]);
}

/// The last line is bad: nothing is embedded before that is known.
#[test]
fn a_bad_last_line_of_a_file_is_found_before_the_model_is_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("in.jsonl");
    fs::write(&input, format!("{}{{\"txt\":1}}\n", "{\"text\":\"a\"}\n".repeat(3000))).expect("written");
    let mut command = program();
    let done = run(command.args(["embed", "--model", "none", "--input"]).arg(&input), b"");
    assert_eq!(done.status.code(), Some(1));
    let said = stderr(&done);
    assert!(said.contains("line 3001: the object has no field `text`"), "{said}");
    assert!(said.contains("1 line of 3001 cannot be embedded"), "{said}");
}

#[test]
fn another_space_than_the_expected_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let done = super::embed(&["--output", &at("out.npy")], b"one\n");
    let beside = fs::read_to_string(at("out.npy.space")).expect("there");
    let first_line = beside.lines().next().expect("a line");
    let space: docvector_embed::Space = first_line.parse().expect("a space");
    assert!(stderr(&done).contains(&format!("space {}", space.id())), "{}", stderr(&done));
    for right in [space.id().to_string(), at("out.npy.space")] {
        assert!(super::embed(&["--expect-space", &right], b"one\n").status.success());
    }
    let other = "0".repeat(32);
    let done = super::embed(&["--expect-space", &other, "--output", &at("other.npy")], b"one\n");
    assert_eq!(done.status.code(), Some(1));
    let said = stderr(&done);
    assert!(said.contains(&other) && said.contains(&space.id().to_string()), "{said}");
    assert_eq!(super::embed(&["--expect-space", "nonsense"], b"one\n").status.code(), Some(2));
    assert_eq!(files(folder.path()), ["out.npy", "out.npy.space"]);
}
