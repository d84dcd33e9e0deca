//! The `docvector-embed` command: embeds files of texts on this machine, shows what it runs on, measures how fast it is,
//! and looks after caches.

mod bench;
mod cache;
mod cli;
mod doctor;
mod embed;
mod failure;
mod input;
mod measure;
mod npy;
mod output;
mod plot;
mod progress;
mod reference;
mod report;
mod sample;
mod tally;
mod tune;

use std::{io, process::ExitCode};

use clap::Parser;

use self::{
    cli::{CacheCommand, Cli, Command},
    failure::Failure,
};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Embed(args) => args.into_job().map_or_else(|usage| usage.exit(), |job| embed::run(&job)),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => args.check().map_or_else(|usage| usage.exit(), |args| bench::run(&args)),
        Command::Tune(args) => tune::run(&args),
        Command::Cache(args) => match args.command {
            CacheCommand::Stats(args) => cache::stats(&args),
            CacheCommand::Verify(args) => cache::verify(&args),
        },
    };
    match done {
        // `| head` has had enough, and all that it was given is right: no failure, also under `set -o pipefail`.
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Error(error)) => {
            // With stderr gone, the exit status says what is left to say.
            let _ = failure::print(&*error, &mut io::stderr().lock());
            ExitCode::FAILURE
        }
    }
}

/// What the embedder's futures run on. The work itself is done on the embedder's own threads.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("no asynchronous runtime can be started", error))
}
