//! Holds a job that is being worked on, records what happens to it, and obeys its callers: [`Course`].

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    batch_object::NO_ROOM,
    context::Context,
    folder::JobFolder,
    handle::{JobRows, Order, Snapshot},
    index_file::ShardIndex,
    journal::Journal,
    outcome::snapshot_of,
    pace::Pace,
    present::Present,
    record::Record,
    rows_file::RowsFile,
    state::{OpenShard, State},
};
use crate::{Charges, Error, ErrorKind, Result};

/// A job being worked on.
pub(super) struct Course {
    pub(super) context: Arc<Context>,
    pub(super) folder: JobFolder,
    /// The journal, locked until the job has ended.
    pub(super) journal: Option<Journal>,
    pub(super) state: State,
    /// The rows, if they were needed so far.
    pub(super) rows: Option<RowsFile>,
    pub(super) shared: Arc<JobRows>,
    pub(super) snapshot: watch::Sender<Snapshot>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) pace: Pace,
    /// The shards whose batches were asked to be cancelled.
    pub(super) cancelled: HashSet<u32>,
    /// How often the next file was tried to be deleted.
    pub(super) delete_tries: u32,
    /// How often something odd was seen of a shard in a row: its file or batch is gone, or its results lack their files.
    pub(super) odd: HashMap<u32, u32>,
    /// The present trouble, in words.
    pub(super) trouble: Option<String>,
}

impl Course {
    /// Appends a record, and changes the state as it says.
    pub(super) fn record(&mut self, record: Record) -> Result<()> {
        match &mut self.journal {
            Some(journal) => journal.append(&record)?,
            None => {
                let (mut journal, state) = self.open_again()?;
                self.state = state;
                journal.append(&record)?;
            }
        }
        self.state.apply(record);
        self.context.note_enqueued(&self.state.plan.id, self.state.enqueued_tokens());
        Ok(())
    }

    /// Opens the journal again, which must be closed: it is locked while it is open.
    fn open_again(&self) -> Result<(Journal, State)> {
        open_journal(&self.folder)?.ok_or_else(|| busy(&self.state.plan.id))
    }

    /// Returns the rows, to put more of them.
    pub(super) fn rows(&mut self) -> Result<&mut RowsFile> {
        let rows = match self.rows.take() {
            Some(rows) => rows,
            // A job that has rows has the file. Another one would have holes in their place.
            None if self.state.answered > 0 => RowsFile::open(&self.shared.path, self.shared.space.dimensions())?,
            None => RowsFile::open_or_create(&self.shared.path, self.shared.space.dimensions())?,
        };
        Ok(self.rows.insert(rows))
    }

    /// Tells callers where the job is.
    pub(super) fn publish(&self, error: Option<Error>) {
        let snapshot = snapshot_of(&self.state, &self.pace, self.trouble.clone(), error, self.is_waiting());
        self.snapshot.send_replace(snapshot);
    }

    /// Whether something waits for room in the account.
    fn is_waiting(&self) -> bool {
        let state = &self.state;
        let for_room =
            |open: &OpenShard| open.last_refusal.as_deref() == Some(NO_ROOM) || !self.context.room().has_room_for(open);
        state.sends_more() && state.waiting().is_some_and(for_room)
    }

    /// Lets the job wait for somebody.
    pub(super) fn pause(&mut self, error: Error) {
        tracing::warn!(job = %self.state.plan.id, error = %error, "the batch job is paused");
        let record = Record::Paused { kind: error.kind().as_str().to_owned(), message: error.to_string() };
        // The disk may be what is wrong.
        if self.record(record.clone()).is_err() {
            self.state.apply(record);
        }
        // What it has enqueued may end meanwhile, and others need not wait for it.
        self.context.note_enqueued(&self.state.plan.id, 0);
        self.publish(Some(error));
    }

    /// Does what a caller wants. Returns whether that succeeded.
    pub(super) fn obey(&mut self, order: Order) -> bool {
        let is_paused = self.state.paused.is_some();
        match order {
            Order::Resume(reply) => {
                let result = if is_paused { self.resume() } else { Ok(()) };
                self.answer(reply, result)
            }
            Order::Cancel(reply) => {
                let is_new = !self.state.cancelling && self.state.done.is_none();
                let resumed = if is_paused { self.resume() } else { Ok(()) };
                let result = match resumed {
                    Ok(()) if is_new => self.record(Record::Cancelling),
                    other => other,
                };
                self.answer(reply, result)
            }
            Order::Tell(reply) => {
                let told = self.tell();
                let (is_ok, is_recorded) = (told.is_ok(), told.as_ref().is_ok_and(|(_, is_recorded)| *is_recorded));
                if reply.send(told.map(|(charges, _)| charges)).is_err() && is_recorded {
                    // The caller has gone: the next one is told. If that cannot be noted, the charges are in the report.
                    _ = self.record(Record::Untold);
                }
                is_ok
            }
        }
    }

    /// Goes on after a pause. The journal is opened again: a disk that failed may have left it unusable.
    fn resume(&mut self) -> Result<()> {
        self.journal = None;
        let (journal, state) = self.open_again()?;
        let present = present_of(&state, &self.folder)?;
        self.shared.present.with(|own| *own = present);
        (self.journal, self.state) = (Some(journal), state);
        if self.state.done.is_some() {
            // Another process had it meanwhile.
            return Ok(());
        }
        // Perhaps somebody has had the limit of the account raised: the next refusal tells.
        self.context.forget_limit();
        self.record(Record::Resumed)
    }

    /// Returns the charges that no caller was told of. Another process may have told them since the job has ended.
    /// Also returns whether that was recorded.
    fn tell(&mut self) -> Result<(Charges, bool)> {
        if self.journal.is_none() {
            self.state = self.open_again()?.1;
        }
        let untold = self.state.untold.clone();
        let is_new = untold != Charges::NONE || !self.state.told;
        if is_new {
            self.record(Record::Told)?;
        }
        Ok((untold, is_new))
    }

    fn answer(&self, reply: tokio::sync::oneshot::Sender<Result<()>>, result: Result<()>) -> bool {
        let is_ok = result.is_ok();
        if is_ok && self.state.paused.is_none() {
            // Before the answer, so that the caller never sees the old state after it.
            self.publish(None);
        }
        // A caller who has gone wants no answer.
        _ = reply.send(result);
        is_ok
    }

    /// Waits, and obeys orders that come.
    pub(super) async fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            self.publish(None);
            match tokio::time::timeout_at(end, self.orders.recv()).await {
                Ok(Some(order)) => {
                    let is_cancel = matches!(order, Order::Cancel(_));
                    if self.obey(order) && is_cancel {
                        return;
                    }
                }
                // Nobody is there. The embedder may be, and ends this by dropping it.
                Ok(None) => return tokio::time::sleep_until(end).await,
                Err(_) => return,
            }
        }
    }

    /// Obeys the orders that have come.
    pub(super) fn obey_all(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            self.obey(order);
        }
    }

    /// Waits after a failure that may pass; returns any other failure.
    pub(super) async fn wait_after(&mut self, error: Error) -> Result<()> {
        let passes = [ErrorKind::RateLimited, ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Overloaded];
        if passes.contains(&error.kind()) { self.wait_with(&error).await } else { Err(error) }
    }

    /// Waits after the failure of a call that costs nothing and can be made any number of times. A reply that is not
    /// that of the API says nothing of the job.
    pub(super) async fn wait_for_free_call(&mut self, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Protocol { self.wait_with(&error).await } else { self.wait_after(error).await }
    }

    pub(super) async fn wait_with(&mut self, error: &Error) -> Result<()> {
        self.trouble = Some(trouble_of(error));
        let wait = self.pace.after_failure(error.retry_after());
        self.wait(wait).await;
        Ok(())
    }

    /// Counts something odd of a shard. Returns how often it was seen in a row.
    pub(super) fn seen_odd(&mut self, shard: u32) -> u32 {
        let times = self.odd.entry(shard).or_default();
        *times += 1;
        *times
    }

    pub(super) fn all_is_well(&mut self) {
        self.trouble = None;
        self.pace.succeeded();
    }
}

/// Returns which rows of a job are there: all but those of its open shards, and those that have failed or were given up.
pub(super) fn present_of(state: &State, folder: &JobFolder) -> Result<Present> {
    let mut present = Present::all(state.plan.texts);
    for open in state.open.values() {
        let index = ShardIndex::read(&folder.index(open.shard.number))?;
        let texts = index.texts().map(|text| text.index);
        texts.filter(|index| !open.handed.contains(index)).for_each(|index| present.set(index, false));
    }
    state.failed.iter().for_each(|failed| present.set(failed.index, false));
    for &(start, end) in &state.left {
        (start..end).for_each(|index| present.set(index, false));
    }
    Ok(present)
}

/// Opens and locks a job's journal; `None` if another process has it.
pub(super) fn open_journal(folder: &JobFolder) -> Result<Option<(Journal, State)>> {
    let path = folder.journal();
    let Some((journal, records)) = Journal::open::<Record>(&path)? else { return Ok(None) };
    Ok(Some((journal, State::of(records, &path)?)))
}

/// Says what is wrong. Without the request's id, which is another one each time, the same trouble has the same words.
pub(super) fn trouble_of(error: &Error) -> String {
    let status = error.status().map_or_else(String::new, |status| format!(" (status {status})"));
    format!("{}{status}: {}", error.kind(), error.message())
}

pub(super) fn busy(id: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("another process works on job {id}: wait until it ends, or ask that one"),
    )
}
