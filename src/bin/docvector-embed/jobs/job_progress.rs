//! Shows how far a job is while a command waits: [`JobProgress`].

use std::io::{self, Write};

use docvector_embed::provider::{JobState, JobStatus};

use super::words::about;
use crate::{progress::Progress, wording::without_controls};

/// A bar on a terminal; elsewhere a line on stderr for each change of state, batches or trouble.
pub(crate) struct JobProgress {
    style: Style,
    last: String,
}

enum Style {
    Bar(Progress),
    Lines,
    Nothing,
}

impl JobProgress {
    /// Begins to show a job of so many texts. `on_terminal` says whether there is one for a bar.
    pub(crate) fn new(texts: u64, on_terminal: bool, quiet: bool) -> Self {
        let style = match (quiet, on_terminal) {
            (true, _) => Style::Nothing,
            (false, true) => Style::Bar(Progress::of_parts(texts)),
            (false, false) => Style::Lines,
        };
        Self { style, last: String::new() }
    }

    pub(crate) fn show(&mut self, status: &JobStatus) {
        match &self.style {
            Style::Bar(bar) => bar.show(status.processed, bar_message(status)),
            Style::Lines => {
                let line = line(status);
                if self.last != line {
                    // If stderr is closed, the job goes on.
                    let _ = writeln!(io::stderr().lock(), "{line}");
                    self.last = line;
                }
            }
            Style::Nothing => {}
        }
    }
}

/// Returns what stands beside the bar.
fn bar_message(status: &JobStatus) -> String {
    let JobStatus { processed, texts, batches, batches_ended, .. } = status;
    let does = if status.state == JobState::Running { String::new() } else { format!(", {}", state(status.state)) };
    let left = status.remaining.map(|left| format!(", about {} left", about(left))).unwrap_or_default();
    format!("{processed} of {texts} texts, batches {batches_ended}/{batches}{does}{left}{}", trouble(status))
}

/// Returns a line without numbers that change all the time.
fn line(status: &JobStatus) -> String {
    format!("job {}: {}{}", status.id, course(status), trouble(status))
}

/// Returns what the job does, and how many of its batches are there.
fn course(status: &JobStatus) -> String {
    let JobStatus { batches, batches_sent, batches_ended, .. } = *status;
    let state = state(status.state);
    match batches {
        0 => state.to_owned(),
        _ if batches_sent < batches => {
            format!("{state}, batches: {batches}, sent: {batches_sent}, ended: {batches_ended}")
        }
        _ => format!("{state}, batches: {batches}, ended: {batches_ended}"),
    }
}

fn trouble(status: &JobStatus) -> String {
    status.trouble.as_deref().map(|trouble| format!(" ({})", without_controls(trouble))).unwrap_or_default()
}

/// Returns what a job does, in words.
const fn state(state: JobState) -> &'static str {
    match state {
        JobState::Waiting => "waiting for room at OpenAI",
        JobState::Elsewhere => "another process works on it",
        others => others.as_str(),
    }
}
