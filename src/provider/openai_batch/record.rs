//! Defines what a job's journal records: [`Record`].
//!
//! A record is written and synced before the next step has an effect. The names and fields are read by later versions:
//! they never change, and a new field has a default.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Charges, Error, InputKind, Payee, Tier, Truncation, Usage};

/// One line of a journal. The state of a job is what its records make, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Record {
    /// The first record: what the job is. All its files are on the disk.
    Planned(Box<Plan>),
    /// The input file of a shard is at the provider.
    Uploaded { shard: u32, file: String, created_at: Option<u64> },
    /// A batch of a shard is about to be created. Its metadata holds the token.
    Creating { shard: u32, token: String },
    /// The batch of a shard is there.
    Created { shard: u32, batch: String },
    /// There is no batch of the shard: its creation was refused or not found, or the batch failed as a whole. It is
    /// created again; first its file is uploaded again if that is gone.
    Refused { shard: u32, code: Option<String>, limit: Option<u64>, file_gone: bool },
    /// The batch of a shard has ended.
    Seen { shard: u32, status: String, output: Option<String>, error: Option<String>, bad_lines: Vec<u32> },
    /// The results of a shard are kept. The rest is in the next shards, whose files are on the disk. After a
    /// cancellation it is in no shard: the ranges (start, end) of its indices are here. So are the provider's files of the
    /// shard that are to be deleted.
    Ingested {
        shard: u32,
        answered: u64,
        bills: Vec<Bill>,
        failed: Vec<FailedText>,
        next: Vec<Shard>,
        left: Vec<(u64, u64)>,
        delete: Vec<String>,
    },
    /// The standby answered some texts of a shard, or they failed with it: those in these ranges (start, end).
    Handed { shard: u32, texts: Vec<(u64, u64)>, answered: u64, bills: Vec<Bill>, failed: Vec<FailedText> },
    /// The shard is too large for the account, and the next ones are its parts.
    Divided { shard: u32, next: Vec<Shard> },
    /// Nothing is created any more, and running batches are to be cancelled.
    Cancelling,
    /// Running batches are to be cancelled, and the rest goes to the standby.
    HandingOver,
    /// The job waits for somebody.
    Paused { kind: String, message: String },
    /// The job goes on.
    Resumed,
    /// A file is not at the provider any more, or nobody tries to delete it any more.
    Deleted { file: String },
    /// A caller was told all charges so far.
    Told,
    /// The caller who was last told had gone.
    Untold,
    /// The job has ended.
    Done { cancelled: bool },
}

/// The facts of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) id: String,
    /// Milliseconds since 1970.
    pub(super) created_ms: u64,
    /// The hash of all texts and of what else the vectors depend on: equal jobs have equal ones.
    pub(super) texts_hash: String,
    /// The space, as [`Space::to_text`](crate::Space::to_text) has it.
    pub(super) space: String,
    /// The model's name in requests.
    pub(super) model: Option<String>,
    /// Scheme, host and port of the provider.
    pub(super) server: String,
    pub(super) texts: u64,
    /// The texts that the cache answered. Their rows are there.
    pub(super) cached: u64,
    /// The indices of the texts that were truncated, ascending.
    pub(super) truncated: Vec<u64>,
    pub(super) query: bool,
    /// Whether over-long texts are truncated.
    pub(super) truncates: bool,
    /// Whether `embed` made it.
    pub(super) embed: bool,
    pub(super) shards: Vec<Shard>,
}

impl Record {
    /// Ends a shard to which nothing came beside what is recorded already.
    pub(super) fn ended(shard: u32, left: Vec<(u64, u64)>, delete: Vec<String>) -> Self {
        let (bills, failed, next) = (Vec::new(), Vec::new(), Vec::new());
        Self::Ingested { shard, answered: 0, bills, failed, next, left, delete }
    }
}

impl Plan {
    /// Returns when the job was submitted.
    pub(super) fn created(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.created_ms)
    }

    /// Returns the kind of the texts.
    pub(super) const fn kind(&self) -> InputKind {
        if self.query { InputKind::Query } else { InputKind::Document }
    }

    /// Returns the treatment of over-long texts.
    pub(super) const fn truncation(&self) -> Truncation {
        if self.truncates { Truncation::Truncate } else { Truncation::Error }
    }
}

/// A part of a job that is one input file and one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shard {
    pub(super) number: u32,
    /// How often its texts came back without an answer.
    pub(super) round: u32,
    pub(super) lines: u32,
    pub(super) texts: u64,
    /// As the provider judges them: a quarter of the bytes of the texts.
    pub(super) tokens: u64,
}

/// A text that got no vector and is not sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FailedText {
    pub(super) index: u64,
    /// The [code](crate::ErrorKind::as_str) of the kind of error.
    pub(super) kind: String,
    /// The provider's code.
    pub(super) code: Option<String>,
}

impl FailedText {
    pub(super) fn of(index: u64, error: &Error) -> Self {
        Self { index, kind: error.kind().as_str().to_owned(), code: error.provider_code().map(str::to_owned) }
    }
}

/// The debt to one payee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bill {
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) tier: String,
    pub(super) tokens: u64,
    pub(super) requests: u64,
    pub(super) unreported: u64,
    pub(super) unanswered: u64,
}

impl Bill {
    /// Returns the bills of these charges.
    pub(super) fn of(charges: &Charges) -> Vec<Self> {
        let bill = |payee: &Payee, usage: Usage| Self {
            provider: payee.provider().to_owned(),
            model: payee.model().to_owned(),
            tier: payee.tier().as_str().to_owned(),
            tokens: usage.tokens,
            requests: usage.requests,
            unreported: usage.unreported,
            unanswered: usage.unanswered,
        };
        charges.iter().map(|charge| bill(&charge.payee, charge.usage)).collect()
    }

    /// Returns the charges of these bills.
    pub(super) fn charges(bills: &[Self]) -> Charges {
        bills.iter().fold(Charges::NONE, |mut charges, bill| {
            // A tier of a later version is one that is not local.
            let tier = bill.tier.parse().unwrap_or(Tier::Standard);
            let usage = Usage {
                tokens: bill.tokens,
                requests: bill.requests,
                unreported: bill.unreported,
                unanswered: bill.unanswered,
                ..Usage::ZERO
            };
            charges += &Charges::of(&Payee::new(bill.provider.as_str(), bill.model.as_str(), tier), usage);
            charges
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Journals hold these. A record that cannot be read back is a job that is lost.
    #[test]
    fn records_stay_readable() {
        let lines = [
            r#"{"event":"uploaded","shard":1,"file":"file-a","created_at":7}"#,
            r#"{"event":"creating","shard":1,"token":"t"}"#,
            r#"{"event":"created","shard":1,"batch":"batch_a"}"#,
            r#"{"event":"refused","shard":1,"code":"token_limit_exceeded","limit":9,"file_gone":false}"#,
            r#"{"event":"seen","shard":1,"status":"expired","output":"file-b","error":null,"bad_lines":[]}"#,
            r#"{"event":"ingested","shard":1,"answered":3,"bills":[],"failed":[],"next":[],"left":[[0,2]],"delete":["f"]}"#,
            r#"{"event":"handed","shard":1,"texts":[[0,2]],"answered":3,"bills":[],"failed":[]}"#,
            r#"{"event":"divided","shard":1,"next":[]}"#,
            r#"{"event":"cancelling"}"#,
            r#"{"event":"handing_over"}"#,
            r#"{"event":"paused","kind":"quota","message":"no money"}"#,
            r#"{"event":"resumed"}"#,
            r#"{"event":"deleted","file":"f"}"#,
            r#"{"event":"told"}"#,
            r#"{"event":"untold"}"#,
            r#"{"event":"done","cancelled":false}"#,
        ];
        for line in lines {
            let record: Record = serde_json::from_str(line).expect(line);
            assert_eq!(serde_json::to_string(&record).expect("JSON"), line);
        }
    }

    #[test]
    fn bills_are_charges_and_back() {
        let payee = Payee::new("openai", "text-embedding-3-small", Tier::Batch);
        let mut charges = Charges::of(&payee, Usage::of_request(Some(70)) + Usage::of_request(None));
        charges += &Charges::of(&Payee::new("other", "m", Tier::Standard), Usage::of_unanswered());
        assert_eq!(Bill::charges(&Bill::of(&charges)), charges);
        assert_eq!(Bill::charges(&[]), Charges::NONE);
    }
}
