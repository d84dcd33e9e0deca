//! Defines the command line, and refuses what cannot be meant.

use std::{
    io::{self, IsTerminal},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};
use docvector_embed::{
    InputKind, Precision,
    provider::{Device, Onnx, OnnxBuilder},
};

const EXAMPLES: &str = "\
Examples:
  docvector-embed embed --model assets/all-MiniLM-L6-v2 --input lines.txt --output vectors.npy
  docvector-embed embed --model assets/all-MiniLM-L6-v2 --input chunks.jsonl --output embedded.jsonl
  echo 'who owns a value?' | docvector-embed embed --model assets/all-MiniLM-L6-v2 --kind query
  docvector-embed embed --model assets/all-MiniLM-L6-v2 --input lines.txt --output vectors.npy --cache cache.sqlite
  docvector-embed cache stats cache.sqlite
  docvector-embed doctor --model assets/all-MiniLM-L6-v2
  docvector-embed tune --model assets/all-MiniLM-L6-v2";

const EMBED_EXAMPLES: &str = "\
Examples:
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy
  docvector-embed embed --model DIR --input chunks.jsonl --on-error record > embedded.jsonl
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy --cache cache.sqlite

With --cache, a run that was interrupted or killed does not embed again what it had stored: start it again. A text counts
as another one where --kind, --too-long or the model is another. A cache that fails is a warning, and no failure.

Exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong.";

const CACHE_EXAMPLES: &str = "\
Examples:
  docvector-embed embed --model DIR --input lines.txt --output vectors.npy --cache cache.sqlite
  docvector-embed cache stats cache.sqlite
  docvector-embed cache verify cache.sqlite
  docvector-embed cache verify cache.sqlite --remove";

const BENCH_EXAMPLES: &str = "\
Examples:
  docvector-embed bench --model DIR
  docvector-embed bench --model DIR --input lines.txt --budgets 128,256,512 --plot speed.svg
  docvector-embed bench --model DIR --kind query --threads 1 --seconds 20

A budget is how many padded tokens a batch may have: a text counts as the longest one in its batch. The default is always
among those that are measured. What was tuned is left aside.

Exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong.";

const TUNE_EXAMPLES: &str = "\
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

const VERIFY_HELP: &str = "\
Reads the whole file twice. Others may use it meanwhile.

Exit status: 0 if nothing is damaged, or all that was is removed; 1 if something is damaged or failed; 2 if the command
line is wrong.";

/// Turns texts into vectors with a sentence-transformers model, on this machine
#[derive(Debug, Parser)]
#[command(name = "docvector-embed", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Embed texts, one a line, into JSON lines or a NumPy matrix
    #[command(after_help = EMBED_EXAMPLES)]
    Embed(EmbedArgs),
    /// Show the library, machine and model found, and check known vectors
    Doctor(DoctorArgs),
    /// Measure how fast a model is with batches of several sizes
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),
    /// Find the threads and batches that are fastest here, for all later loads of a model
    #[command(after_help = TUNE_EXAMPLES)]
    Tune(TuneArgs),
    /// Look at a file that `embed --cache` keeps vectors in
    #[command(after_help = CACHE_EXAMPLES)]
    Cache(CacheArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// Folder of the model, as sentence-transformers saves it
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What the texts are: many models embed a document and a query about it differently
    #[arg(long, value_enum, default_value_t = Kind::Document)]
    kind: Kind,
    /// Texts, one a line; `-` is standard input. JSON lines if the name ends in .jsonl or .ndjson
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Where the vectors go; `-` is standard output. A file appears when it is complete
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// File to keep vectors in, made if missing: what is in it is not embedded again. It holds no texts
    #[arg(long, value_name = "PATH")]
    cache: Option<PathBuf>,
    /// Form of the output [default: npy if its name ends in .npy, else jsonl]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What happens to a text longer than the model takes
    #[arg(long, value_enum, default_value_t = Truncation::Truncate)]
    too_long: Truncation,
    /// What happens to a line that cannot be embedded: no file is written, or it gets a row that says why
    #[arg(long, value_enum, default_value_t = OnError::Fail)]
    on_error: OnError,
    /// Read JSON lines, whatever the input's name: objects with a field `text`; other fields pass through
    #[arg(long)]
    jsonl: bool,
    /// Print neither progress nor summary, only what was cut or left out
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Folder of a model to load and check
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Compare with the vectors of all-MiniLM-L6-v2 whatever the model is called
    #[arg(long, requires = "model")]
    pub(crate) reference: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Budgets that are measured where none are named.
const BUDGETS: [u32; 7] = [64, 128, 256, 512, 1024, 2048, 4096];

/// Rounds that are measured where no number is given.
const ROUNDS: u32 = 5;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Folder of the model, as sentence-transformers saves it
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Texts to measure with, as `embed` takes them, evenly spread where there are many [default: texts of this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// What the texts are; without --input, queries are short ones
    #[arg(long, value_enum, default_value_t = Kind::Document)]
    pub(crate) kind: Kind,
    /// Padded tokens of a batch, several numbers [default: 64,128,256,512,1024,2048,4096]
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    budgets: Vec<u32>,
    /// How often each budget is measured; more rounds are shorter ones [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// About how long all of it takes, where nothing else runs; each setting needs its time for a few texts, however
    /// short this is
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// File for a plot of tokens/s by budget, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

impl BenchArgs {
    /// The budgets to measure, the default among them.
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

    /// Refuses what cannot be meant.
    pub(crate) fn check(self) -> Result<Self, clap::Error> {
        let Some(plot) = &self.plot else { return Ok(self) };
        if is_standard(plot) {
            return Err(usage("bench", "a plot is a file: name one with --plot"));
        }
        if self.input.as_ref().is_some_and(|input| !is_standard(input) && is_same(plot, input)) {
            return Err(usage("bench", "--plot and --input name the same file"));
        }
        Ok(self)
    }
}

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

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show how much is in the file, what it takes on disk, and the spaces of its vectors
    Stats(StatsArgs),
    /// Check every entry and the file itself
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Remove damaged entries, so that their texts are embedded anew when they come again
    #[arg(long)]
    pub(crate) remove: bool,
}

/// How a model is loaded.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) which: ModelArgs,
    /// Threads to compute on [default: what was tuned, else one a core]
    #[arg(long, value_name = "N", requires = "model")]
    threads: Option<NonZeroUsize>,
}

impl LoadArgs {
    /// The model in `folder`, to be built as asked for.
    pub(crate) fn builder(&self, folder: &Path) -> OnnxBuilder {
        let builder = self.which.builder(folder);
        match self.threads {
            Some(threads) => builder.with_threads(threads.get()),
            None => builder,
        }
    }
}

/// Which model is loaded, and what it makes of texts.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// ONNX Runtime's library, or its folder [default: searched for]
    #[arg(long, value_name = "PATH")]
    pub(crate) library: Option<PathBuf>,
    /// File of the model to take, below its folder [default: model.safetensors, else model.onnx]
    #[arg(long, value_name = "PATH", requires = "model")]
    file: Option<PathBuf>,
    /// Tokens of a text that are embedded [default: what the model says]
    #[arg(long, value_name = "N", requires = "model")]
    max_tokens: Option<NonZeroUsize>,
    /// Device to run on: cpu, cuda or cuda:N; several cards with commas between them
    #[arg(long, value_name = "DEVICE", requires = "model", value_delimiter = ',', default_value = "cpu")]
    device: Vec<Device>,
    /// Precision of the layers: int8 is faster and less exact, on a CPU only, and makes vectors of another space
    #[arg(long, value_enum, requires = "model", default_value_t = Layers::Full)]
    precision: Layers,
}

/// The precision of a model's layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layers {
    /// fp32 on a CPU, fp16 on a card
    Full,
    /// 8 bits
    Int8,
}

impl ModelArgs {
    /// The model in `folder`, to be built as asked for.
    pub(crate) fn builder(&self, folder: &Path) -> OnnxBuilder {
        let mut builder = Onnx::builder(folder);
        if let Some(path) = &self.library {
            builder = builder.with_library(path);
        }
        if let Some(path) = &self.file {
            builder = builder.with_file(path);
        }
        if let Some(tokens) = self.max_tokens {
            builder = builder.with_max_tokens(tokens.get());
        }
        let precision = match self.precision {
            Layers::Full => Precision::Full,
            Layers::Int8 => Precision::Int8,
        };
        builder.with_devices(self.device.iter().copied()).with_precision(precision)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Document,
    Query,
}

impl From<Kind> for InputKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Document => Self::Document,
            Kind::Query => Self::Query,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object a line: the input's fields and `embedding`
    Jsonl,
    /// A NumPy matrix of 32-bit floats, a row a text
    Npy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Truncation {
    /// Embed its beginning
    Truncate,
    /// Treat it as a line that cannot be embedded
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// List all such lines and fail
    Fail,
    /// Write `{"line": .., "error": ..}` in its place and go on; JSON lines only
    Record,
}

/// What `embed` is to do, with everything decided.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) model: PathBuf,
    pub(crate) load: LoadArgs,
    pub(crate) kind: InputKind,
    pub(crate) too_long: docvector_embed::Truncation,
    pub(crate) on_error: OnError,
    pub(crate) input: PathBuf,
    pub(crate) jsonl: bool,
    pub(crate) output: PathBuf,
    pub(crate) format: Format,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) quiet: bool,
}

impl EmbedArgs {
    /// Decides what was left open, and refuses what does not go together.
    pub(crate) fn into_job(self) -> Result<Job, clap::Error> {
        let format = match self.format {
            Some(format) => format,
            None if ends_in(&self.output, &["npy"]) => Format::Npy,
            None => Format::Jsonl,
        };
        if format == Format::Npy && is_standard(&self.output) {
            let message = "npy needs a file, because its header holds the number of rows: name one with --output";
            return Err(usage("embed", message));
        }
        if format == Format::Npy && self.on_error == OnError::Record {
            return Err(usage("embed", "a matrix cannot hold an error: --on-error record needs --format jsonl"));
        }
        if let Some(cache) = &self.cache {
            if is_standard(cache) {
                return Err(usage("embed", "a cache is a file: name one with --cache"));
            }
            for (option, path) in [("--input", &self.input), ("--output", &self.output)] {
                if !is_standard(path) && is_same(cache, path) {
                    return Err(usage("embed", &format!("--cache and {option} name the same file")));
                }
            }
        }
        Ok(Job {
            model: self.model,
            load: self.load,
            kind: self.kind.into(),
            too_long: match self.too_long {
                Truncation::Truncate => docvector_embed::Truncation::Truncate,
                Truncation::Error => docvector_embed::Truncation::Error,
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

impl Job {
    /// Whether a progress bar is of use, and would not be drawn into the output.
    pub(crate) fn shows_progress(&self) -> bool {
        let into_terminal = is_standard(&self.output) && io::stdout().is_terminal();
        !self.quiet && !into_terminal && io::stderr().is_terminal()
    }
}

/// Whether a path stands for standard input or output.
pub(crate) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether a file's name says that it is of JSON lines.
pub(crate) fn is_json_lines(path: &Path) -> bool {
    ends_in(path, &["jsonl", "ndjson"])
}

/// Whether two paths lead to one file, which need not be there yet.
fn is_same(one: &Path, other: &Path) -> bool {
    let resolved = |path: &Path| {
        path.canonicalize().or_else(|_| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize()?;
            Ok::<_, io::Error>(folder.join(path.file_name().unwrap_or_default()))
        })
    };
    // Where there is no folder either, the file cannot be made.
    resolved(one).is_ok_and(|one| resolved(other).is_ok_and(|other| one == other))
}

fn ends_in(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|own| extensions.iter().any(|extension| own.eq_ignore_ascii_case(extension)))
}

/// An error as clap's own: with the usage of a subcommand and exit status 2.
fn usage(of: &str, message: &str) -> clap::Error {
    let mut command = Cli::command();
    command.build();
    match command.find_subcommand_mut(of) {
        Some(command) => command.error(ErrorKind::ArgumentConflict, message),
        None => command.error(ErrorKind::ArgumentConflict, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(arguments: &[&str]) -> Result<Job, clap::Error> {
        let all = ["docvector-embed", "embed", "--model", "m"].iter().chain(arguments);
        match Cli::try_parse_from(all)?.command {
            Command::Embed(args) => args.into_job(),
            other => unreachable!("embed was asked for, not {other:?}"),
        }
    }

    #[test]
    fn is_a_valid_command_line() {
        Cli::command().debug_assert();
    }

    #[test]
    fn has_defaults() {
        let job = job(&[]).expect("valid");
        assert_eq!((job.kind, job.format, job.on_error), (InputKind::Document, Format::Jsonl, OnError::Fail));
        assert_eq!(job.too_long, docvector_embed::Truncation::Truncate);
        assert!(is_standard(&job.input) && is_standard(&job.output) && !job.jsonl);
    }

    #[test]
    fn names_tell_the_formats() {
        assert_eq!(job(&["--output", "x.npy"]).expect("valid").format, Format::Npy);
        assert_eq!(job(&["--output", "x.npy", "--format", "jsonl"]).expect("valid").format, Format::Jsonl);
        for name in ["a.jsonl", "a.ndjson", "a.JSONL"] {
            assert!(job(&["--input", name]).expect("valid").jsonl, "{name}");
        }
        assert!(!job(&["--input", "a.txt"]).expect("valid").jsonl);
        assert!(job(&["--jsonl"]).expect("valid").jsonl);
    }

    #[test]
    fn refuses_what_cannot_be() {
        for arguments in [
            &["--format", "npy"][..],
            &["--output", "x.npy", "--on-error", "record"],
            &["--threads", "0"],
            &["--kind", "poem"],
            &["--cache", "-"],
            &["--cache", "x.sqlite", "--output", "x.sqlite"],
            &["--cache", "x.sqlite", "--output", "./x.sqlite"],
            &["--cache", "src/../x.sqlite", "--input", "x.sqlite"],
        ] {
            assert_eq!(job(arguments).expect_err("refused").exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn a_cache_is_another_file_than_input_and_output() {
        assert_eq!(job(&[]).expect("valid").cache, None);
        let job = job(&["--cache", "c", "--input", "i", "--output", "folder/c"]).expect("valid");
        assert_eq!(job.cache.as_deref(), Some(Path::new("c")));
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "").expect("written");
        assert!(is_same(&file, &folder.path().join("./file")) && !is_same(&file, &link));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&file, &link).expect("linked");
            assert!(is_same(&link, &file));
        }
        assert!(!is_same(&folder.path().join("missing/a"), &folder.path().join("missing/b")));
    }

    #[test]
    fn a_cache_is_looked_at_by_its_path() {
        let parse = |arguments: &[&str]| Cli::try_parse_from([&["docvector-embed", "cache"], arguments].concat());
        let command = |arguments: &[&str]| match parse(arguments).expect("valid").command {
            Command::Cache(args) => args.command,
            other => unreachable!("a cache was asked for, not {other:?}"),
        };
        assert!(matches!(command(&["stats", "c"]), CacheCommand::Stats(args) if args.path == Path::new("c")));
        for (arguments, remove) in [(&["verify", "c"][..], false), (&["verify", "c", "--remove"], true)] {
            let CacheCommand::Verify(args) = command(arguments) else { unreachable!("verify was asked for") };
            assert_eq!((args.path.as_path(), args.remove), (Path::new("c"), remove));
        }
        for arguments in
            [&["stats"][..], &[], &["verify", "--remove"], &["stats", "c", "--remove"], &["stats", "c", "d"]]
        {
            assert_eq!(parse(arguments).expect_err("refused").exit_code(), 2, "{arguments:?}");
        }
    }

    fn bench(arguments: &[&str]) -> Result<BenchArgs, clap::Error> {
        let all = ["docvector-embed", "bench", "--model", "m"].iter().chain(arguments);
        match Cli::try_parse_from(all)?.command {
            Command::Bench(args) => args.check(),
            other => unreachable!("bench was asked for, not {other:?}"),
        }
    }

    #[test]
    fn budgets_are_sorted_and_have_the_default_among_them() {
        let budgets = |arguments: &[&str], default| bench(arguments).expect("valid").budgets(default);
        assert_eq!(budgets(&[], 256), [64, 128, 256, 512, 1024, 2048, 4096]);
        assert_eq!(budgets(&["--budgets", "512,64,512"], 256), [64, 256, 512]);
        assert_eq!(budgets(&["--budgets", "8", "--budgets", "16"], 8), [8, 16]);
        assert_eq!((bench(&[]).expect("valid").rounds(), bench(&["--rounds", "7"]).expect("valid").rounds()), (5, 7));
    }

    #[test]
    fn bench_and_tune_refuse_what_cannot_be() {
        for arguments in [
            &["--budgets", "0"][..],
            &["--budgets", "64,,128"],
            &["--budgets", "64,many"],
            &["--budgets", "16777217"],
            &["--rounds", "0"],
            &["--seconds", "0"],
            &["--plot", "-"],
            &["--plot", "x", "--input", "./x"],
            &["--threads", "0"],
        ] {
            assert_eq!(bench(arguments).expect_err("refused").exit_code(), 2, "{arguments:?}");
        }
        let tune = |arguments: &[&str]| Cli::try_parse_from([&["docvector-embed", "tune"], arguments].concat());
        assert!(tune(&["--model", "m", "--dry-run", "--max-tokens", "64", "--file", "f", "--library", "l"]).is_ok());
        for arguments in [&[][..], &["--model", "m", "--threads", "2"], &["--model", "m", "--budgets", "64"]] {
            assert_eq!(tune(arguments).expect_err("refused").exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn doctor_takes_a_library_alone() {
        let parse = |arguments: &[&str]| Cli::try_parse_from([&["docvector-embed", "doctor"], arguments].concat());
        assert!(parse(&["--library", "l"]).is_ok());
        assert!(parse(&["--threads", "2"]).is_err());
        assert!(parse(&["--model", "m", "--threads", "2", "--reference"]).is_ok());
    }
}
