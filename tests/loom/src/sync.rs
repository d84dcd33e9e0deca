//! The `sync` of the crate, in which loom decides the order of the threads.

use std::{
    cell::Cell,
    ops::Deref,
    sync::{
        self,
        atomic::Ordering::{AcqRel, Acquire},
    },
};

use loom::sync::atomic::AtomicUsize;

loom::thread_local! {
    static HELD: Cell<usize> = Cell::new(0);
}

/// Whether this thread holds a lock.
pub fn is_held() -> bool {
    HELD.with(Cell::get) > 0
}

/// The lock of the crate: see `src/sync.rs`.
#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut guard = self.0.lock().expect("loom's locks are not poisoned");
        HELD.with(|held| held.set(held.get() + 1));
        let result = change(&mut guard);
        HELD.with(|held| held.set(held.get() - 1));
        result
    }
}

/// An `Arc` that has a `Weak`; loom's has none. The counts are those of std. `turn` is an atomic of loom that is
/// touched before each step of the counts, so that loom tries all orders of these steps.
pub struct Arc<T> {
    inner: sync::Arc<T>,
    turn: sync::Arc<AtomicUsize>,
}

pub struct Weak<T> {
    inner: sync::Weak<T>,
    turn: sync::Arc<AtomicUsize>,
}

impl<T> Arc<T> {
    pub fn new(value: T) -> Self {
        Self { inner: sync::Arc::new(value), turn: sync::Arc::new(AtomicUsize::new(1)) }
    }

    pub fn downgrade(this: &Self) -> Weak<T> {
        Weak { inner: sync::Arc::downgrade(&this.inner), turn: this.turn.clone() }
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        self.turn.fetch_add(1, AcqRel);
        Self { inner: self.inner.clone(), turn: self.turn.clone() }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        // The step of std follows at once: no other thread runs between the two.
        self.turn.fetch_sub(1, AcqRel);
    }
}

impl<T> Weak<T> {
    pub fn upgrade(&self) -> Option<Arc<T>> {
        let up = |count| if count == 0 { None } else { Some(count + 1) };
        let before = self.turn.fetch_update(AcqRel, Acquire, up);
        let inner = self.inner.upgrade();
        assert_eq!(before.is_ok(), inner.is_some(), "the counts agree");
        Some(Arc { inner: inner?, turn: self.turn.clone() })
    }
}

/// The channel that the crate takes from tokio, with loom's lock inside.
pub mod oneshot {
    use std::{
        future::Future,
        pin::Pin,
        sync::Arc,
        task::{Context, Poll, Waker},
    };

    use super::Mutex;

    pub struct Sender<T>(Option<Arc<Mutex<Channel<T>>>>);

    pub struct Receiver<T>(Arc<Mutex<Channel<T>>>);

    /// The sender was dropped without sending.
    #[derive(Debug)]
    pub struct RecvError;

    struct Channel<T> {
        sent: Option<T>,
        waker: Option<Waker>,
        no_sender: bool,
        no_receiver: bool,
    }

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let channel = Channel { sent: None, waker: None, no_sender: false, no_receiver: false };
        let channel = Arc::new(Mutex::new(channel));
        (Sender(Some(channel.clone())), Receiver(channel))
    }

    impl<T> Sender<T> {
        pub fn send(mut self, value: T) -> Result<(), T> {
            let Some(channel) = self.0.take() else { return Err(value) };
            let waker = channel.with(|channel| {
                if channel.no_receiver {
                    return Err(value);
                }
                (channel.sent, channel.no_sender) = (Some(value), true);
                Ok(channel.waker.take())
            })?;
            waker.into_iter().for_each(Waker::wake);
            Ok(())
        }

        pub fn is_closed(&self) -> bool {
            self.0.as_ref().is_some_and(|channel| channel.with(|channel| channel.no_receiver))
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            assert!(!super::is_held(), "a waiter's end is dropped under a lock");
            let Some(channel) = self.0.take() else { return };
            let waker = channel.with(|channel| {
                channel.no_sender = true;
                channel.waker.take()
            });
            waker.into_iter().for_each(Waker::wake);
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, RecvError>;

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            let (polled, before) = self.0.with(|channel| match channel.sent.take() {
                Some(value) => (Poll::Ready(Ok(value)), None),
                None if channel.no_sender => (Poll::Ready(Err(RecvError)), None),
                None => (Poll::Pending, channel.waker.replace(context.waker().clone())),
            });
            drop(before);
            polled
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            drop(self.0.with(|channel| {
                channel.no_receiver = true;
                (channel.sent.take(), channel.waker.take())
            }));
        }
    }
}
