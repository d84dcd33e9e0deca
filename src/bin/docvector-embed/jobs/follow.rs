//! Follows a job, until OpenAI has it or until it has ended: [`until_sent`], [`until_ended`].

use std::{convert::Infallible, future};

use docvector_embed::{
    Error,
    provider::{Job, JobReport, JobState, JobStatus},
};
use futures_util::StreamExt;

use super::{hints::Hints, job_progress::JobProgress};
use crate::{
    failure::Failure,
    signals::{Signal, interrupted},
};

/// Waits until all that can be sent now is at OpenAI, and returns how far the job is then.
pub(crate) async fn until_sent(job: &Job, progress: &mut JobProgress, hints: &Hints) -> Result<JobStatus, Failure> {
    let sent = async {
        let mut changes = job.progress();
        while let Some(status) = changes.next().await {
            progress.show(&status);
            if is_sent(&status) {
                return status;
            }
        }
        job.status()
    };
    let status = tokio::select! {
        status = sent => status,
        signal = interrupted() => return Err(left_alone(signal, job, hints)),
    };
    if status.state == JobState::Paused {
        // This says why, at once.
        job.wait().await.map_err(|error| not_ended(error, job, hints))?;
    }
    Ok(status)
}

/// Returns whether nothing more can be sent for now.
const fn is_sent(status: &JobStatus) -> bool {
    let goes_on = matches!(status.state, JobState::Running | JobState::Cancelling);
    !goes_on || status.batches_sent >= status.batches
}

/// Waits until the job has ended, and sums it up.
pub(crate) async fn until_ended(job: &Job, progress: &mut JobProgress, hints: &Hints) -> Result<JobReport, Failure> {
    let shown = async {
        let mut changes = job.progress();
        while let Some(status) = changes.next().await {
            progress.show(&status);
        }
        future::pending::<Infallible>().await
    };
    tokio::select! {
        report = job.wait() => report.map_err(|error| not_ended(error, job, hints)),
        never = shown => match never {},
        signal = interrupted() => Err(left_alone(signal, job, hints)),
    }
}

/// Makes the failure of a command that a signal ended. The job is on the disk, and its batches are at OpenAI.
fn left_alone(signal: Signal, job: &Job, hints: &Hints) -> Failure {
    let (id, go_on) = (job.id(), hints.go_on(job.id()));
    Failure::signal(signal, format_args!("; nothing of the job {id} is lost: {go_on} goes on"))
}

/// Makes the failure of a job that has not ended.
fn not_ended(error: Error, job: &Job, hints: &Hints) -> Failure {
    if job.status().state != JobState::Paused {
        return error.into();
    }
    let (id, go_on) = (job.id(), hints.go_on(job.id()));
    Failure::with_cause(format!("the job {id} is paused; when the cause is gone, {go_on} goes on"), error)
}
