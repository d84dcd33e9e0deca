//! Says what a [`MetricsSink`] is told of each call: [`CallRecord`].

use std::{sync::Arc, time::Duration};

use crate::{Charges, Error, ErrorKind, Options, SpaceId, Usage};

/// Is told of each call. Implemented for closures, too.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use docvector_embed::{EmbedderExt, provider::Fake, wrap::CallRecord};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let bytes = Arc::new(AtomicU64::new(0));
/// let sink = bytes.clone();
/// let embedder = Fake::new(8).metered(move |call: &CallRecord<'_>| {
///     sink.fetch_add(call.bytes as u64, Ordering::Relaxed);
/// });
/// embedder.embed_documents(&["four", "five5"]).await?;
/// assert_eq!(bytes.load(Ordering::Relaxed), 9);
/// # Ok(()) }) }
/// ```
///
/// An `Arc` of a meter is one, so that several embedders can have it.
pub trait MetricsSink: Send + Sync + 'static {
    /// Takes note of a call that has ended. Runs where the call ran, often on an async executor and inside a `drop`: it
    /// should be quick, and hand on whatever is not.
    fn record(&self, call: &CallRecord<'_>);
}

impl<F: Fn(&CallRecord<'_>) + Send + Sync + 'static> MetricsSink for F {
    fn record(&self, call: &CallRecord<'_>) {
        self(call);
    }
}

impl<M: MetricsSink + ?Sized> MetricsSink for Arc<M> {
    fn record(&self, call: &CallRecord<'_>) {
        (**self).record(call);
    }
}

/// One call that has ended, as a [`MetricsSink`] is told of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallRecord<'a> {
    /// The embedder that was called, as it displays itself.
    pub embedder: &'a str,
    /// All that the batch said beside its texts: kind, lane, routing key, tenant, trace.
    pub options: Options<'a>,
    /// The space that the rows lie in; `None` where there are none.
    pub space: Option<SpaceId>,
    /// How many texts there were.
    pub texts: usize,
    /// How many bytes they had together.
    pub bytes: usize,
    /// What the call cost as far as is known: that of the result, or of the error and the rows finished before it.
    pub usage: Usage,
    /// The same, by who is to be paid.
    pub charges: &'a Charges,
    /// How long it took, on tokio's clock.
    pub latency: Duration,
    /// How it ended.
    pub outcome: CallOutcome,
    /// The error where it [`Failed`](CallOutcome::Failed), with the status and the provider's name for the request.
    pub error: Option<&'a Error>,
}

/// How a metered call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// With rows.
    Done,
    /// With an error of this kind.
    Failed(ErrorKind),
    /// The caller dropped it, or it panicked.
    Dropped,
}
