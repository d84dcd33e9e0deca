//! The command line, run as users run it.
#![cfg(feature = "cli")]

mod batch;
mod bench;
mod cache;
#[cfg(unix)]
mod cache_tools;
mod doctor;
mod embed;
mod openai;
#[cfg(unix)]
mod serve;
mod tune;

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
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
