//! Defines the arguments of `cache stats` and `cache verify`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(crate) const CACHE_EXAMPLES: &str = "\
Examples:
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy --cache cache.sqlite
  docvector-embed cache stats cache.sqlite
  docvector-embed cache verify cache.sqlite
  docvector-embed cache verify cache.sqlite --remove";

const VERIFY_HELP: &str = "\
Reads the whole file twice. Other programs may use it meanwhile.

Exit status: 0 if nothing is damaged or all damage was removed, 1 if something is damaged or failed, 2 if the command
line is wrong.";

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show the number of entries, their size, and the spaces of their vectors
    Stats(StatsArgs),
    /// Check every entry and the file itself
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Cache file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Cache file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Remove damaged entries; their texts are embedded again when they next occur
    #[arg(long)]
    pub(crate) remove: bool,
}
