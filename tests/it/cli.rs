//! The command line, run as users run it.
#![cfg(feature = "cli")]

mod batch;
mod bench;
mod cache;
#[cfg(unix)]
mod cache_tools;
mod doctor;
mod dry_run;
mod embed;
#[cfg(unix)]
mod endings;
mod input_formats;
mod openai;
#[cfg(unix)]
mod outputs;
mod search;
#[cfg(unix)]
mod serve;
#[cfg(target_os = "linux")]
mod setup;
mod tune;

use std::{
    io::{self, Write},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::support::{assets, minilm};

/// Returns the program, in an environment with the assets, without other libraries and tuned settings.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_docvector-embed"));
    command.env_remove("ORT_DYLIB_PATH").env("DOCVECTOR_EMBED_ASSETS", assets());
    command.env("DOCVECTOR_EMBED_TUNING", "").stdin(Stdio::null());
    command
}

/// Returns a command that runs another one with no signal ignored. The tests may run where some are ignored, as under
/// `nohup`, and the program leaves those ignored. Its input is empty, and its outputs are to be set.
pub(crate) fn with_default_signals(command: &Command) -> Command {
    let program = command.get_program();
    // Elsewhere the program cannot tell which are ignored, and `env` has no such option.
    let mut starter = if cfg!(target_os = "linux") {
        let mut env = Command::new("env");
        env.arg("--default-signal=INT,HUP,TERM").arg(program);
        env
    } else {
        Command::new(program)
    };
    starter.args(command.get_args()).stdin(Stdio::null());
    copy_environment(command, &mut starter);
    starter
}

/// Returns a shell that runs a script in the program's environment. In the script, `$0` is the program.
#[cfg(unix)]
pub(crate) fn shell(name: &str, script: &str) -> Command {
    let program = program();
    let mut shell = Command::new(name);
    shell.args(["-c", script]).arg(program.get_program()).stdin(Stdio::null());
    copy_environment(&program, &mut shell);
    shell
}

fn copy_environment(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}

/// Runs a command whose standard output has no reader from the start on.
pub(crate) fn run_unread(command: &mut Command) -> Output {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().expect("the program runs")
}

/// Runs a command to its end with this input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A program that refuses its arguments does not read its input.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("written");
    output
}

/// Runs `embed` on all-MiniLM-L6-v2 with these arguments.
pub(crate) fn embed(arguments: &[&str], input: &[u8]) -> Output {
    run(program().args(["embed", "--model"]).arg(minilm()).args(arguments), input)
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Parses JSON lines.
pub(crate) fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub(crate) fn vector(row: &Value) -> Vec<f32> {
    row["embedding"]
        .as_array()
        .expect("a vector")
        .iter()
        .map(|value| value.as_f64().expect("a number") as f32)
        .collect()
}

/// Returns the names of the files in a folder, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits until something holds, for as long as a busy machine may take.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..18_000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("within three minutes, it did not come to this: {what}");
}
