//! Defines the arguments of the commands of `cache`.

use std::{ffi::OsStr, path::PathBuf};

use clap::{Arg, ArgGroup, Args, Command, Error, Subcommand, builder::TypedValueParser, error::ErrorKind};
use docvector_embed::{SpaceId, cache::CacheSpec};

use crate::day::Day;

pub(crate) const CACHE_EXAMPLES: &str = "\
A store is a file (vectors.sqlite), redis://HOST, or postgres://USER@HOST/DATABASE.

Examples:
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy --cache cache.sqlite
  docvector-embed cache stats cache.sqlite --by-space
  docvector-embed cache verify cache.sqlite --remove
  docvector-embed cache copy cache.sqlite postgres://me@localhost/vectors
  docvector-embed cache export redis://localhost vectors.arrow
  docvector-embed cache import vectors.arrow cache.sqlite
  docvector-embed cache merge a.sqlite b.sqlite --into cache.sqlite
  docvector-embed cache prune cache.sqlite --older-than 365 --remove
  docvector-embed cache salvage damaged.sqlite saved.sqlite";

const VERIFY_HELP: &str = "\
Reads the whole store, and a file twice. Other programs may use it meanwhile.

Exit status: 0 if nothing is damaged or all damage was removed, 1 if something is damaged or failed, 2 if the command
line is wrong.";

const COPY_HELP: &str = "\
Each entry is checked on the way; damaged ones are left out and named. Entries that the target has already are skipped, so
the same command goes on after an interruption.

Exit status: 0 if all was copied, 1 if something is damaged or failed, 2 if the command line is wrong.";

const EXPORT_HELP: &str = "\
The file is an Arrow IPC file (Feather 2), which pyarrow, polars and pandas read: key, space, day, truncated, half, vector.
It holds no texts: the key is a hash of the space, the kind and the text. For texts with their vectors, use `embed --cache`,
which takes stored vectors from the cache. Until the file is complete it ends in .partial; the same command goes on after an
interruption.

Exit status: 0 if all was written, 1 if something is damaged or failed, 2 if the command line is wrong.";

const PRUNE_HELP: &str = "\
Without --remove, nothing is changed and the number of entries is shown. `cache stats --by-space` shows the ids of spaces.
Entries of earlier versions do not state their space and day: only --unstamped selects them, and it selects all of them.";

/// Reads a store of the command line. A name that is no UTF-8 is the path of a file.
fn store_of(text: &OsStr) -> Result<CacheSpec, String> {
    match text.to_str() {
        Some("-") => Err("a cache is a file or a server, and not the standard input".to_owned()),
        Some(text) => text.parse().map_err(|error: docvector_embed::ParseError| error.to_string()),
        None => Ok(CacheSpec::Sqlite(text.into())),
    }
}

/// The parser of an argument that names a store. Its errors do not show the argument, which may have a password.
#[derive(Clone)]
pub(crate) struct StoreParser;

impl TypedValueParser for StoreParser {
    type Value = CacheSpec;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<CacheSpec, Error> {
        let name = argument.map_or_else(|| "the store".to_owned(), ToString::to_string);
        store_of(value)
            .map_err(|why| Error::raw(ErrorKind::ValueValidation, format!("{name}: {why}\n")).with_cmd(command))
    }
}

/// Returns the parser of an argument that names a store.
pub(crate) const fn store_parser() -> StoreParser {
    StoreParser
}

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show the number of entries, their size, and the spaces of their vectors
    Stats(StatsArgs),
    /// Check every entry, and a file itself
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Write a store to an Arrow file
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),
    /// Read an Arrow file into a store
    #[command(after_help = COPY_HELP)]
    Import(ImportArgs),
    /// Copy a store into another
    #[command(after_help = COPY_HELP)]
    Copy(CopyArgs),
    /// Copy several stores into one
    #[command(after_help = COPY_HELP)]
    Merge(MergeArgs),
    /// Save the sound entries of a damaged file
    #[command(after_help = COPY_HELP)]
    Salvage(SalvageArgs),
    /// Remove the entries of a space, or those that were written before a given day
    #[command(after_help = PRUNE_HELP)]
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Store: a file, redis://HOST or postgres://USER@HOST/DATABASE
    #[arg(value_name = "STORE", value_parser = store_parser())]
    pub(crate) store: CacheSpec,
    /// Read all entries, and count them by space: size, width, days, truncated texts
    #[arg(long)]
    pub(crate) by_space: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Store: a file, redis://HOST or postgres://USER@HOST/DATABASE
    #[arg(value_name = "STORE", value_parser = store_parser())]
    pub(crate) store: CacheSpec,
    /// Remove damaged entries; their texts are embedded again when they next occur
    #[arg(long)]
    pub(crate) remove: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Store to read
    #[arg(value_name = "STORE", value_parser = store_parser())]
    pub(crate) store: CacheSpec,
    /// Arrow file to write, which must not exist
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only the entries of this space; may be given several times
    #[arg(long, value_name = "ID")]
    pub(crate) space: Vec<SpaceId>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Arrow file to read
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Store to write to; a file is created if it is missing
    #[arg(value_name = "STORE", value_parser = store_parser())]
    pub(crate) store: CacheSpec,
    /// Only the entries of this space; may be given several times
    #[arg(long, value_name = "ID")]
    pub(crate) space: Vec<SpaceId>,
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Store to read
    #[arg(value_name = "FROM", value_parser = store_parser())]
    pub(crate) from: CacheSpec,
    /// Store to write to; a file is created if it is missing
    #[arg(value_name = "TO", value_parser = store_parser())]
    pub(crate) to: CacheSpec,
    /// Only the entries of this space; may be given several times
    #[arg(long, value_name = "ID")]
    pub(crate) space: Vec<SpaceId>,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Stores to read; of a key that several have, the entry of the first stays
    #[arg(value_name = "FROM", required = true, value_parser = store_parser())]
    pub(crate) from: Vec<CacheSpec>,
    /// Store to write to; a file is created if it is missing
    #[arg(long, value_name = "STORE", value_parser = store_parser())]
    pub(crate) into: CacheSpec,
    /// Only the entries of this space; may be given several times
    #[arg(long, value_name = "ID")]
    pub(crate) space: Vec<SpaceId>,
}

#[derive(Debug, Args)]
pub(crate) struct SalvageArgs {
    /// Damaged cache file, which is only read; close the programs that use it first
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Store for the sound entries; a file is created if it is missing
    #[arg(value_name = "STORE", value_parser = store_parser())]
    pub(crate) into: CacheSpec,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["space", "before", "older_than", "unstamped"]).required(true).multiple(true))]
pub(crate) struct PruneArgs {
    /// Store: a file, redis://HOST or postgres://USER@HOST/DATABASE
    #[arg(value_name = "STORE", value_parser = store_parser())]
    pub(crate) store: CacheSpec,
    /// Entries of this space; may be given several times
    #[arg(long, value_name = "ID")]
    pub(crate) space: Vec<SpaceId>,
    /// Entries that were written before this day (UTC), such as 2026-01-31
    #[arg(long, value_name = "DAY", conflicts_with = "older_than")]
    pub(crate) before: Option<Day>,
    /// Entries that were written more than so many days ago
    #[arg(long, value_name = "DAYS")]
    pub(crate) older_than: Option<u32>,
    /// Entries that do not state their space and day, too
    #[arg(long)]
    pub(crate) unstamped: bool,
    /// Remove them; otherwise they are counted
    #[arg(long)]
    pub(crate) remove: bool,
}

impl PruneArgs {
    /// Whether entries are selected by their space or day.
    pub(crate) const fn selects_stamped(&self) -> bool {
        !self.space.is_empty() || self.before.is_some() || self.older_than.is_some()
    }
}
