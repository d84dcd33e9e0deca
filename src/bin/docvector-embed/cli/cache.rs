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
Reads the whole file twice. Others may use it meanwhile.

Exit status: 0 if nothing is damaged, or all that was is removed; 1 if something is damaged or failed; 2 if the command
line is wrong.";

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show how much is in the file, what it takes on disk, and the spaces of its vectors
    Stats(StatsArgs),
    /// Check every entry and the file itself
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Remove damaged entries, so that their texts are embedded anew when they come again
    #[arg(long)]
    pub(crate) remove: bool,
}
