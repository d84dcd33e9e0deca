//! Records each call exactly once, however it ends: [`CallUnderWay`].

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokio::time::Instant;

use crate::{
    Batch, Charges, Embeddings, Error, Result, SpaceId, Usage,
    call_record::{CallOutcome, CallRecord, MetricsSink},
    checked::cost_of,
    observer::EventKind,
    telemetry,
};

/// A call under way. Dropping it reports the call to the sink and to the batch's observer. So each call is reported
/// exactly once, however it ends.
pub(crate) struct CallUnderWay<'a> {
    sink: &'a dyn MetricsSink,
    /// The embedder that tells the observer.
    teller: &'a (dyn fmt::Display + Sync),
    /// The name of the embedder that is called.
    embedder: &'a str,
    batch: Batch<'a>,
    bytes: usize,
    begun: Instant,
    // From here on: the end of the call. Until `end` sets them, the fields describe a call that is dropped now.
    space: Option<SpaceId>,
    charges: Charges,
    outcome: CallOutcome,
    error: Option<Error>,
}

impl<'a> CallUnderWay<'a> {
    pub(crate) fn begin(
        teller: &'a (dyn fmt::Display + Sync),
        embedder: &'a str,
        sink: &'a dyn MetricsSink,
        batch: Batch<'a>,
    ) -> Self {
        Self {
            sink,
            teller,
            embedder,
            batch,
            bytes: batch.texts().iter().map(|text| text.len()).sum(),
            begun: Instant::now(),
            space: None,
            charges: Usage::of_given_up().into(),
            outcome: CallOutcome::Dropped,
            error: None,
        }
    }

    pub(crate) fn end(&mut self, result: &Result<Embeddings>) {
        self.charges = cost_of(result);
        match result {
            Ok(rows) => {
                self.space = Some(rows.space().id());
                self.outcome = CallOutcome::Done;
            }
            Err(error) => {
                self.space = error.partial().map(|partial| partial.embeddings().space().id());
                self.outcome = CallOutcome::Failed(error.kind());
                self.error = Some(error.clone());
            }
        }
    }
}

impl Drop for CallUnderWay<'_> {
    fn drop(&mut self) {
        let record = CallRecord {
            embedder: self.embedder,
            options: self.batch.options(),
            space: self.space,
            texts: self.batch.len(),
            bytes: self.bytes,
            usage: self.charges.usage(),
            charges: &self.charges,
            latency: self.begun.elapsed(),
            outcome: self.outcome,
            error: self.error.as_ref(),
        };
        // The rows are paid for, so the sink's panic must not cost them. And if this runs because of another panic, a
        // second one would end the process.
        if catch_unwind(AssertUnwindSafe(|| self.sink.record(&record))).is_err() {
            tracing::warn!({ telemetry::EMBEDDER } = self.embedder, "the metrics sink panicked and missed a call");
        }
        self.batch.tell(&self.teller, EventKind::Call(&record));
    }
}
