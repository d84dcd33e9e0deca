//! Sources of the crate under loom, which runs each test once for each order in which its threads can take their steps,
//! up to a number of interruptions. A deadlock is found, because loom panics if no thread can continue. `scripts/loom`
//! runs all tests.

#![cfg(test)]

mod small;
mod sync;

#[allow(dead_code)]
#[path = "../../../src/wrap/concurrency/gate.rs"]
mod gate;
#[path = "../../../src/lanes.rs"]
mod lanes;
#[path = "../../../src/shared_call.rs"]
mod shared;

mod places;
mod shared_call;

use std::{
    future::Future,
    pin::pin,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use loom::model::Builder;

use crate::sync::Mutex;

/// The lane of a call, as in the crate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lane {
    Interactive,
    Bulk,
}

/// Tries all orders with at most so many interruptions.
fn explore(name: &str, preemptions: usize, model: fn()) {
    let began = Instant::now();
    let tried = Arc::new(AtomicU64::new(0));
    check(preemptions, model, &tried);
    let (tried, took) = (tried.load(Ordering::Relaxed), began.elapsed());
    println!("loom: {name}: {tried} orders, up to {preemptions} interruptions, {took:.1?}");
}

/// Asserts that a fault is found: some order ends with a panic that says these words. A process of its own looks for
/// it, because after a deadlock nothing can be cleaned up, and the process ends.
fn finds(test: &str, preemptions: usize, words: &str, model: fn()) {
    const IN_CHILD: &str = "LOOM_FINDS";
    if std::env::var_os(IN_CHILD).is_some() {
        let tried = Arc::new(AtomicU64::new(0));
        let order = tried.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let words = panic.payload_as_str().unwrap_or_default();
            println!("\nfound in order {}: {words}", order.load(Ordering::Relaxed));
            std::process::exit(0);
        }));
        return check(preemptions, model, &tried);
    }
    let program = std::env::current_exe().expect("a path");
    let child = Command::new(program).args([test, "--exact", "--nocapture"]).env(IN_CHILD, "1").output();
    let output = child.expect("runs");
    let output = String::from_utf8_lossy(&output.stdout);
    let found = output.lines().find(|line| line.starts_with("found in order ")).unwrap_or("found nothing");
    assert!(found.contains(words), "{test}: {found}");
    println!("loom: {test}: {}", found.split(':').next().unwrap_or_default());
}

fn check(preemptions: usize, model: fn(), tried: &Arc<AtomicU64>) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    let tried = tried.clone();
    builder.check(move || {
        tried.fetch_add(1, Ordering::Relaxed);
        model();
    });
}

/// Wakes a thread.
struct Bell(loom::sync::Notify);

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self(loom::sync::Notify::new()))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        assert!(!sync::is_held(), "a waker is dropped under a lock");
    }
}

/// Polls a future each time it is woken, and at no other time.
fn drive<F: Future>(future: F) -> F::Output {
    let bell = Bell::new();
    let waker = Waker::from(bell.clone());
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => bell.0.wait(),
        }
    }
}

/// Polls a future once. The waker that it leaves there is the only handle of its bell, so dropping it drops the bell.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let waker = Waker::from(Bell::new());
    pin!(future).poll(&mut Context::from_waker(&waker))
}

/// An event that happens once.
#[derive(Clone)]
struct Event(Arc<Mutex<(bool, Option<Waker>)>>);

impl Event {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((false, None))))
    }

    fn happen(&self) {
        let waker = self.0.with(|(happened, waker)| {
            *happened = true;
            waker.take()
        });
        waker.into_iter().for_each(Waker::wake);
    }

    async fn wait(self) {
        std::future::poll_fn(|context| {
            self.0.with(|(happened, waker)| {
                if *happened {
                    return Poll::Ready(());
                }
                // Here it is always the same waker.
                *waker = Some(context.waker().clone());
                Poll::Pending
            })
        })
        .await;
    }
}

/// Wakes itself while it is polled, once.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
