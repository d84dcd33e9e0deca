//! The `docvector-embed` command: embeds files of texts on this machine or at OpenAI, serves a model over HTTP, shows what
//! it runs on, measures and tunes its speed, and checks caches.

mod bad_lines;
mod batch;
mod bench;
mod cache;
mod cache_warning;
mod cli;
mod command_words;
mod cosine;
mod cpu_contention;
mod day;
mod doctor;
mod dry_run;
mod embed;
mod embed_job;
mod embed_model;
mod ending;
mod failure;
mod first_look;
mod input;
mod jobs;
mod json_fields;
mod json_rows;
mod json_warning;
mod link;
mod log;
mod machine;
mod measurement;
mod nearest;
mod npy;
mod output;
mod paths;
mod plot;
mod plot_file;
mod preemption;
mod progress;
mod python;
mod reference;
mod report;
mod rounds;
mod run_summary;
mod runtime;
mod sample;
mod search;
mod serve;
mod serve_model;
mod setup;
mod signals;
mod source;
mod space_file;
mod statistics;
mod threads;
mod tune;
mod unfinished_file;
mod vectors_file;
mod window;
mod window_embedder;
mod wording;

use std::io::{self, Write};

use clap::Parser;

use self::{
    cli::{Cli, Command},
    failure::Failure,
};

fn main() {
    let command = Cli::parse().command;
    // A service has ends of its own.
    if !matches!(command, Command::Serve(_))
        && let Err(error) = signals::watch()
    {
        end(Err(Failure::with_cause("signals cannot be watched", error)));
    }
    end(run(command))
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Embed(args) => match args.into_options() {
            Ok(options) => embed::run(&options),
            Err(message) => cli::usage_error(&["embed"], &message).exit(),
        },
        Command::Setup(args) => setup::run(&args),
        Command::Batch(args) => batch::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => match args.check() {
            Ok(args) => bench::run(&args),
            Err(message) => cli::usage_error(&["bench"], &message).exit(),
        },
        Command::Search(args) => match args.check() {
            Ok(args) => search::run(&args),
            Err(message) => cli::usage_error(&["search"], &message).exit(),
        },
        Command::Serve(args) => match args.into_options() {
            Ok(options) => serve::run(options),
            Err(message) => cli::usage_error(&["serve"], &message).exit(),
        },
        Command::Tune(args) => match args.check() {
            Ok(args) => tune::run(&args),
            Err(message) => cli::usage_error(&["tune"], &message).exit(),
        },
        Command::Cache(args) => cache::run(&args.command),
    }
}

/// Ends the program with the status of its work.
fn end(done: Result<(), Failure>) -> ! {
    let status = match done {
        // `| head` closes the pipe when it has enough. That is no failure, even under `set -o pipefail`.
        Ok(()) | Err(Failure::ReaderGone) => ending::DONE,
        Err(Failure::Error(error)) => {
            // If stderr is closed, the exit status still shows the failure.
            let _ = failure::print(&*error, &mut io::stderr().lock());
            ending::FAILED
        }
        Err(Failure::Recorded) => ending::RECORDED,
        // Stdout is not flushed: it may take nothing.
        Err(Failure::Signal(signal, left)) => {
            let _ = writeln!(io::stderr().lock(), "error: {left}");
            ending::by_signal(signal.0)
        }
    };
    // Nothing else writes what stdout still holds. A failure here is that of a reader that is gone.
    let _ = io::stdout().lock().flush();
    ending::exit(status)
}
