//! Says how far a job is whose batches were sent: [`sent`].

use docvector_embed::provider::{JobState, JobStatus};

use crate::jobs::hints::Hints;

/// Returns a sentence with the command that goes on.
pub(super) fn sent(status: &JobStatus, hints: &Hints) -> String {
    let JobStatus { id, batches, batches_sent, state, .. } = status;
    let wait = hints.command("wait", id);
    match state {
        JobState::Completed | JobState::Cancelled => format!("the job {id} is {state}: {wait} has its report"),
        JobState::Elsewhere => format!("another process works on the job {id}: {wait} waits for it"),
        _ if batches_sent < batches => format!(
            "batches at OpenAI: {batches_sent} of {batches}; there is no room for more now: {wait} sends the rest"
        ),
        _ => format!("all batches are at OpenAI: {wait} waits for the vectors"),
    }
}
