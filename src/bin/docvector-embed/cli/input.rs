//! Defines the arguments of what is read: the file, its format, and the column of its texts.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::paths::has_extension;

/// The column or field of the texts, unless `--column` names another one.
const TEXT: &str = "text";

/// The ends of names that tell a format.
const EXTENSIONS: [(&str, InputFormat); 5] = [
    ("jsonl", InputFormat::Jsonl),
    ("ndjson", InputFormat::Jsonl),
    ("json", InputFormat::Json),
    ("csv", InputFormat::Csv),
    ("tsv", InputFormat::Tsv),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// One text per line
    Lines,
    /// JSON lines: one object per line, with the text in a field
    Jsonl,
    /// One JSON array of strings, or of objects with the text in a field
    Json,
    /// Rows of cells with commas between them, below a row with the names of the columns
    Csv,
    /// The same, with tabs between the cells
    Tsv,
}

impl InputFormat {
    /// Returns the format that a file's name tells.
    fn of_name(path: &Path) -> Self {
        let path = if has_extension(path, &["gz"]) { path.with_extension("") } else { path.to_owned() };
        let found = EXTENSIONS.into_iter().find(|(extension, _)| has_extension(&path, &[*extension]));
        found.map_or(Self::Lines, |(_, format)| format)
    }
}

/// A file of texts.
#[derive(Debug, Args)]
pub(crate) struct InputArgs {
    /// File of texts; `-` is standard input. It may be compressed with gzip, whatever its name
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    #[command(flatten)]
    format: FormatArgs,
}

impl InputArgs {
    /// Returns how the file is read. Refuses arguments that do not go together.
    pub(crate) fn options(&self) -> Result<InputOptions, String> {
        self.format.options(&self.input)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.input
    }
}

/// The format of a file of texts.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FormatArgs {
    /// Format of the input [default: by its name: jsonl for .jsonl and .ndjson, json for .json, csv for .csv, tsv for
    /// .tsv, each also with .gz after it, else lines]
    #[arg(long, value_name = "FORMAT", value_enum)]
    input_format: Option<InputFormat>,
    /// Short for `--input-format jsonl`
    #[arg(long)]
    jsonl: bool,
    /// Column of csv and tsv or field of jsonl and json that holds the texts; the others are passed on [default: text]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
}

/// How an input is read, with all defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputOptions {
    pub(crate) format: InputFormat,
    /// Whether the user named the format. If not, the content may speak against it.
    pub(crate) is_named: bool,
    /// The column or field of the texts.
    pub(crate) column: String,
}

impl FormatArgs {
    /// Returns how a file is read. Refuses arguments that do not go together.
    pub(crate) fn options(&self, path: &Path) -> Result<InputOptions, String> {
        let named = match (self.input_format, self.jsonl) {
            (Some(format), true) if format != InputFormat::Jsonl => {
                return Err("--jsonl and --input-format name two formats: leave one out".to_owned());
            }
            (None, true) => Some(InputFormat::Jsonl),
            (named, _) => named,
        };
        let format = named.unwrap_or_else(|| InputFormat::of_name(path));
        if format == InputFormat::Lines && self.column.is_some() {
            let message = "--column is for jsonl, json, csv and tsv: say with --input-format which of them this is";
            return Err(message.to_owned());
        }
        let column = self.column.clone().unwrap_or_else(|| TEXT.to_owned());
        Ok(InputOptions { format, is_named: named.is_some(), column })
    }

    /// Returns how a file is read, if there is one. Without one, these arguments are refused.
    pub(crate) fn options_if_any(&self, path: Option<&Path>) -> Result<Option<InputOptions>, String> {
        match (path, self.given()) {
            (Some(path), _) => self.options(path).map(Some),
            (None, Some(option)) => Err(format!("{option} needs a file: name it with --input")),
            (None, None) => Ok(None),
        }
    }

    fn given(&self) -> Option<&'static str> {
        let given = [
            ("--input-format", self.input_format.is_some()),
            ("--jsonl", self.jsonl),
            ("--column", self.column.is_some()),
        ];
        given.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }
}

/// Shorter ways to write options in tests.
#[cfg(test)]
impl InputOptions {
    /// The options of a format that the file's name tells.
    pub(crate) fn by_name(format: InputFormat) -> Self {
        Self { format, is_named: false, column: TEXT.to_owned() }
    }

    pub(crate) fn with_column(self, column: &str) -> Self {
        Self { column: column.to_owned(), ..self }
    }

    pub(crate) fn named(self) -> Self {
        Self { is_named: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_format() {
        for (name, format) in [
            ("a.jsonl", InputFormat::Jsonl),
            ("a.NDJSON", InputFormat::Jsonl),
            ("a.jsonl.gz", InputFormat::Jsonl),
            ("a.Json", InputFormat::Json),
            ("a.csv", InputFormat::Csv),
            ("a.CSV.GZ", InputFormat::Csv),
            ("a.tsv", InputFormat::Tsv),
            ("a.txt", InputFormat::Lines),
            ("a.txt.gz", InputFormat::Lines),
            ("a.csv.zip", InputFormat::Lines),
            ("csv", InputFormat::Lines),
            (".gz", InputFormat::Lines),
            ("-", InputFormat::Lines),
        ] {
            assert_eq!(InputFormat::of_name(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn arguments_that_do_not_go_together_are_refused() {
        let args = |input_format, jsonl, column: Option<&str>| FormatArgs {
            input_format,
            jsonl,
            column: column.map(str::to_owned),
        };
        let path = Path::new("a.csv");
        let options = args(None, false, None).options(path).expect("valid");
        assert_eq!(options, InputOptions::by_name(InputFormat::Csv));
        let options = args(Some(InputFormat::Jsonl), true, Some("body")).options(path).expect("valid");
        assert_eq!(options, InputOptions::by_name(InputFormat::Jsonl).named().with_column("body"));
        for (args, path) in [
            (args(Some(InputFormat::Csv), true, None), "a.csv"),
            (args(None, false, Some("body")), "a.txt"),
            (args(Some(InputFormat::Lines), false, Some("body")), "a.csv"),
        ] {
            assert!(args.options(Path::new(path)).is_err(), "{args:?}");
        }
        assert!(args(None, true, None).options_if_any(None).is_err_and(|message| message.starts_with("--jsonl needs")));
        assert_eq!(args(None, false, None).options_if_any(None), Ok(None));
    }
}
