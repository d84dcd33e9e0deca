//! Defines the arguments of where rows go, and refuses outputs that cannot be.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use docvector_embed::cache::CacheSpec;

use crate::{
    paths::{has_extension, is_same_file, is_same_input, is_standard},
    space_file,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// One JSON object per line: the input's fields and `embedding`
    Jsonl,
    /// A NumPy matrix of 32-bit floats, one row per text
    Npy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// List all such lines, write no file, and fail
    Fail,
    /// Write `{"line": .., "error": ..}` in its place and go on; JSON lines only
    Record,
}

/// The output for the rows of a job.
#[derive(Debug, Args)]
pub(crate) struct RowsArgs {
    /// File for the vectors, which appears when it is complete; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Format of the output [default: npy if its name ends in .npy, else jsonl]
    #[arg(long, value_enum, requires = "output")]
    format: Option<OutputFormat>,
    /// How to treat a text that got no vector
    #[arg(long, value_enum, requires = "output", default_value_t = OnError::Fail)]
    on_error: OnError,
}

/// An output of rows, with all defaults filled in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RowsOptions {
    pub(crate) output: PathBuf,
    pub(crate) format: OutputFormat,
    pub(crate) on_error: OnError,
}

impl RowsArgs {
    /// Returns the output, if there is one. Refuses arguments that do not go together.
    pub(crate) fn options(&self) -> Result<Option<RowsOptions>, String> {
        let Some(output) = &self.output else { return Ok(None) };
        let format = output_format(self.format, output, self.on_error)?;
        Ok(Some(RowsOptions { output: output.clone(), format, on_error: self.on_error }))
    }
}

/// Returns the format of an output, and refuses one that it cannot have.
pub(crate) fn output_format(
    format: Option<OutputFormat>,
    output: &Path,
    on_error: OnError,
) -> Result<OutputFormat, String> {
    let format = match format {
        Some(format) => format,
        None if has_extension(output, &["npy"]) => OutputFormat::Npy,
        None => OutputFormat::Jsonl,
    };
    let message = match (format, on_error) {
        (OutputFormat::Npy, _) if is_standard(output) => {
            "npy needs a file, because its header holds the number of rows: name one with --output"
        }
        (OutputFormat::Npy, OnError::Record) => "a matrix cannot hold an error: --on-error record needs --format jsonl",
        _ => return Ok(format),
    };
    Err(message.to_owned())
}

/// Refuses an output that is the input, which would be replaced, or whose file for the space is the input.
pub(crate) fn refuse_replaced_input(input: Option<&Path>, output: Option<&Path>) -> Result<(), String> {
    let (Some(input), Some(output)) = (input, output) else { return Ok(()) };
    if is_same_input(input, output) {
        return Err("--input and --output name the same file, which would be replaced: name another output".to_owned());
    }
    if !is_standard(output) && is_same_input(input, &space_file::beside(output)) {
        let output = output.display();
        return Err(format!(
            "--input is the file that says beside {output} which space its vectors are in: name another output"
        ));
    }
    Ok(())
}

/// Refuses a cache that is the same file as another one, or as the one beside the output.
pub(crate) fn refuse_same_file(cache: Option<&CacheSpec>, others: &[(&str, Option<&Path>)]) -> Result<(), String> {
    let Some(CacheSpec::Sqlite(cache)) = cache else { return Ok(()) };
    for (option, path) in others {
        if path.is_some_and(|path| !is_standard(path) && is_same_file(cache, path)) {
            return Err(format!("--cache and {option} name the same file"));
        }
        if *option == "--output"
            && path.is_some_and(|path| !is_standard(path) && is_same_file(cache, &space_file::beside(path)))
        {
            return Err("--cache names the file that says beside --output which space its vectors are in".to_owned());
        }
    }
    Ok(())
}
