//! Defines the arguments of `embed`, and refuses those that do not go together.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use clap::{Args, builder::TypedValueParser};
use docvector_embed::{InputKind, Truncation, cache::CacheSpec};

use super::{
    cache::store_parser,
    jobs::{CourseArgs, JobsArgs},
    kind::KindArg,
    model::LoadArgs,
    model_choice::ModelChoice,
    openai::OpenAiArgs,
    rows::{OnError, OutputFormat, output_format, refuse_same_file},
    too_long::TooLongArg,
};
use crate::paths::{is_json_lines, is_standard};

pub(crate) const EMBED_EXAMPLES: &str = "\
Examples:
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy
  docvector-embed embed --model DIR --input chunks.jsonl --on-error record > embedded.jsonl
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy --cache cache.sqlite
  docvector-embed embed --model openai:text-embedding-3-small --input lines.txt --output vectors.npy
  docvector-embed embed --model openai-batch:text-embedding-3-small --input lines.txt --output vectors.npy

With --cache, start an interrupted or killed run again: it does not embed stored texts again. A stored text serves only
runs with the same --kind, --too-long, model and options of the model. A file that cannot be written is read, and nothing
is stored. If the cache fails during the run, the run warns and goes on.

With openai-batch:, the whole input is one batch job. Start an ended, interrupted or killed run again: the same texts are
the same job as long as it is in the folder of the jobs, and are not paid for again. `docvector-embed batch` lists the
jobs and removes them.

Exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong.";

/// The models that an option is for, in refusals.
const LOCAL: &str = "a model in a folder";
const HOSTED: &str = "a model at OpenAI, such as openai:text-embedding-3-small";
const BATCH: &str = "batch jobs, as with openai-batch:text-embedding-3-small";

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// Folder of the model, as sentence-transformers saves it; or `openai:NAME`, a model at OpenAI; or
    /// `openai-batch:NAME`, the same at half the price, answered within 24 hours; or `remote:URL`, an embedding service,
    /// whose key is read from EMBEDDING_SERVICE_KEY
    #[arg(long, value_name = "DIR|SPEC", value_parser = clap::builder::OsStringValueParser::new().try_map(ModelChoice::read))]
    model: ModelChoice,
    /// Kind of the texts: many models embed a document and a query about it differently
    #[arg(long, value_enum, default_value_t = KindArg::Document)]
    kind: KindArg,
    /// File of texts, one per line; `-` is standard input; JSON lines if the name ends in .jsonl or .ndjson
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
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
    /// Read JSON lines, whatever the input's name: objects with a field `text`; other fields are passed on
    #[arg(long)]
    jsonl: bool,
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
    pub(crate) jsonl: bool,
    pub(crate) output: PathBuf,
    pub(crate) format: OutputFormat,
    pub(crate) cache: Option<CacheSpec>,
    pub(crate) quiet: bool,
}

impl EmbedArgs {
    /// Fills in the defaults, and refuses arguments that do not go together.
    pub(crate) fn into_options(self) -> Result<EmbedOptions, String> {
        let format = output_format(self.format, &self.output, self.on_error)?;
        let others = [("--input", Some(self.input.as_path())), ("--output", Some(self.output.as_path()))];
        refuse_same_file(self.cache.as_ref(), &others)?;
        self.refuse_options_of_other_models()?;
        Ok(EmbedOptions {
            model: self.model,
            load: self.load,
            openai: self.openai,
            jobs: self.jobs,
            course: self.course,
            kind: self.kind.into(),
            too_long: self.too_long.into(),
            on_error: self.on_error,
            jsonl: self.jsonl || is_json_lines(&self.input),
            input: self.input,
            output: self.output,
            format,
            cache: self.cache,
            quiet: self.quiet,
        })
    }

    fn refuse_options_of_other_models(&self) -> Result<(), String> {
        let job_option = || self.jobs.given().or_else(|| self.course.given());
        let refusals = match &self.model {
            ModelChoice::Folder(_) => [(self.openai.given(), HOSTED), (job_option(), BATCH)],
            ModelChoice::OpenAi(_) => [(self.load.given(), LOCAL), (job_option(), BATCH)],
            ModelChoice::OpenAiBatch(_) => [(self.load.given(), LOCAL), (None, "")],
            ModelChoice::Remote(_) => {
                let options = self.load.given().map(|option| (option, LOCAL));
                let options = options.or(self.openai.given().map(|option| (option, HOSTED)));
                let (option, whose) = options.unzip();
                [(option, whose.unwrap_or_default()), (job_option(), BATCH)]
            }
        };
        match refusals.into_iter().find_map(|(option, whose)| Some((option?, whose))) {
            Some((option, whose)) => Err(format!("{option} is for {whose}")),
            None => Ok(()),
        }
    }
}

impl EmbedOptions {
    /// Returns whether to show a progress bar: on a terminal, unless the output goes to one.
    pub(crate) fn shows_progress(&self) -> bool {
        let into_terminal = is_standard(&self.output) && io::stdout().is_terminal();
        !self.quiet && !into_terminal && io::stderr().is_terminal()
    }
}
