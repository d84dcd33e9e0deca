//! Scripts the course of a whole batch: [`BatchPlan`].

use std::time::Duration;

use serde_json::Value;

use super::batch_state::BatchState;

/// The order of the lines in the files of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineOrder {
    /// The order of the input file.
    #[default]
    AsGiven,
    /// The last line comes first.
    Reversed,
    /// A random order that this seed decides.
    Shuffled(u64),
}

/// The form of a file's id in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileIdForm {
    /// The file's id; `null` if there is no file.
    #[default]
    Usual,
    /// The file's id; `""` if there is no file.
    EmptyIfNone,
    /// The file's id; without a file, the field is missing.
    AbsentIfNone,
    /// Always `null`. The file exists, and nothing names it.
    AlwaysNull,
}

/// The course of a batch: how long each state takes and how the batch ends.
///
/// The default is a batch that is validated in 10 seconds, runs for 10 minutes, is finalized in 10 seconds and
/// completes, or takes a minute to be cancelled. All times are those of the simulator's clock. Lines are finished at an
/// even pace while the batch runs.
///
/// ```
/// use std::time::Duration;
/// use docvector_embed::testing::{BatchPlan, BatchState, FileIdForm, LineOrder, Simulator};
/// # fn main() -> docvector_embed::Result<()> {
/// let simulator = Simulator::start()?;
/// // The next batch stays in `validating` for an hour and loses the order of its lines.
/// let slow = BatchPlan::default().with_validating(Duration::from_secs(3600)).with_order(LineOrder::Shuffled(7));
/// simulator.plan_next(slow);
/// // The one after it expires with two lines finished, and says so in words of its own.
/// let late = BatchPlan::default().with_expiry_after(2).with_state_shown_as(BatchState::InProgress, "paused");
/// simulator.plan_next(late.with_error_file_id(FileIdForm::EmptyIfNone));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct BatchPlan {
    pub(super) validating: Duration,
    pub(super) running: Duration,
    pub(super) finalizing: Duration,
    pub(super) cancelling: Duration,
    pub(super) order: LineOrder,
    pub(super) stops_after: Option<usize>,
    pub(super) failure: Option<(String, String)>,
    pub(super) output_id: FileIdForm,
    pub(super) error_id: FileIdForm,
    pub(super) shown: Vec<(BatchState, String)>,
    pub(super) fields: Vec<(String, Value)>,
    pub(super) line_fields: Vec<(String, Value)>,
    pub(super) list_lag: Duration,
    pub(super) unlisted: u64,
    pub(super) claims_all: bool,
}

impl Default for BatchPlan {
    fn default() -> Self {
        Self {
            validating: Duration::from_secs(10),
            running: Duration::from_secs(600),
            finalizing: Duration::from_secs(10),
            cancelling: Duration::from_secs(60),
            order: LineOrder::AsGiven,
            stops_after: None,
            failure: None,
            output_id: FileIdForm::Usual,
            error_id: FileIdForm::Usual,
            shown: Vec::new(),
            fields: Vec::new(),
            line_fields: Vec::new(),
            list_lag: Duration::ZERO,
            unlisted: 0,
            claims_all: false,
        }
    }
}

impl BatchPlan {
    /// Makes a plan in which no state takes any time: the batch has ended when it is looked at for the first time.
    pub fn instant() -> Self {
        let none = Duration::ZERO;
        Self { validating: none, running: none, finalizing: none, cancelling: none, ..Self::default() }
    }

    /// Sets how long the batch is validated.
    #[must_use]
    pub fn with_validating(mut self, time: Duration) -> Self {
        self.validating = time;
        self
    }

    /// Sets how long the lines take. A batch that takes longer than its completion window expires.
    #[must_use]
    pub fn with_running(mut self, time: Duration) -> Self {
        self.running = time;
        self
    }

    /// Sets how long the results are written.
    #[must_use]
    pub fn with_finalizing(mut self, time: Duration) -> Self {
        self.finalizing = time;
        self
    }

    /// Sets how long a batch that is to be cancelled says so.
    #[must_use]
    pub fn with_cancelling(mut self, time: Duration) -> Self {
        self.cancelling = time;
        self
    }

    /// Sets the order of the lines in the files of results.
    #[must_use]
    pub fn with_order(mut self, order: LineOrder) -> Self {
        self.order = order;
        self
    }

    /// Lets the batch finish so many lines and then no more, until its completion window ends. The others stand in the
    /// error file with the code `batch_expired`.
    #[must_use]
    pub fn with_expiry_after(mut self, lines: usize) -> Self {
        self.stops_after = Some(lines);
        self
    }

    /// Lets the batch fail after its validation, with this error.
    #[must_use]
    pub fn with_failure(mut self, code: impl Into<String>, message: impl Into<String>) -> Self {
        self.failure = Some((code.into(), message.into()));
        self
    }

    /// Sets the form of `output_file_id`.
    #[must_use]
    pub fn with_output_file_id(mut self, form: FileIdForm) -> Self {
        self.output_id = form;
        self
    }

    /// Sets the form of `error_file_id`.
    #[must_use]
    pub fn with_error_file_id(mut self, form: FileIdForm) -> Self {
        self.error_id = form;
        self
    }

    /// Shows a state by another name, such as one that nobody knows yet.
    #[must_use]
    pub fn with_state_shown_as(mut self, state: BatchState, name: impl Into<String>) -> Self {
        self.shown.push((state, name.into()));
        self
    }

    /// Adds a field to the batch, as it is shown. A value that is not JSON becomes a JSON string.
    #[must_use]
    pub fn with_extra_field(mut self, name: impl Into<String>, value: &str) -> Self {
        self.fields.push((name.into(), json_or_text(value)));
        self
    }

    /// Adds a field to each line of the files of results. A value that is not JSON becomes a JSON string.
    #[must_use]
    pub fn with_extra_line_field(mut self, name: impl Into<String>, value: &str) -> Self {
        self.line_fields.push((name.into(), json_or_text(value)));
        self
    }

    /// Keeps the batch out of the list for this time after its creation. Its id is known at once.
    #[must_use]
    pub fn with_list_lag(mut self, time: Duration) -> Self {
        self.list_lag = time;
        self
    }

    /// Keeps the batch out of the first so many answers that would list it.
    #[must_use]
    pub fn with_unlisted_requests(mut self, requests: u64) -> Self {
        self.unlisted = requests;
        self
    }

    /// Lets the counts of the batch say that every line completed, whatever became of it.
    #[must_use]
    pub fn with_counts_of_success(mut self) -> Self {
        self.claims_all = true;
        self
    }

    /// Returns the name by which a state is shown.
    pub(super) fn shown(&self, state: BatchState) -> &str {
        let other = self.shown.iter().rev().find(|(shown, _)| *shown == state);
        other.map_or(state.as_str(), |(_, name)| name)
    }
}

fn json_or_text(value: &str) -> Value {
    serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()))
}
