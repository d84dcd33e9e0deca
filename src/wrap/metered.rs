//! Reports what each call took and cost: [`Metered`], to any [`MetricsSink`], such as [`Totals`](super::Totals).

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    Batch, Embedder, Embeddings, Limits, Result, Space, call_record::MetricsSink, explanation::Explanation,
    under_way::CallUnderWay,
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
/// Rows, space, usage and limits are the inner embedder's. The sink gets exactly one [`CallRecord`](super::CallRecord) for each call,
/// whether it ends with rows, with an error, or dropped, and so does the batch's [observer](crate::observer). Empty batches and futures never polled are not recorded.
/// Texts are counted, never shown.
///
/// # Errors
/// Creates none. If the sink panics, there is a warning (through `tracing`), and the rows are not lost.
///
/// # Cancellation
/// A dropped call is recorded as [`Dropped`](super::CallOutcome::Dropped), with one call
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
/// A [`CallRecord`](super::CallRecord) holds all that the conventions for generative AI ask of a client:
///
/// | metric, a histogram | value | its own attribute |
/// |---|---|---|
/// | `gen_ai.client.operation.duration`, `s` | [`latency`](super::CallRecord::latency) | `error.type`: the kind where it [`Failed`](super::CallOutcome::Failed) |
/// | `gen_ai.client.token.usage`, `{token}` | tokens of [`usage`](super::CallRecord::usage), as far as they are known | `gen_ai.token.type`: `input` |
///
/// Both have `gen_ai.operation.name`, which is `embeddings`, `gen_ai.provider.name` and `gen_ai.request.model`. The
/// last two are the parts of a provider's [`embedder`](super::CallRecord::embedder), such as `openai/text-embedding-3-small`.
/// The buckets advised for the duration are those of [`TotalsSnapshot::latency_histogram`](super::TotalsSnapshot::latency_histogram). Lane and kind make useful
/// attributes of your own; the routing key has too many values for that. `observer::ToMetrics`, with the feature `metrics`,
/// measures all of this.
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
        let mut call = CallUnderWay::begin(self, &self.name, &*self.sink, batch);
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

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        Explanation::new("Metered").with_fact("records each call").with_inner(self.inner.explain(batch))
    }
}
