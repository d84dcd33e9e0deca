//! Keeps one simulated batch, and shows it as the API does: [`Batch`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::{
    batch_state::BatchState,
    clock::Clock,
    input_file::{ENDPOINT, FileFault, InputFile},
    line_script::Fate,
    outcome::Outcome,
    plan::{BatchPlan, FileIdForm},
    record::BatchRecord,
};

/// The only completion window that there is.
pub(super) const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The states whose times a batch shows, beside its creation.
const STAMPED: [BatchState; 7] = [
    BatchState::InProgress,
    BatchState::Finalizing,
    BatchState::Completed,
    BatchState::Failed,
    BatchState::Expired,
    BatchState::Cancelling,
    BatchState::Cancelled,
];

/// What a create asks for.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) input_file_id: String,
    /// Without its lines when the batch has ended.
    pub(super) input: Arc<InputFile>,
    pub(super) metadata: Option<BTreeMap<String, String>>,
    /// How long the files of results are kept after they were made.
    pub(super) keeps_results: Option<Duration>,
    /// Of the lines that a script chose; none when the batch has ended.
    pub(super) fates: HashMap<usize, Arc<Fate>>,
}

/// A batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: String,
    pub(super) order: Order,
    lines: usize,
    pub(super) plan: BatchPlan,
    pub(super) created: Duration,
    pub(super) state: BatchState,
    entered: Vec<(BatchState, Duration)>,
    /// Of the lines that were tried. When the batch has ended, its files have them.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) completed: usize,
    pub(super) failed: usize,
    pub(super) tokens: u64,
    pub(super) output_id: Option<String>,
    pub(super) error_id: Option<String>,
    pub(super) faults: Vec<FileFault>,
    /// How often it is still left out of the list.
    pub(super) unlisted: u64,
}

impl Batch {
    pub(super) fn new(id: String, order: Order, plan: BatchPlan, created: Duration) -> Self {
        let (lines, unlisted) = (order.input.lines.len(), plan.unlisted);
        Self {
            id,
            order,
            lines,
            plan,
            created,
            state: BatchState::Validating,
            entered: Vec::new(),
            outcomes: Vec::new(),
            completed: 0,
            failed: 0,
            tokens: 0,
            output_id: None,
            error_id: None,
            faults: Vec::new(),
            unlisted,
        }
    }

    pub(super) fn enter(&mut self, state: BatchState, at: Duration) {
        self.state = state;
        self.entered.push((state, at));
    }

    fn entered(&self, state: BatchState) -> Option<Duration> {
        self.entered.iter().find(|(entered, _)| *entered == state).map(|(_, at)| *at)
    }

    /// Returns `true` if the input file was accepted.
    pub(super) fn is_checked(&self) -> bool {
        self.entered(BatchState::InProgress).is_some()
    }

    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Lets go of what only a batch that has not ended needs. Its files hold the lines that they are made of.
    pub(super) fn forget_lines(&mut self) {
        self.order.input = Arc::new(self.order.input.without_lines());
        self.order.fates = HashMap::new();
    }

    pub(super) fn expires(&self) -> Duration {
        self.created + WINDOW
    }

    /// Returns when the state changes by itself; `None` if it never does.
    pub(super) fn next_event(&self) -> Option<Duration> {
        let since = self.entered(self.state).unwrap_or(self.created);
        match self.state {
            BatchState::Validating => Some(since.saturating_add(self.plan.validating).min(self.expires())),
            BatchState::InProgress if self.stops_early() => Some(self.expires()),
            BatchState::InProgress => Some(since.saturating_add(self.plan.running).min(self.expires())),
            BatchState::Finalizing => Some(since.saturating_add(self.plan.finalizing)),
            BatchState::Cancelling => Some(since.saturating_add(self.plan.cancelling)),
            _ => None,
        }
    }

    /// Returns `true` if the script lets the batch stop before its last line.
    fn stops_early(&self) -> bool {
        self.plan.stops_after.is_some_and(|stop| stop < self.lines())
    }

    /// Returns how many lines are done at this time.
    pub(super) fn lines_due(&self, now: Duration) -> usize {
        let Some(since) = self.entered(BatchState::InProgress) else { return 0 };
        let elapsed = now.saturating_sub(since);
        let lines = self.lines();
        let due = if elapsed >= self.plan.running {
            lines
        } else {
            // A clock has less than 2^62 nanoseconds, so their product with the lines fits.
            let done = elapsed.as_nanos() * lines as u128 / self.plan.running.as_nanos().max(1);
            usize::try_from(done).unwrap_or(lines)
        };
        due.min(self.plan.stops_after.unwrap_or(lines))
    }

    /// Returns `true` if the list of batches has it at this time.
    pub(super) fn is_listed(&self, now: Duration) -> bool {
        self.unlisted == 0 && now >= self.created.saturating_add(self.plan.list_lag)
    }

    pub(super) fn to_json(&self, clock: &Clock) -> Value {
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        let is_checked = self.is_checked();
        add("id", json!(self.id));
        add("object", json!("batch"));
        add("endpoint", json!(ENDPOINT));
        add("model", json!(self.order.input.model.as_deref().filter(|_| is_checked)));
        add("errors", self.errors());
        add("input_file_id", json!(self.order.input_file_id));
        add("completion_window", json!("24h"));
        add("status", json!(self.plan.shown(self.state)));
        for (name, id, form) in [
            ("output_file_id", &self.output_id, self.plan.output_id),
            ("error_file_id", &self.error_id, self.plan.error_id),
        ] {
            match (id, form) {
                (_, FileIdForm::AlwaysNull) | (None, FileIdForm::Usual) => _ = add(name, Value::Null),
                (Some(id), _) => _ = add(name, json!(id)),
                (None, FileIdForm::EmptyIfNone) => _ = add(name, json!("")),
                (None, FileIdForm::AbsentIfNone) => {}
            }
        }
        add("created_at", json!(clock.unix(self.created)));
        add("expires_at", json!(clock.unix(self.expires())));
        for state in STAMPED {
            add(&format!("{}_at", state.as_str()), json!(self.entered(state).map(|at| clock.unix(at))));
        }
        add("request_counts", self.request_counts(is_checked));
        add(
            "usage",
            json!({
                "input_tokens": self.tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.tokens,
            }),
        );
        add("metadata", json!(self.order.metadata));
        for (name, value) in &self.plan.fields {
            add(name, value.clone());
        }
        Value::Object(fields)
    }

    fn errors(&self) -> Value {
        if self.faults.is_empty() {
            return Value::Null;
        }
        let error = |fault: &FileFault| json!({"code": fault.code, "message": fault.message, "param": fault.param, "line": fault.line});
        json!({"object": "list", "data": self.faults.iter().map(error).collect::<Vec<_>>()})
    }

    fn request_counts(&self, is_checked: bool) -> Value {
        let total = if is_checked { self.lines() } else { 0 };
        if self.plan.claims_all && self.state.is_terminal() {
            return json!({"total": total, "completed": total, "failed": 0});
        }
        json!({"total": total, "completed": self.completed, "failed": self.failed})
    }

    pub(super) fn record(&self) -> BatchRecord {
        BatchRecord {
            id: self.id.clone(),
            state: self.state,
            metadata: self.order.metadata.clone().unwrap_or_default(),
            input_file_id: self.order.input_file_id.clone(),
            input_digest: self.order.input.digest.clone(),
            lines: self.lines(),
            completed: self.completed,
            failed: self.failed,
            tokens: self.tokens,
            output_file_id: self.output_id.clone(),
            error_file_id: self.error_id.clone(),
        }
    }
}
