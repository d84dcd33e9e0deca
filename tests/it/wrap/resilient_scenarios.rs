//! `Resilient` with members that fail, hang, slow down, recover and flap, by script, on a clock that jumps.

mod hedging;
mod herd;
mod random;
mod scripted;
mod threads;
mod verification;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use docvector_embed::{
    Batch, BreakerState, Embedder, EmbedderExt, Embeddings, Error, ErrorKind, InputKind, Result,
    observer::{Event, EventKind, Observer},
    wrap::{BreakerPolicy, Resilient, ResilientBuilder},
};
use tokio::time::Instant;

use self::scripted::{Act, Asked, Scripted};
use crate::support::own as own_rows;

const MS: Duration = Duration::from_millis(1);

fn trusted(primary: impl Embedder, fallback: impl Embedder) -> ResilientBuilder {
    Resilient::builder(primary).with_fallback(fallback).with_trusted_spaces()
}

/// Always answers, after 100 ms.
fn twin() -> Scripted {
    Scripted::new("twin", |_| Act::Answer(100))
}

/// One document of its own name, with a deadline in milliseconds from now if there is one.
async fn call(embedder: &impl Embedder, name: &str, deadline: Option<u64>) -> Result<Embeddings> {
    let texts = [name];
    let batch = Batch::documents(&texts).with_tenant(name);
    let end = |time| (Instant::now() + Duration::from_millis(time)).into_std();
    embedder.embed(deadline.map_or(batch, |time| batch.with_deadline(end(time)))).await
}

/// Makes a call at each of these times, in milliseconds from the first one's. Each must be answered rightly, and before
/// the next begins. Returns how long each took.
async fn call_at(embedder: &impl Embedder, member: &Scripted, times: impl Iterator<Item = u64>) -> Vec<u64> {
    let start = Instant::now();
    let mut took = Vec::new();
    for time in times {
        tokio::time::sleep_until(start + Duration::from_millis(time)).await;
        assert_eq!(start.elapsed().as_millis() as u64, time, "the call before took too long");
        let name = format!("at {time}");
        let result = call(embedder, &name, None).await;
        assert_eq!(own_rows(member.fake(), &[&name], &result), [0], "{result:?}");
        result.expect("is answered");
        took.push(start.elapsed().as_millis() as u64 - time);
    }
    took
}

/// Keeps a line for each event, with its time in milliseconds.
#[derive(Clone)]
struct Lines(Arc<Mutex<Vec<String>>>, Instant);

impl Lines {
    fn new() -> Self {
        Self(Arc::default(), Instant::now())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}

impl Observer for Lines {
    fn observe(&self, event: &Event<'_>) {
        let what = match event.kind {
            EventKind::Answered { member, place, .. } => format!("{member} answered at place {place}"),
            EventKind::FellBack { from, to, error, .. } => format!("{from} to {to}: {}", error.kind()),
            EventKind::Skipped { member, why, .. } => format!("{member} skipped: {why}"),
            EventKind::Hedged { first, second, after, .. } => format!("{first} hedged by {second} after {after:?}"),
            EventKind::Breaker { member, state, open_for: None, .. } => format!("{member} {state}"),
            EventKind::Breaker { member, state, open_for: Some(time), .. } => format!("{member} {state} for {time:?}"),
            EventKind::Verified { member, same, .. } => format!("{member} verified: {same}"),
            other => format!("{other:?}"),
        };
        self.0.lock().expect("no panic").push(format!("{}: {what}", self.1.elapsed().as_millis()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_hangs_is_passed_by_after_five_time_limits_and_probed_ever_more_rarely() {
    let own = Scripted::new("own", |asked| if asked.at < 200_000 { Act::Hang } else { Act::Answer(100) });
    let twin = twin();
    let both = trusted(own.clone().timeout(2_000 * MS), twin.clone()).build().expect("one space");
    let took = call_at(&both, &twin, (0..=55).map(|i| i * 5_000)).await;
    // Five limits of 2 s, and it opens for 30 s. Two probes hang, so that it opens for 60 s and 120 s. Three answer.
    let asked = [0, 5, 10, 15, 20, 55, 120, 245, 250, 255, 260, 265, 270, 275].map(|second| second * 1_000);
    assert_eq!(own.begins(), asked);
    for (time, took) in (0_u64..).step_by(5_000).zip(took) {
        let hangs = asked.contains(&time) && time < 200_000;
        assert_eq!(took, if hangs { 2_100 } else { 100 }, "the call at {time}");
    }
    let members = both.members();
    assert_eq!((members[0].answered, members[0].failed, members[0].breaker), (7, 7, BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn without_a_time_limit_deadlines_find_out_that_a_member_hangs() {
    for keeps_deadlines in [true, false] {
        let hang = |_: Asked| Act::Hang;
        let own = if keeps_deadlines { Scripted::new("own", hang) } else { Scripted::without_deadlines("own", hang) };
        let both = trusted(own.clone().timeout(3_000 * MS), twin()).build().expect("one space");
        for round in 0..5 {
            // A call with a deadline before the limit ends there, and says so.
            let began = Instant::now();
            let late = call(&both, "late", Some(if keeps_deadlines { 2_000 } else { 2_500 })).await;
            let error = late.expect_err("too late");
            assert_eq!(error.kind(), ErrorKind::DeadlinePassed, "round {round}: {error}");
            assert!(began.elapsed() <= 3_000 * MS);
        }
        assert_eq!(both.members()[0].breaker, BreakerState::Open);
        call(&both, "in time", Some(2_000)).await.expect("the twin answers");
        assert_eq!(own.log().len(), 5);
    }
    // Nobody but the caller ends a call of a member that hangs without a limit and without a deadline.
    let own = Scripted::new("own", |_| Act::Hang);
    let both = trusted(own.clone(), twin()).build().expect("one space");
    for _ in 0..10 {
        tokio::time::timeout(3_600_000 * MS, call(&both, "held", None)).await.expect_err("the call is held");
    }
    assert_eq!(both.members()[0].breaker, BreakerState::Closed, "dropped calls do not count");
    assert_eq!(own.log().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_becomes_slow_is_passed_by_only_where_asked() {
    for slow_call in [None, Some(1_000 * MS)] {
        let own = Scripted::new("own", |asked| Act::Answer(if asked.at < 60_000 { 1_001 } else { 1_000 }));
        let twin = twin();
        let policy = BreakerPolicy::default();
        let policy = slow_call.map_or(policy.clone(), |limit| policy.with_slow_call(limit));
        let both = trusted(own.clone(), twin.clone()).with_breaker(policy).build().expect("one space");
        call_at(&both, &twin, (0..50).map(|i| i * 2_000)).await;
        if slow_call.is_some() {
            // It opens at 9.001 s. The probe at 40 s is slow, too, and opens it for 60 s, from 41.001 s on.
            assert_eq!(own.begins(), [0, 2, 4, 6, 8, 40].map(|second| second * 1_000));
            assert!(both.members()[0].failed == 0 && twin.log().len() == 44, "a slow answer is an answer");
            // The last call ended at 98.1 s.
            tokio::time::sleep(3_900 * MS).await;
            call_at(&both, &twin, (0..8).map(|i| i * 2_000)).await;
            assert_eq!(own.begins()[6..], [102, 104, 106, 108, 110, 112, 114, 116].map(|second| second * 1_000));
            assert_eq!(both.members()[0].breaker, BreakerState::Closed);
        } else {
            assert_eq!((own.log().len(), twin.log().len()), (50, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_flaps_is_open_for_longer_each_time() {
    // Five failures open it, three answers close it, and so on.
    let own = Scripted::new("own", |asked| match asked.number % 8 {
        0..5 => Act::Fail(10, ErrorKind::Unavailable),
        _ => Act::Answer(10),
    });
    let (twin, lines) = (twin(), Lines::new());
    let both = trusted(own.clone(), twin.clone()).build().expect("one space").observed(lines.clone());
    call_at(&both, &twin, (0..1_500).map(|i| i * 1_000)).await;
    let told: Vec<String> = lines.take().into_iter().filter(|line| line.contains(": own open for")).collect();
    // Each time it takes 3 s to close and 4 s to open, and the first calls after a whole second are the next probe.
    let expected = [(4_010, 30), (42_010, 60), (110_010, 120), (238_010, 240), (486_010, 300), (794_010, 300)];
    let expected = expected.map(|(at, open_for)| format!("{at}: own open for {open_for}s"));
    assert_eq!(told[..6], expected, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn half_of_the_calls_open_it_and_a_tenth_do_not() {
    for (of, opens) in [(2, true), (10, false)] {
        let own = Scripted::new("own", move |asked| match asked.number % of {
            0 => Act::Fail(1, ErrorKind::Timeout),
            _ => Act::Answer(1),
        });
        let twin = twin();
        let both = trusted(own.clone(), twin.clone()).build().expect("one space");
        call_at(&both, &twin, (0..100).map(|i| i * 200)).await;
        // The 21st call is the first failure with at least 20 calls: 11 of 21.
        assert_eq!(own.log().len(), if opens { 21 } else { 100 });
        let expected = if opens { BreakerState::Open } else { BreakerState::Closed };
        assert_eq!(both.members()[0].breaker, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_fails_large_calls_alone_keeps_the_small_ones() {
    let own = Scripted::new("own", |asked| match asked.texts {
        0..5 => Act::Answer(10),
        _ => Act::Fail(10, ErrorKind::Unavailable),
    });
    let twin = twin();
    let both = trusted(own.clone(), twin.clone()).build().expect("one space");
    let large: Vec<String> = (0..9).map(|i| format!("text {i} of a large call")).collect();
    let large: Vec<&str> = large.iter().map(String::as_str).collect();
    for round in 0..40 {
        let result = both.embed(Batch::documents(&large)).await;
        assert_eq!(own_rows(twin.fake(), &large, &result).len(), 9, "{result:?}");
        for small in 0..3 {
            call(&both, "small", None).await.expect("is answered");
            assert_eq!(own.log().len(), round * 4 + small + 2, "each call goes to it first");
        }
    }
    assert_eq!((twin.log().len(), both.members()[0].breaker), (40, BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn each_way_to_fail_has_its_answer_its_bill_and_its_count() {
    use ErrorKind::{Auth, Inference, Overloaded, Protocol, QuotaExhausted, RateLimited, Timeout, Unavailable};
    let ways = [Unavailable, Timeout, Protocol, Inference, Auth, QuotaExhausted, RateLimited, Overloaded];
    let acts = ways.iter().flat_map(|kind| [Act::Fail(10, *kind), Act::Rows(10, *kind)]).chain([Act::Panic(10)]);
    for act in acts {
        let own = Scripted::new("own", move |_| act);
        let twin = twin();
        let both = trusted(own.clone(), twin.clone()).build().expect("one space");
        let texts = ["one", "two", "three", "four"];
        for round in 0..10 {
            let before = own.bill() + twin.bill();
            let rows = both.embed(Batch::documents(&texts)).await;
            assert_eq!(own_rows(twin.fake(), &texts, &rows).len(), 4);
            assert_eq!(before + rows.expect("the twin answers").usage(), own.bill() + twin.bill(), "{act:?} {round}");
        }
        let keeps_rows = matches!(act, Act::Rows(..));
        let is_busy = matches!(act, Act::Fail(_, RateLimited | Overloaded) | Act::Rows(_, RateLimited | Overloaded));
        assert_eq!(own.log().len(), if is_busy { 10 } else { 5 }, "{act:?}");
        assert_eq!(twin.log()[0].texts, if keeps_rows { &["two", "four"][..] } else { &texts }, "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_all_members_failed_to_finish_is_told_with_the_others() {
    let down = |_: Asked| Act::Rows(10, ErrorKind::Unavailable);
    let (own, twin) = (Scripted::new("own", down), Scripted::new("twin", down));
    let third = Scripted::new("third", |_| Act::Fail(10, ErrorKind::RateLimited));
    let all = trusted(own.clone(), twin.clone()).with_fallback(third.clone()).build().expect("one space");
    let texts = ["one", "two", "three", "four", "five"];
    let result = all.embed(Batch::documents(&texts)).await;
    // The first finishes 0, 2 and 4, the second 1 of the two that are left.
    assert_eq!(own_rows(own.fake(), &texts, &result), [0, 1, 2, 4]);
    let error = result.expect_err("nobody finishes");
    assert_eq!(error.total_usage(), own.bill() + twin.bill() + third.bill());
    let text = error.to_string();
    for part in ["own: unavailable", "twin: unavailable", "third: rate limit", "4 rows were finished"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_come_in_the_order_of_what_happens() {
    let own = Scripted::new("own", |asked| match asked.number {
        0..5 => Act::Fail(10, ErrorKind::Unavailable),
        _ => Act::Answer(10),
    });
    let lines = Lines::new();
    let both = trusted(own, twin()).build().expect("one space").observed(lines.clone());
    for _ in 0..4 {
        call(&both, "a", None).await.expect("is answered");
    }
    let told = lines.take();
    assert_eq!(told[6..], ["340: own to twin: unavailable", "440: twin answered at place 1"]);
    call(&both, "a", None).await.expect("is answered");
    call(&both, "a", None).await.expect("is answered");
    tokio::time::sleep(30_000 * MS).await;
    for _ in 0..4 {
        call(&both, "a", None).await.expect("is answered");
    }
    let expected = [
        "450: own open for 30s",
        "450: own to twin: unavailable",
        "550: twin answered at place 1",
        "550: own skipped: breaker_open",
        "650: twin answered at place 1",
        "30650: own half_open",
        "30660: own answered at place 0",
        "30670: own answered at place 0",
        "30680: own closed",
        "30680: own answered at place 0",
        "30690: own answered at place 0",
    ];
    assert_eq!(lines.take(), expected);
    // While one probe is under way, another call is told so.
    let own = Scripted::new("own", |asked| match asked.number {
        0..5 => Act::Fail(10, ErrorKind::Unavailable),
        _ => Act::Answer(1_000),
    });
    let lines = Lines::new();
    let both = trusted(own, twin()).build().expect("one space").observed(lines.clone());
    for _ in 0..5 {
        call(&both, "a", None).await.expect("is answered");
    }
    tokio::time::sleep(30_000 * MS).await;
    lines.take();
    let (first, second) = tokio::join!(call(&both, "a", None), call(&both, "b", None));
    first.and(second).expect("both are answered");
    let expected = [
        "30550: own half_open",
        "30550: own skipped: probing",
        "30650: twin answered at place 1",
        "31550: own answered at place 0",
    ];
    assert_eq!(lines.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_longest_open_time_is_no_reason_to_panic() {
    let own = Scripted::new("own", |asked| match asked.number {
        0..2 => Act::Fail(50, ErrorKind::Unavailable),
        _ => Act::Answer(50),
    });
    let policy = BreakerPolicy::default().with_consecutive_failures(1);
    let policy = policy.with_max_open(Duration::MAX).with_open_for(Duration::MAX);
    let alone = Resilient::builder(own.clone()).with_breaker(policy).build().expect("one space");
    call(&alone, "a", None).await.expect_err("it is down");
    let (first, second) = tokio::join!(call(&alone, "a", None), call(&alone, "b", None));
    first.expect_err("the probe fails");
    let error = second.expect_err("it waited for the probe");
    assert!(error.to_string().contains("its breaker is open for "), "{error}");
    call(&alone, "a", None).await.expect("it is up");
    assert_eq!(own.fake().vector_of(InputKind::Document, "a").len(), 8);
}

/// Whether a member was not asked by this call itself.
fn was_not_asked(error: &Error) -> bool {
    error.to_string().contains("was not asked")
}
