//! Decides what a job does next: [`Action`].

use super::state::{OpenShard, State, Step};

/// The next step of a job. Each begins and ends with what the journal says, so it can be taken again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Keep the results of a batch that has ended.
    Ingest(u32),
    /// Find out whether a batch exists whose creation got no answer.
    LookFor(u32),
    /// Divide a shard that is too large for the account.
    Divide(u32),
    /// Tell somebody that a text is too large for the account.
    NeverFits(u32),
    /// Delete files at the provider that nothing needs any more.
    Delete,
    Upload(u32),
    Create(u32),
    /// Let the standby answer the texts of a shard.
    HandOver(u32),
    /// Give up a shard that was not begun, because the job is to be cancelled.
    GiveUp(u32),
    /// Look at the batches that run.
    Poll,
    /// Wait for room in the account.
    WaitForRoom,
    /// Nothing is left to do.
    Finish,
}

/// The room that the account has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// The most tokens that may be enqueued at a time.
    pub(super) limit: Option<u64>,
    /// The tokens that are enqueued now, of all jobs that are known.
    pub(super) enqueued: u64,
    /// Whether the account refused more a moment ago.
    pub(super) is_full: bool,
}

impl Action {
    /// Decides by the state of a job. Results come first, so that nothing that was paid waits on the provider's disk.
    pub(super) fn next(state: &State, room: Room) -> Self {
        let first =
            |is: &dyn Fn(&OpenShard) -> bool| state.open.values().find(|open| is(open)).map(|open| open.shard.number);
        if let Some(ended) = first(&|open| matches!(open.step, Step::Ended { .. })) {
            return Self::Ingest(ended);
        }
        if let Some(open) = first(&|open| matches!(open.step, Step::Creating { .. })) {
            return Self::LookFor(open);
        }
        if !state.to_delete.is_empty() {
            return Self::Delete;
        }
        let runs = first(&|open| matches!(open.step, Step::Running { .. })).is_some();
        let Some(open) = state.waiting() else {
            return if runs { Self::Poll } else { Self::Finish };
        };
        let number = open.shard.number;
        if state.cancelling {
            return Self::GiveUp(number);
        }
        if state.handing_over {
            return Self::HandOver(number);
        }
        if let Some(large) = first(&|open| open.waits() && room.is_too_small(open)) {
            let texts = state.open.get(&large).map_or(0, |open| open.shard.texts);
            return if texts > 1 { Self::Divide(large) } else { Self::NeverFits(large) };
        }
        match &open.step {
            _ if !room.has_room_for(open) => {
                if runs {
                    Self::Poll
                } else {
                    Self::WaitForRoom
                }
            }
            Step::Uploaded(_) => Self::Create(number),
            _ => Self::Upload(number),
        }
    }
}

impl Room {
    /// Whether a shard can never be enqueued as a whole.
    fn is_too_small(self, open: &OpenShard) -> bool {
        self.limit.is_some_and(|limit| open.shard.tokens > limit)
    }

    /// Whether a shard can be enqueued now.
    pub(super) fn has_room_for(self, open: &OpenShard) -> bool {
        let fits = |limit| self.enqueued == 0 || self.enqueued + open.shard.tokens <= limit;
        !self.is_full && self.limit.is_none_or(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::openai_batch::record::{Plan, Record, Shard};

    fn shard(number: u32, tokens: u64) -> Shard {
        Shard { number, round: 0, lines: 2, texts: 4, tokens }
    }

    /// A job of two shards of 10 tokens each.
    fn state() -> State {
        State::new(Plan { shards: vec![shard(1, 10), shard(2, 10)], texts: 8, ..Plan::default() })
    }

    fn apply(state: &mut State, records: impl IntoIterator<Item = Record>) {
        records.into_iter().for_each(|record| state.apply(record));
    }

    fn uploaded(shard: u32) -> Record {
        Record::Uploaded { shard, file: format!("file-{shard}"), created_at: Some(7) }
    }

    fn creating(shard: u32) -> Record {
        Record::Creating { shard, token: format!("token-{shard}") }
    }

    fn created(shard: u32) -> Record {
        Record::Created { shard, batch: format!("batch-{shard}") }
    }

    fn seen(shard: u32) -> Record {
        Record::Seen { shard, status: "completed".into(), output: None, error: None, bad_lines: vec![] }
    }

    fn ingested(shard: u32, next: Vec<Shard>) -> Record {
        Record::Ingested { shard, answered: 4, bills: vec![], failed: vec![], next, left: vec![], delete: vec![] }
    }

    #[test]
    fn a_job_goes_from_step_to_step() {
        let mut state = state();
        let room = Room::default();
        for (action, record) in [
            (Action::Upload(1), uploaded(1)),
            (Action::Create(1), creating(1)),
            // A create whose answer is not known comes before all other work.
            (Action::LookFor(1), created(1)),
            (Action::Upload(2), uploaded(2)),
            (Action::Create(2), creating(2)),
            // It was not made after all.
            (Action::LookFor(2), Record::Refused { shard: 2, code: None, limit: None, file_gone: false }),
            (Action::Create(2), creating(2)),
            (Action::LookFor(2), created(2)),
            (Action::Poll, seen(2)),
            (Action::Ingest(2), ingested(2, vec![shard(3, 5)])),
            (Action::Upload(3), uploaded(3)),
            (Action::Create(3), creating(3)),
            // The file is gone: it is uploaded again.
            (Action::LookFor(3), Record::Refused { shard: 3, code: None, limit: None, file_gone: true }),
            (Action::Upload(3), uploaded(3)),
            (Action::Create(3), creating(3)),
            (Action::LookFor(3), created(3)),
            (Action::Poll, seen(1)),
            (Action::Ingest(1), ingested(1, vec![])),
            (Action::Poll, seen(3)),
            (Action::Ingest(3), ingested(3, vec![])),
        ] {
            assert_eq!(Action::next(&state, room), action);
            state.apply(record);
        }
        assert_eq!(Action::next(&state, room), Action::Finish);
        assert_eq!((state.shards, state.shards_ended, state.answered), (3, 3, 12));
    }

    #[test]
    fn batches_wait_for_room_in_the_account() {
        let mut state = state();
        let room = |enqueued| Room { limit: Some(15), enqueued, is_full: false };
        assert_eq!(Action::next(&state, room(0)), Action::Upload(1));
        // Another job has it.
        assert_eq!(Action::next(&state, room(10)), Action::WaitForRoom);
        apply(&mut state, [uploaded(1), creating(1), created(1)]);
        assert_eq!(state.enqueued_tokens(), 10);
        assert_eq!(Action::next(&state, room(10)), Action::Poll);
        assert_eq!(Action::next(&state, Room { is_full: true, ..Room::default() }), Action::Poll);
        apply(&mut state, [seen(1), ingested(1, vec![])]);
        assert_eq!(Action::next(&state, Room { is_full: true, ..Room::default() }), Action::WaitForRoom);
        assert_eq!(Action::next(&state, room(0)), Action::Upload(2));
        // A shard that never fits is divided, unless it is a single text.
        let little = Room { limit: Some(9), ..Room::default() };
        assert_eq!(Action::next(&state, little), Action::Divide(2));
        apply(&mut state, [Record::Divided { shard: 2, next: vec![Shard { texts: 1, ..shard(3, 10) }] }]);
        assert_eq!(Action::next(&state, little), Action::NeverFits(3));
    }

    #[test]
    fn a_cancelled_job_begins_nothing_and_keeps_what_runs() {
        let mut state = state();
        apply(&mut state, [uploaded(1), creating(1), Record::Cancelling]);
        assert_eq!(Action::next(&state, Room::default()), Action::LookFor(1));
        apply(&mut state, [created(1)]);
        assert_eq!(Action::next(&state, Room::default()), Action::GiveUp(2));
        apply(&mut state, [ingested(2, vec![])]);
        assert_eq!(Action::next(&state, Room::default()), Action::Poll);
    }

    #[test]
    fn the_standby_gets_what_no_batch_has() {
        let mut state = state();
        apply(&mut state, [uploaded(1), creating(1), created(1), Record::HandingOver]);
        assert_eq!(Action::next(&state, Room { is_full: true, ..Room::default() }), Action::HandOver(2));
    }
}
