//! Keeps the calls of the members and their charges: [`Ledger`].

use std::collections::{BTreeMap, HashSet};

use docvector_embed::{Batch, InputKind, Lane, Truncation, Usage};
use tokio::time::Instant;

use super::texts;

/// The end of a call of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The call has not ended.
    UnderWay,
    /// With the right rows.
    Right,
    /// With an error, or with rows that break a law.
    Failed,
    Panicked,
    /// With an answer that was read too late.
    Unread,
    /// Nobody waited for the answer.
    Dropped,
}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) kind: InputKind,
    pub(super) truncation: Truncation,
    pub(super) lane: Lane,
    /// As far as they are embedded: a wrapper may have truncated them before.
    pub(super) texts: Vec<String>,
    /// The number of the member.
    pub(super) member: usize,
    pub(super) began: Instant,
    pub(super) ended: Option<Instant>,
    pub(super) ending: Ending,
    /// The cost that its answer told.
    pub(super) charged: Usage,
}

/// A text as far as it is embedded, its kind, and whether it may be truncated.
pub(super) type Asked = (String, InputKind, bool);

#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) calls: Vec<Call>,
    refused: HashSet<(InputKind, String)>,
}

impl Ledger {
    pub(super) fn begin(&mut self, member: usize, batch: &Batch<'_>, limit: Option<usize>) -> usize {
        let cut = |text: &&str| texts::cut(text, limit, batch.truncation()).to_owned();
        self.calls.push(Call {
            kind: batch.kind(),
            truncation: batch.truncation(),
            lane: batch.lane(),
            member,
            began: Instant::now(),
            ended: None,
            texts: batch.texts().iter().map(cut).collect(),
            ending: Ending::UnderWay,
            charged: Usage::ZERO,
        });
        self.calls.len() - 1
    }

    pub(super) fn end(&mut self, number: usize, ending: Ending, charged: Usage) {
        let call = &mut self.calls[number];
        (call.ended, call.ending, call.charged) = (Some(Instant::now()), ending, charged);
    }

    /// Notes that a text may be blamed.
    pub(super) fn refuse(&mut self, kind: InputKind, text: &str) {
        self.refused.insert((kind, text.to_owned()));
    }

    pub(super) fn has_refused(&self, kind: InputKind, text: &str) -> bool {
        self.refused.contains(&(kind, text.to_owned()))
    }

    /// Returns the cost that all answers together told.
    pub(super) fn charged(&self) -> Usage {
        self.calls.iter().map(|call| call.charged).sum()
    }

    pub(super) fn count(&self, ending: Ending) -> u64 {
        self.calls.iter().filter(|call| call.ending == ending).count() as u64
    }

    /// Returns whether a member has failed a call in this time, or was given up.
    pub(super) fn has_failed(&self, member: usize, from: Instant, to: Instant) -> bool {
        let fails = |call: &&Call| matches!(call.ending, Ending::Failed | Ending::Panicked | Ending::Dropped);
        let mut of_member = self.calls.iter().filter(|call| call.member == member).filter(fails);
        of_member.any(|call| call.ended.is_some_and(|ended| from <= ended && ended <= to))
    }

    /// Returns how often each text was paid for with a whole answer.
    pub(super) fn paid(&self) -> BTreeMap<Asked, usize> {
        let mut paid = BTreeMap::new();
        for ((asked, _), times) in self.paid_by_lane() {
            *paid.entry(asked).or_default() += times;
        }
        paid
    }

    /// Returns the same for each lane.
    pub(super) fn paid_by_lane(&self) -> BTreeMap<(Asked, Lane), usize> {
        let mut paid = BTreeMap::new();
        for call in self.calls.iter().filter(|call| matches!(call.ending, Ending::Right | Ending::Unread)) {
            for text in &call.texts {
                let asked = (text.clone(), call.kind, call.truncation == Truncation::Truncate);
                *paid.entry((asked, call.lane)).or_default() += 1;
            }
        }
        paid
    }
}
