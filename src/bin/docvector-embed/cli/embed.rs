//! Defines the arguments of `embed`, and refuses those that do not go together.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use docvector_embed::InputKind;

use super::{kind::KindArg, model::LoadArgs};
use crate::paths::{has_extension, is_json_lines, is_same_file, is_standard};

pub(crate) const EMBED_EXAMPLES: &str = "\
Examples:
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy
  docvector-embed embed --model DIR --input chunks.jsonl --on-error record > embedded.jsonl
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy --cache cache.sqlite

With --cache, start an interrupted or killed run again: it does not embed stored texts again. A stored text serves only
runs with the same --kind, --too-long, model and options of the model. A file that cannot be written is read, and nothing
is stored. If the cache fails during the run, the run warns and goes on.

Exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong.";

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// Folder of the model, as sentence-transformers saves it
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Kind of the texts: many models embed a document and a query about it differently
    #[arg(long, value_enum, default_value_t = KindArg::Document)]
    kind: KindArg,
    /// File of texts, one per line; `-` is standard input; JSON lines if the name ends in .jsonl or .ndjson
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// File for the vectors, which appears when it is complete; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// File to keep vectors in, created if missing: its texts are not embedded again. It stores no texts
    #[arg(long, value_name = "PATH")]
    cache: Option<PathBuf>,
    /// Format of the output [default: npy if its name ends in .npy, else jsonl]
    #[arg(long, value_enum)]
    format: Option<OutputFormat>,
    /// How to treat a text that is longer than the model accepts
    #[arg(long, value_enum, default_value_t = TruncationArg::Truncate)]
    too_long: TruncationArg,
    /// How to treat a line that cannot be embedded
    #[arg(long, value_enum, default_value_t = OnError::Fail)]
    on_error: OnError,
    /// Read JSON lines, whatever the input's name: objects with a field `text`; other fields are passed on
    #[arg(long)]
    jsonl: bool,
    /// Print no progress and no summary, only warnings
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// One JSON object per line: the input's fields and `embedding`
    Jsonl,
    /// A NumPy matrix of 32-bit floats, one row per text
    Npy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TruncationArg {
    /// Embed its beginning
    Truncate,
    /// Treat it as a line that cannot be embedded
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// List all such lines, write no file, and fail
    Fail,
    /// Write `{"line": .., "error": ..}` in its place and go on; JSON lines only
    Record,
}

/// The options of `embed`, with all defaults filled in.
#[derive(Debug)]
pub(crate) struct EmbedOptions {
    pub(crate) model: PathBuf,
    pub(crate) load: LoadArgs,
    pub(crate) kind: InputKind,
    pub(crate) too_long: docvector_embed::Truncation,
    pub(crate) on_error: OnError,
    pub(crate) input: PathBuf,
    pub(crate) jsonl: bool,
    pub(crate) output: PathBuf,
    pub(crate) format: OutputFormat,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) quiet: bool,
}

impl EmbedArgs {
    /// Fills in the defaults, and refuses arguments that do not go together.
    pub(crate) fn into_options(self) -> Result<EmbedOptions, String> {
        let format = match self.format {
            Some(format) => format,
            None if has_extension(&self.output, &["npy"]) => OutputFormat::Npy,
            None => OutputFormat::Jsonl,
        };
        if format == OutputFormat::Npy && is_standard(&self.output) {
            let message = "npy needs a file, because its header holds the number of rows: name one with --output";
            return Err(message.to_owned());
        }
        if format == OutputFormat::Npy && self.on_error == OnError::Record {
            return Err("a matrix cannot hold an error: --on-error record needs --format jsonl".to_owned());
        }
        if let Some(cache) = &self.cache {
            if is_standard(cache) {
                return Err("a cache is a file: name one with --cache".to_owned());
            }
            for (option, path) in [("--input", &self.input), ("--output", &self.output)] {
                if !is_standard(path) && is_same_file(cache, path) {
                    return Err(format!("--cache and {option} name the same file"));
                }
            }
        }
        Ok(EmbedOptions {
            model: self.model,
            load: self.load,
            kind: self.kind.into(),
            too_long: match self.too_long {
                TruncationArg::Truncate => docvector_embed::Truncation::Truncate,
                TruncationArg::Error => docvector_embed::Truncation::Error,
            },
            on_error: self.on_error,
            jsonl: self.jsonl || is_json_lines(&self.input),
            input: self.input,
            output: self.output,
            format,
            cache: self.cache,
            quiet: self.quiet,
        })
    }
}

impl EmbedOptions {
    /// Returns whether to show a progress bar: on a terminal, unless the output goes to one.
    pub(crate) fn shows_progress(&self) -> bool {
        let into_terminal = is_standard(&self.output) && io::stdout().is_terminal();
        !self.quiet && !into_terminal && io::stderr().is_terminal()
    }
}
