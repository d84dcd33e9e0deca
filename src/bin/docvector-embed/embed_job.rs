//! Runs `embed` with a batch job: the whole input is one job, and its rows are written when it has ended.
//!
//! The input is read three times: for its bad lines, for its texts, and for the lines that the rows go to. So neither the
//! lines nor the vectors are ever in memory all at once. The job is found by its texts: a run that was killed attaches to
//! the job of the run before.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use docvector_embed::{
    Embedder, EmbedderExt, Error, Lane, OwnedOptions,
    provider::{Job, JobReport, OpenAiBatch},
};

use crate::{
    bad_lines::BadLines,
    cli::{embed::EmbedOptions, rows::OnError},
    failure::Failure,
    jobs::{
        blamed_texts::{bad_lines_of, reasons},
        finish::{NOTHING_SUBMITTED, complete, refuse_bad_lines},
        follow::until_ended,
        hints::Hints,
        job_progress::JobProgress,
        open::open,
        rows::Answers,
        texts::with_texts,
        words::about,
    },
    output::Output,
    progress::Progress,
    run_summary::RunSummary,
    runtime::runtime,
    source::Source,
    wording::Counted,
};

/// Embeds the file with this model, and prints a summary on stderr.
pub(crate) fn run(options: &EmbedOptions, model: &str) -> Result<(), Failure> {
    let started = Instant::now();
    // Open the files first, so that an error in them shows before anything is submitted.
    let mut output = Output::create(&options.output, options.format)?;
    let provider = open(options.openai.builder(model), &options.jobs, &options.course, options.cache.as_ref())?;
    options.check_space(provider.space()?)?;
    let mut source = Source::read(&options.input, &options.input_options)?;
    source.warn_of_json();
    if options.on_error == OnError::Fail {
        refuse_bad_lines(&source.bad_lines, source.lines, NOTHING_SUBMITTED)?;
    }
    let hints = Hints::of_embed(&options.jobs);
    let (summary, report) = runtime()?.block_on(async {
        let answered = answered(options, &provider, &mut source, &hints).await?;
        let answers = answered.as_ref().map_or_else(Answers::none, |(job, report)| Answers::of(job, report));
        let summary = answers.write(source.windows()?, &mut output, options.on_error).await?;
        Ok::<_, Failure>((summary, answered.map(|(_, report)| report)))
    })?;
    complete(output, &summary, provider.space()?)?;
    print_summary(options, &provider, &summary, report.as_ref(), started.elapsed());
    summary.outcome()
}

/// Waits for the answers to all texts; `None` if there are no texts.
async fn answered(
    options: &EmbedOptions,
    provider: &OpenAiBatch,
    source: &mut Source,
    hints: &Hints,
) -> Result<Option<(Job, JobReport)>, Failure> {
    while source.texts > 0 {
        let job = match attach(options, provider, source, hints).await? {
            Ok(job) => job,
            Err(error) if error.bad_texts().is_empty() => return Err(error.into()),
            Err(error) if options.on_error == OnError::Fail => {
                let mut bad_lines = BadLines::default();
                bad_lines.extend(bad_lines_of(&error, source)?);
                refuse_bad_lines(&bad_lines, source.lines, NOTHING_SUBMITTED)?;
                return Err(error.into());
            }
            Err(error) => {
                // The job is one of the other texts.
                source.exclude(&reasons(&error))?;
                continue;
            }
        };
        let mut progress = JobProgress::new(source.texts, options.shows_progress(), options.quiet);
        let report = until_ended(&job, &mut progress, hints).await?;
        return Ok(Some((job, report)));
    }
    Ok(None)
}

/// Finds the job of these texts, or makes it.
async fn attach(
    options: &EmbedOptions,
    provider: &OpenAiBatch,
    source: &Source,
    hints: &Hints,
) -> Result<Result<Job, Error>, Failure> {
    let mut how = OwnedOptions::new(options.kind);
    // A file is bulk work, even if it holds queries.
    (how.truncation, how.lane) = (options.too_long, Lane::Bulk);
    let progress = Progress::new(Some(source.texts), "texts", options.shows_progress());
    let interrupted = format!("before the job was there: {} shows whether it is", hints.list());
    with_texts(source, &progress, &interrupted, |texts| provider.attach_stream(texts, how)).await
}

/// Prints the summary of a successful run. A closed stderr is no failure.
fn print_summary(
    options: &EmbedOptions,
    provider: &OpenAiBatch,
    summary: &RunSummary,
    report: Option<&JobReport>,
    time: Duration,
) {
    let notes = summary.notes(provider.limits().tokens_per_text);
    let mut stderr = io::stderr().lock();
    if options.quiet {
        notes.iter().for_each(|note| _ = writeln!(stderr, "warning: {note}"));
        return;
    }
    let dimensions = provider.dimensions().unwrap_or_default();
    let mut line = format!("{}, {dimensions} dimensions", Counted(summary.texts(), "text"));
    if let Some(report) = report {
        if let Some(tokens) = report.charges.usage().exact_tokens() {
            line += &format!(", {}", Counted(tokens, "token"));
        }
        if let (Some(cost), Some(standard)) = (report.cost, report.standard_cost) {
            line += &format!(", {cost} (answered at once: {standard})");
        }
    }
    line += &format!("; {}", about(time));
    notes.iter().for_each(|note| line += &format!("; {note}"));
    if let Ok(space) = provider.space() {
        line += &format!("; space {}", space.id());
    }
    let _ = writeln!(stderr, "{line}");
    if let Some(JobReport { id, .. }) = report {
        let remove = Hints::of_batch(&options.jobs).command("remove", id);
        let folder = options.jobs.folder();
        let _ = writeln!(
            stderr,
            "the job {id} stays in {}, so that this run is free when it is repeated; {remove} removes it",
            folder.display()
        );
    }
}
