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
    runtime.spawn(async move {
        let running = Running(shared);
        running.0.drain().await;
    });
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
        while let Some(batch) = self.pending.with(Pending::batch) {
            let entries = batch.entries.len() as u64;
            match self.write(&batch).await {
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

    /// Writes a batch, and tries again while the patience lasts.
    async fn write(&self, batch: &Batch) -> Result<()> {
        let entries: Vec<Entry<'_>> = batch.entries.iter().map(|(key, value)| Entry::new(*key, value)).collect();
        let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let written = async {
                self.store.put(&entries).await?;
                for (space, about) in &batch.notes {
                    self.store.note(*space, about).await?;
                }
                Ok(())
            };
            let panicked = |_| Err(Error::new(ErrorKind::Cache, "the store panicked"));
            let failed = match AssertUnwindSafe(written).catch_unwind().await.unwrap_or_else(panicked) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if began.elapsed() + pause > self.patience {
                return Err(failed);
            }
            tracing::debug!({ telemetry::STORE } = %self.store, { telemetry::ERROR } = %failed, "a batch is tried again");
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}
