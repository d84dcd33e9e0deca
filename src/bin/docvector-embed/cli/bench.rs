//! Defines the arguments of `bench`, and refuses those that do not go together.

use std::path::PathBuf;

use clap::{Args, builder::TypedValueParser};

use super::{input::FormatArgs, kind::KindArg, model::LoadArgs, model_choice::local_model};
use crate::paths::{has_extension, is_same_file, is_standard};

pub(crate) const BENCH_EXAMPLES: &str = "\
Examples:
  docvector-embed bench --model DIR
  docvector-embed bench --model DIR --input lines.txt --budgets 128,256,512 --plot speed.svg
  docvector-embed bench --model DIR --kind query --threads 1 --seconds 20

A budget is the most padded tokens in a batch: each text counts as many tokens as the longest one in its batch. The
default budget is always measured, too. Tuned settings are ignored.

Exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong.";

/// The budgets that are measured if none are named.
const BUDGETS: [u32; 7] = [64, 128, 256, 512, 1024, 2048, 4096];

/// The rounds that are measured if no number is given.
const ROUNDS: u32 = 5;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Folder of the model, as sentence-transformers saves it, or its name in the asset folder, which `setup` fills
    #[arg(long, value_name = "DIR", value_parser = clap::builder::OsStringValueParser::new().try_map(local_model))]
    pub(crate) model: PathBuf,
    /// File of texts to measure with, as for `embed`; an even selection if it has many [default: built-in texts]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Kind of the texts; without --input, queries are short texts
    #[arg(long, value_enum, default_value_t = KindArg::Document)]
    pub(crate) kind: KindArg,
    /// Maximum padded tokens per batch, one or more numbers [default: 64,128,256,512,1024,2048,4096]
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    budgets: Vec<u32>,
    /// Number of times each budget is measured; with more rounds, each is shorter [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// About how long all of it takes if nothing else runs; each setting embeds at least a few texts, however short
    /// this is
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// SVG file for a plot of tokens/s by budget
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

impl BenchArgs {
    /// Returns the budgets to measure, including the default.
    pub(crate) fn budgets(&self, default: usize) -> Vec<usize> {
        let named = if self.budgets.is_empty() { &BUDGETS[..] } else { &self.budgets };
        let mut budgets: Vec<usize> = named.iter().map(|&budget| budget as usize).chain([default]).collect();
        budgets.sort_unstable();
        budgets.dedup();
        budgets
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(ROUNDS) as usize
    }

    /// Refuses arguments that do not go together.
    pub(crate) fn check(self) -> Result<Self, String> {
        self.format.options_if_any(self.input.as_deref())?;
        let Some(plot) = &self.plot else { return Ok(self) };
        if is_standard(plot) {
            return Err("a plot is a file: name one with --plot".to_owned());
        }
        if plot.extension().is_some() && !has_extension(plot, &["svg"]) {
            return Err(format!("--plot {}: a plot is an SVG image: give it a name that ends in .svg", plot.display()));
        }
        if self.input.as_ref().is_some_and(|input| !is_standard(input) && is_same_file(plot, input)) {
            return Err("--plot and --input name the same file".to_owned());
        }
        Ok(self)
    }
}
