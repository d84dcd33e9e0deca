//! Writes the rows of a job that has ended, each with the line of its text: [`Answers`].

use std::collections::HashMap;

use docvector_embed::{
    BadTextReason, Charges, ErrorKind,
    provider::{FailedText, Job, JobReport},
};

use crate::{
    cli::rows::OnError,
    failure::Failure,
    output::Output,
    run_summary::RunSummary,
    window::{BadLine, InputLine, Rows, TextLine, Window},
};

/// The rows of a window whose texts are not known.
const WINDOW_ROWS: u64 = 1024;

/// The answers to the texts of a job.
pub(crate) struct Answers<'a> {
    /// `None` if there are no texts.
    job: Option<&'a Job>,
    texts: u64,
    /// Why texts have no row, by their index.
    reasons: HashMap<u64, String>,
}

impl<'a> Answers<'a> {
    pub(crate) fn of(job: &'a Job, report: &JobReport) -> Self {
        let reasons = report.failed.iter().map(|text| (text.index, reason(text))).collect();
        Self { job: Some(job), texts: report.texts, reasons }
    }

    /// Returns the answers to no texts.
    pub(crate) fn none() -> Self {
        Self { job: None, texts: 0, reasons: HashMap::new() }
    }

    /// Writes all rows. The texts of the windows are those of the job, in their order. Texts without a row become bad
    /// lines. With [`OnError::Fail`] these are in the summary, and the output is not complete.
    pub(crate) async fn write(
        &self,
        windows: impl Iterator<Item = Result<Window, Failure>>,
        output: &mut Output,
        on_error: OnError,
    ) -> Result<RunSummary, Failure> {
        let (mut summary, mut next) = (RunSummary::default(), 0);
        for window in windows {
            let rows = self.rows_of(window?, &mut next).await?;
            summary.lines += rows.lines.len() as u64;
            if on_error == OnError::Fail {
                summary.bad_lines.extend(bad_lines_of(&rows));
            }
            if summary.bad_lines.is_empty() {
                summary.add(&rows);
                output.write(&rows)?;
            }
        }
        if next != self.texts {
            let message = format!("the input has {next} texts, and the job has {}: this is a bug", self.texts);
            return Err(Failure::new(message));
        }
        Ok(summary)
    }

    /// Finds the rows of a window, whose first text is the job's text `next`.
    async fn rows_of(&self, mut window: Window, next: &mut u64) -> Result<Rows, Failure> {
        let texts = window.text_lines().count() as u64;
        let Some(job) = self.job.filter(|_| texts > 0) else {
            return Ok(Rows { lines: window.lines, embeddings: None, charges: Charges::NONE });
        };
        let (indices, embeddings) = job.rows(*next..*next + texts).await?.into_parts();
        let mut answered = indices.into_iter().map(|index| index as u64).peekable();
        for item in &mut window.lines {
            let InputLine::Text(text_line) = item else { continue };
            if answered.next_if_eq(next).is_none() {
                let left = "the job was cancelled before the text was answered";
                let reason = self.reasons.get(next).map_or(left, String::as_str).to_owned();
                *item = InputLine::Bad(BadLine { line: text_line.line, reason, object: text_line.object.take() });
            }
            *next += 1;
        }
        Ok(Rows { lines: window.lines, embeddings: Some(embeddings), charges: Charges::NONE })
    }
}

fn bad_lines_of(rows: &Rows) -> Vec<BadLine> {
    let bad_line = |line: &InputLine| match line {
        InputLine::Bad(bad_line) => {
            Some(BadLine { line: bad_line.line, reason: bad_line.reason.clone(), object: None })
        }
        InputLine::Text(_) => None,
    };
    rows.lines.iter().filter_map(bad_line).collect()
}

/// Returns windows for rows that are written without their texts. Each text has a line of its own.
pub(crate) fn windows_without_texts(texts: u64) -> impl Iterator<Item = Result<Window, Failure>> {
    (0..texts).step_by(WINDOW_ROWS as usize).map(move |first| {
        let lines = first..texts.min(first + WINDOW_ROWS);
        let line = |index| InputLine::Text(TextLine { line: index + 1, text: String::new(), object: None });
        Ok(Window { lines: lines.map(line).collect(), bytes: 0 })
    })
}

/// Returns why a text got no row.
fn reason(text: &FailedText) -> String {
    let code = text.code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
    match text.kind {
        ErrorKind::InvalidInput => format!("the text {}{code}", BadTextReason::Rejected),
        ErrorKind::Protocol => format!("the text {}", BadTextReason::Unusable),
        _ => format!("the provider failed at the text again and again{code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_texts_have_their_lines() {
        let lines: Vec<u64> = windows_without_texts(2500)
            .flat_map(|window| window.expect("made").lines)
            .map(|line| match line {
                InputLine::Text(text_line) => text_line.line,
                InputLine::Bad(bad_line) => unreachable!("{bad_line:?}"),
            })
            .collect();
        assert_eq!(lines, (1..=2500).collect::<Vec<_>>());
        assert_eq!(windows_without_texts(0).count(), 0);
    }
}
