//! Limits how many calls run at once: [`Concurrency`], and the [`Gate`] that several stacks can share.

mod gate;

use std::fmt;

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::gate::Gate;
use self::gate::{Entry, Place};
use crate::{
    Batch, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space,
    deadline::until,
    explanation::{Explanation, plural},
    observer::{EventKind, Queue},
};

/// Limits how many calls run at once.
///
/// ```
/// use docvector_embed::{EmbedderExt, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let embedder = Fake::new(8).concurrency(2);
/// let hold = embedder.get_ref().hold();
/// let calls: Vec<_> = (0..5)
///     .map(|i| {
///         let embedder = embedder.clone();
///         tokio::spawn(async move { embedder.embed_query(&format!("query {i}")).await })
///     })
///     .collect();
/// tokio::task::yield_now().await;
/// assert_eq!((embedder.gate().running(), embedder.gate().waiting()), (2, 3));
///
/// drop(hold);
/// for call in calls {
///     call.await.unwrap()?;
/// }
/// assert_eq!(embedder.gate().running(), 0);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Rows, space and usage are the inner embedder's. So are the limits, except that [`in_flight`](Limits::in_flight) is
/// at most the number of the gate's places. Clones share the gate.
///
/// A waiting call stands in the queue of its batch's [`Lane`](crate::Lane). Interactive calls go first; but after eight
/// of them in a row have passed a waiting bulk call, one bulk call goes. Within a lane, the first to come is the first
/// to go. A call that needs no work (no texts, an empty text, a space that is not there) does not wait: the inner
/// embedder answers it at once. While a [`RateLimit`](super::RateLimit) further out pauses, its calls take no place.
///
/// # Errors
/// - [`DeadlinePassed`](ErrorKind::DeadlinePassed): the batch's [deadline](Batch::deadline) passed in the queue. The
///   inner embedder was not asked, and the call costs nothing.
/// - [`Overloaded`](ErrorKind::Overloaded): the queue is full, see [`Gate::with_max_waiting`].
///
/// All other errors are the inner embedder's.
///
/// # Cancellation
/// Dropping the future leaves the queue, or gives the place to the next call in turn at once. If a place was on its way
/// to a call that is dropped meanwhile, it goes on to the next one, so no place is ever lost.
///
/// # Stacking
/// Inside [`Retry`](super::Retry) and [`RateLimit`](super::RateLimit), so that a call that waits for one of them takes
/// no place. Outside [`Timeout`](super::Timeout), so that the wait for a place does not count against the time limit.
/// Stacks that lead to one server, such as two models on one machine, can share one gate: [`Concurrency::with_gate`].
/// But a call must not come to one gate twice, nor to two gates in another order than other calls do. The calls could
/// then wait for each other for ever.
///
/// # Cost
/// A short lock when a call comes and when it goes, and a channel if it waits. Each text is checked for being empty.
/// Only a wait with a deadline needs a tokio runtime with its clock; otherwise any executor will do.
#[derive(Clone, Debug)]
pub struct Concurrency<E> {
    inner: E,
    gate: Gate,
}

impl<E> Concurrency<E> {
    /// Wraps `inner` behind a gate of its own for `calls` calls at once. With 0, every call is a
    /// [`Config`](ErrorKind::Config) error.
    pub fn new(inner: E, calls: usize) -> Self {
        Self::with_gate(inner, Gate::new(calls))
    }

    /// Wraps `inner` behind a gate that others may share.
    ///
    /// ```
    /// use docvector_embed::{Embedder, provider::Fake, wrap::{Concurrency, Gate}};
    /// let gate = Gate::new(8);
    /// let small = Concurrency::with_gate(Fake::new(384), gate.clone());
    /// let large = Concurrency::with_gate(Fake::new(1024), gate);
    /// // The two of them together make at most eight calls at once.
    /// assert_eq!(small.limits().in_flight, Some(8));
    /// assert_eq!(large.limits().in_flight, Some(8));
    /// ```
    pub const fn with_gate(inner: E, gate: Gate) -> Self {
        Self { inner, gate }
    }

    /// Returns the gate, to look at or to share.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Returns the wrapped embedder.
    pub const fn get_ref(&self) -> &E {
        &self.inner
    }

    /// Takes the wrapped embedder out.
    pub fn into_inner(self) -> E {
        self.inner
    }
}

impl<E: Embedder> Concurrency<E> {
    /// Waits for a place, and for the end of a pause before it, but not past the batch's deadline.
    async fn place(&self, batch: &Batch<'_>) -> Result<Place> {
        if self.gate.calls() == 0 {
            let message = "a gate of 0 places lets no call through: make it for at least 1";
            return Err(Error::new(ErrorKind::Config, message).with_embedder(self));
        }
        batch.pause_is_over().await;
        let mut place = self.one_place(batch, self.gate.enter(batch.lane())).await?;
        // A rate limit further out may have learned of a pause while the call waited here. The place goes to others who
        // share the gate, since they may not be paused.
        while batch.is_paused() {
            drop(place);
            batch.pause_is_over().await;
            place = self.one_place(batch, self.gate.enter_again(batch.lane())).await?;
        }
        Ok(place)
    }

    /// Waits for the place that the gate's answer promises, but not past the batch's deadline.
    async fn one_place(&self, batch: &Batch<'_>, entry: Entry) -> Result<Place> {
        let turn = match entry {
            Entry::Place(place) => return Ok(place),
            Entry::Turn(turn) => turn,
            Entry::Full(most) => {
                batch.tell(self, EventKind::QueueFull { queue: Queue::Concurrency });
                let lane = batch.lane();
                let message = format!(
                    "the gate's queue is full ({lane} calls that may wait: {most}): try again later, or allow more \
                     (`Gate::with_max_waiting`)"
                );
                // Marked, so that no `Retry` repeats it: the call would wait all the same, only outside the bounded
                // queue.
                return Err(Error::new(ErrorKind::Overloaded, message).with_embedder(self).mark_exhausted());
            }
        };
        let began = batch.observer().map(|_| Instant::now());
        let place = until(batch.deadline(), turn).await.ok_or_else(|| {
            let message = format!("while the call waited for one of {} places", self.gate.calls());
            Error::new(ErrorKind::DeadlinePassed, message).with_embedder(self)
        })?;
        if let Some(began) = began {
            let (time, waiting) = (began.elapsed(), self.gate.waiting());
            batch.tell(self, EventKind::Waited { queue: Queue::Concurrency, time, waiting });
        }
        match place {
            Ok(place) => Ok(place),
            // The gate drops a waiter only after its receiver, and this receiver is alive. So the channel brings a
            // place.
            Err(_) => unreachable!("a call that waits is in the queue"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Concurrency<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Concurrency({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Embedder> Embedder for Concurrency<E> {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        // A call without work takes no place: the inner embedder answers it.
        let no_work = batch.is_empty()
            || batch.check_space(self.spaces()).is_err()
            || !batch.bad_texts(&self.inner.limits()).is_empty();
        if no_work {
            return self.inner.embed(batch).await;
        }
        let _place = self.place(&batch).await?;
        self.inner.embed(batch).await
    }

    fn spaces(&self) -> &[Space] {
        self.inner.spaces()
    }

    fn limits(&self) -> Limits {
        let limits = self.inner.limits();
        let calls = self.gate.calls();
        let in_flight = limits.in_flight.map_or(calls, |inner| inner.min(calls));
        limits.with_in_flight(in_flight)
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        let (calls, running, waiting) = (plural(self.gate.calls(), "call"), self.gate.running(), self.gate.waiting());
        Explanation::new("Concurrency")
            .with_fact(format!("lets {calls} run at once, {running} run now and {waiting} wait"))
            .with_inner(self.inner.explain(batch))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::Lane;

    /// While the only place is taken, call after call comes and gives up.
    #[test]
    fn those_that_left_take_no_room() {
        let gate = Gate::new(1);
        let place = gate.enter(Lane::Bulk);
        for lane in [Lane::Interactive, Lane::Bulk] {
            let patient: Vec<_> = (0..10).map(|_| gate.enter(lane).turn().expect("must wait")).collect();
            (0..10_000).for_each(|_| drop(gate.enter(lane)));
            assert_eq!(gate.waiting(), 10);
            let queued = gate.queued();
            assert!(queued < 100, "{queued} in the queue for 10 that wait");
            drop(patient);
        }
        drop(place);
        assert_eq!((gate.running(), gate.waiting(), gate.queued()), (0, 0, 0));
    }

    #[test]
    fn waiters_keep_their_order_when_others_are_swept_out() {
        let gate = Gate::new(1);
        let mut place = gate.enter(Lane::Bulk).place();
        let mut turns = Vec::new();
        for _ in 0..100 {
            drop(gate.enter(Lane::Bulk));
            turns.push(gate.enter(Lane::Bulk).turn().expect("must wait"));
        }
        for mut turn in turns {
            assert!((&mut turn).now_or_never().is_none(), "before its turn");
            drop(place.take());
            place = Some(turn.now_or_never().expect("its turn").expect("a place"));
        }
    }
}
