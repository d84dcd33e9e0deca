//! Defines the arguments of `batch` and its commands, and refuses those that do not go together.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use docvector_embed::cache::CacheSpec;

use super::{
    cache::store_parser,
    input::{FormatArgs, InputArgs, InputOptions},
    jobs::{CourseArgs, JobsArgs},
    kind::KindArg,
    model_choice::BatchModel,
    openai::{OpenAiArgs, ServerArgs},
    rows::{OutputFormat, RowsArgs, refuse_replaced_input, refuse_same_file},
    too_long::TooLongArg,
};

pub(crate) const BATCH_EXAMPLES: &str = "\
Examples:
  docvector-embed batch submit --model text-embedding-3-small --input chunks.jsonl
  docvector-embed batch list
  docvector-embed batch wait JOB --input chunks.jsonl --output embedded.jsonl
  docvector-embed batch wait JOB --output vectors.npy
  docvector-embed batch remove JOB

A job costs half the price and is answered within 24 hours, mostly much sooner. OpenAI works on it whether or not a
command runs here. Commands can be ended, killed and run again without paying a second time; only `submit` makes a new
job each time. The folder of the jobs holds texts until they are answered, and vectors until `remove`. It can be moved
to another machine, and several commands may use it at once.

Exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong, 3 if errors were written in place
of some vectors. A signal ends a command as it ends others: shells show 128 and its number.";

const SUBMIT_HELP: &str = "\
Prints the job's id on standard output, and all else on standard error. Ends when OpenAI has all batches of the job, or
takes no more for now: `wait` then submits the rest as there is room.";

const WAIT_HELP: &str = "\
Without --output it only waits. JSON lines need the input that was submitted: the row of a text goes to its line. It can
be given for npy, too, and is then compared with the job.

Exit status: 0 if every text has a vector, 1 if not or if something failed, 2 if the command line is wrong, 3 if errors
were written in place of some vectors, as --on-error record asks.";

#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    #[command(subcommand)]
    pub(crate) command: BatchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    /// Submit a file of texts as a new job
    #[command(after_help = SUBMIT_HELP)]
    Submit(SubmitArgs),
    /// Show how far a job is, as last known: nothing is sent
    Status(StatusArgs),
    /// Wait until a job has ended, and write its vectors
    #[command(after_help = WAIT_HELP)]
    Wait(WaitArgs),
    /// Go on with a job that is paused or whose command has ended: submit what is left, without waiting for the end
    Resume(JobArgs),
    /// Cancel a job, and keep what was finished; it was paid for
    Cancel(JobArgs),
    /// List the jobs: nothing is sent
    List(ListArgs),
    /// Remove a job that has ended, with its vectors
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// Model at OpenAI, such as text-embedding-3-small
    #[arg(long, value_name = "NAME")]
    pub(crate) model: BatchModel,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Kind of the texts: many models embed a document and a query about it differently
    #[arg(long, value_enum, default_value_t = KindArg::Document)]
    pub(crate) kind: KindArg,
    /// How to treat a text that is longer than the model accepts
    #[arg(long, value_enum, default_value_t = TooLongArg::Truncate)]
    pub(crate) too_long: TooLongArg,
    /// Wait until the job has ended, as `wait` does
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) rows: RowsArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) openai: OpenAiArgs,
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Id of the job
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// File that was submitted: each row goes to its line. `-` is standard input
    #[arg(long, value_name = "FILE", requires = "output")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    pub(crate) rows: RowsArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// Id of the job
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Id of the job
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print one JSON object per job and line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Id of the job
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
}

/// The cache and the course of a command that works on a job, and whether it is quiet.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Store to keep vectors in, as for `embed`: they go there as they come, and texts that it has are not submitted
    #[arg(long, value_name = "STORE", value_parser = store_parser())]
    pub(crate) cache: Option<CacheSpec>,
    /// Print no progress and no report, only warnings
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) course: CourseArgs,
}

impl SubmitArgs {
    /// Refuses arguments that do not go together.
    pub(crate) fn check(self) -> Result<Self, String> {
        if self.rows.output.is_some() && !self.wait {
            return Err("--output needs --wait: the vectors are there when the job has ended".to_owned());
        }
        self.input.options()?;
        let output = self.rows.options()?.map(|options| options.output);
        let others = [("--input", Some(self.input.path())), ("--output", output.as_deref())];
        refuse_same_file(self.run.cache.as_ref(), &others)?;
        refuse_replaced_input(Some(self.input.path()), output.as_deref())?;
        self.openai.refuse_two_urls(&self.model.0)?;
        Ok(self)
    }
}

impl WaitArgs {
    /// Returns the input and how it is read, if there is one.
    pub(crate) fn input(&self) -> Result<Option<(&Path, InputOptions)>, String> {
        let options = self.format.options_if_any(self.input.as_deref())?;
        Ok(self.input.as_deref().zip(options))
    }

    /// Refuses arguments that do not go together.
    pub(crate) fn check(self) -> Result<Self, String> {
        self.input()?;
        let options = self.rows.options()?;
        if options.as_ref().is_some_and(|options| options.format == OutputFormat::Jsonl) && self.input.is_none() {
            let message = "JSON lines need the texts: name the file that was submitted with --input";
            return Err(message.to_owned());
        }
        let output = options.map(|options| options.output);
        let others = [("--input", self.input.as_deref()), ("--output", output.as_deref())];
        refuse_same_file(self.run.cache.as_ref(), &others)?;
        refuse_replaced_input(self.input.as_deref(), output.as_deref())?;
        Ok(self)
    }
}

impl JobArgs {
    /// Refuses arguments that do not go together.
    pub(crate) fn check(self) -> Result<Self, String> {
        refuse_same_file(self.run.cache.as_ref(), &[])?;
        Ok(self)
    }
}
