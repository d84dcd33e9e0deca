//! Runs `batch wait`: waits until a job has ended, and writes its rows.

use docvector_embed::provider::Job;

use super::open_job::open_job;
use crate::{
    cli::{batch::WaitArgs, rows::OnError},
    failure::Failure,
    jobs::{
        finish::{Ending, OpenOutput, finish, refuse_bad_lines},
        hints::Hints,
        texts::with_texts,
    },
    progress::Progress,
    runtime::runtime,
    source::Source,
};

/// Waits for a job.
pub(crate) fn run(args: &WaitArgs) -> Result<(), Failure> {
    let rows = args.rows.options().map_err(Failure::new)?;
    let input = args.input().map_err(Failure::new)?;
    let source = input.map(|(path, options)| Source::read(path, &options)).transpose()?;
    if let (Some(source), Some(OnError::Fail)) = (&source, rows.as_ref().map(|rows| rows.on_error)) {
        refuse_bad_lines(&source.bad_lines, source.lines, "")?;
    }
    let hints = Hints::of_batch(&args.jobs).at(args.server.base_url());
    runtime()?.block_on(async {
        let job = open_job(&args.job, &args.jobs, &args.run, &args.server).await?;
        if let Some(source) = &source {
            compare(source, &job).await?;
        }
        let output = rows.as_ref().map(OpenOutput::create).transpose()?;
        let ending = Ending { quiet: args.run.quiet, reports_on_stdout: true, hints: &hints };
        finish(&job, source.as_ref(), output, ending).await
    })
}

/// Makes sure that the input has the texts of the job, so that no row gets to another text than its own.
async fn compare(source: &Source, job: &Job) -> Result<(), Failure> {
    let progress = Progress::new(None, "texts", false);
    let compared =
        with_texts(source, &progress, "before the input was compared", |texts| async { Ok(job.holds(texts).await) });
    if compared.await?? {
        return Ok(());
    }
    let (name, id) = (source.name(), job.id());
    Err(Failure::new(format!(
        "{name} has other texts than the job {id}: name the file that was submitted with --input"
    )))
}
