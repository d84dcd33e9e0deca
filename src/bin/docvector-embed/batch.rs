//! Runs `batch`: submits jobs, shows them, goes on with them, and removes them.

mod cancel;
mod open_job;
mod overview;
mod remove;
mod resume;
mod sent;
mod submit;
mod wait;

use crate::{
    cli::{
        batch::{BatchArgs, BatchCommand},
        usage_error,
    },
    failure::Failure,
};

/// Runs the command that was asked for. Ends the program if its arguments do not go together.
pub(crate) fn run(args: BatchArgs) -> Result<(), Failure> {
    match args.command {
        BatchCommand::Submit(args) => submit::run(&checked("submit", args.check())),
        BatchCommand::Wait(args) => wait::run(&checked("wait", args.check())),
        BatchCommand::Resume(args) => resume::run(&checked("resume", args.check())),
        BatchCommand::Cancel(args) => cancel::run(&checked("cancel", args.check())),
        BatchCommand::Status(args) => overview::status(&args),
        BatchCommand::List(args) => overview::list(&args),
        BatchCommand::Remove(args) => remove::run(&args),
    }
}

fn checked<A>(of: &str, args: Result<A, String>) -> A {
    args.unwrap_or_else(|message| usage_error(&["batch", of], &message).exit())
}
