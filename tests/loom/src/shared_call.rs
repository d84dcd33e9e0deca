//! The call that any number of callers share: `src/shared_call.rs`.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use loom::thread;

use crate::{
    Event, drive, explore, finds, poll_once,
    shared::SharedCall,
    small::{DROPS_UNDER_LOCK, NO_SECOND_WAKE, REGISTERS_LATE, SOUND, Small, WAKES_ONE},
    sync, yield_once,
};

/// The operations of a shared call that the tests use.
trait Call: Future<Output = Option<u32>> + Unpin + Send + 'static {
    fn new(future: impl Future<Output = u32> + Send + 'static) -> Self;
    fn join(&self) -> Self;
}

impl Call for SharedCall<u32> {
    fn new(future: impl Future<Output = u32> + Send + 'static) -> Self {
        Self::new(future)
    }

    fn join(&self) -> Self {
        self.downgrade().upgrade().expect("this one waits")
    }
}

impl<const FAULT: u8> Call for Small<FAULT> {
    fn new(future: impl Future<Output = u32> + Send + 'static) -> Self {
        Self::new(future)
    }

    fn join(&self) -> Self {
        self.join()
    }
}

/// Polls once, and leaves.
fn leave_after_one_poll(mut call: impl Call) {
    let _ = poll_once(&mut call);
}

// A caller that stays gets the answer

/// The call waits for an event from a third thread, at any time.
fn woken_from_outside<C: Call>() {
    let event = Event::new();
    let stays = C::new({
        let event = event.clone();
        async move {
            event.wait().await;
            7
        }
    });
    let leaves = stays.join();
    let third = thread::spawn(move || event.happen());
    let leaver = thread::spawn(move || leave_after_one_poll(leaves));
    assert_eq!(drive(stays), Some(7));
    third.join().expect("no panic");
    leaver.join().expect("no panic");
}

/// The call wakes itself while it is polled, as a future that yields does.
fn woken_while_polled<C: Call>() {
    let stays = C::new(async {
        yield_once().await;
        7
    });
    let leaves = stays.join();
    let leaver = thread::spawn(move || leave_after_one_poll(leaves));
    assert_eq!(drive(stays), Some(7));
    leaver.join().expect("no panic");
}

/// The same with two callers that stay.
fn woken_while_polled_by_two_of_three<C: Call>() {
    let stays = C::new(async {
        yield_once().await;
        7
    });
    let (leaves, stays_too) = (stays.join(), stays.join());
    let leaver = thread::spawn(move || leave_after_one_poll(leaves));
    let other = thread::spawn(move || assert_eq!(drive(stays_too), Some(7)));
    assert_eq!(drive(stays), Some(7));
    leaver.join().expect("no panic");
    other.join().expect("no panic");
}

#[test]
fn the_one_that_stays_is_woken_by_a_third() {
    explore("shared call, woken by a third thread", 3, woken_from_outside::<SharedCall<u32>>);
}

#[test]
fn the_one_that_stays_is_woken_where_the_call_wakes_itself() {
    explore("shared call, woken while it is polled", 5, woken_while_polled::<SharedCall<u32>>);
}

#[test]
fn two_that_stay_are_woken_where_the_call_wakes_itself() {
    explore(
        "shared call, woken while it is polled, two stay",
        2,
        woken_while_polled_by_two_of_three::<SharedCall<u32>>,
    );
}

/// One caller polls once, and is stuck: it does not leave, and does not poll again. The other one polls only if it sees
/// that a poll is due.
fn stuck_after_one_poll() {
    let event = Event::new();
    let mut stuck = SharedCall::<u32>::new({
        let event = event.clone();
        async move {
            event.wait().await;
            7
        }
    });
    let mut looks = stuck.join();
    let third = thread::spawn(move || event.happen());
    let is_done = poll_once(&mut stuck).is_ready();
    third.join().expect("no panic");
    assert!(is_done || looks.poll_due().is_some(), "the call was woken, and nobody sees that it must be polled");
    assert_eq!(poll_once(&mut looks), Poll::Ready(Some(7)));
}

#[test]
fn a_poll_that_the_one_that_polls_leaves_undone_is_seen() {
    explore("shared call, the one that polls is stuck", 5, stuck_after_one_poll);
}

// The last caller ends it

/// Counts how often it is dropped, and must not be dropped under a lock.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        assert!(!sync::is_held(), "a call is dropped under a lock");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Two callers leave, each after one poll; one may be polling while the other leaves.
fn both_leave<C: Call>() {
    let drops = Arc::new(AtomicUsize::new(0));
    let held = Dropped(drops.clone());
    let one = C::new(async move {
        let _held = held;
        yield_once().await;
        yield_once().await;
        7
    });
    let other = one.join();
    let leaver = thread::spawn(move || leave_after_one_poll(other));
    leave_after_one_poll(one);
    leaver.join().expect("no panic");
    assert_eq!(drops.load(Ordering::Relaxed), 1, "it ends with the last");
}

#[test]
fn the_last_one_out_drops_the_call_once_and_under_no_lock() {
    explore("shared call, both leave", 5, both_leave::<SharedCall<u32>>);
}

// Joining

#[test]
fn who_joins_while_the_last_one_leaves_gets_nothing_or_a_call_that_ends() {
    explore("shared call, joined while the last one leaves", 3, || {
        let event = Event::new();
        let last = SharedCall::new({
            let event = event.clone();
            async move {
                event.wait().await;
                7
            }
        });
        let way = last.downgrade();
        let third = thread::spawn(move || event.happen());
        let leaver = thread::spawn(move || leave_after_one_poll(last));
        if let Some(joined) = way.upgrade() {
            assert_eq!(drive(joined), Some(7));
        }
        third.join().expect("no panic");
        leaver.join().expect("no panic");
        assert!(way.upgrade().is_none(), "all have left");
    });
}

// A panic

#[test]
fn where_it_panics_in_the_hands_of_one_the_others_get_none() {
    explore("shared call, panics in somebody's hands", 3, || {
        let drops = Arc::new(AtomicUsize::new(0));
        let held = Dropped(drops.clone());
        let one = SharedCall::<u32>::new(async move {
            let _held = held;
            yield_once().await;
            poll_fn(|_| -> Poll<u32> { std::panic::resume_unwind(Box::new("as it should")) }).await
        });
        let other = one.join();
        let thread = thread::spawn(move || catch_unwind(AssertUnwindSafe(|| drive(other))));
        let results = [catch_unwind(AssertUnwindSafe(|| drive(one))), thread.join().expect("caught")];
        let panics = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(panics, 1, "it panics in the hands of one");
        assert!(results.iter().flatten().all(Option::is_none), "and the other gets none");
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}

// Faults that these tests find

#[test]
fn the_small_call_is_sound() {
    explore("small call, woken by a third thread", 2, woken_from_outside::<Small<SOUND>>);
    explore("small call, woken while it is polled", 3, woken_while_polled::<Small<SOUND>>);
    explore("small call, both leave", 3, both_leave::<Small<SOUND>>);
}

/// The fault of `futures_util::Shared`: rust-lang/futures-rs 2706.
#[test]
fn a_wake_up_in_somebodys_hands_that_is_not_passed_on_is_found() {
    let test = "shared_call::a_wake_up_in_somebodys_hands_that_is_not_passed_on_is_found";
    finds(test, 5, "deadlock", woken_while_polled::<Small<NO_SECOND_WAKE>>);
}

#[test]
fn the_same_with_a_wake_up_from_a_third_thread_is_found() {
    let test = "shared_call::the_same_with_a_wake_up_from_a_third_thread_is_found";
    finds(test, 3, "deadlock", woken_from_outside::<Small<NO_SECOND_WAKE>>);
}

#[test]
fn a_waker_that_is_registered_late_is_found() {
    let test = "shared_call::a_waker_that_is_registered_late_is_found";
    finds(test, 5, "deadlock", woken_while_polled::<Small<REGISTERS_LATE>>);
}

#[test]
fn a_wake_up_for_one_alone_is_found() {
    finds("shared_call::a_wake_up_for_one_alone_is_found", 3, "deadlock", woken_from_outside::<Small<WAKES_ONE>>);
}

#[test]
fn a_call_that_is_dropped_under_a_lock_is_found() {
    let test = "shared_call::a_call_that_is_dropped_under_a_lock_is_found";
    finds(test, 3, "under a lock", both_leave::<Small<DROPS_UNDER_LOCK>>);
}
