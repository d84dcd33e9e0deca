//! Reports what each call took and cost: [`Metered`], to any [`MetricsSink`], such as [`Totals`](super::Totals).

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    Batch, Charges, Embedder, Embeddings, Error, Limits, Options, Result, Space, SpaceId, Usage,
    call_record::{CallOutcome, CallRecord, MetricsSink},
    checked::cost_of,
    telemetry,
};

/// Reports each call to a metrics sink.
///
/// ```
/// use docvector_embed::{EmbedderExt, provider::Fake, wrap::Totals};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let totals = Totals::new();
/// let embedder = Fake::new(8).metered(totals.clone());
/// embedder.embed_documents(&["one text", "another"]).await?;
/// embedder.embed_query("which one?").await?;
///
/// let sum = totals.snapshot();
/// assert_eq!((sum.calls, sum.texts), (2, 3));
/// assert_eq!(sum.usage.tokens, 7);
/// // A small table with all numbers.
/// println!("{sum}");
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Rows, space, usage and limits are the inner embedder's. The sink gets exactly one [`CallRecord`] for each call,
/// whether it ends with rows, with an error, or dropped. Empty batches and futures never polled are not recorded.
/// Texts are counted, never shown.
///
/// # Errors
/// Creates none. If the sink panics, there is a warning (through `tracing`), and the rows are not lost.
///
/// # Cancellation
/// A dropped call is recorded as [`Dropped`](CallOutcome::Dropped), with one call
/// [`unanswered`](crate::Usage::unanswered): its cost will never be known.
///
/// # Stacking
/// Directly around a provider, inside everything else. There, each call is one call of the provider, and its latency is
/// the provider's alone. A call that [`Timeout`](super::Timeout) gives up is recorded as dropped there. Further
/// outside, `Metered` records what callers see, with waits and attempts. Both places are useful, also in one stack, but
/// the two records must not be added up.
///
/// # Cost
/// The sink's own cost, two reads of the clock, and a sum over the lengths of the texts.
///
/// # OpenTelemetry
/// A [`CallRecord`] holds all that the conventions for generative AI ask of a client:
///
/// | metric, a histogram | value | its own attribute |
/// |---|---|---|
/// | `gen_ai.client.operation.duration`, `s` | [`latency`](CallRecord::latency) | `error.type`: the kind where it [`Failed`](CallOutcome::Failed) |
/// | `gen_ai.client.token.usage`, `{token}` | tokens of [`usage`](CallRecord::usage), as far as they are known | `gen_ai.token.type`: `input` |
///
/// Both have `gen_ai.operation.name`, which is `embeddings`, `gen_ai.provider.name` and `gen_ai.request.model`. The
/// last two are the parts of a provider's [`embedder`](CallRecord::embedder), such as `openai/text-embedding-3-small`.
/// The buckets advised for the duration are those of [`TotalsSnapshot::latency_histogram`]. Lane and kind make useful
/// attributes of your own; the routing key has too many values for that.
#[derive(Clone)]
pub struct Metered<E> {
    inner: E,
    /// The inner embedder's name, as it displays itself.
    name: Arc<str>,
    sink: Arc<dyn MetricsSink>,
}

impl<E: fmt::Display> Metered<E> {
    /// Wraps `inner`, and reports its calls to `sink`.
    pub fn new(inner: E, sink: impl MetricsSink) -> Self {
        let name = inner.to_string().into();
        Self { inner, name, sink: Arc::new(sink) }
    }
}

impl<E> Metered<E> {
    /// Returns the wrapped embedder.
    pub const fn get_ref(&self) -> &E {
        &self.inner
    }

    /// Takes the wrapped embedder out.
    pub fn into_inner(self) -> E {
        self.inner
    }
}

impl<E: fmt::Display> fmt::Display for Metered<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metered({})", self.inner)
    }
}

impl<E: fmt::Debug> fmt::Debug for Metered<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Metered<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        if batch.is_empty() {
            return self.inner.embed(batch).await;
        }
        let mut call = Call::begin(&self.name, &*self.sink, &batch);
        let result = self.inner.embed(batch).await;
        call.end(&result);
        result
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

/// A call under way. Dropping it reports the call to the sink. So each call is reported exactly once, however it ends.
struct Call<'a> {
    sink: &'a dyn MetricsSink,
    embedder: &'a str,
    options: Options<'a>,
    texts: usize,
    bytes: usize,
    begun: Instant,
    // From here on: the end of the call. Until `end` sets them, the fields describe a call that is dropped now.
    space: Option<SpaceId>,
    charges: Charges,
    outcome: CallOutcome,
    error: Option<Error>,
}

impl<'a> Call<'a> {
    fn begin(embedder: &'a str, sink: &'a dyn MetricsSink, batch: &Batch<'a>) -> Self {
        Self {
            sink,
            embedder,
            options: batch.options(),
            texts: batch.len(),
            bytes: batch.texts().iter().map(|text| text.len()).sum(),
            begun: Instant::now(),
            space: None,
            charges: Usage::of_given_up().into(),
            outcome: CallOutcome::Dropped,
            error: None,
        }
    }

    fn end(&mut self, result: &Result<Embeddings>) {
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

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let record = CallRecord {
            embedder: self.embedder,
            options: self.options,
            space: self.space,
            texts: self.texts,
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
    }
}
