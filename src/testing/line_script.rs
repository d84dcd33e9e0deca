//! Scripts what happens to single lines of a batch: [`LineFate`], [`Line`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::api_error::ApiError;

/// A line of an input file, for the function that chooses lines.
///
/// See [`Simulator::script_lines`](super::Simulator::script_lines).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Line<'a> {
    /// The number of the line among those of its file that are not blank, from 0.
    pub number: usize,
    /// The line's `custom_id`.
    pub custom_id: &'a str,
    /// The line's texts. Texts that came as tokens are empty here.
    pub texts: &'a [String],
}

/// The scripted result of one line.
///
/// ```
/// use docvector_embed::testing::{LineFate, Simulator};
/// # fn main() -> docvector_embed::Result<()> {
/// let simulator = Simulator::start()?;
/// let fate = LineFate::status(400, "invalid_value", "This text is not permitted.");
/// simulator.script_lines(fate, None, |line| line.texts.iter().any(|text| text.contains("bad")));
/// // The first three lines, whatever they hold, fail once.
/// simulator.script_lines(LineFate::status(500, "server_error", "Try again."), Some(3), |_| true);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LineFate(pub(super) Arc<Fate>);

#[derive(Debug)]
pub(super) enum Fate {
    Status(ApiError),
    Error { code: String, message: String },
    Missing,
    Twice,
    ReversedRows,
    Raw(String),
}

impl LineFate {
    /// The line has an answer with this status and an error in OpenAI's form, and is not billed.
    ///
    /// A line with a status below 400, such as 0, stands in the output file and counts as completed, as has been seen.
    /// Others stand in the error file and count as failed.
    pub fn status(status: u16, code: &str, message: &str) -> Self {
        Self::of(Fate::Status(ApiError::scripted(status, code, message)))
    }

    /// The line fails with `insufficient_quota` because the account has no money, and is not billed. To let that happen
    /// in the middle of a batch, see [`Simulator::set_credit`](super::Simulator::set_credit).
    pub fn no_credit() -> Self {
        Self::of(Fate::Status(ApiError::no_credit()))
    }

    /// The line has no response, but an error of its own in the error file, and is not billed.
    pub fn error(code: &str, message: &str) -> Self {
        Self::of(Fate::Error { code: code.to_owned(), message: message.to_owned() })
    }

    /// The line counts as completed, stands in no file, and is not billed.
    pub fn missing() -> Self {
        Self::of(Fate::Missing)
    }

    /// The line is answered, billed once, and stands in the output file twice.
    pub fn twice() -> Self {
        Self::of(Fate::Twice)
    }

    /// The line is answered and billed. Its vectors come in reverse order, each with its `index`.
    pub fn reversed_rows() -> Self {
        Self::of(Fate::ReversedRows)
    }

    /// The line is billed as if it were answered, and counts as completed. Its place in the output file has this text,
    /// which need not be JSON.
    pub fn raw(text: impl Into<String>) -> Self {
        Self::of(Fate::Raw(text.into()))
    }

    fn of(fate: Fate) -> Self {
        Self(Arc::new(fate))
    }
}

/// A fate, and the lines that meet it.
pub(super) struct LineRule {
    fate: LineFate,
    /// How many more lines it applies to; `None`: all.
    left: Option<AtomicUsize>,
    chooses: Box<dyn Fn(&Line<'_>) -> bool + Send + Sync>,
}

impl LineRule {
    pub(super) fn new(
        fate: LineFate,
        times: Option<usize>,
        chooses: impl Fn(&Line<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { fate, left: times.map(AtomicUsize::new), chooses: Box::new(chooses) }
    }

    /// Returns the fate of a line if this rule chooses it.
    pub(super) fn judge(&self, line: &Line<'_>) -> Option<Arc<Fate>> {
        if !(self.chooses)(line) {
            return None;
        }
        let is_left = self.left.as_ref().is_none_or(|left| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        });
        is_left.then(|| self.fate.0.clone())
    }
}

impl fmt::Debug for LineRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineRule").field("fate", &self.fate).field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_money_has_one_type_however_it_is_scripted() {
        let kind = |fate: &LineFate| match &*fate.0 {
            Fate::Status(error) => error.kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(&LineFate::no_credit()), "insufficient_quota");
        assert_eq!(kind(&LineFate::status(429, "insufficient_quota", "Pay.")), "insufficient_quota");
        assert_eq!(kind(&LineFate::status(429, "rate_limit_exceeded", "Wait.")), "invalid_request_error");
    }
}
