//! Waits for the end of a job, reports on it and writes its rows: [`finish`].

use std::io::{self, IsTerminal, Write};

use docvector_embed::{
    Space,
    provider::{Job, JobReport},
};

use super::{
    follow::until_ended,
    hints::Hints,
    job_progress::JobProgress,
    rows::{Answers, windows_without_texts},
};
use crate::{
    bad_lines::BadLines,
    cli::rows::{OnError, RowsOptions},
    failure::Failure,
    output::Output,
    paths::is_standard,
    report::Report,
    run_summary::RunSummary,
    source::Source,
    wording::Counted,
};

/// Ends a refusal of an input.
pub(crate) const NOTHING_SUBMITTED: &str = "; nothing was submitted";

/// An output that was opened before the job ends, so that an error in it shows early.
pub(crate) struct OpenOutput {
    output: Output,
    on_error: OnError,
    is_standard: bool,
}

impl OpenOutput {
    pub(crate) fn create(options: &RowsOptions) -> Result<Self, Failure> {
        let is_standard = is_standard(&options.output);
        let output = Output::create(&options.output, options.format)?;
        Ok(Self { output, on_error: options.on_error, is_standard })
    }
}

/// How the end of a job is shown.
pub(crate) struct Ending<'a> {
    pub(crate) quiet: bool,
    /// Whether the report may go to standard output, which it leaves to rows.
    pub(crate) reports_on_stdout: bool,
    pub(crate) hints: &'a Hints,
}

/// Waits for the end of a job, prints its report and writes its rows. Fails if a text got none, unless that is recorded
/// in the output.
pub(crate) async fn finish(
    job: &Job,
    source: Option<&Source>,
    output: Option<OpenOutput>,
    ending: Ending<'_>,
) -> Result<(), Failure> {
    let rows_on_stdout = output.as_ref().is_some_and(|output| output.is_standard);
    let into_terminal = rows_on_stdout && io::stdout().is_terminal();
    let mut progress = JobProgress::new(job.status().texts, !into_terminal && io::stderr().is_terminal(), ending.quiet);
    let report = until_ended(job, &mut progress, ending.hints).await?;
    drop(progress);
    if !ending.quiet {
        print(&report, ending.reports_on_stdout && !rows_on_stdout)?;
    }
    let Some(OpenOutput { mut output, on_error, .. }) = output else { return refuse_missing(&report) };
    let answers = Answers::of(job, &report);
    let summary = match source {
        Some(source) => answers.write(source.windows()?, &mut output, on_error).await?,
        None => answers.write(windows_without_texts(report.texts), &mut output, on_error).await?,
    };
    complete(output, &summary, job.space())?;
    let max_tokens = None;
    for note in summary.notes(max_tokens) {
        // A closed stderr is no failure.
        let _ = writeln!(io::stderr().lock(), "warning: {note}");
    }
    summary.outcome()
}

/// Gives an output its name, unless there are bad lines: then it lists them and fails.
pub(crate) fn complete(output: Output, summary: &RunSummary, space: &Space) -> Result<(), Failure> {
    if summary.bad_lines.is_empty() {
        return output.finish(space);
    }
    let unwritten =
        if output.is_file() { format!("; nothing was written to {}", output.name()) } else { String::new() };
    drop(output);
    // If stderr is closed, the exit status still shows the failure.
    let _ = summary.bad_lines.print(&mut io::stderr().lock());
    let count = Counted(summary.bad_lines.count, "line");
    Err(Failure::new(format!("{count} of {} cannot be embedded{unwritten}", summary.lines)))
}

/// Prints what became of a job.
pub(crate) fn print(report: &JobReport, on_stdout: bool) -> Result<(), Failure> {
    if on_stdout {
        return Report::new(io::stdout().lock()).text(report);
    }
    // A closed stderr is no failure.
    let _ = writeln!(io::stderr().lock(), "{report}");
    Ok(())
}

/// Fails if not all texts have rows.
fn refuse_missing(report: &JobReport) -> Result<(), Failure> {
    match report.texts.saturating_sub(report.answered) {
        0 => Ok(()),
        missing => Err(Failure::new(format!("{} of {} got no vector", Counted(missing, "text"), report.texts))),
    }
}

/// Fails if an input has bad lines, and lists them.
pub(crate) fn refuse_bad_lines(bad_lines: &BadLines, lines: u64, what_then: &str) -> Result<(), Failure> {
    if bad_lines.is_empty() {
        return Ok(());
    }
    // If stderr is closed, the exit status still shows the failure.
    let _ = bad_lines.print(&mut io::stderr().lock());
    Err(Failure::new(format!("{} of {lines} cannot be embedded{what_then}", Counted(bad_lines.count, "line"))))
}
