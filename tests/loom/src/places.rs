//! The gate: `src/wrap/concurrency/gate.rs`. At the end of each test, all places are free, and no call waits.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use loom::thread;

use crate::{
    Lane, drive, explore,
    gate::{Entry, Gate, Place},
    poll_once,
};

/// Waits for a place.
fn wait(gate: &Gate, lane: Lane) -> Place {
    match gate.enter(lane) {
        Entry::Place(place) => place,
        Entry::Turn(turn) => drive(turn).expect("who is in the queue gets a place"),
        Entry::Full(_) => unreachable!("the queue has no bound"),
    }
}

/// Enters, and leaves after one poll.
fn leave_after_one_poll(gate: &Gate, lane: Lane) {
    if let Entry::Turn(mut turn) = gate.enter(lane) {
        let _ = poll_once(&mut turn);
    }
}

fn all_are_free(gate: &Gate) {
    assert_eq!((gate.running(), gate.waiting()), (0, 0));
    let places: Vec<_> = (0..gate.calls()).map(|_| gate.enter(Lane::Bulk).place().expect("free")).collect();
    assert!(gate.enter(Lane::Bulk).turn().is_some(), "no more than there are");
    drop(places);
}

#[test]
fn a_place_goes_on_to_the_one_that_stays() {
    explore("gate, one place, one stays and one leaves", 5, || {
        let gate = Gate::new(1);
        let place = wait(&gate, Lane::Bulk);
        let leaver = thread::spawn({
            let gate = gate.clone();
            move || leave_after_one_poll(&gate, Lane::Bulk)
        });
        let stays = thread::spawn({
            let gate = gate.clone();
            move || drop(wait(&gate, Lane::Bulk))
        });
        drop(place);
        leaver.join().expect("no panic");
        stays.join().expect("no panic");
        all_are_free(&gate);
    });
}

/// The calls that leave are in the queue before the one that stays, and leave while they get their turn.
#[test]
fn a_place_passes_those_that_leave_before_their_turn() {
    explore("gate, one place, two leave while it is given back", 5, || {
        let gate = Gate::new(1);
        let place = wait(&gate, Lane::Bulk);
        let turns: Vec<_> = (0..3).map(|_| gate.enter(Lane::Bulk).turn().expect("must wait")).collect();
        let [mut one, other, stays] = <[_; 3]>::try_from(turns).ok().expect("three");
        let leaver = thread::spawn(move || {
            let _ = poll_once(&mut one);
        });
        let other = thread::spawn(move || drop(other));
        drop(place);
        drop(drive(stays).expect("a place"));
        leaver.join().expect("no panic");
        other.join().expect("no panic");
        all_are_free(&gate);
    });
}

/// Two lanes share two places: no more calls are in at once, and all get in.
#[test]
fn no_more_are_in_than_there_are_places() {
    explore("gate, two places, three calls in two lanes", 4, || {
        let (gate, inside) = (Gate::new(2), Arc::new(AtomicUsize::new(0)));
        let call = |lane| {
            let (gate, inside) = (gate.clone(), inside.clone());
            move || {
                let place = wait(&gate, lane);
                assert!(inside.fetch_add(1, Ordering::Relaxed) < 2, "more than there are places");
                thread::yield_now();
                inside.fetch_sub(1, Ordering::Relaxed);
                drop(place);
            }
        };
        let threads = [Lane::Interactive, Lane::Bulk].map(|lane| thread::spawn(call(lane)));
        call(Lane::Bulk)();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        all_are_free(&gate);
    });
}

/// A full lane is swept before it grows, while some of its calls leave and the place is given back.
#[test]
fn who_is_swept_out_has_left() {
    explore("gate, one place, a full lane is swept", 4, || {
        let gate = Gate::new(1);
        let place = wait(&gate, Lane::Bulk);
        let mut turns: Vec<_> = (0..4).map(|_| gate.enter(Lane::Bulk).turn().expect("must wait")).collect();
        let (second, first) = (turns.remove(1), turns.remove(0));
        let leavers = thread::spawn(move || drop((first, second)));
        let comes = thread::spawn({
            let gate = gate.clone();
            move || drop(wait(&gate, Lane::Bulk))
        });
        drop(place);
        for turn in turns {
            drop(drive(turn).expect("a place"));
        }
        leavers.join().expect("no panic");
        comes.join().expect("no panic");
        all_are_free(&gate);
    });
}
