//! Waits for the answer to one caller of a group: [`Seat`].

use std::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use tokio::time::{Instant, sleep_until};

use super::{
    bill::Bill,
    caller::Caller,
    group::{Departure, NewCall, Place},
    inner::Inner,
    merged_call::MergedCall,
    size::Size,
    untold::Untold,
};
use crate::{Charges, Embedder, OwnedOptions, shared_call::SharedCall, sync::oneshot};

/// A caller's seat in a group. Dropping it leaves the group: before the departure together with the caller's texts,
/// after it without its answer.
pub(super) struct Seat<E> {
    inner: Arc<Inner<E>>,
    options: OwnedOptions,
    group: u64,
    caller: u64,
    /// The end of the window; `None` if it never ends.
    departs_at: Option<Instant>,
    /// The handle by which this caller drives the call; `None` once it has left.
    call: Option<SharedCall<()>>,
    bill: Arc<Bill>,
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
        let Place { group, caller, departs_at, call, bill } = place;
        Self { inner: inner.clone(), options, group, caller, departs_at, call: Some(call), bill, answer }
    }

    /// Drives the call until the answer to this caller is there. Returns `None` if the call panicked.
    pub(super) async fn answer(&mut self) -> Option<Untold> {
        let window = async |end: Option<Instant>| match end {
            Some(end) => sleep_until(end).await,
            None => pending().await,
        };
        let mut window = pin!(window(self.departs_at));
        let mut is_open = true;
        poll_fn(|context| {
            if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(context) {
                return Poll::Ready(answer.ok());
            }
            if is_open && window.as_mut().poll(context).is_ready() {
                is_open = false;
                self.depart();
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
