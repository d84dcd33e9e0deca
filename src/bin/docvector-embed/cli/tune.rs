//! Defines the arguments of `tune`.

use std::path::PathBuf;

use clap::{Args, builder::TypedValueParser};

use super::{input::FormatArgs, model::ModelArgs, model_choice::local_model};

pub(crate) const TUNE_EXAMPLES: &str = "\
Examples:
  docvector-embed tune --model DIR
  docvector-embed tune --model DIR --input lines.txt --seconds 300
  docvector-embed tune --model DIR --dry-run

Let nothing else run meanwhile: if other programs use the cores for more than a tenth of the time, nothing is stored.
The result holds for this model (with the same --file, --pooling, --normalize and --max-tokens), this machine and this
version of ONNX Runtime.
The defaults are kept unless other settings are more than 3 % faster. The result is stored in the file that
DOCVECTOR_EMBED_TUNING names (if it is empty, there is no such file), else in docvector-embed/tuning.json in the user's
cache folder. To forget all results, remove the file.

Exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong.";

#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// Folder of the model, as sentence-transformers saves it, or its name in the asset folder, which `setup` fills
    #[arg(long, value_name = "DIR", value_parser = clap::builder::OsStringValueParser::new().try_map(local_model))]
    pub(crate) model: PathBuf,
    /// File of texts to measure with, as for `embed`; an even selection if it has many [default: built-in texts]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Store nothing, only print the measurements
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Store the result even if other programs used part of the cores
    #[arg(long)]
    pub(crate) even_if_busy: bool,
    /// About how long all of it takes if nothing else runs; each setting embeds at least a few texts, however short
    /// this is
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    #[command(flatten)]
    pub(crate) load: ModelArgs,
}

impl TuneArgs {
    /// Refuses arguments that do not go together.
    pub(crate) fn check(self) -> Result<Self, String> {
        self.format.options_if_any(self.input.as_deref())?;
        Ok(self)
    }
}
