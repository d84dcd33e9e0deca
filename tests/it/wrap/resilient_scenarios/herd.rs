//! Hundreds of callers at once, while members are down and when they recover.

use std::{collections::BTreeMap, future::poll_fn, pin::Pin, task::Poll, time::Duration};

use docvector_embed::{
    Batch, BreakerState, Embedder, ErrorKind, Result,
    wrap::{BreakerPolicy, Resilient},
};
use fastrand::Rng;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    MS, call, own_rows,
    scripted::{Act, How, Scripted},
    trusted, twin, was_not_asked,
};

/// Returns the most calls that were at once at a member, by the number of calls that it had answered since `from`.
fn most_at_once(member: &Scripted, from: u64) -> BTreeMap<usize, usize> {
    let log = member.log();
    let mut most = BTreeMap::new();
    for (place, call) in log.iter().enumerate().filter(|(_, call)| call.begin >= from) {
        let ended = |other: &super::scripted::Logged| other.end.is_some_and(|end| end <= call.begin);
        let answered = log.iter().filter(|other| other.begin >= from && other.how == How::Answered && ended(other));
        // Of those that begin at the same time, the earlier ones are there already.
        let there = log[..=place].iter().filter(|other| !ended(other)).count();
        let most = most.entry(answered.count()).or_default();
        *most = there.max(*most);
    }
    most
}

#[tokio::test(start_paused = true)]
async fn a_member_that_recovers_gets_one_call_then_two_then_four_then_all() {
    let own = Scripted::new("own", |asked| match asked.at {
        0..10_000 => Act::Fail(10, ErrorKind::Unavailable),
        // Probes end one by one, so that each step is seen.
        _ => Act::Answer(1_000 + 7 * (asked.number as u64 % 10)),
    });
    let twin = twin();
    let both = trusted(own.clone(), twin.clone()).build().expect("one space");
    for _ in 0..5 {
        call(&both, "a", None).await.expect("is answered");
    }
    let opened = own.now() - 100;
    // From then on ten callers come every 5 ms.
    tokio::time::sleep(29_000 * MS).await;
    let callers = (0..8_000_u64).map(async |number| {
        tokio::time::sleep(MS * (number as u32 / 10 * 5)).await;
        call(&both, "a", None).await
    });
    let answers = join_all(callers).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(own.begins()[5], opened + 30_000, "the first probe goes when the open time is over, and not before");
    let most = most_at_once(&own, 10_000);
    assert_eq!([0, 1, 2].map(|answered| most[&answered]), [1, 2, 4], "{most:?}");
    assert!(most[&3] > 1_000, "then all: {most:?}");
    assert_eq!(both.members()[0].breaker, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn while_all_are_down_calls_go_one_at_a_time_and_fail_with_the_probe_that_they_waited_for() {
    let down = |name| Scripted::new(name, |_| Act::Fail(500, ErrorKind::Unavailable));
    let (own, twin) = (down("own"), down("twin"));
    let both = trusted(own.clone(), twin.clone()).build().expect("one space");
    for _ in 0..5 {
        call(&both, "a", None).await.expect_err("all are down");
    }
    let (before, began) = (own.now(), Instant::now());
    let errors = join_all((0..300).map(|_| call(&both, "a", None))).await;
    assert_eq!(began.elapsed(), 1_000 * MS, "one probe of each, whatever the number of callers");
    let errors: Vec<_> = errors.into_iter().map(|result| result.expect_err("all are down")).collect();
    for member in [&own, &twin] {
        assert_eq!(member.log().len(), 6);
        assert_eq!(most_at_once(member, before).into_values().max(), Some(1));
    }
    assert!(errors.iter().filter(|error| was_not_asked(error)).count() >= 298);
    assert!(errors.iter().all(|error| error.to_string().matches("as scripted").count() == 2), "the causes are told");
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Unavailable));
    // What the callers were told of is what the members billed.
    let told: docvector_embed::Usage = errors.iter().map(docvector_embed::Error::total_usage).sum();
    assert_eq!((told.requests, told.unanswered), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn when_all_were_down_the_one_that_recovers_is_not_flooded() {
    for recovers in ["own", "twin"] {
        let member = |name: &'static str| {
            Scripted::new(name, move |asked| match asked.at {
                10_000.. if name == recovers => Act::Answer(1_000 + 7 * (asked.number as u64 % 5)),
                _ => Act::Fail(100, ErrorKind::Unavailable),
            })
        };
        let (own, twin) = (member("own"), member("twin"));
        let both = trusted(own.clone(), twin.clone()).build().expect("one space");
        for _ in 0..5 {
            call(&both, "a", None).await.expect_err("all are down");
        }
        // Before any open time is over.
        tokio::time::sleep(10_000 * MS).await;
        let began = Instant::now();
        let answers = join_all((0..300).map(|_| call(&both, "a", None))).await;
        let answered = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(answered, 300, "no call is lost that {recovers} can answer");
        let up = if recovers == "own" { &own } else { &twin };
        let most = most_at_once(up, 10_000);
        assert_eq!([0, 1, 2].map(|answered| most[&answered]), [1, 2, 4], "{most:?}");
        assert_eq!(most[&3], 300 - 3, "then all that are left: {most:?}");
        assert!(began.elapsed() < 5_000 * MS);
        let down = if recovers == "own" { &twin } else { &own };
        assert!(down.log().len() <= 6, "at most one probe");
    }
}

/// Polls a future so often at most, and at least once.
async fn polls<F: Future + Unpin>(future: &mut F, mut left: usize) -> Option<F::Output> {
    poll_fn(|context| {
        left -= 1;
        match Pin::new(&mut *future).poll(context) {
            Poll::Pending if left == 0 => Poll::Ready(None),
            other => other.map(Some),
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_or_are_never_polled_again_hold_nobody_up() {
    for seed in 0..60 {
        let mut random = Rng::with_seed(seed);
        let own = Scripted::new("own", |asked| match asked.number {
            0..5 => Act::Fail(10, ErrorKind::Unavailable),
            _ => Act::Answer(10),
        });
        let policy = BreakerPolicy::default().with_open_for(5_000 * MS);
        let alone = Resilient::builder(own.clone()).with_breaker(policy).build().expect("one space");
        for _ in 0..5 {
            call(&alone, "a", None).await.expect_err("it is down");
        }
        if random.bool() {
            tokio::time::sleep(5_000 * MS).await;
        }
        // The first takes the place, and others wait behind it. Some are dropped, the rest is left as it is.
        let mut left = Vec::new();
        for number in 0..30 {
            let mut future = Box::pin(call(&alone, "a", None));
            if polls(&mut future, random.usize(1..4)).await.is_none() && (number == 0 || random.bool()) {
                left.push(future);
            }
        }
        assert!(!left.is_empty());
        // However many are left, they hold places for one open time at most.
        let began = Instant::now();
        let answers = join_all((0..50).map(|_| call(&alone, "b", None))).await;
        assert!(answers.iter().all(Result::is_ok), "seed {seed}: {answers:?}");
        assert!(began.elapsed() < 5_100 * MS, "seed {seed}: {:?}", began.elapsed());
        if random.bool() {
            left.clear();
        }
        let name = "after";
        let result = call(&alone, name, None).await;
        assert_eq!(own_rows(own.fake(), &[name], &result), [0]);
        assert_eq!(alone.members()[0].breaker, BreakerState::Closed, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_ends_at_its_deadline_and_says_what_it_waited_for() {
    let own = Scripted::new("own", |asked| match asked.number {
        0..5 => Act::Fail(10, ErrorKind::Unavailable),
        _ => Act::Hang,
    });
    let alone = Resilient::builder(own.clone()).build().expect("one space");
    for _ in 0..5 {
        call(&alone, "a", None).await.expect_err("it is down");
    }
    let mut probe = Box::pin(call(&alone, "probe", None));
    assert!(polls(&mut probe, 1).await.is_none());
    let began = Instant::now();
    let texts = ["late"];
    let deadline = (began + Duration::from_secs(3)).into_std();
    let error = alone.embed(Batch::documents(&texts).with_deadline(deadline)).await.expect_err("the deadline passes");
    assert_eq!((began.elapsed(), error.kind()), (3_000 * MS, ErrorKind::DeadlinePassed));
    assert!(error.to_string().contains("own was not asked: its breaker is open for "), "{error}");
    assert_eq!(error.total_usage(), docvector_embed::Usage::ZERO);
    drop(probe);
}
