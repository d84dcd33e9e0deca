//! Writes what waits, in the background: [`start`].

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{runtime::Handle, time::Instant};

use super::{
    pending::{Batch, Pending},
    shared::Shared,
};
use crate::{
    Error, ErrorKind, Result,
    cache::{CacheStore, Entry},
    telemetry,
};

/// How long the first try after a failure waits, and the longest wait.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Starts the task that writes until nothing waits.
pub(super) fn start<S: CacheStore>(shared: Arc<Shared<S>>, runtime: &Handle) {
    // Made here, so that a task which is dropped before its first turn has ended, too.
    let running = Running(shared);
    runtime.spawn(async move { running.0.drain().await });
}

/// Notes that the task has ended, also if it was dropped with its runtime: the next call starts another one.
struct Running<S>(Arc<Shared<S>>);

impl<S> Drop for Running<S> {
    fn drop(&mut self) {
        self.0.pending.with(Pending::end);
    }
}

impl<S: CacheStore> Shared<S> {
    async fn drain(&self) {
        let mut failing_since = None;
        while let Some(batch) = self.pending.with(Pending::batch) {
            let entries = batch.entries.len() as u64;
            match self.write(&batch, &mut failing_since).await {
                Ok(()) => _ = self.written.fetch_add(entries, Ordering::Relaxed),
                Err(error) => {
                    self.lost.fetch_add(entries, Ordering::Relaxed);
                    tracing::warn!(
                        { telemetry::STORE } = %self.store,
                        { telemetry::ERROR } = %error,
                        { telemetry::LOST } = entries,
                        "entries are lost, because the cache store failed for too long"
                    );
                }
            }
            let finished = self.pending.with(Pending::finish);
            self.room.add_permits(finished.pieces);
            self.finished.send_modify(|done| *done += finished.things);
        }
    }

    /// Writes a batch, and tries again while the patience lasts. A store that has failed for that long gets one try for
    /// each further batch.
    async fn write(&self, batch: &Batch, failing_since: &mut Option<Instant>) -> Result<()> {
        let entries: Vec<Entry<'_>> = batch.entries.iter().map(|(key, value)| Entry::new(*key, value)).collect();
        let mut pause = FIRST_PAUSE;
        loop {
            let put = async { if entries.is_empty() { Ok(()) } else { self.store.put(&entries).await } };
            let Err(failed) = self.tried(put).await else {
                *failing_since = None;
                self.write_notes(batch).await;
                return Ok(());
            };
            if failing_since.get_or_insert_with(Instant::now).elapsed() + pause > self.patience {
                return Err(failed);
            }
            tracing::debug!({ telemetry::STORE } = %self.store, { telemetry::ERROR } = %failed, "a batch is tried again");
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Writes lines about spaces. They are for people, so one that fails is no loss of an entry.
    async fn write_notes(&self, batch: &Batch) {
        for (space, about) in &batch.notes {
            if let Err(error) = self.tried(self.store.note(*space, about)).await {
                tracing::warn!(
                    { telemetry::STORE } = %self.store,
                    { telemetry::ERROR } = %error,
                    "a line about a space was not written"
                );
            }
        }
    }

    /// Waits for a call of the store, which may panic, and may take as long as a batch is tried.
    async fn tried(&self, call: impl Future<Output = Result<()>> + Send) -> Result<()> {
        let failed = |why: &str| Err(Error::new(ErrorKind::Cache, format!("the store {why}")));
        match tokio::time::timeout(self.patience, AssertUnwindSafe(call).catch_unwind()).await {
            Ok(done) => done.unwrap_or_else(|_| failed("panicked")),
            Err(_) => failed(&format!("did not answer within {:?}", self.patience)),
        }
    }
}
