//! Defines the arguments of `embed`, and refuses those that do not go together.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use clap::{Args, builder::TypedValueParser};
use docvector_embed::{InputKind, Space, Truncation, cache::CacheSpec};

use super::{
    cache::store_parser,
    input::{InputArgs, InputOptions},
    jobs::{CourseArgs, JobsArgs},
    kind::KindArg,
    model::LoadArgs,
    model_choice::ModelChoice,
    openai::OpenAiArgs,
    other_models::refuse_options_of_other_models,
    rows::{OnError, OutputFormat, output_format, refuse_replaced_input, refuse_same_file},
    too_long::TooLongArg,
};
use crate::{failure::Failure, paths::is_standard, space_file::ExpectedSpace};

pub(crate) const EMBED_EXAMPLES: &str = "\
Examples:
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy
  docvector-embed embed --model DIR --input chunks.jsonl --on-error record > embedded.jsonl
  docvector-embed embed --model DIR --input articles.csv.gz --column body --output embedded.jsonl
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy --cache cache.sqlite
  docvector-embed embed --model openai:text-embedding-3-small --input lines.txt --output vectors.npy
  docvector-embed embed --model openai-batch:text-embedding-3-small --input lines.txt --output vectors.npy

The texts are lines, JSON lines, the elements of a JSON array, or cells of CSV or TSV: the input's name tells which, unless
--input-format does. The other fields or cells of a text are written beside its vector.

With --cache, start an interrupted or killed run again: it does not embed stored texts again. A stored text serves only
runs with the same --kind, --too-long, model and options of the model. A file that cannot be written is read, and nothing
is stored. If the cache fails during the run, the run warns and goes on.

With openai-batch:, the whole input is one batch job. Start an ended, interrupted or killed run again: the same texts are
the same job as long as it is in the folder of the jobs, and are not paid for again. `docvector-embed batch` lists the
jobs and removes them.

Exit status: 0 if every text has a vector, 1 if something failed, 2 if the command line is wrong, 3 if errors were written
in place of some vectors, as --on-error record asks. A signal ends a run as it ends others: shells show 128 and its number.

Beside a file of vectors lies a file that ends in .space: it says which vector space they are in, for `search`, for
--expect-space, and for programs (`Space::from_str` reads its first line).";

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// Folder of the model, as sentence-transformers saves it, or its name in the asset folder, which `setup` fills; or
    /// `openai:NAME`, a model at OpenAI; or `openai-batch:NAME`, the same at half the price, answered within 24 hours;
    /// or `remote:URL`, an embedding service, whose key is read from EMBEDDING_SERVICE_KEY
    #[arg(long, value_name = "DIR|SPEC", value_parser = clap::builder::OsStringValueParser::new().try_map(ModelChoice::read))]
    model: ModelChoice,
    /// Kind of the texts: many models embed a document and a query about it differently
    #[arg(long, value_enum, default_value_t = KindArg::Document)]
    kind: KindArg,
    #[command(flatten)]
    input: InputArgs,
    /// File for the vectors, which appears when it is complete; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Store to keep vectors in: a file, created if missing, redis://HOST or postgres://USER@HOST/DATABASE. Its texts are
    /// not embedded again. It stores no texts
    #[arg(long, value_name = "STORE", value_parser = store_parser())]
    cache: Option<CacheSpec>,
    /// Format of the output [default: npy if its name ends in .npy, else jsonl]
    #[arg(long, value_enum)]
    format: Option<OutputFormat>,
    /// How to treat a text that is longer than the model accepts
    #[arg(long, value_enum, default_value_t = TooLongArg::Truncate)]
    too_long: TooLongArg,
    /// How to treat a line that cannot be embedded
    #[arg(long, value_enum, default_value_t = OnError::Fail)]
    on_error: OnError,
    /// Refuse a model that embeds into another space than this: an id, or the file that lies beside vectors and ends in
    /// .space
    #[arg(long, value_name = "ID|FILE")]
    expect_space: Option<ExpectedSpace>,
    /// Count the texts, their tokens and, for a model at OpenAI, the requests and their price. Nothing is embedded
    #[arg(long)]
    dry_run: bool,
    /// Print no progress and no summary, only warnings
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    openai: OpenAiArgs,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    course: CourseArgs,
}

/// The options of `embed`, with all defaults filled in.
#[derive(Debug)]
pub(crate) struct EmbedOptions {
    pub(crate) model: ModelChoice,
    pub(crate) load: LoadArgs,
    pub(crate) openai: OpenAiArgs,
    pub(crate) jobs: JobsArgs,
    pub(crate) course: CourseArgs,
    pub(crate) kind: InputKind,
    pub(crate) too_long: Truncation,
    pub(crate) on_error: OnError,
    pub(crate) input: PathBuf,
    pub(crate) input_options: InputOptions,
    pub(crate) output: PathBuf,
    pub(crate) format: OutputFormat,
    pub(crate) cache: Option<CacheSpec>,
    expected_space: Option<ExpectedSpace>,
    pub(crate) dry_run: bool,
    pub(crate) quiet: bool,
}

impl EmbedArgs {
    /// Fills in the defaults, and refuses arguments that do not go together.
    pub(crate) fn into_options(self) -> Result<EmbedOptions, String> {
        let format = output_format(self.format, &self.output, self.on_error)?;
        let others = [("--input", Some(self.input.path())), ("--output", Some(self.output.as_path()))];
        refuse_same_file(self.cache.as_ref(), &others)?;
        refuse_replaced_input(Some(self.input.path()), Some(&self.output))?;
        let job_option = self.jobs.given().or_else(|| self.course.given());
        refuse_options_of_other_models(&self.model, &self.load, &self.openai, job_option)?;
        let input_options = self.input.options()?;
        Ok(EmbedOptions {
            model: self.model,
            load: self.load,
            openai: self.openai,
            jobs: self.jobs,
            course: self.course,
            kind: self.kind.into(),
            too_long: self.too_long.into(),
            on_error: self.on_error,
            input: self.input.path().to_owned(),
            input_options,
            output: self.output,
            format,
            cache: self.cache,
            expected_space: self.expect_space,
            dry_run: self.dry_run,
            quiet: self.quiet,
        })
    }
}

impl EmbedOptions {
    /// Refuses a space that is not the expected one.
    pub(crate) fn check_space(&self, space: &Space) -> Result<(), Failure> {
        self.expected_space.map_or(Ok(()), |expected| expected.check(space))
    }

    /// Returns whether to show a progress bar: on a terminal, unless the output goes to one.
    pub(crate) fn shows_progress(&self) -> bool {
        let into_terminal = is_standard(&self.output) && io::stdout().is_terminal();
        !self.quiet && !into_terminal && io::stderr().is_terminal()
    }
}
