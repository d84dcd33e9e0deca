//! The room that a [`Gate`] has, and who goes next. `tests/loom` takes this file as it is.

use std::{collections::VecDeque, fmt, mem, sync::Arc};

use crate::{
    Lane,
    lanes::{HeadStart, PerLane},
    sync::{Mutex, oneshot},
};

/// Has room for so many calls at once; the others wait in two lanes. Clones share the room.
///
/// See [`Concurrency`](super::Concurrency) for who goes first.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    calls: usize,
    queue: Mutex<Queue>,
}

/// Someone waits for a place at the other end.
type Waiter = oneshot::Sender<Place>;

#[derive(Default)]
struct Queue {
    /// Places that nobody has. While there are any, nobody waits.
    free: usize,
    lanes: PerLane<VecDeque<Waiter>>,
    head_start: HeadStart,
    /// How many may wait.
    most_waiting: Option<usize>,
}

/// What became of a call that came to a gate.
pub(super) enum Entry {
    Place(Place),
    /// It is in the queue.
    Turn(oneshot::Receiver<Place>),
    /// So many wait, and no more may.
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
    /// Makes room for `calls` at once. With 0, every call is a [`Config`](crate::ErrorKind::Config) error.
    pub fn new(calls: usize) -> Self {
        let queue = Mutex::new(Queue { free: calls, ..Queue::default() });
        Self(Arc::new(Shared { calls, queue }))
    }

    /// Bounds how many calls may wait in each lane, also for the clones: one more is
    /// [`Overloaded`](crate::ErrorKind::Overloaded) at once, and no [`Retry`](crate::wrap::Retry) tries it again. A server
    /// should refuse work at once when it has too much.
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

    /// How many calls it lets through at once.
    pub fn calls(&self) -> usize {
        self.0.calls
    }

    /// How many calls have a place now.
    pub fn running(&self) -> usize {
        self.0.calls - self.0.queue.with(|queue| queue.free)
    }

    /// How many calls wait for a place now.
    pub fn waiting(&self) -> usize {
        self.0.queue.with(|queue| queue.waiting())
    }

    /// How many are in the longer lane, with those that have left and were not taken out yet.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.0.queue.with(|queue| queue.lanes.interactive.len().max(queue.lanes.bulk.len()))
    }

    /// Takes a free place, or stands in the queue for one, unless too many do.
    pub(super) fn enter(&self, lane: Lane) -> Entry {
        let (entry, left) = self.0.queue.with(|queue| {
            if queue.free > 0 {
                queue.free -= 1;
                return (Entry::Place(Place(Some(self.clone()))), VecDeque::new());
            }
            if let Some(most) = queue.most_waiting {
                let lane = queue.lanes.of(lane);
                // Those that have left are counted only where it may matter.
                if lane.len() >= most && those_waiting(lane) >= most {
                    return (Entry::Full(most), VecDeque::new());
                }
            }
            let (waiter, turn) = oneshot::channel();
            let left = queue.push(lane, waiter);
            (Entry::Turn(turn), left)
        });
        // A waiter's end may be the last hold on a whole task with places of its own: never dropped under the lock.
        drop(left);
        entry
    }

    /// Whose turn it is for a place given back; where nobody waits, the place is free.
    fn next(&self) -> Option<Waiter> {
        let mut left = Vec::new();
        let next = self.0.queue.with(|queue| queue.next(&mut left));
        // Not under the lock, either.
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
    /// Queues a waiter. Before a lane would grow, those that have left are taken out and given back, so that its size
    /// is that of those who wait; with room made for as many again, that is seldom.
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

    /// The waiter whose turn it is; those that have left before it go to `left`.
    fn next(&mut self, left: &mut Vec<Waiter>) -> Option<Waiter> {
        for lane in self.lanes.both_mut() {
            while lane.front().is_some_and(|waiter| waiter.is_closed()) {
                left.extend(lane.pop_front());
            }
        }
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

/// How many of those in a lane have not left.
fn those_waiting(lane: &VecDeque<Waiter>) -> usize {
    lane.iter().filter(|waiter| !waiter.is_closed()).count()
}

/// Room for one call. It travels to whoever waits, and wherever it is dropped, it goes to the next.
pub(super) struct Place(Option<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut given_back = self.0.take();
        // A loop and no recursion: thousands may leave the queue between their turn and its telling.
        while let Some(gate) = given_back.take() {
            let Some(waiter) = gate.next() else { return };
            if let Err(mut place) = waiter.send(Self(Some(gate))) {
                given_back = place.0.take();
            }
        }
    }
}
