//! The smallest shared call, sound or with one fault, which the tests of the real one must find.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use crate::sync::Mutex;

pub const SOUND: u8 = 0;
/// The waiter that puts the future back does not check whether it was woken meanwhile.
pub const NO_SECOND_WAKE: u8 = 1;
/// A waiter looks at the future first, and registers its waker afterwards.
pub const REGISTERS_LATE: u8 = 2;
/// A wake-up wakes only the waiter that polled last.
pub const WAKES_ONE: u8 = 3;
/// The last waiter drops the future under the lock.
pub const DROPS_UNDER_LOCK: u8 = 4;

type BoxFuture = Pin<Box<dyn Future<Output = u32> + Send>>;

struct Core<const FAULT: u8>(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` while a waiter polls the future.
    future: Option<BoxFuture>,
    done: Option<u32>,
    wakers: Vec<Option<Waker>>,
    polled_last: usize,
    woken: bool,
    waiters: usize,
}

pub struct Small<const FAULT: u8> {
    core: Arc<Core<FAULT>>,
    place: usize,
}

impl<const FAULT: u8> Core<FAULT> {
    fn register(&self, place: usize, waker: &Waker) {
        drop(self.0.with(|state| state.wakers[place].replace(waker.clone())));
    }

    fn wake_all(&self) {
        let wakers: Vec<Waker> = self.0.with(|state| match FAULT {
            WAKES_ONE => state.wakers[state.polled_last].take().into_iter().collect(),
            _ => state.wakers.iter_mut().filter_map(Option::take).collect(),
        });
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<const FAULT: u8> Wake for Core<FAULT> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.with(|state| state.woken = true);
        self.wake_all();
    }
}

impl<const FAULT: u8> Small<FAULT> {
    pub fn new(future: impl Future<Output = u32> + Send + 'static) -> Self {
        let future: BoxFuture = Box::pin(future);
        let core = Arc::new(Core(Mutex::new(State { future: Some(future), ..State::default() })));
        Self::enter(core)
    }

    pub fn join(&self) -> Self {
        Self::enter(self.core.clone())
    }

    fn enter(core: Arc<Core<FAULT>>) -> Self {
        let place = core.0.with(|state| {
            state.waiters += 1;
            state.wakers.push(None);
            state.wakers.len() - 1
        });
        Self { core, place }
    }

    fn look(&self) -> Poll<u32> {
        let core = &self.core;
        let taken = core.0.with(|state| match (state.done, state.future.take()) {
            (Some(done), _) => Err(Poll::Ready(done)),
            (None, None) => Err(Poll::Pending),
            (None, Some(future)) => {
                (state.woken, state.polled_last) = (false, self.place);
                Ok(future)
            }
        });
        let mut future = match taken {
            Ok(future) => future,
            Err(poll) => return poll,
        };
        let polled = future.as_mut().poll(&mut Context::from_waker(&Waker::from(core.clone())));
        let again = core.0.with(|state| match polled {
            Poll::Ready(value) => {
                state.done = Some(value);
                true
            }
            Poll::Pending => {
                state.future = Some(future);
                state.woken && FAULT != NO_SECOND_WAKE
            }
        });
        if again {
            core.wake_all();
        }
        polled
    }
}

impl<const FAULT: u8> Future for Small<FAULT> {
    type Output = Option<u32>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<u32>> {
        if FAULT != REGISTERS_LATE {
            self.core.register(self.place, context.waker());
        }
        let polled = self.look();
        if FAULT == REGISTERS_LATE {
            self.core.register(self.place, context.waker());
        }
        polled.map(Some)
    }
}

impl<const FAULT: u8> Drop for Small<FAULT> {
    fn drop(&mut self) {
        drop(self.core.0.with(|state| {
            state.waiters -= 1;
            let last = if state.waiters == 0 { state.future.take() } else { None };
            let waker = state.wakers[self.place].take();
            match FAULT {
                DROPS_UNDER_LOCK => {
                    drop(last);
                    (None, waker)
                }
                _ => (last, waker),
            }
        }));
    }
}
