//! Runs `batch status` and `batch list`: shows jobs as last known.

use std::{
    io::{self, Write},
    time::Duration,
};

use docvector_embed::provider::{JobState, JobStatus};
use serde_json::{Value, json};

use crate::{
    cli::batch::{ListArgs, StatusArgs},
    failure::Failure,
    jobs::{
        hints::Hints,
        open,
        words::{about, moment, timestamp},
    },
    report::Report,
    wording::without_controls,
};

/// Prints how far a job is, and which command goes on.
pub(crate) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let status = open::find(&args.jobs, &args.job)?;
    if args.json {
        return print_json(&[status]);
    }
    let mut report = Report::new(io::stdout().lock());
    report.line("job", &status.id)?;
    report.line("state", status.state)?;
    report.line("model", format_args!("{}, {} dimensions", without_controls(&status.model), status.dimensions))?;
    report.line("submitted", format_args!("{} UTC", moment(status.created)))?;
    report.line("texts", status.texts)?;
    let cached = if status.cached > 0 { format!(", {} by the cache", status.cached) } else { String::new() };
    report.line("  answered", format_args!("{}{cached}", status.answered))?;
    report.line("  failed", status.failed)?;
    report.line("tokens", status.tokens)?;
    report.line("batches", status.batches)?;
    report.line("  sent", status.batches_sent)?;
    report.line("  ended", status.batches_ended)?;
    if let Some(remaining) = status.remaining {
        report.line("left", format_args!("about {}", about(remaining)))?;
    }
    if let Some(trouble) = &status.trouble {
        report.line("trouble", without_controls(trouble))?;
    }
    report.line("next", next(&status, &Hints::of_batch(&args.jobs)))
}

/// Says what can be done with a job.
fn next(status: &JobStatus, hints: &Hints) -> String {
    let command = |command| hints.command(command, &status.id);
    match status.state {
        JobState::Completed | JobState::Cancelled => {
            format!("{} with --output writes the vectors; {} removes all of it", command("wait"), command("remove"))
        }
        JobState::Paused => format!("when the cause is gone, {} goes on", command("wait")),
        _ => format!("{} goes on with it, or waits for the process that does", command("wait")),
    }
}

/// Prints a table of all jobs.
pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let jobs = open::list(&args.jobs)?;
    if args.json {
        return print_json(&jobs);
    }
    if jobs.is_empty() {
        // A closed stderr is no failure.
        let _ = writeln!(io::stderr().lock(), "there are no jobs in {}", args.jobs.folder().display());
        return Ok(());
    }
    let heads = ["job", "state", "model", "submitted (UTC)", "texts", "answered", "failed", "tokens", "batches"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(jobs.iter().map(row));
    Report::new(io::stdout().lock()).rows(&rows)
}

fn row(status: &JobStatus) -> [String; 9] {
    [
        status.id.clone(),
        status.state.to_string(),
        without_controls(&status.model),
        moment(status.created),
        status.texts.to_string(),
        status.answered.to_string(),
        status.failed.to_string(),
        status.tokens.to_string(),
        format!("{}/{}", status.batches_ended, status.batches),
    ]
}

/// Prints one object per job and line.
fn print_json(jobs: &[JobStatus]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = jobs.iter().try_for_each(|status| writeln!(stdout, "{}", object(status)));
    written.map_err(|error| Failure::writing("standard output", error))
}

fn object(status: &JobStatus) -> Value {
    json!({
        "id": status.id,
        "state": status.state.as_str(),
        "model": status.model,
        "dimensions": status.dimensions,
        "created": timestamp(status.created),
        "texts": status.texts,
        "answered": status.answered,
        "cached": status.cached,
        "failed": status.failed,
        "processed": status.processed,
        "tokens": status.tokens,
        "batches": status.batches,
        "batches_sent": status.batches_sent,
        "batches_ended": status.batches_ended,
        "remaining_seconds": status.remaining.as_ref().map(Duration::as_secs),
        "trouble": status.trouble,
    })
}
