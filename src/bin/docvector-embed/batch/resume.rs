//! Runs `batch resume`: sends what is left of a job.

use std::io::{self, IsTerminal, Write};

use super::{open_job::open_job, sent::sent};
use crate::{
    cli::batch::JobArgs,
    failure::Failure,
    jobs::{follow::until_sent, hints::Hints, job_progress::JobProgress},
    runtime::runtime,
};

/// Goes on with a job until all that can be sent now is sent.
pub(crate) fn run(args: &JobArgs) -> Result<(), Failure> {
    let hints = Hints::of_batch(&args.jobs).at(args.server.base_url());
    runtime()?.block_on(async {
        let job = open_job(&args.job, &args.jobs, &args.run, &args.server).await?;
        let mut progress = JobProgress::new(job.status().texts, io::stderr().is_terminal(), args.run.quiet);
        let status = until_sent(&job, &mut progress, &hints).await?;
        drop(progress);
        if !args.run.quiet {
            // A closed stderr is no failure.
            let _ = writeln!(io::stderr().lock(), "{}", sent(&status, &hints));
        }
        Ok(())
    })
}
