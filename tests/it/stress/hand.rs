//! Polls futures by hand in a random order, and drops some of them at random moments.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use fastrand::Rng;
use tokio::sync::Notify;

type Polled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Notes that a future must be polled.
struct Flag {
    woken: AtomicBool,
    any: Arc<Notify>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.any.notify_one();
    }
}

/// Polls the futures until none is left, and tells which it drops.
pub(super) async fn drive(
    futures: Vec<Polled>,
    may_drop: impl Fn(usize) -> bool + Send,
    dropped: impl Fn(usize) + Send,
    mut random: Rng,
) {
    let any = Arc::new(Notify::new());
    let flag = || Arc::new(Flag { woken: AtomicBool::new(true), any: any.clone() });
    let mut alive: Vec<_> = futures.into_iter().enumerate().map(|(number, future)| (number, future, flag())).collect();
    while !alive.is_empty() {
        let woken = |at: &usize| alive[*at].2.woken.load(Ordering::SeqCst);
        let ready: Vec<usize> = (0..alive.len()).filter(woken).collect();
        if ready.is_empty() {
            // The clock goes on while this waits.
            any.notified().await;
            continue;
        }
        // A future must bear a poll without a reason.
        let at = if random.u8(..16) == 0 { random.usize(..alive.len()) } else { ready[random.usize(..ready.len())] };
        let (_, future, flag) = &mut alive[at];
        flag.woken.store(false, Ordering::SeqCst);
        let waker = Waker::from(flag.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(alive.swap_remove(at));
        }
        if random.u8(..8) == 0
            && let Some(at) = random.choice(0..alive.len()).filter(|&at| may_drop(alive[at].0))
        {
            dropped(alive.swap_remove(at).0);
        }
        if random.bool() {
            // Tasks of the runtime have their turn, and so has its budget.
            tokio::task::yield_now().await;
        }
    }
}
