//! Defines the command line: its commands, and errors in how they are used.

mod at_least_one;
pub(crate) mod batch;
pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod input;
pub(crate) mod jobs;
pub(crate) mod kind;
pub(crate) mod model;
pub(crate) mod model_choice;
pub(crate) mod openai;
mod other_models;
pub(crate) mod rows;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod setup;
pub(crate) mod too_long;
pub(crate) mod tune;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use self::{
    batch::{BATCH_EXAMPLES, BatchArgs},
    bench::{BENCH_EXAMPLES, BenchArgs},
    cache::{CACHE_EXAMPLES, CacheArgs},
    doctor::DoctorArgs,
    embed::{EMBED_EXAMPLES, EmbedArgs},
    search::{SEARCH_EXAMPLES, SearchArgs},
    serve::{SERVE_EXAMPLES, ServeArgs},
    setup::{SETUP_EXAMPLES, SetupArgs},
    tune::{TUNE_EXAMPLES, TuneArgs},
};

const EXAMPLES: &str = "\
Examples:
  docvector-embed setup
  docvector-embed embed --model all-MiniLM-L6-v2 --input lines.txt --output vectors.npy
  docvector-embed embed --model all-MiniLM-L6-v2 --input chunks.jsonl --output embedded.jsonl
  echo 'who owns a value?' | docvector-embed embed --model all-MiniLM-L6-v2 --kind query
  docvector-embed embed --model all-MiniLM-L6-v2 --input lines.txt --output vectors.npy --cache cache.sqlite
  docvector-embed embed --model openai:text-embedding-3-small --input lines.txt --output vectors.npy
  docvector-embed batch submit --model text-embedding-3-small --input chunks.jsonl
  docvector-embed serve --model all-MiniLM-L6-v2
  docvector-embed cache stats cache.sqlite
  docvector-embed doctor --model all-MiniLM-L6-v2
  docvector-embed tune --model all-MiniLM-L6-v2";

/// Turns texts into vectors, with a sentence-transformers model on this machine or a model at OpenAI
#[derive(Debug, Parser)]
#[command(name = "docvector-embed", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch ONNX Runtime and a small model, once, for the commands that run a model on this machine
    #[command(after_help = SETUP_EXAMPLES)]
    Setup(SetupArgs),
    /// Embed the texts of a file (lines, JSON, CSV) into JSON lines or a NumPy matrix
    #[command(after_help = EMBED_EXAMPLES)]
    Embed(EmbedArgs),
    /// Embed texts by batch jobs at OpenAI: at half the price, within 24 hours
    #[command(after_help = BATCH_EXAMPLES)]
    Batch(BatchArgs),
    /// Find the rows that are nearest to a question in a file that `embed` wrote
    #[command(after_help = SEARCH_EXAMPLES)]
    Search(SearchArgs),
    /// Serve a model over HTTP, to clients of three dialects: our own, OpenAI's, text-embeddings-inference's
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Show the library, machine and model found, and check the vectors of a known model
    Doctor(DoctorArgs),
    /// Measure how fast a model is with batches of several sizes
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),
    /// Find the fastest threads and batches for a model on this machine, and store them for later loads
    #[command(after_help = TUNE_EXAMPLES)]
    Tune(TuneArgs),
    /// Show, check, copy or clean a store that `embed --cache` keeps vectors in
    #[command(after_help = CACHE_EXAMPLES)]
    Cache(CacheArgs),
}

/// Makes an error like clap's own: with the usage of a subcommand, given by its path, and exit status 2.
pub(crate) fn usage_error(of: &[&str], message: &str) -> clap::Error {
    let mut root = Cli::command();
    root.build();
    usage_error_of(&mut root, of, message)
}

fn usage_error_of(command: &mut clap::Command, of: &[&str], message: &str) -> clap::Error {
    if let [name, rest @ ..] = of
        && let Some(subcommand) = command.find_subcommand_mut(name)
    {
        return usage_error_of(subcommand, rest, message);
    }
    command.error(ErrorKind::ArgumentConflict, message)
}

#[cfg(test)]
mod tests {
    use docvector_embed::InputKind;
    use docvector_embed::cache::CacheSpec;

    use super::{
        cache::CacheCommand,
        embed::EmbedOptions,
        input::{InputFormat, InputOptions},
        rows::{OnError, OutputFormat},
        *,
    };
    use crate::paths::is_standard;

    fn embed_options(arguments: &[&str]) -> Result<EmbedOptions, clap::Error> {
        let all = ["docvector-embed", "embed", "--model", "m"].iter().chain(arguments);
        match Cli::try_parse_from(all)?.command {
            Command::Embed(args) => args.into_options().map_err(|message| usage_error(&["embed"], &message)),
            other => unreachable!("embed was asked for, not {other:?}"),
        }
    }

    #[test]
    fn is_a_valid_command_line() {
        Cli::command().debug_assert();
    }

    #[test]
    fn has_defaults() {
        let options = embed_options(&[]).expect("valid");
        assert_eq!(
            (options.kind, options.format, options.on_error),
            (InputKind::Document, OutputFormat::Jsonl, OnError::Fail)
        );
        assert_eq!(options.too_long, docvector_embed::Truncation::Truncate);
        assert!(is_standard(&options.input) && is_standard(&options.output));
        assert_eq!(options.input_options, InputOptions::by_name(InputFormat::Lines));
    }

    #[test]
    fn names_tell_the_formats() {
        assert_eq!(embed_options(&["--output", "x.npy"]).expect("valid").format, OutputFormat::Npy);
        assert_eq!(
            embed_options(&["--output", "x.npy", "--format", "jsonl"]).expect("valid").format,
            OutputFormat::Jsonl
        );
        for (arguments, read_as) in [
            (&["--input", "a.jsonl"][..], InputOptions::by_name(InputFormat::Jsonl)),
            (&["--input", "a.csv.gz", "--column", "body"], InputOptions::by_name(InputFormat::Csv).with_column("body")),
            (&["--input", "a.txt"], InputOptions::by_name(InputFormat::Lines)),
            (&["--jsonl"], InputOptions::by_name(InputFormat::Jsonl).named()),
            (&["--jsonl", "--input", "a.csv"], InputOptions::by_name(InputFormat::Jsonl).named()),
            (&["--input-format", "tsv"], InputOptions::by_name(InputFormat::Tsv).named()),
        ] {
            assert_eq!(embed_options(arguments).expect("valid").input_options, read_as, "{arguments:?}");
        }
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
            &["--input-format", "xml"],
            &["--input-format", "csv", "--jsonl"],
            &["--column", "body"],
            &["--column", "body", "--input", "a.csv", "--input-format", "lines"],
        ] {
            assert_eq!(embed_options(arguments).expect_err("refused").exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn options_go_with_the_model_that_they_are_for() {
        let parse = |arguments: &[&str]| {
            let all = ["docvector-embed", "embed"].iter().chain(arguments);
            let Command::Embed(args) = Cli::try_parse_from(all).expect("valid").command else {
                unreachable!("embed was asked for")
            };
            args.into_options()
        };
        let hosted = ["--model", "openai:text-embedding-3-small"];
        assert!(
            parse(&[&hosted[..], &["--dimensions", "256", "--base-url", "http://127.0.0.1:1/v1"]].concat()).is_ok()
        );
        for option in [
            &["--threads", "1"][..],
            &["--library", "l"],
            &["--file", "f"],
            &["--pooling", "mean"],
            &["--normalize"],
            &["--max-tokens", "9"],
            &["--device", "cuda"],
            &["--precision", "int8"],
            &["--weight-bits", "7"],
        ] {
            let refused = parse(&[&hosted[..], option].concat()).expect_err("an option of local models");
            assert_eq!(refused, format!("{} is for a model in a folder", option[0]));
            assert!(parse(&[&["--model", "m"][..], option].concat()).is_ok());
        }
        for option in [["--dimensions", "256"], ["--base-url", "http://127.0.0.1:1/v1"]] {
            let refused = parse(&[&["--model", "m"][..], &option].concat()).expect_err("an option of hosted models");
            assert!(refused.starts_with(&format!("{} is for a model at OpenAI", option[0])), "{refused}");
        }
        for option in [["--jobs", "folder"], ["--poll-seconds", "1"], ["--standby-after", "20"]] {
            for model in ["m", "openai:m"] {
                let refused = parse(&[&["--model", model][..], &option].concat()).expect_err("an option of jobs");
                assert!(refused.starts_with(&format!("{} is for batch jobs", option[0])), "{refused}");
            }
            assert!(parse(&[&["--model", "openai-batch:m"][..], &option].concat()).is_ok());
        }
        assert!(parse(&["--model", "openai-batch:m", "--threads", "1"]).is_err());
    }

    #[test]
    fn a_cache_is_another_file_than_input_and_output() {
        assert_eq!(embed_options(&[]).expect("valid").cache, None);
        let options = embed_options(&["--cache", "c", "--input", "i", "--output", "folder/c"]).expect("valid");
        assert_eq!(options.cache, Some(CacheSpec::Sqlite("c".into())));
    }

    #[test]
    fn a_cache_is_looked_at_by_its_path() {
        let parse = |arguments: &[&str]| Cli::try_parse_from([&["docvector-embed", "cache"], arguments].concat());
        let command = |arguments: &[&str]| match parse(arguments).expect("valid").command {
            Command::Cache(args) => args.command,
            other => unreachable!("a cache was asked for, not {other:?}"),
        };
        assert!(
            matches!(command(&["stats", "c"]), CacheCommand::Stats(args) if args.store == CacheSpec::Sqlite("c".into()))
        );
        for (arguments, remove) in [(&["verify", "c"][..], false), (&["verify", "c", "--remove"], true)] {
            let CacheCommand::Verify(args) = command(arguments) else { unreachable!("verify was asked for") };
            assert_eq!((args.store, args.remove), (CacheSpec::Sqlite("c".into()), remove));
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
            Command::Bench(args) => args.check().map_err(|message| usage_error(&["bench"], &message)),
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
            &["--plot", "x.png"],
            &["--plot", "x", "--input", "./x"],
            &["--input-format", "csv"],
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
    fn setup_takes_a_folder_and_a_python() {
        let parse = |arguments: &[&str]| Cli::try_parse_from([&["docvector-embed", "setup"], arguments].concat());
        for arguments in [&[][..], &["--assets", "folder"], &["--python", "python3.12", "--assets", "folder"]] {
            assert!(parse(arguments).is_ok(), "{arguments:?}");
        }
        for arguments in [&["folder"][..], &["--assets"], &["--assets", ""], &["--model", "m"]] {
            assert_eq!(parse(arguments).expect_err("refused").exit_code(), 2, "{arguments:?}");
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
