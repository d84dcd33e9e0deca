//! Defines the arguments of `tune`.

use std::path::PathBuf;

use clap::Args;

use super::model::ModelArgs;

pub(crate) const TUNE_EXAMPLES: &str = "\
Examples:
  docvector-embed tune --model DIR
  docvector-embed tune --model DIR --input lines.txt --seconds 300
  docvector-embed tune --model DIR --dry-run

Let nothing else run meanwhile: where other programs had the cores for more than a tenth of the time, nothing is kept. What
is measured holds for this model (with --file and --max-tokens as here), machine and
ONNX Runtime. Other settings than the defaults are chosen where they are more than 3 % faster. They are kept in the file
that DOCVECTOR_EMBED_TUNING names (no file where it is empty), else in docvector-embed/tuning.json in the user's cache
folder. To forget all of it, remove the file.

Exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong.";

#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// Folder of the model, as sentence-transformers saves it
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Texts to measure with, as `embed` takes them, evenly spread where there are many [default: texts of this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Keep nothing, only print what was measured
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Keep what was found although other programs took part of the cores
    #[arg(long)]
    pub(crate) even_if_busy: bool,
    /// About how long all of it takes, where nothing else runs; each setting needs its time for a few texts, however
    /// short this is
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    #[command(flatten)]
    pub(crate) load: ModelArgs,
}
