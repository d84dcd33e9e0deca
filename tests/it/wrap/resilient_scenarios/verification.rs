//! Proofs by probe texts: on request, by a timer, and in the middle of calls, with many callers at once.

use std::sync::Arc;

use docvector_embed::{
    Batch, BreakerState, Embedder, EmbedderExt, ErrorKind, Result, Usage,
    wrap::{BreakerPolicy, Proof, Resilient},
};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    Lines, MS, call, own_rows,
    scripted::{Act, How, Scripted},
    was_not_asked,
};

/// Answers until a second has passed, and is down from then on.
fn down_from_1_s() -> Scripted {
    Scripted::new("own", |asked| match asked.at {
        0..1_000 => Act::Answer(10),
        _ => Act::Fail(10, ErrorKind::Unavailable),
    })
}

/// Is down until a second has passed, and does something else from then on.
fn down_until_1_s(then: impl Fn(usize) -> Act + Send + Sync + 'static) -> Scripted {
    Scripted::new("twin", move |asked| match asked.at {
        0..1_000 => Act::Fail(10, ErrorKind::Unavailable),
        _ => then(asked.number - 1),
    })
}

/// Members of which the primary is known, and the twin was down when it was to be proved. Two seconds have passed.
async fn unproved(own: &Scripted, twin: &Scripted) -> Resilient {
    let policy = BreakerPolicy::default().with_open_for(5_000 * MS);
    let builder = Resilient::builder(own.clone()).with_fallback(twin.clone()).with_breaker(policy);
    let both = builder.build().expect("one space");
    let error = both.verify().await.expect_err("the twin is down");
    assert_eq!((error.kind(), error.total_usage()), (ErrorKind::Unavailable, own.bill() + twin.bill()));
    tokio::time::sleep(2_000 * MS).await;
    both
}

fn proofs(resilient: &Resilient) -> Vec<Proof> {
    resilient.members().iter().map(|member| member.proof).collect()
}

#[tokio::test(start_paused = true)]
async fn many_calls_that_need_a_proof_pay_for_it_once() {
    let (own, twin) = (down_from_1_s(), down_until_1_s(|_| Act::Answer(200)));
    let both = unproved(&own, &twin).await;
    let (before, began, lines) = (own.bill() + twin.bill(), Instant::now(), Lines::new());
    let seen = both.clone().observed(lines.clone());
    let names: Vec<String> = (0..100).map(|number| format!("caller {number}")).collect();
    let results = join_all(names.iter().map(|name| call(&seen, name, None))).await;
    assert_eq!(began.elapsed(), 610 * MS, "documents, queries and the call itself");
    let mut told = Usage::ZERO;
    for (name, result) in names.iter().zip(results) {
        assert_eq!(own_rows(twin.fake(), &[name], &result), [0]);
        let usage = result.expect("the twin answers").usage();
        assert_eq!(usage, own.bill_of(&**name) + twin.bill_of(&**name), "the proof is for {name}, too");
        told += usage;
    }
    assert_eq!(before + told, own.bill() + twin.bill());
    assert_eq!(twin.log().len(), 1 + 2 + 100);
    assert_eq!(proofs(&both), [Proof::Stated, Proof::Verified]);
    let told = lines.take();
    assert_eq!(told.iter().filter(|line| line.contains("twin verified: true")).count(), 1);
    let place = |what: &str| told.iter().position(|line| line.contains(what));
    assert!(place("own to twin") > place("own open") && place("verified") < place("twin answered"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn many_calls_that_need_a_proof_of_a_member_that_is_down_fail_with_one_probe() {
    let (own, twin) = (down_from_1_s(), down_until_1_s(|_| Act::Fail(3_000, ErrorKind::Auth)));
    let both = unproved(&own, &twin).await;
    let (before, began) = (own.bill() + twin.bill(), Instant::now());
    let results = join_all((0..100).map(|_| call(&both, "a", None))).await;
    assert_eq!(began.elapsed(), 3_010 * MS);
    assert_eq!(twin.log().len(), 1 + 1, "one probe for all");
    let mut told = Usage::ZERO;
    for result in results {
        let error = result.expect_err("nobody answers");
        told += error.total_usage();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.contains("could not be proved: not authorized in twin"), "the cause is told: {text}");
    }
    assert_eq!(before + told, own.bill() + twin.bill());
    assert_eq!(proofs(&both)[1], Proof::Missing);
    // A member that cannot be reached is passed by as any other. Its breaker has counted one probe so far.
    for _ in 0..10 {
        call(&both, "a", None).await.expect_err("nobody answers");
    }
    assert_ne!(both.members()[1].breaker, BreakerState::Closed);
    // Waits are for one probe at a time here, too.
    let (before, began) = (twin.log().len(), Instant::now());
    let results = join_all((0..100).map(|_| call(&both, "a", None))).await;
    assert!(results.iter().all(Result::is_err));
    assert!(twin.log().len() <= before + 1 && began.elapsed() <= 3_100 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_in_the_middle_of_a_proof_hands_it_on() {
    for (is_dropped, bound) in [(true, 500), (false, 5_700)] {
        for probed in [100, 300] {
            let (own, twin) = (down_from_1_s(), down_until_1_s(|_| Act::Answer(200)));
            let both = unproved(&own, &twin).await;
            let mut first = Box::pin(call(&both, "first", None));
            tokio::time::timeout(probed * MS, &mut first).await.expect_err("the proof takes 400 ms");
            // Two wait behind it. One of them is never polled again.
            let mut second = Box::pin(call(&both, "second", None));
            tokio::time::timeout(20 * MS, &mut second).await.expect_err("waits");
            let began = Instant::now();
            let third = call(&both, "third", None);
            let leave = async {
                tokio::time::sleep(20 * MS).await;
                if is_dropped {
                    drop(first);
                } else {
                    std::mem::forget(first);
                }
            };
            let (third, ()) = tokio::join!(third, leave);
            let usage = third.expect("is answered").usage();
            assert!(began.elapsed() < bound * MS + 200 * MS, "{is_dropped} {probed}: {:?}", began.elapsed());
            assert_eq!(usage, own.bill_of("third") + twin.bill_of("third"));
            assert_eq!(proofs(&both)[1], Proof::Verified);
            drop(second);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_proof_and_what_it_cost_is_told() {
    // The documents are answered, the queries are not.
    let twin = Scripted::without_deadlines("twin", |asked| match asked.number {
        0 => Act::Fail(10, ErrorKind::Unavailable),
        1 => Act::Answer(100),
        _ => Act::Hang,
    });
    let own = down_from_1_s();
    let both = unproved(&own, &twin).await;
    let (before, began) = (own.bill() + twin.bill(), Instant::now());
    let error = call(&both, "late", Some(500)).await.expect_err("too late");
    assert_eq!((began.elapsed(), error.kind()), (500 * MS, ErrorKind::DeadlinePassed));
    assert_eq!(before + error.total_usage(), own.bill() + twin.bill());
    assert_eq!(error.total_usage(), own.bill_of("late") + twin.bill_of("late"));
    assert_eq!(twin.log()[2].how, How::Dropped);
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_hangs_elsewhere_holds_no_call_up() {
    // The primary hangs while it is verified, and the third member hangs for long.
    let hangs = |name, at| Scripted::new(name, move |asked| if asked.at < at { Act::Answer(10) } else { Act::Hang });
    let (own, third) = (hangs("own", 1_000), hangs("third", 0));
    let twin = down_until_1_s(|_| Act::Answer(10));
    let builder = Resilient::builder(own.clone().timeout(4_000 * MS)).with_fallback(twin.clone());
    let all = builder.with_fallback(third.clone().timeout(60_000 * MS)).build().expect("one space");
    all.verify().await.expect_err("two cannot be reached");
    tokio::time::sleep(2_000 * MS).await;
    let began = Instant::now();
    let answer = async {
        call(&all, "a", None).await.expect("the twin answers");
        assert!(began.elapsed() <= 4_100 * MS, "{:?}", began.elapsed());
    };
    let (verified, ()) = tokio::join!(all.verify(), answer);
    verified.expect_err("the primary hangs");
}

#[tokio::test(start_paused = true)]
async fn a_timer_verifies_now_and_then_until_its_guard_is_dropped() {
    // At 250 s, the twin becomes another model, and at 450 s, it is itself again.
    let own = Scripted::new("own", |asked| match asked.at {
        300_001..=500_000 if asked.texts == 1 => Act::Fail(10, ErrorKind::Unavailable),
        _ => Act::Answer(10),
    });
    let twin = Scripted::new("twin", |asked| match asked.at {
        250_000..450_000 => Act::Lie(10),
        _ => Act::Answer(10),
    });
    let both = Resilient::builder(own.clone()).with_fallback(twin.clone()).build().expect("one space");
    assert_eq!(both.verify_every(std::time::Duration::ZERO).expect_err("never").kind(), ErrorKind::Config);
    let guard = both.verify_every(100_000 * MS).expect("in a runtime");
    let began = Instant::now();
    tokio::time::sleep(1_000 * MS).await;
    assert_eq!(proofs(&both), [Proof::Stated, Proof::Verified]);
    tokio::time::sleep_until(began + 301_000 * MS).await;
    assert_eq!(proofs(&both), [Proof::Stated, Proof::Refuted]);
    let before = twin.log().len();
    let error = call(&both, "a", None).await.expect_err("the primary is down");
    assert!(error.to_string().contains("twin was not asked: its vectors are those of another model"), "{error}");
    assert_eq!(twin.log().len(), before);
    tokio::time::sleep_until(began + 402_000 * MS).await;
    assert_eq!(proofs(&both)[1], Proof::Refuted);
    tokio::time::sleep_until(began + 502_000 * MS).await;
    assert_eq!(proofs(&both)[1], Proof::Verified);
    // Documents and queries of each, six times, about each 100 s; a round takes 40 ms.
    let begins: Vec<u64> = twin.begins().into_iter().step_by(2).collect();
    assert_eq!(begins, (0..6).map(|round| round * 100_040 + 20).collect::<Vec<_>>());
    let of_call = error.total_usage();
    assert_eq!(both.unclaimed().usage() + of_call, own.bill() + twin.bill());
    drop(guard);
    tokio::time::sleep(1_000_000 * MS).await;
    assert_eq!(twin.log().len(), 12);
    // A forgotten guard does not keep the members.
    std::mem::forget(both.verify_every(100_000 * MS).expect("in a runtime"));
    let kept = Arc::new(own.clone());
    tokio::time::sleep(1_000 * MS).await;
    drop(both);
    tokio::time::sleep(1_000_000 * MS).await;
    assert_eq!((twin.log().len(), Arc::strong_count(&kept)), (14, 1));
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_dropped_in_the_middle_tells_what_it_cost() {
    for at in [5, 15, 25, 35] {
        let member = |name| Scripted::new(name, |_| Act::Answer(10));
        let (own, twin) = (member("own"), member("twin"));
        let both = Resilient::builder(own.clone()).with_fallback(twin.clone()).build().expect("one space");
        let guard = both.verify_every(100_000 * MS).expect("in a runtime");
        tokio::time::sleep(at * MS).await;
        drop(guard);
        tokio::time::sleep(1_000 * MS).await;
        assert_eq!(both.unclaimed().usage(), own.bill() + twin.bill(), "after {at} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_down_is_proved_against_later() {
    let own = Scripted::new("own", |asked| match asked.at {
        0..1_000 => Act::Fail(10, ErrorKind::Unavailable),
        _ => Act::Answer(10),
    });
    let twin = Scripted::new("twin", |_| Act::Answer(10));
    let both = Resilient::builder(own.clone()).with_fallback(twin.clone()).build().expect("one space");
    both.verify().await.expect_err("the primary is down");
    assert_eq!(twin.log().len(), 0, "there is nothing to compare with");
    let error = call(&both, "a", None).await.expect_err("nobody may answer");
    assert!(was_not_asked(&error) && error.to_string().contains("`Resilient::verify`"), "{error}");
    tokio::time::sleep(1_000 * MS).await;
    both.verify().await.expect("both are up");
    assert_eq!(proofs(&both), [Proof::Stated, Proof::Verified]);
    let texts = ["a", "b"];
    both.embed(Batch::documents(&texts)).await.expect("is answered");
}
