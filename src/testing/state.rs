//! Keeps everything that a simulator changes, and moves it on with its clock: [`State`].

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use super::{
    batch::{Batch, Order},
    batch_state::BatchState,
    bills::Ledger,
    clock::Clock,
    counts::Counts,
    fault::{Fault, Route},
    files::{Content, StoredFile},
    input_file::FileFault,
    line_script::LineRule,
    outcome::Outcome,
    plan::BatchPlan,
    results::{Results, Which},
};
use crate::Tier;

/// How long an input file is kept if nothing else is asked for.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// The account, its script and its bills.
#[derive(Debug)]
pub(super) struct State {
    pub(super) clock: Clock,
    pub(super) counts: Counts,
    pub(super) ledger: Ledger,
    /// By id. Ids ascend with time, so this is the order of creation.
    files: BTreeMap<String, StoredFile>,
    /// Files that have expired and are not dropped yet.
    expired: Vec<StoredFile>,
    batches: Vec<Batch>,
    /// The numbers of the batches that have not ended.
    live: Vec<usize>,
    by_id: HashMap<String, usize>,
    /// The ids given so far.
    ids: u64,
    faults: HashMap<Route, VecDeque<Fault>>,
    pub(super) rules: Vec<Arc<LineRule>>,
    pub(super) plan: BatchPlan,
    pub(super) plans: VecDeque<BatchPlan>,
    /// The most enqueued tokens of a model.
    pub(super) enqueued_tokens: Option<u64>,
    /// The tokens that the account can still pay for.
    pub(super) credit: Option<u64>,
}

impl State {
    pub(super) fn new(clock: Clock, enqueued_tokens: Option<u64>) -> Self {
        Self {
            clock,
            counts: Counts::default(),
            ledger: Ledger::default(),
            files: BTreeMap::new(),
            expired: Vec::new(),
            batches: Vec::new(),
            live: Vec::new(),
            by_id: HashMap::new(),
            ids: 0,
            faults: HashMap::new(),
            rules: Vec::new(),
            plan: BatchPlan::default(),
            plans: VecDeque::new(),
            enqueued_tokens,
            credit: None,
        }
    }

    // -- the script --

    pub(super) fn add_faults(&mut self, route: Route, times: usize, fault: &Fault) {
        self.faults.entry(route).or_default().extend(std::iter::repeat_n(fault, times).cloned());
    }

    pub(super) fn take_fault(&mut self, route: Route) -> Option<Fault> {
        let fault = self.faults.get_mut(&route)?.pop_front()?;
        self.counts.faults += 1;
        Some(fault)
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    // -- files --

    /// Makes an id. Later ids are greater, and no two simulators of a process tree need to agree on them.
    fn next_id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        let noise = blake3::hash(&self.ids.to_le_bytes()).to_hex();
        format!("{prefix}{:08x}{}", self.ids, &noise[..16])
    }

    /// Adds an uploaded file and returns it as the API shows it.
    pub(super) fn add_upload(&mut self, name: String, content: Content, keeps: Option<Duration>) -> Value {
        self.counts.uploads += 1;
        let bytes = match &content {
            Content::Uploaded(_, input) => input.bytes,
            Content::Results(results) => results.bytes,
        };
        let expires = self.clock.now().saturating_add(keeps.unwrap_or(RETENTION));
        let id = self.add_file(name, "batch", bytes, self.clock.now(), Some(expires), content);
        self.files[&id].to_json(&self.clock)
    }

    fn add_file(
        &mut self,
        name: String,
        purpose: &'static str,
        bytes: u64,
        created: Duration,
        expires: Option<Duration>,
        content: Content,
    ) -> String {
        let id = self.next_id("file-");
        let file = StoredFile { id: id.clone(), name, purpose, bytes, created, expires, content };
        self.files.insert(id.clone(), file);
        id
    }

    pub(super) fn file(&self, id: &str) -> Option<&StoredFile> {
        self.files.get(id)
    }

    /// Returns the files that exist, the oldest first.
    pub(super) fn files(&self) -> impl DoubleEndedIterator<Item = &StoredFile> {
        self.files.values()
    }

    pub(super) fn delete_file(&mut self, id: &str) -> Option<StoredFile> {
        self.files.remove(id)
    }

    /// Returns the files that expired since the last call, to be dropped outside of the lock: that removes them from
    /// the disk.
    pub(super) fn take_expired(&mut self) -> Vec<StoredFile> {
        std::mem::take(&mut self.expired)
    }

    // -- batches --

    /// Creates a batch and returns it as the API shows it.
    pub(super) fn create(&mut self, order: Order) -> Value {
        self.counts.creates += 1;
        let plan = self.plans.pop_front().unwrap_or_else(|| self.plan.clone());
        let id = self.next_id("batch_");
        let number = self.batches.len();
        self.by_id.insert(id.clone(), number);
        self.live.push(number);
        self.batches.push(Batch::new(id, order, plan, self.clock.now()));
        // A plan may let the batch end at once.
        self.settle();
        self.batches[number].to_json(&self.clock)
    }

    pub(super) fn batch(&self, id: &str) -> Option<&Batch> {
        self.by_id.get(id).map(|&number| &self.batches[number])
    }

    /// Returns all batches, the oldest first.
    pub(super) fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// Counts one answer that lists batches down for each batch that is kept out of the first ones.
    pub(super) fn was_listed(&mut self) {
        for batch in &mut self.batches {
            batch.unlisted = batch.unlisted.saturating_sub(1);
        }
    }

    /// Begins to cancel a batch; false if it has ended.
    pub(super) fn cancel(&mut self, id: &str) -> bool {
        let now = self.clock.now();
        let Some(batch) = self.by_id.get(id).map(|&number| &mut self.batches[number]) else { return false };
        match batch.state {
            BatchState::Validating | BatchState::InProgress | BatchState::Finalizing => {
                batch.enter(BatchState::Cancelling, now);
                true
            }
            BatchState::Cancelling => true,
            _ => false,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { live_batches: self.live.len() as u64, ..self.counts }
    }

    // -- time --

    /// Moves time on, and lets everything happen that is due then.
    pub(super) fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.settle();
    }

    /// Lets everything happen that is due: the changes of all batches in the order of their times, the lines that were
    /// finished since, and the ends of files.
    pub(super) fn settle(&mut self) {
        let now = self.clock.now();
        while let Some((at, number)) = self.next_event(now) {
            self.change(number, at);
            if self.batches[number].state.is_terminal() {
                self.batches[number].forget_lines();
                self.live.retain(|&other| other != number);
            }
        }
        for number in self.live.clone() {
            if self.batches[number].state == BatchState::InProgress {
                self.finish_lines(number, now);
            }
        }
        let is_expired = |file: &StoredFile| file.expires.is_some_and(|expires| expires <= now);
        self.expired.extend(self.files.extract_if(.., |_, file| is_expired(file)).map(|(_, file)| file));
    }

    /// Returns the earliest change that is due, and its batch.
    fn next_event(&self, now: Duration) -> Option<(Duration, usize)> {
        let events = self.live.iter().filter_map(|&number| Some((self.batches[number].next_event()?, number)));
        events.filter(|&(at, _)| at <= now).min()
    }

    /// Moves a batch to its next state.
    fn change(&mut self, number: usize, at: Duration) {
        let is_late = at >= self.batches[number].expires();
        match self.batches[number].state {
            BatchState::Validating if !is_late => self.validate(number, at),
            BatchState::Validating => self.end(number, BatchState::Expired, at),
            BatchState::InProgress => {
                self.finish_lines(number, at);
                if is_late && self.batches[number].outcomes.len() < self.batches[number].lines() {
                    self.end(number, BatchState::Expired, at);
                } else {
                    self.batches[number].enter(BatchState::Finalizing, at);
                }
            }
            BatchState::Finalizing => self.end(number, BatchState::Completed, at),
            BatchState::Cancelling => self.end(number, BatchState::Cancelled, at),
            BatchState::Failed | BatchState::Completed | BatchState::Expired | BatchState::Cancelled => {}
        }
    }

    fn validate(&mut self, number: usize, at: Duration) {
        let faults = self.faults_of(number);
        let batch = &mut self.batches[number];
        if faults.is_empty() {
            batch.enter(BatchState::InProgress, at);
        } else {
            batch.faults = faults;
            batch.enter(BatchState::Failed, at);
        }
    }

    /// Returns why a batch fails instead of being run.
    fn faults_of(&self, number: usize) -> Vec<FileFault> {
        let batch = &self.batches[number];
        let whole =
            |code: &str, message: String| vec![FileFault { code: code.to_owned(), message, param: None, line: None }];
        if let Some((code, message)) = &batch.plan.failure {
            return whole(code, message.clone());
        }
        let input = &batch.order.input;
        if !input.faults.is_empty() {
            return input.faults.clone();
        }
        let Some(limit) = self.enqueued_tokens else { return Vec::new() };
        let is_before = |other: &&Batch| other.is_checked() && other.order.input.model == input.model;
        let others = self.live.iter().map(|&other| &self.batches[other]).filter(is_before);
        let enqueued: u64 = others.map(|other| other.order.input.enqueued_tokens).sum();
        if enqueued + input.enqueued_tokens <= limit {
            return Vec::new();
        }
        let model = input.model.as_deref().unwrap_or_default();
        let message = format!(
            "Enqueued token limit reached for {model} in organization org-simulated. Limit: {limit} enqueued tokens. \
             Please try again once some in_progress batches have been completed."
        );
        whole("token_limit_exceeded", message)
    }

    /// Finishes the lines of a batch that are due, and bills those that are answered.
    fn finish_lines(&mut self, number: usize, at: Duration) {
        let batch = &mut self.batches[number];
        let input = batch.order.input.clone();
        for index in batch.outcomes.len()..batch.lines_due(at) {
            let line = &input.lines[index];
            let mut outcome = match batch.order.fates.get(&index) {
                _ if line.refusal.is_some() => Outcome::Refused,
                Some(fate) => Outcome::Scripted(fate.clone()),
                None => Outcome::Answered,
            };
            if outcome.is_billed() {
                if pay(&mut self.credit, line.tokens) {
                    self.ledger.bill(Tier::Batch, input.texts_of(line), line.tokens);
                    batch.tokens += line.tokens;
                } else {
                    outcome = Outcome::NoCredit;
                }
            }
            match outcome.is_completed() {
                Some(true) => batch.completed += 1,
                Some(false) => batch.failed += 1,
                None => {}
            }
            batch.outcomes.push(outcome);
        }
    }

    /// Ends a batch and makes its files.
    fn end(&mut self, number: usize, state: BatchState, at: Duration) {
        let batch = &mut self.batches[number];
        let is_checked = batch.is_checked();
        let rest = if state == BatchState::Expired { Outcome::Expired } else { Outcome::Cancelled };
        if is_checked {
            batch.outcomes.resize(batch.lines(), rest);
        }
        batch.enter(state, at);
        let outcomes: Arc<[Outcome]> = std::mem::take(&mut batch.outcomes).into();
        let (id, keeps) = (batch.id.clone(), batch.order.keeps_results);
        let make = |which| {
            let plan = &batch.plan;
            Results::new(which, &batch.order.input, &outcomes, plan.order, &plan.line_fields, &id)
        };
        let (output, errors) = (make(Which::Output), make(Which::Errors));
        let mut add = |results: Option<Results>, word: &str| {
            let results = results?;
            let name = format!("{id}_{word}.jsonl");
            let expires = keeps.map(|keeps| at.saturating_add(keeps));
            let bytes = results.bytes;
            Some(self.add_file(name, "batch_output", bytes, at, expires, Content::Results(Arc::new(results))))
        };
        let (output_id, error_id) = (add(output, "output"), add(errors, "error"));
        let batch = &mut self.batches[number];
        (batch.output_id, batch.error_id) = (output_id, error_id);
    }

    /// Pays for a request that is answered at once; false without credit.
    pub(super) fn pay(&mut self, tokens: u64) -> bool {
        pay(&mut self.credit, tokens)
    }
}

/// Takes tokens from the credit, if there is enough.
fn pay(credit: &mut Option<u64>, tokens: u64) -> bool {
    let Some(left) = credit else { return true };
    let rest = left.checked_sub(tokens);
    if let Some(rest) = rest {
        *left = rest;
    }
    rest.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{input_file::InputReader, line_script::Fate, settings::Settings};

    #[test]
    fn a_batch_that_has_ended_keeps_no_lines_and_no_fates() {
        let mut reader = InputReader::new(Arc::new(Settings::default()));
        reader.push(
            br#"{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"text-embedding-3-small","input":"x"}}"#,
        );
        let (input, fate) = (Arc::new(reader.finish()), Arc::new(Fate::Missing));
        let mut state = State::new(Clock::new(0.0), None);
        for plan in [BatchPlan::default(), BatchPlan::default().with_failure("code", "message")] {
            state.plan = plan;
            state.create(Order {
                input_file_id: "file-1".to_owned(),
                input: input.clone(),
                metadata: None,
                keeps_results: None,
                fates: HashMap::from([(0, fate.clone())]),
            });
        }
        assert_eq!((Arc::strong_count(&input), Arc::strong_count(&fate)), (3, 3));
        let records = |state: &State| state.batches().iter().map(Batch::record).collect::<Vec<_>>();
        let before = records(&state);
        state.advance(Duration::from_secs(3600));
        assert_eq!((Arc::strong_count(&input), Arc::strong_count(&fate)), (1, 1));
        for (before, after) in before.iter().zip(records(&state)) {
            assert!(after.state.is_terminal(), "{after:?}");
            assert_eq!((after.lines, after.input_digest), (1, before.input_digest.clone()));
        }
    }
}
