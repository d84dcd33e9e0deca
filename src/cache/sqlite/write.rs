//! Writes to a file, on a thread of its own: requests that wait at the same time share a transaction.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{failure::file_error, open::begin, schema::write_first_page};
use crate::{
    Result, SpaceId,
    cache::{Entry, owned_entries::OwnedEntries},
    telemetry,
};

const INSERT: &str = "INSERT INTO entries (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING";
const DELETE: &str = "DELETE FROM entries WHERE key = ?1 AND value = ?2";
const NOTE: &str = "INSERT INTO spaces (id, about, noted) VALUES (?1, ?2, strftime('%Y-%m-%dT%H:%M:%SZ', 'now')) \
                    ON CONFLICT (id) DO NOTHING";

/// The bytes of a piece of the queue, in which waiting jobs are counted; each job has one at least.
pub(super) const QUEUE_PIECE_BYTES: usize = 1 << 10;

/// The maximum rows and bytes of one transaction, and so of one write to the disk.
pub(super) const DEFAULT_GROUP_ROWS: usize = 10_000;
const MAX_GROUP_BYTES: usize = 16 << 20;

/// If readers overlap without a pause, the WAL grows. At so many times the size that triggers a checkpoint, the writer
/// waits for a moment in which the WAL can start over, for so long.
const MAX_WAL_FACTOR: u64 = 4;
const WAL_RESTART_WAIT: Duration = Duration::from_secs(1);

/// A request to the writer, and the channel to its caller.
pub(super) struct WriteJob {
    pub(super) request: WriteRequest,
    pub(super) done: oneshot::Sender<Result<()>>,
    /// Its room in the queue, given back when it is done.
    pub(super) room: OwnedSemaphorePermit,
}

pub(super) enum WriteRequest {
    Put(OwnedEntries),
    Discard(OwnedEntries),
    Note(SpaceId, String),
    /// Writes nothing, and is done after all requests before it.
    Flush,
}

/// The writer, which runs on a thread of its own.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) queue: mpsc::Receiver<WriteJob>,
    pub(super) path: PathBuf,
    pub(super) group_rows: usize,
    pub(super) group_wait: Duration,
    pub(super) busy_timeout: Duration,
    pub(super) wal: PathBuf,
    pub(super) wal_bytes: u64,
}

impl Writer {
    /// Writes until the last clone is dropped and everything in the queue is done.
    pub(super) fn run(self) {
        while let Ok(first) = self.queue.recv() {
            let group = self.gather(first);
            let result = self.write(&group).map_err(|error| file_error(&self.path, error));
            if let Err(error) = &result {
                tracing::debug!({ telemetry::CACHE_PUTS } = group.len(), "a transaction failed: {error}");
            }
            for job in group {
                // The caller may have left.
                let _ = job.done.send(result.clone());
            }
            self.bound_wal();
        }
    }

    /// Keeps the WAL from growing without bound. The WAL starts over when all of it is in the file and no reader uses
    /// it. If readers overlap without a pause, the writer has to wait for that: readers that begin after the checkpoint
    /// do not use the WAL.
    fn bound_wal(&self) {
        let bytes = fs::metadata(&self.wal).map_or(0, |wal| wal.len());
        if bytes <= MAX_WAL_FACTOR * self.wal_bytes {
            return;
        }
        let restart = || -> rusqlite::Result<()> {
            self.connection.busy_timeout(WAL_RESTART_WAIT)?;
            let restarted = self.connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
            // Set back however this ended: elsewhere, only `begin` waits for locks.
            self.connection.busy_timeout(Duration::ZERO)?;
            restarted
        };
        if let Err(error) = restart() {
            // Tried again after the next group. Until then, rows in the WAL are as durable as those in the file.
            tracing::debug!({ telemetry::CACHE_JOURNAL_BYTES } = bytes, "the WAL could not start over: {error}");
        }
    }

    /// Gathers the requests that wait, and those that come while the first may wait, until a transaction is full.
    fn gather(&self, first: WriteJob) -> Vec<WriteJob> {
        let since = Instant::now();
        let (mut rows, mut pieces, mut wait) = (0, 0, self.group_wait);
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match &job.request {
                WriteRequest::Put(put) => rows += put.len(),
                WriteRequest::Note(..) | WriteRequest::Discard(_) => {}
                WriteRequest::Flush => wait = Duration::ZERO,
            }
            pieces += job.room.num_permits();
            group.push(job);
            if rows >= self.group_rows || pieces >= MAX_GROUP_BYTES / QUEUE_PIECE_BYTES {
                break;
            }
            // If no time is left, this still takes requests that wait already.
            next = self.queue.recv_timeout(wait.saturating_sub(since.elapsed())).ok();
        }
        group
    }

    /// Writes a group in one transaction, all of it or nothing.
    fn write(&self, group: &[WriteJob]) -> rusqlite::Result<()> {
        let puts =
            group.iter().filter_map(|job| if let WriteRequest::Put(rows) = &job.request { Some(rows) } else { None });
        let mut rows: Vec<Entry<'_>> = puts.flat_map(OwnedEntries::iter).collect();
        // In the order of keys, each index page is visited once. The sort is stable: of equal keys, the first wins.
        rows.sort_by_key(|entry| entry.key);
        let mut notes = group
            .iter()
            .filter_map(
                |job| if let WriteRequest::Note(space, about) = &job.request { Some((space, about)) } else { None },
            )
            .peekable();
        let discards = group
            .iter()
            .filter_map(|job| if let WriteRequest::Discard(rows) = &job.request { Some(rows) } else { None });
        let mut discards = discards.flat_map(OwnedEntries::iter).peekable();
        if rows.is_empty() && notes.peek().is_none() && discards.peek().is_none() {
            return Ok(());
        }
        let transaction = begin(&self.connection, self.busy_timeout)?;
        write_first_page(&transaction)?;
        // Discards go first, whichever came first: otherwise a put could lose to a value that is being discarded.
        for entry in discards {
            transaction.prepare_cached(DELETE)?.execute(params![entry.key.as_bytes().as_slice(), entry.value])?;
        }
        let mut insert = transaction.prepare_cached(INSERT)?;
        for entry in rows {
            insert.execute(params![entry.key.as_bytes().as_slice(), entry.value])?;
        }
        drop(insert);
        for (space, about) in notes {
            transaction.prepare_cached(NOTE)?.execute(params![space.as_bytes().as_slice(), about])?;
        }
        transaction.commit()
    }
}
