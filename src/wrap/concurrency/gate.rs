//! Hands out the places of a [`Gate`], and decides which call gets the next one. `tests/loom` compiles this file as it
//! is.
//!
//! Two rules keep every place in use and every thread running:
//!
//! 1. A place is always somewhere: counted in `free`, held as a [`Place`], or on its way through a waiter's channel.
//!    Dropping a [`Place`] passes it on, wherever it is dropped. `free` grows only when no call waits.
//! 2. A waiter is never dropped, and never sent to, under the lock. A waiter holds the waker of the task that waits,
//!    and a waker may be the last thing that keeps a task alive. With the task, its own places of this gate would be
//!    dropped; that takes the lock again, which the thread already holds, and it would wait for itself for ever. So the
//!    functions under the lock hand such waiters out, and the caller drops them after it.

use std::{collections::VecDeque, fmt, mem, sync::Arc};

use crate::{
    Lane,
    lanes::{HeadStart, PerLane},
    sync::{Mutex, oneshot},
};

/// Has places for a fixed number of calls at once. Other calls wait in two lanes. Clones share the places.
///
/// See [`Concurrency`](super::Concurrency) for the order in which the calls go.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    calls: usize,
    queue: Mutex<Queue>,
}

/// The sending end of a channel, at whose other end a call waits for a place.
type Waiter = oneshot::Sender<Place>;

#[derive(Default)]
struct Queue {
    /// Places that no call has. While there are any, no call waits.
    free: usize,
    lanes: PerLane<VecDeque<Waiter>>,
    head_start: HeadStart,
    /// The most calls that may wait in each lane; `None` for any number.
    most_waiting: Option<usize>,
}

/// The answer to a call that came to a gate.
pub(super) enum Entry {
    /// The call has a place.
    Place(Place),
    /// The call is in the queue, and its place will come through this channel.
    Turn(oneshot::Receiver<Place>),
    /// This many calls wait, and no more may.
    Full(usize),
}

#[cfg(test)]
impl Entry {
    pub(super) fn place(self) -> Option<Place> {
        match self {
            Self::Place(place) => Some(place),
            Self::Turn(_) | Self::Full(_) => None,
        }
    }

    pub(super) fn turn(self) -> Option<oneshot::Receiver<Place>> {
        match self {
            Self::Turn(turn) => Some(turn),
            Self::Place(_) | Self::Full(_) => None,
        }
    }
}

impl Gate {
    /// Makes a gate with places for `calls` calls at once. With 0, every call is a [`Config`](crate::ErrorKind::Config)
    /// error.
    pub fn new(calls: usize) -> Self {
        let queue = Mutex::new(Queue { free: calls, ..Queue::default() });
        Self(Arc::new(Shared { calls, queue }))
    }

    /// Sets how many calls may wait in each lane, also for the clones. One call more fails with
    /// [`Overloaded`](crate::ErrorKind::Overloaded) at once, and no [`Retry`](crate::wrap::Retry) tries it again. A
    /// server should refuse work at once when it has too much.
    ///
    /// ```
    /// use docvector_embed::wrap::Gate;
    /// let gate = Gate::new(8).with_max_waiting(64);
    /// assert_eq!((gate.calls(), gate.running(), gate.waiting()), (8, 0, 0));
    /// ```
    #[must_use]
    pub fn with_max_waiting(self, calls: usize) -> Self {
        self.0.queue.with(|queue| queue.most_waiting = Some(calls));
        self
    }

    /// Returns how many calls it lets through at once.
    pub fn calls(&self) -> usize {
        self.0.calls
    }

    /// Returns how many calls have a place now.
    pub fn running(&self) -> usize {
        self.0.calls - self.0.queue.with(|queue| queue.free)
    }

    /// Returns how many calls wait for a place now.
    pub fn waiting(&self) -> usize {
        self.0.queue.with(|queue| queue.waiting())
    }

    /// Returns the length of the longer lane, including waiters that have left and were not removed yet.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.0.queue.with(|queue| queue.lanes.interactive.len().max(queue.lanes.bulk.len()))
    }

    /// Takes a free place. If there is none, joins the queue, unless the queue is full.
    pub(super) fn enter(&self, lane: Lane) -> Entry {
        self.enter_if(lane, true)
    }

    /// As [`enter`](Self::enter), for a call that has given its place back: a full queue takes it, too.
    pub(super) fn enter_again(&self, lane: Lane) -> Entry {
        self.enter_if(lane, false)
    }

    fn enter_if(&self, lane: Lane, is_bounded: bool) -> Entry {
        let (entry, left) = self.0.queue.with(|queue| {
            if queue.free > 0 {
                queue.free -= 1;
                return (Entry::Place(Place(Some(self.clone()))), VecDeque::new());
            }
            if let Some(most) = queue.most_waiting.filter(|_| is_bounded) {
                let lane = queue.lanes.of(lane);
                // The exact count walks along the lane, so it is made only if the length, with those that have left, is
                // too much.
                if lane.len() >= most && those_waiting(lane) >= most {
                    return (Entry::Full(most), VecDeque::new());
                }
            }
            let (waiter, turn) = oneshot::channel();
            let left = queue.push(lane, waiter);
            (Entry::Turn(turn), left)
        });
        // Rule 2: dropped after the lock.
        drop(left);
        entry
    }

    /// Returns the waiter that gets a place given back. If no call waits, the place becomes free.
    fn next(&self) -> Option<Waiter> {
        let mut left = Vec::new();
        let next = self.0.queue.with(|queue| queue.next(&mut left));
        // Rule 2: dropped after the lock.
        drop(left);
        next
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("calls", &self.calls())
            .field("running", &self.running())
            .field("waiting", &self.waiting())
            .finish()
    }
}

impl Queue {
    /// Puts a waiter into its lane. Returns the waiters that have left and were removed from the lane, for the caller
    /// to drop after the lock.
    ///
    /// They are removed only when the lane is full, before it would grow. So the lane's size stays near the number of
    /// calls that wait. Room is then made for as many again, so this happens seldom: its cost per call is constant.
    fn push(&mut self, lane: Lane, waiter: Waiter) -> VecDeque<Waiter> {
        let queue = self.lanes.of(lane);
        let mut left = VecDeque::new();
        if queue.len() == queue.capacity() {
            let all = mem::take(queue);
            (*queue, left) = all.into_iter().partition(|waiter| !waiter.is_closed());
            queue.reserve(queue.len() + 1);
        }
        queue.push_back(waiter);
        left
    }

    /// Removes and returns the waiter whose turn it is. The waiters before it that have left go to `left`, for the
    /// caller to drop after the lock.
    fn next(&mut self, left: &mut Vec<Waiter>) -> Option<Waiter> {
        for lane in self.lanes.both_mut() {
            while lane.front().is_some_and(|waiter| waiter.is_closed()) {
                left.extend(lane.pop_front());
            }
        }
        // Read before a waiter is taken out. A turn counts against the bulk lane only if it passes a bulk call.
        let bulk_waits = !self.lanes.bulk.is_empty();
        let mut order = self.head_start.order().into_iter();
        let next = order.find_map(|lane| Some((lane, self.lanes.of(lane).pop_front()?)));
        match next {
            Some((lane, _)) if bulk_waits => self.head_start.took(lane),
            _ => self.head_start.passes_nobody(),
        }
        if next.is_none() {
            self.free += 1;
        }
        next.map(|(_, waiter)| waiter)
    }

    fn waiting(&self) -> usize {
        self.lanes.both().into_iter().map(those_waiting).sum()
    }
}

/// Counts the waiters of a lane that have not left.
fn those_waiting(lane: &VecDeque<Waiter>) -> usize {
    lane.iter().filter(|waiter| !waiter.is_closed()).count()
}

/// A place for one call. When it is dropped, anywhere, it goes to the next waiter. `None` only while it is passed on.
pub(super) struct Place(Option<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut given_back = self.0.take();
        // The send fails if the waiter leaves between its turn and the send. The place comes back then and goes to the
        // next one. This is a loop and no recursion, because thousands of waiters may have left in this way.
        while let Some(gate) = given_back.take() {
            let Some(waiter) = gate.next() else { return };
            if let Err(mut place) = waiter.send(Self(Some(gate))) {
                given_back = place.0.take();
            }
        }
    }
}
