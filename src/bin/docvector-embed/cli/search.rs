//! Defines the arguments of `search`.

use std::path::PathBuf;

use clap::{Args, builder::TypedValueParser};

use super::{
    model::LoadArgs, model_choice::ModelChoice, openai::OpenAiArgs, other_models::refuse_options_of_other_models,
};

pub(crate) const SEARCH_EXAMPLES: &str = "\
Examples:
  docvector-embed embed --model all-MiniLM-L6-v2 --input docs.csv --column body --output docs.jsonl
  docvector-embed search --model all-MiniLM-L6-v2 --vectors docs.jsonl 'who owns a value?'
  docvector-embed search --model all-MiniLM-L6-v2 --vectors docs.jsonl --top 3 --json 'who owns a value?' | jq .object.id

Reads all vectors for each question, one after the other, and keeps what is shown: 100,000 rows are read in a second or
two. A larger corpus wants an index, such as that of a vector database.

Exit status: 0 if the file was searched, 1 if something failed, 2 if the command line is wrong.";

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Model that made the vectors: a folder, a name, openai:NAME or remote:URL, as for `embed`
    #[arg(long, value_name = "DIR|SPEC", value_parser = clap::builder::OsStringValueParser::new().try_map(ModelChoice::read))]
    pub(crate) model: ModelChoice,
    /// File of vectors that `embed` wrote, as JSON lines or as npy. The file beside it that ends in .space tells whether
    /// they are this model's
    #[arg(long, value_name = "FILE")]
    pub(crate) vectors: PathBuf,
    /// Question, or the beginning of a text
    #[arg(value_name = "QUESTION")]
    pub(crate) question: String,
    /// Number of rows to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) top: u32,
    /// Print JSON lines: the score, the number of the row, and its object without the vector
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) openai: OpenAiArgs,
}

impl SearchArgs {
    /// Refuses arguments that do not go together.
    pub(crate) fn check(self) -> Result<Self, String> {
        refuse_options_of_other_models(&self.model, &self.load, &self.openai, None)?;
        Ok(self)
    }
}
