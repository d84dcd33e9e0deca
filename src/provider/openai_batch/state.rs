//! Adds up the records of a job's journal: [`State`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    batch_object::NO_ROOM,
    record::{Bill, FailedText, Plan, Record, Shard},
};
use crate::{Charges, Error, ErrorKind, Result};

/// All that is known of a job. It changes by records alone, so it is the same after a crash as before.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) plan: Plan,
    /// The shards that have not ended, by number.
    pub(super) open: BTreeMap<u32, OpenShard>,
    /// The shards so far, and those that have ended.
    pub(super) shards: u32,
    pub(super) shards_ended: u32,
    /// The texts whose rows are there, those of the cache included.
    pub(super) answered: u64,
    pub(super) failed: Vec<FailedText>,
    /// The ranges (start, end) of texts that a cancellation left over.
    pub(super) left: Vec<(u64, u64)>,
    pub(super) charges: Charges,
    /// The charges that no caller was told of.
    pub(super) untold: Charges,
    /// The charges that the last caller was told of.
    last_told: Charges,
    /// Whether a caller of `embed` has the rows.
    pub(super) told: bool,
    /// The provider's files that are to be deleted.
    pub(super) to_delete: Vec<String>,
    pub(super) cancelling: bool,
    pub(super) handing_over: bool,
    /// The kind and the message of what the job waits for.
    pub(super) paused: Option<(String, String)>,
    /// Whether the job has ended, and whether because it was cancelled.
    pub(super) done: Option<bool>,
}

/// A shard on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenShard {
    pub(super) shard: Shard,
    pub(super) step: Step,
    /// How often its batch failed as a whole, room in the account aside.
    pub(super) failures: u32,
    /// The code of the last refusal.
    pub(super) last_refusal: Option<String>,
    /// The indices of the texts with which the standby is done.
    pub(super) handed: BTreeSet<u64>,
}

/// How far a shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Planned,
    Uploaded(InputFile),
    Creating { file: InputFile, token: String },
    Running { file: InputFile, batch: String },
    Ended { file: InputFile, status: String, output: Option<String>, error: Option<String>, bad_lines: Vec<u32> },
}

/// The input file of a shard at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InputFile {
    pub(super) id: String,
    /// Seconds since 1970, by the provider's clock.
    pub(super) created_at: Option<u64>,
}

impl State {
    /// Begins with the first record.
    pub(super) fn new(plan: Plan) -> Self {
        let mut state = Self {
            open: BTreeMap::new(),
            shards: 0,
            shards_ended: 0,
            answered: plan.cached,
            failed: Vec::new(),
            left: Vec::new(),
            charges: Charges::NONE,
            untold: Charges::NONE,
            last_told: Charges::NONE,
            told: false,
            to_delete: Vec::new(),
            cancelling: false,
            handing_over: false,
            paused: None,
            done: None,
            plan,
        };
        state.add_shards(state.plan.shards.clone());
        state
    }

    /// Adds up all records of a journal, which lies here.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it does not begin with a plan.
    pub(super) fn of(records: Vec<Record>, journal: &Path) -> Result<Self> {
        let mut records = records.into_iter();
        let Some(Record::Planned(plan)) = records.next() else {
            let message = format!("{} does not begin with a plan: it is no journal of a batch job", journal.display());
            return Err(Error::new(ErrorKind::Config, message));
        };
        let mut state = Self::new(*plan);
        records.for_each(|record| state.apply(record));
        Ok(state)
    }

    /// Whether the job may still send texts to the provider: nobody has cancelled it, and no standby has taken over.
    pub(super) const fn sends_more(&self) -> bool {
        !self.cancelling && !self.handing_over
    }

    /// Returns the number for a new shard.
    pub(super) const fn next_number(&self) -> u32 {
        self.shards + 1
    }

    fn add_shards(&mut self, shards: Vec<Shard>) {
        for shard in shards {
            self.shards = self.shards.max(shard.number);
            let number = shard.number;
            let (failures, last_refusal, handed) = (0, None, BTreeSet::new());
            self.open.insert(number, OpenShard { shard, step: Step::Planned, failures, last_refusal, handed });
        }
    }

    fn end_shard(&mut self, shard: u32) {
        if self.open.remove(&shard).is_some() {
            self.shards_ended += 1;
        }
    }

    fn add_results(&mut self, answered: u64, bills: &[Bill], failed: Vec<FailedText>) {
        let charges = Bill::charges(bills);
        self.charges += &charges;
        self.untold += &charges;
        self.answered += answered;
        self.failed.extend(failed);
    }

    /// Does what a record says. A record of a shard that is not there changes nothing.
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            // The first one counts.
            Record::Planned(_) => {}
            Record::Uploaded { shard, file, created_at } => {
                self.step(shard, |_| Some(Step::Uploaded(InputFile { id: file, created_at })));
            }
            Record::Creating { shard, token } => {
                self.step(shard, |step| Some(Step::Creating { file: step.file()?.clone(), token }));
            }
            Record::Created { shard, batch } => {
                self.step(shard, |step| Some(Step::Running { file: step.file()?.clone(), batch }));
            }
            // The limit is for people: the account may have another one by now.
            Record::Refused { shard, code, limit: _, file_gone } => {
                let had_batch = self.open.get(&shard).is_some_and(|open| matches!(open.step, Step::Running { .. }));
                self.step(shard, |step| match step.file() {
                    Some(file) if !file_gone => Some(Step::Uploaded(file.clone())),
                    _ => Some(Step::Planned),
                });
                if let Some(open) = self.open.get_mut(&shard) {
                    open.failures += u32::from(had_batch && code.as_deref() != Some(NO_ROOM));
                    open.last_refusal = code;
                }
            }
            Record::Seen { shard, status, output, error, bad_lines } => {
                self.step(shard, |step| {
                    Some(Step::Ended { file: step.file()?.clone(), status, output, error, bad_lines })
                });
            }
            Record::Ingested { shard, answered, bills, failed, next, left, delete } => {
                self.add_results(answered, &bills, failed);
                self.left.extend(left);
                self.to_delete.extend(delete);
                self.end_shard(shard);
                self.add_shards(next);
            }
            Record::Handed { shard, texts, answered, bills, failed } => {
                self.add_results(answered, &bills, failed);
                if let Some(open) = self.open.get_mut(&shard) {
                    open.handed.extend(texts.iter().flat_map(|&(start, end)| start..end));
                }
            }
            Record::Divided { shard, next } => {
                self.end_shard(shard);
                self.add_shards(next);
            }
            Record::Cancelling => self.cancelling = true,
            Record::HandingOver => self.handing_over = true,
            Record::Paused { kind, message } => self.paused = Some((kind, message)),
            Record::Resumed => self.paused = None,
            Record::Deleted { file } => self.to_delete.retain(|other| *other != file),
            Record::Told => self.tell(),
            Record::Untold => self.untell(),
            Record::Done { cancelled } => self.done = Some(cancelled),
        }
    }

    fn tell(&mut self) {
        self.last_told = std::mem::replace(&mut self.untold, Charges::NONE);
        self.told = self.done.is_some();
    }

    fn untell(&mut self) {
        self.untold += &std::mem::replace(&mut self.last_told, Charges::NONE);
        self.told = false;
    }

    fn step(&mut self, shard: u32, next: impl FnOnce(&Step) -> Option<Step>) {
        if let Some(open) = self.open.get_mut(&shard)
            && let Some(step) = next(&open.step)
        {
            open.step = step;
        }
    }

    /// Returns the first shard that waits until it is created.
    pub(super) fn waiting(&self) -> Option<&OpenShard> {
        self.open.values().find(|open| open.waits())
    }

    /// Returns the tokens that the job has enqueued at the provider, as far as is known.
    pub(super) fn enqueued_tokens(&self) -> u64 {
        let enqueued =
            self.open.values().filter(|open| matches!(open.step, Step::Running { .. } | Step::Creating { .. }));
        enqueued.map(|open| open.shard.tokens).sum()
    }
}

impl OpenShard {
    /// Whether the shard waits until it is created.
    pub(super) const fn waits(&self) -> bool {
        matches!(self.step, Step::Planned | Step::Uploaded(_))
    }
}

impl Step {
    /// Returns the input file, if it was uploaded.
    pub(super) const fn file(&self) -> Option<&InputFile> {
        match self {
            Self::Planned => None,
            Self::Uploaded(file)
            | Self::Creating { file, .. }
            | Self::Running { file, .. }
            | Self::Ended { file, .. } => Some(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Payee, Tier, Usage};

    fn shard(number: u32) -> Shard {
        Shard { number, round: 0, lines: 1, texts: 2, tokens: 1 }
    }

    fn ingested(shard: u32) -> Record {
        let payee = Payee::new("openai", "m", Tier::Batch);
        let bills = Bill::of(&Charges::of(&payee, Usage::of_request(Some(7))));
        let (failed, next, left, delete) = (Vec::new(), Vec::new(), Vec::new(), vec!["file-a".to_owned()]);
        Record::Ingested { shard, answered: 2, bills, failed, next, left, delete }
    }

    #[test]
    fn charges_are_told_once_unless_the_caller_had_gone() {
        let mut state = State::new(Plan { shards: vec![shard(1), shard(2)], ..Plan::default() });
        state.apply(ingested(1));
        state.apply(Record::Told);
        assert!(state.untold.is_none() && !state.told, "the job goes on");
        state.apply(ingested(2));
        state.apply(Record::Done { cancelled: false });
        assert_eq!(state.untold.usage().tokens, 7);
        state.apply(Record::Told);
        assert!(state.untold.is_none() && state.told);
        state.apply(Record::Untold);
        assert!(!state.told);
        assert_eq!((state.untold.usage().tokens, state.charges.usage().tokens), (7, 14));
    }

    #[test]
    fn only_a_batch_that_was_there_has_failed() {
        let mut state = State::new(Plan { shards: vec![shard(1)], ..Plan::default() });
        let refused = |code: &str| Record::Refused { shard: 1, code: Some(code.into()), limit: None, file_gone: false };
        let records = |code: &str| {
            let token = "t".to_owned();
            [Record::Creating { shard: 1, token }, Record::Created { shard: 1, batch: "b".into() }, refused(code)]
        };
        state.apply(Record::Uploaded { shard: 1, file: "f".into(), created_at: None });
        state.apply(Record::Creating { shard: 1, token: "t".into() });
        state.apply(refused("rate_limit_exceeded"));
        records(NO_ROOM).into_iter().for_each(|record| state.apply(record));
        assert_eq!(state.open[&1].failures, 0);
        records("mysterious").into_iter().for_each(|record| state.apply(record));
        assert_eq!((state.open[&1].failures, state.open[&1].last_refusal.as_deref()), (1, Some("mysterious")));
    }

    #[test]
    fn records_of_other_shards_and_files_change_nothing() {
        let mut state = State::new(Plan { shards: vec![shard(1)], ..Plan::default() });
        let before = state.clone();
        state.apply(Record::Created { shard: 9, batch: "b".into() });
        state.apply(Record::Deleted { file: "file-b".into() });
        // Nothing was uploaded.
        state.apply(Record::Creating { shard: 1, token: "t".into() });
        assert_eq!(state, before);
        let texts = vec![(4, 6), (9, 10)];
        state.apply(Record::Handed { shard: 1, texts, answered: 2, bills: Vec::new(), failed: Vec::new() });
        assert_eq!(state.open[&1].handed, BTreeSet::from([4, 5, 9]));
        state.apply(ingested(1));
        assert_eq!((state.to_delete.len(), state.shards_ended), (1, 1));
        state.apply(Record::Deleted { file: "file-a".into() });
        assert!(state.to_delete.is_empty());
    }
}
