//! Turns small concurrent calls into one: [`Coalesce`].

mod bill;
mod caller;
mod counts;
mod divide;
mod group;
mod inner;
mod merged_call;
mod recorded;
mod seat;
mod size;
mod untold;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::counts::CoalesceCounts;
use self::{
    bill::Bill,
    caller::{Caller, tokens_at_most},
    counts::Counts,
    inner::Inner,
    recorded::Recorded,
    seat::Seat,
    size::Size,
    untold::Untold,
};
use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, OwnedOptions, Result, Space,
    all::embed_all,
    deadline::until,
    explanation::{Explanation, plural},
    planner,
    sync::Mutex,
    sync::oneshot,
};

/// The most texts of a merged call if the inner embedder has no limit of them.
const MOST_TEXTS: usize = 256;

/// Turns small concurrent calls into one, within a window of time.
///
/// ```
/// use std::time::Duration;
/// use docvector_embed::{EmbedderExt, provider::Fake};
/// use futures_util::future::try_join_all;
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let fake = Fake::new(8);
/// let embedder = fake.clone().coalesce(Duration::from_millis(2));
/// // A hundred tasks, one query each.
/// let queries: Vec<String> = (0..100).map(|i| format!("query {i}")).collect();
/// let vectors = try_join_all(queries.iter().map(|query| embedder.embed_query(query))).await?;
/// assert_eq!(vectors.len(), 100);
/// assert_eq!(fake.calls().len(), 1);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Space and limits are the inner embedder's, and each caller gets its own rows in its own order. Calls are merged only
/// if they agree in kind, routing key, tenant, wanted space, treatment of over-long texts, and lane. The merged call has
/// the trace that all of them share, or none. Its deadline is the latest of theirs, or none if one has none.
///
/// A group opens with its first call. It departs when the window has passed since then, or earlier if it is full: with
/// [`with_max_texts`](Self::with_max_texts) texts, or with as many texts, bytes or tokens as one call of the inner
/// embedder may have. A call is never divided between two groups. A call goes straight to the inner embedder, as it is,
/// if it has the size of a whole group, if its deadline comes before the window could end, if it has no texts, or if the
/// window is zero.
///
/// The cost of a merged call is divided among its callers by the tokens of their texts, as far as they are known, or
/// else by their bytes: see [`Charges::apportion`]. So the parts add up to the whole, and of a hundred callers one is
/// told the request. Equal texts of several callers are not recognized:
/// [`Dedup`](super::Dedup) inside does that for the texts of a group, and [`Cached`](super::Cached) for all.
///
/// # Errors
/// - What can be checked before is refused before, with the caller's indices: an unknown space, empty texts, texts over
///   the inner embedder's limits. Such a call joins no group.
/// - If a merged call fails halfway, its finished rows go to the callers that they belong to. A caller that has all its
///   rows succeeds.
/// - If the error names texts, their callers get it, each with its own indices. The missing texts of the others are
///   asked for once more, together. Whoever is left after that is asked for alone.
/// - If the error names no text and may be the fault of another caller ([`InvalidInput`](ErrorKind::InvalidInput),
///   [`DeadlinePassed`](ErrorKind::DeadlinePassed)), each caller is asked for alone.
/// - Every other error goes to all callers of the call, each with its part of the cost. A panic of the inner embedder is
///   such an error, [`Inference`](ErrorKind::Inference).
/// - [`DeadlinePassed`](ErrorKind::DeadlinePassed): a caller's own deadline passed. The other callers do not notice.
///
/// # Cancellation
/// A caller that leaves before the departure takes its texts with it, and a group without callers makes no call. After
/// the departure the call continues for the others. It is dropped with the last caller. A caller that leaves then is not
/// told its part of the cost: [`unclaimed`](Self::unclaimed) has it. It also has the cost of a call that all have left,
/// which counts as given up if it was not answered. A caller whose deadline passes leaves in the same way; if it was the
/// last, its error has that cost. A call that went straight belongs to its caller, as without `Coalesce`.
///
/// # Stacking
/// Outside [`Retry`](super::Retry), [`RateLimit`](super::RateLimit), [`Concurrency`](super::Concurrency) and
/// [`Timeout`](super::Timeout), so that they see one call and not a hundred. Inside [`Cached`](super::Cached), so that
/// hits do not wait for a window. [`Metered`](super::Metered) inside records merged calls, outside what callers see.
/// `provider::Onnx` packs the texts of several callers into batches itself, and needs no `Coalesce`. Clones share the
/// groups.
///
/// # Cost
/// Each call waits for up to the window, and all its texts are copied once. One short lock when a call comes and when it
/// goes, one timer, two if it has a deadline, and one copy of its rows. A tokio runtime with its clock is needed; the
/// clock has steps of a millisecond, so shorter windows are as long. The callers drive the merged call themselves,
/// without a task: one of them at a time, and another one if that one leaves or is not polled. If the callers are on
/// several runtimes, the timers and sockets of a call are those of the runtime on which it began.
pub struct Coalesce<E> {
    inner: Arc<Inner<E>>,
    max_texts: Option<usize>,
}

impl<E> Clone for Coalesce<E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), max_texts: self.max_texts }
    }
}

impl<E> Coalesce<E> {
    /// Merges concurrent calls of `inner` that begin within `window` of the first of them. A window of zero merges
    /// nothing.
    ///
    /// A few milliseconds are enough if many calls come at once. A window so long that its end cannot be represented has
    /// no end: a group departs when it is full.
    pub fn new(inner: E, window: Duration) -> Self {
        let (open, counts) = (Mutex::default(), Arc::default());
        Self { inner: Arc::new(Inner { embedder: inner, window, open, counts }), max_texts: None }
    }

    /// Sets the most texts of a merged call. The inner embedder's limit holds as well. Set it before you clone: clones
    /// made before keep theirs. Without it, the limit of the inner embedder is the most, or 256 if it has none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use docvector_embed::{EmbedderExt, provider::Fake};
    /// use futures_util::future::try_join_all;
    /// # fn main() -> docvector_embed::Result<()> {
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let embedder = Fake::new(8).coalesce(Duration::from_millis(2)).with_max_texts(32);
    /// try_join_all((0..100).map(async |i| embedder.embed_query(&format!("query {i}")).await)).await?;
    /// let sizes: Vec<usize> = embedder.get_ref().calls().iter().map(|call| call.texts.len()).collect();
    /// assert_eq!(sizes, [32, 32, 32, 4]);
    /// # Ok(()) }) }
    /// ```
    #[must_use]
    pub const fn with_max_texts(mut self, texts: usize) -> Self {
        self.max_texts = Some(texts);
        self
    }

    /// Returns for how long a group is open.
    pub fn window(&self) -> Duration {
        self.inner.window
    }

    /// Returns what was done so far. Clones count together.
    pub fn counts(&self) -> CoalesceCounts {
        self.inner.counts.snapshot()
    }

    /// Returns the cost that no caller was told of, by payee: see [`CoalesceCounts::unclaimed`].
    pub fn unclaimed(&self) -> Charges {
        self.inner.counts.unclaimed.with(|unclaimed| unclaimed.clone())
    }

    /// Returns the wrapped embedder.
    pub fn get_ref(&self) -> &E {
        &self.inner.embedder
    }
}

impl<E: Embedder> Coalesce<E> {
    /// Returns the most that a group may have.
    fn most(&self, limits: &Limits) -> Size {
        Size::most(self.max_texts.or(limits.texts).unwrap_or(MOST_TEXTS), limits)
    }

    /// Returns `true` if a call cannot wait for others, or is as large as a group of them.
    fn goes_straight(&self, batch: &Batch<'_>, size: Size, most: Size) -> bool {
        let window = self.inner.window;
        let is_too_long = |deadline: std::time::Instant| {
            let end = Instant::now().checked_add(window);
            end.is_none_or(|end| Instant::from_std(deadline) <= end)
        };
        batch.is_empty() || window.is_zero() || size.fills(most) || batch.deadline().is_some_and(is_too_long)
    }

    async fn straight(&self, batch: Batch<'_>) -> Result<Embeddings> {
        if !batch.is_empty() {
            Counts::add(&self.inner.counts.straight, 1);
        }
        self.inner.embedder.embed(batch).await
    }

    /// Waits with others, and for the answer.
    async fn wait(&self, batch: &Batch<'_>, mut seat: Seat<E>) -> Result<Embeddings> {
        let mut untold = match until(batch.deadline(), seat.answer()).await {
            Some(Some(untold)) => {
                // From here on, the call of the others is none of this caller's business.
                drop(seat);
                untold
            }
            Some(None) => {
                // Only code around the inner embedder is left to panic: its name, its spaces or its limits.
                return Err(Error::new(ErrorKind::Inference, "a merged call panicked").with_charges(&seat.take_bill()));
            }
            None => match seat.leave_late() {
                Some(untold) => untold,
                None => return Err(self.late("while the call waited with others").with_charges(&seat.take_bill())),
            },
        };
        match untold.tell() {
            Some(answer) => answer,
            None => self.alone(batch, untold).await,
        }
    }

    /// Asks for the missing texts of one caller, after a merged call failed for reasons that may be another caller's.
    async fn alone(&self, batch: &Batch<'_>, mut untold: Untold) -> Result<Embeddings> {
        let rest = untold.rest(batch);
        let result = self.ask_alone(rest.batch(batch)).await;
        untold.end(result.map_err(|error| rest.own(error)));
        untold.tell().unwrap_or_else(|| Err(Error::new(ErrorKind::Inference, "a call ended without an answer")))
    }

    async fn ask_alone(&self, rest: Batch<'_>) -> Result<Embeddings> {
        let inner = &self.inner;
        if rest.is_late() {
            // The merged call failed because all its callers were late: nothing that is asked for now can be in time.
            return Err(self.late("while the call waited with others"));
        }
        Counts::add(&inner.counts.alone, 1);
        let bill = Arc::new(Bill::new(inner.counts.clone()));
        let embedder = Recorded::new(inner.clone(), bill.clone());
        let result = until(rest.deadline(), embed_all(&embedder, rest)).await;
        let Some(result) = result else {
            drop(embedder);
            return Err(self.late("while the call was under way").with_charges(&bill.take()));
        };
        embedder.settle();
        result
    }

    fn late(&self, what: &str) -> Error {
        Error::new(ErrorKind::DeadlinePassed, what).with_embedder(self)
    }
}

impl<E: fmt::Display> fmt::Display for Coalesce<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coalesce({})", self.inner.embedder)
    }
}

impl<E: fmt::Debug> fmt::Debug for Coalesce<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce")
            .field("inner", &self.inner.embedder)
            .field("window", &self.inner.window)
            .field("max_texts", &self.max_texts)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Coalesce<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let limits = self.inner.embedder.limits();
        let most = self.most(&limits);
        let size = Size::of(&batch);
        if self.goes_straight(&batch, size, most) {
            return self.straight(batch).await;
        }
        let counting =
            planner::check(&batch, self.spaces(), &limits).await.map_err(|error| error.with_embedder(self))?;
        let size = Size { tokens: tokens_at_most(&batch, &counting), ..size };
        // Counting takes time, and tokens may fill a group, too.
        if self.goes_straight(&batch, size, most) {
            return self.straight(batch).await;
        }
        let (reply, answer) = oneshot::channel();
        let untold = Untold::new(batch.len(), self.inner.counts.clone());
        let caller = Caller::new(&batch, &counting, size, untold, reply);
        drop(counting);
        let seat = Seat::take(&self.inner, in_common(&batch), caller, most, answer);
        self.wait(&batch, seat).await
    }

    fn spaces(&self) -> &[Space] {
        self.inner.embedder.spaces()
    }

    fn limits(&self) -> Limits {
        self.inner.embedder.limits()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        let most = self.most(&self.limits());
        Explanation::new("Coalesce")
            .with_fact(format!(
                "waits up to {:?} for other calls, up to {} together",
                self.inner.window,
                plural(most.texts, "text")
            ))
            .with_inner(self.inner.embedder.explain(batch))
    }
}

/// Returns the options that all calls of a group must have in common: all except those that differ from call to call.
fn in_common(batch: &Batch<'_>) -> OwnedOptions {
    let mut options = batch.options();
    (options.trace, options.deadline) = (None, None);
    options.to_owned()
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::join_all};

    use super::*;
    use crate::provider::Fake;

    /// However a group ends, the table forgets it, and nothing keeps the inner embedder alive.
    #[tokio::test(start_paused = true)]
    async fn no_group_stays_behind() {
        let embedder = Coalesce::new(Fake::new(4), Duration::from_millis(5)).with_max_texts(4);
        let open = || embedder.inner.open.with(|groups| groups.len());
        let texts = ["a", "b", "c", "d", "e", "f"];
        let embed = async |at: usize| embedder.embed(Batch::documents(&texts[at..=at])).await.map(drop);
        // One group departs full, one at the end of the window.
        let mut calls = Box::pin(join_all((0..6).map(embed)));
        assert!(calls.as_mut().now_or_never().is_none());
        assert_eq!(open(), 1);
        assert!(calls.await.iter().all(Result::is_ok));
        assert_eq!(open(), 0);
        // One is left by all.
        let mut calls = Box::pin(join_all((0..3).map(embed)));
        assert!(calls.as_mut().now_or_never().is_none());
        assert_eq!(open(), 1);
        drop(calls);
        assert_eq!((open(), Arc::strong_count(&embedder.inner)), (0, 1));
    }
}
