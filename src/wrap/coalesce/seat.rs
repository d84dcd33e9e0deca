//! Waits for the answer to one caller of a group: [`Seat`].
//!
//! # Who drives the call
//! One caller is at the helm: it is woken when the call is, and polls it. If all callers were woken each time, an answer
//! that arrives in many pieces would keep a processor busy with a thousand callers. A caller that leaves passes the helm
//! on.
//!
//! The caller at the helm may be stuck: there, but not polled, because its task does something else first. So each
//! caller looks now and then whether the call was woken and nobody has polled it since the last look. If so, it drives
//! the call, too. The pauses between the looks double, so callers that wait for long look rarely, and a stuck driver
//! makes a call last about twice as long at most.

use std::{
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    bill::Bill,
    caller::Caller,
    group::{Departure, Helm, NewCall, Place},
    inner::Inner,
    merged_call::MergedCall,
    size::Size,
    untold::Untold,
};
use crate::{Charges, Embedder, OwnedOptions, shared_call::SharedCall, sync::oneshot};

/// The time until the first look at the call, and from a look that finds a poll due to the next one.
const SOON: Duration = Duration::from_millis(10);
/// The longest time between two looks.
const RARELY: Duration = Duration::from_secs(10);

/// Looks at a call now and then.
struct Watch {
    /// The time between two looks that find nothing. It doubles.
    pause: Duration,
    /// The poll that was due at the last look.
    due: Option<u64>,
}

impl Watch {
    const fn new() -> Self {
        Self { pause: SOON, due: None }
    }

    /// Returns `true` if the call has been waiting to be polled since the last look.
    fn sees_a_stuck_driver(&mut self, call: &SharedCall<()>) -> bool {
        let before = mem::replace(&mut self.due, call.poll_due());
        self.due.is_some() && self.due == before
    }

    /// Returns the time until the next look.
    fn next_look(&mut self) -> Duration {
        if self.due.is_some() {
            return SOON;
        }
        self.pause = RARELY.min(self.pause * 2);
        self.pause
    }
}

/// A caller's seat in a group. Dropping it leaves the group: before the departure together with the caller's texts,
/// after it without its answer.
pub(super) struct Seat<E> {
    inner: Arc<Inner<E>>,
    options: OwnedOptions,
    group: u64,
    caller: u64,
    /// The end of the window; `None` after it, or if it never ends.
    departs_at: Option<Instant>,
    /// The handle by which this caller drives the call; `None` once it has left.
    call: Option<SharedCall<()>>,
    bill: Arc<Bill>,
    helm: Helm,
    answer: oneshot::Receiver<Untold>,
}

impl<E: Embedder> Seat<E> {
    /// Takes a seat in the group for these options. If this makes a group depart, it departs.
    pub(super) fn take(
        inner: &Arc<Inner<E>>,
        options: OwnedOptions,
        caller: Caller,
        most: Size,
        answer: oneshot::Receiver<Untold>,
    ) -> Self {
        let open = || {
            let (begin, begun) = oneshot::channel();
            let bill = Arc::new(Bill::new(inner.counts.clone()));
            let call = MergedCall::new(inner.clone(), options.clone(), bill.clone());
            NewCall { call: SharedCall::new(call.run(begun)), bill, begin }
        };
        let (place, departs) = inner.open.with(|groups| groups.enter(&options, caller, most, inner.window, open));
        if let Some(departs) = departs {
            departs.go();
        }
        let Place { group, caller, departs_at, call, bill, helm } = place;
        Self { inner: inner.clone(), options, group, caller, departs_at, call: Some(call), bill, helm, answer }
    }

    /// Waits for the answer to this caller, and drives the call if it is this caller's turn to. Returns `None` if the
    /// call panicked.
    pub(super) async fn answer(&mut self) -> Option<Untold> {
        let mut at_helm = pin!(self.helm.clone().acquire_owned());
        let mut timer = pin!(sleep_until(self.departs_at.unwrap_or_else(|| Instant::now() + SOON)));
        let mut watch = Watch::new();
        let mut drives = false;
        // Held until the end, and then passed on to the next caller.
        let mut permit = None;
        poll_fn(|context| {
            if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(context) {
                return Poll::Ready(answer.ok());
            }
            while timer.as_mut().poll(context).is_ready() {
                let next = if self.departs_at.take().is_some() {
                    self.depart();
                    SOON
                } else {
                    let Some(call) = &self.call else { return Poll::Ready(None) };
                    drives |= watch.sees_a_stuck_driver(call);
                    watch.next_look()
                };
                timer.as_mut().reset(Instant::now() + next);
            }
            if permit.is_none()
                && let Poll::Ready(acquired) = at_helm.as_mut().poll(context)
            {
                permit = Some(acquired);
                drives = true;
            }
            if !drives {
                return Poll::Pending;
            }
            let Some(call) = &mut self.call else { return Poll::Ready(None) };
            match Pin::new(call).poll(context) {
                // The answer was sent before the call ended, perhaps in this very poll.
                Poll::Ready(_) => Poll::Ready(self.answer.try_recv().ok()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Leaves without waiting any longer. Returns the answer if it has come all the same.
    pub(super) fn leave_late(&mut self) -> Option<Untold> {
        self.leave();
        // Looked for only now: until the call was let go, another caller's thread may have sent it.
        self.answer.try_recv().ok()
    }

    /// Takes the cost of a call that ended without an answer when this caller left; none if the call goes on.
    pub(super) fn take_bill(&self) -> Charges {
        self.bill.take()
    }
}

impl<E> Seat<E> {
    /// Lets the group depart, unless it has.
    fn depart(&self) {
        let departs = self.inner.open.with(|groups| groups.depart(&self.options, self.group));
        departs.into_iter().for_each(Departure::go);
    }

    fn leave(&mut self) {
        let left = self.inner.open.with(|groups| groups.leave(&self.options, self.group, self.caller));
        drop(left);
        self.call = None;
    }
}

impl<E> Drop for Seat<E> {
    fn drop(&mut self) {
        self.leave();
    }
}
