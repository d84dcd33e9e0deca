//! Defines what is recorded of each call: [`CallRecord`], and who gets it: [`MetricsSink`].

use std::{sync::Arc, time::Duration};

use crate::{Charges, Error, ErrorKind, Options, SpaceId, Usage};

/// Receives a record of each call. Closures are sinks, too.
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
/// An `Arc` of a sink is a sink, so several embedders can share it.
pub trait MetricsSink: Send + Sync + 'static {
    /// Records a call that has ended. This runs in the thread of the call, often on an async executor and inside a
    /// `drop`. So it should be quick, and hand slow work to another thread or task.
    fn record(&self, call: &CallRecord<'_>);
}

impl<F: Fn(&CallRecord<'_>) + Send + Sync + 'static> MetricsSink for F {
    fn record(&self, call: &CallRecord<'_>) {
        self(call);
    }
}

/// Records nothing: for a `Metered` whose records only the batch's [observer](crate::observer) gets.
impl MetricsSink for () {
    fn record(&self, _: &CallRecord<'_>) {}
}

impl<M: MetricsSink + ?Sized> MetricsSink for Arc<M> {
    fn record(&self, call: &CallRecord<'_>) {
        (**self).record(call);
    }
}

/// The record of one call that has ended, for a [`MetricsSink`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallRecord<'a> {
    /// The name of the embedder that was called, as it displays itself.
    pub embedder: &'a str,
    /// All that the batch said beside its texts, such as kind, lane, routing key, tenant and trace.
    pub options: Options<'a>,
    /// The space of the rows; `None` if there are no rows.
    pub space: Option<SpaceId>,
    /// The number of texts.
    pub texts: usize,
    /// The bytes of all texts together.
    pub bytes: usize,
    /// The known cost of the call: that of the result, or of the error and the rows finished before it.
    pub usage: Usage,
    /// The same cost, divided by payee.
    pub charges: &'a Charges,
    /// The time that the call took, on tokio's clock.
    pub latency: Duration,
    /// The end of the call.
    pub outcome: CallOutcome,
    /// The error if the call [`Failed`](CallOutcome::Failed), with the status and the provider's name for the request.
    pub error: Option<&'a Error>,
}

/// The end of a metered call.
///
/// Part of a [`CallRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// It returned rows.
    Done,
    /// It returned an error of this kind.
    Failed(ErrorKind),
    /// The caller dropped it, or it panicked.
    Dropped,
}
