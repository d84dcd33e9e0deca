//! Runs `batch submit`: makes a job of a file, prints its id, and sees that OpenAI gets it.

use std::io::{self, IsTerminal, Write};

use docvector_embed::{
    Error, Lane, OwnedOptions,
    provider::{Job, OpenAiBatch},
};

use super::sent::sent;
use crate::{
    bad_lines::BadLines,
    cli::batch::SubmitArgs,
    failure::Failure,
    jobs::{
        blamed_texts::bad_lines_of,
        finish::{Ending, NOTHING_SUBMITTED, OpenOutput, finish, refuse_bad_lines},
        follow::until_sent,
        hints::Hints,
        job_progress::JobProgress,
        open::open,
        texts::with_texts,
    },
    progress::Progress,
    report::Report,
    runtime::runtime,
    source::Source,
};

/// Submits a file as a new job.
pub(crate) fn run(args: &SubmitArgs) -> Result<(), Failure> {
    let output = args.rows.options().map_err(Failure::new)?.as_ref().map(OpenOutput::create).transpose()?;
    let model = args.openai.builder(&args.model.0);
    let provider = open(model, &args.jobs, &args.run.course, args.run.cache.as_ref())?;
    let source = Source::read(args.input.path(), &args.input.options().map_err(Failure::new)?)?;
    source.warn_of_json();
    refuse_bad_lines(&source.bad_lines, source.lines, NOTHING_SUBMITTED)?;
    if source.texts == 0 {
        return Err(Failure::new(format!("{} has no texts{NOTHING_SUBMITTED}", source.name())));
    }
    let hints = Hints::of_batch(&args.jobs).at(args.openai.base_url(&args.model.0));
    runtime()?.block_on(async {
        let job = submit(args, &provider, &source, &hints).await?;
        println_id(&job)?;
        if args.wait {
            let ending = Ending { quiet: args.run.quiet, reports_on_stdout: false, hints: &hints };
            return finish(&job, Some(&source), output, ending).await;
        }
        let mut progress = JobProgress::new(source.texts, io::stderr().is_terminal(), args.run.quiet);
        let status = until_sent(&job, &mut progress, &hints).await?;
        drop(progress);
        if !args.run.quiet {
            // A closed stderr is no failure.
            let _ = writeln!(io::stderr().lock(), "{}", sent(&status, &hints));
        }
        Ok(())
    })
}

async fn submit(args: &SubmitArgs, provider: &OpenAiBatch, source: &Source, hints: &Hints) -> Result<Job, Failure> {
    let mut options = OwnedOptions::new(args.kind.into());
    (options.truncation, options.lane) = (args.too_long.into(), Lane::Bulk);
    let shown = !args.run.quiet && io::stderr().is_terminal();
    let progress = Progress::new(Some(source.texts), "texts", shown);
    let interrupted = format!("before the job was there: {} shows whether it is", hints.list());
    let submit = |texts| provider.submit_stream(texts, options);
    let submitted = with_texts(source, &progress, &interrupted, submit).await?;
    drop(progress);
    submitted.or_else(|error| Err(refusal(error, source)?))
}

/// Makes the failure of a refused submission. Texts that are refused are listed by their lines.
fn refusal(error: Error, source: &Source) -> Result<Failure, Failure> {
    if error.bad_texts().is_empty() {
        return Ok(error.into());
    }
    let mut bad_lines = BadLines::default();
    bad_lines.extend(bad_lines_of(&error, source)?);
    refuse_bad_lines(&bad_lines, source.lines, NOTHING_SUBMITTED)?;
    Ok(error.into())
}

/// Prints the id alone, for scripts, as soon as there is one.
fn println_id(job: &Job) -> Result<(), Failure> {
    // A line is written at once, and a reader that is gone does not end the work.
    Report::new(io::stdout().lock()).text(job.id())
}
