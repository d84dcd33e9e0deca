//! Lets only so many calls through at once: [`Concurrency`], and the [`Gate`] that several stacks can share.

mod gate;

use std::fmt;

use async_trait::async_trait;

pub use self::gate::Gate;
use self::gate::{Entry, Place};
use crate::{Batch, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space};

/// Lets only so many calls through at once.
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
/// Rows, space and usage are the inner embedder's; so are the limits, but that
/// [`in_flight`](Limits::in_flight) is no more than the gate lets through. Clones share the gate.
///
/// Those that wait stand in the queue of their batch's [`Lane`](crate::Lane): the interactive ones go first, but when
/// eight of them in a row have passed a waiting bulk call, one bulk call goes. Within a lane it is first come, first
/// served. What needs no work (no texts, an empty text, a space that is not there) waits for nobody: the inner embedder
/// answers it.
///
/// # Errors
/// [`DeadlinePassed`](ErrorKind::DeadlinePassed) where the batch's [deadline](Batch::deadline) passes in the queue; the
/// inner embedder was not asked, and it has cost nothing. [`Overloaded`](ErrorKind::Overloaded) where
/// [so many](Gate::with_max_waiting) wait already. All other errors are the inner embedder's.
///
/// # Cancellation
/// Dropping the future leaves the queue or gives the place back, at once, to the next in turn. A place that was on its
/// way to a call dropped meanwhile goes on to the next, so none is ever lost.
///
/// # Stacking
/// Inside [`Retry`](super::Retry) and [`RateLimit`](super::RateLimit), so that a call that waits for either takes no
/// place; outside [`Timeout`](super::Timeout), so that waiting for a place does not count. Stacks that lead to one
/// server, as two models on one machine do, share one gate: [`Concurrency::with_gate`]. But a call must not come to one
/// gate twice, nor to two gates in another order than other calls do: then they could wait for each other for ever.
///
/// # Cost
/// A short lock when a call comes and when it goes; a channel for a call that waits. A look at each text for whether it
/// is empty. Only a wait with a deadline needs a tokio runtime with its clock, otherwise any executor will do.
#[derive(Clone, Debug)]
pub struct Concurrency<E> {
    inner: E,
    gate: Gate,
}

impl<E> Concurrency<E> {
    /// Wraps `inner`, and lets `calls` through at once. With 0, every call is a [`Config`](ErrorKind::Config) error.
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
    /// // Eight calls for the two of them.
    /// assert_eq!(small.limits().in_flight, Some(8));
    /// assert_eq!(large.limits().in_flight, Some(8));
    /// ```
    pub const fn with_gate(inner: E, gate: Gate) -> Self {
        Self { inner, gate }
    }

    /// The gate, to look at or to share.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The wrapped embedder.
    pub const fn get_ref(&self) -> &E {
        &self.inner
    }

    /// Takes the wrapped embedder out.
    pub fn into_inner(self) -> E {
        self.inner
    }
}

impl<E: Embedder> Concurrency<E> {
    /// Waits for a place, but not past the batch's deadline.
    async fn place(&self, batch: &Batch<'_>) -> Result<Place> {
        if self.gate.calls() == 0 {
            let message = "a gate for 0 calls lets none through: make it for at least 1";
            return Err(Error::new(ErrorKind::Config, message).with_embedder(self));
        }
        let turn = match self.gate.enter(batch.lane()) {
            Entry::Place(place) => return Ok(place),
            Entry::Turn(turn) => turn,
            Entry::Full(most) => {
                let lane = batch.lane();
                let message = format!(
                    "the queue of the gate is full ({lane} calls that may wait: {most}): come back later, or allow more \
                     (`Gate::with_max_waiting`)"
                );
                // Tried again here, it would wait all the same, only elsewhere.
                return Err(Error::new(ErrorKind::Overloaded, message).with_embedder(self).mark_exhausted());
            }
        };
        let place = match batch.deadline() {
            None => turn.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), turn).await.map_err(|_| {
                let message = format!("while the call waited for one of {} places", self.gate.calls());
                Error::new(ErrorKind::DeadlinePassed, message).with_embedder(self)
            })?,
        };
        match place {
            Ok(place) => Ok(place),
            // A waiter leaves the queue with a place, or when nobody waits for it.
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
        // What comes to no work is the inner embedder's to say, and takes no place.
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
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::Lane;

    /// Everyone gives up, for as long as the gate is closed.
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
