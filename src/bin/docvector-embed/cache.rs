//! Runs the commands of `cache`: shows, checks, copies and cleans stores of vectors.

mod open;
mod prune;
mod stats;
mod transfer;
mod verify;

use crate::{cli::cache::CacheCommand, failure::Failure};

pub(crate) fn run(command: &CacheCommand) -> Result<(), Failure> {
    match command {
        CacheCommand::Stats(args) => stats::run(args),
        CacheCommand::Verify(args) => verify::run(args),
        CacheCommand::Export(args) => transfer::export(args),
        CacheCommand::Import(args) => transfer::import(args),
        CacheCommand::Copy(args) => transfer::copy(args),
        CacheCommand::Merge(args) => transfer::merge(args),
        CacheCommand::Salvage(args) => transfer::salvage(args),
        CacheCommand::Prune(args) => prune::run(args),
    }
}
