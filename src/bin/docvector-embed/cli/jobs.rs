//! Defines the arguments of batch jobs: where they are kept ([`JobsArgs`]) and how they go on ([`CourseArgs`]).

use std::{env, path::PathBuf, time::Duration};

use clap::Args;

/// Names the folder of the jobs, unless `--jobs` does.
const FOLDER_VARIABLE: &str = "DOCVECTOR_EMBED_JOBS";
const DEFAULT_FOLDER: &str = "docvector-jobs";

const HOUR: f64 = 3600.0;
const LONGEST_POLL: f64 = 24.0 * HOUR;

/// The folder of the jobs.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct JobsArgs {
    /// Folder of the batch jobs, which holds their texts until they are answered [default: the folder that
    /// DOCVECTOR_EMBED_JOBS names, else docvector-jobs in the current folder]
    #[arg(long, value_name = "DIR", help_heading = "Batch jobs")]
    jobs: Option<PathBuf>,
}

impl JobsArgs {
    /// Returns the folder of the jobs.
    pub(crate) fn folder(&self) -> PathBuf {
        let named = || env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        self.jobs.clone().or_else(named).unwrap_or_else(|| PathBuf::from(DEFAULT_FOLDER))
    }

    /// Returns the option as it would have to be written in another command, after a space; nothing if it was not given.
    pub(crate) fn as_option(&self) -> String {
        self.jobs.as_ref().map(|folder| format!(" --jobs {}", quoted(&folder.to_string_lossy()))).unwrap_or_default()
    }

    /// Returns an option that was given, if one was.
    pub(crate) fn given(&self) -> Option<&'static str> {
        self.jobs.is_some().then_some("--jobs")
    }
}

/// Quotes a word for a shell, if it needs that.
fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "/._-+=:,@%".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How a job goes on while a process works on it.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CourseArgs {
    /// Seconds between two looks at a batch [default: 10 at first, then up to 60]
    #[arg(long, value_name = "N", value_parser = poll_interval, help_heading = "Batch jobs")]
    pub(crate) poll_seconds: Option<Duration>,
    /// Hours after which what is not answered is cancelled and asked for at once, at the full price [default: never]
    #[arg(long, value_name = "HOURS", value_parser = hours, help_heading = "Batch jobs")]
    pub(crate) standby_after: Option<Duration>,
}

impl CourseArgs {
    /// Returns an option that was given, if one was.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given =
            [("--poll-seconds", self.poll_seconds.is_some()), ("--standby-after", self.standby_after.is_some())];
        given.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }
}

fn poll_interval(written: &str) -> Result<Duration, String> {
    let seconds = written.parse().ok().filter(|seconds| (0.01..=LONGEST_POLL).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "it must be a number from 0.01 to 86400".to_owned())
}

fn hours(written: &str) -> Result<Duration, String> {
    let hours = written.parse().ok().filter(|hours| (0.0..=1000.0).contains(hours));
    hours
        .map(|hours: f64| Duration::from_secs_f64(hours * HOUR))
        .ok_or_else(|| "it must be a number from 0 to 1000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_positive_numbers() {
        assert_eq!(poll_interval("0.05"), Ok(Duration::from_millis(50)));
        assert_eq!(hours("1.5"), Ok(Duration::from_secs(5400)));
        assert_eq!(hours("0"), Ok(Duration::ZERO));
        for wrong in ["0", "-1", "NaN", "inf", "", "1e9", "ten"] {
            assert!(poll_interval(wrong).is_err(), "{wrong}");
        }
        for wrong in ["-1", "NaN", "inf", "1e9", ""] {
            assert!(hours(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_option_is_written_as_a_shell_reads_it() {
        let option = |folder: &str| JobsArgs { jobs: Some(folder.into()) }.as_option();
        assert_eq!(option("a/b-c.d"), " --jobs a/b-c.d");
        assert_eq!(option("my jobs"), " --jobs 'my jobs'");
        assert_eq!(option("it's"), r" --jobs 'it'\''s'");
        assert_eq!(option(""), " --jobs ''");
        assert_eq!(JobsArgs::default().as_option(), "");
    }
}
