//! Runs `batch cancel`: cancels a job and keeps what was finished.

use std::io::{self, IsTerminal};

use super::open_job::open_job;
use crate::{
    cli::batch::JobArgs,
    failure::Failure,
    jobs::{finish::print, follow::until_ended, hints::Hints, job_progress::JobProgress},
    runtime::runtime,
};

/// Cancels a job, waits until OpenAI has let go of it, and prints its report.
pub(crate) fn run(args: &JobArgs) -> Result<(), Failure> {
    let hints = Hints::of_batch(&args.jobs).at(args.server.base_url());
    runtime()?.block_on(async {
        let job = open_job(&args.job, &args.jobs, &args.run, &args.server).await?;
        job.cancel().await?;
        let mut progress = JobProgress::new(job.status().texts, io::stderr().is_terminal(), args.run.quiet);
        let report = until_ended(&job, &mut progress, &hints).await?;
        drop(progress);
        if args.run.quiet { Ok(()) } else { print(&report, true) }
    })
}
