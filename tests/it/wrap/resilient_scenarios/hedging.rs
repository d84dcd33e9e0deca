//! Calls that are made twice: how many, who wins, who pays, and what the breakers hear of.

use docvector_embed::{
    Batch, BreakerState, Embedder, EmbedderExt, Embeddings, ErrorKind, InputKind, Lane, Result, Usage,
    wrap::{BreakerPolicy, Hedging, Resilient},
};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    Lines, MS, own_rows,
    scripted::{Act, How, Scripted},
    trusted,
};

/// An interactive call of some documents.
async fn ask(embedder: &impl Embedder, texts: &[&str]) -> Result<Embeddings> {
    embedder.embed(Batch::documents(texts).with_lane(Lane::Interactive)).await
}

/// Hedges after 20 calls, as often as it may.
fn hedged(own: &Scripted, twin: &Scripted, share: f64) -> Resilient {
    let hedging = Hedging::default().with_share(share);
    trusted(own.clone(), twin.clone()).with_hedging(hedging).build().expect("one space")
}

/// Answers 20 calls within 100 ms, and then does something else.
fn then(name: &'static str, act: Act) -> Scripted {
    Scripted::new(name, move |asked| if asked.number < 20 { Act::Answer(100) } else { act })
}

async fn warm_up(both: &impl Embedder) {
    for _ in 0..20 {
        ask(both, &["a"]).await.expect("is answered");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_success_wins_and_both_calls_are_booked() {
    // What the first does, what the second does, who answers after what time, and what is unanswered.
    let cases = [
        (Act::Answer(1_000), Act::Answer(50), Some("twin"), 150, 1),
        (Act::Answer(120), Act::Answer(50), Some("own"), 120, 1),
        (Act::Hang, Act::Answer(50), Some("twin"), 150, 1),
        (Act::Fail(130, ErrorKind::Unavailable), Act::Answer(50), Some("twin"), 150, 1),
        (Act::Answer(500), Act::Fail(50, ErrorKind::Unavailable), Some("own"), 500, 1),
        (Act::Rows(130, ErrorKind::Unavailable), Act::Answer(50), Some("twin"), 150, 1),
        (Act::Answer(500), Act::Rows(50, ErrorKind::Timeout), Some("own"), 500, 1),
        (Act::Panic(130), Act::Answer(50), Some("twin"), 150, 1),
        (Act::Fail(130, ErrorKind::Unavailable), Act::Fail(50, ErrorKind::RateLimited), None, 150, 2),
        (Act::Rows(200, ErrorKind::Unavailable), Act::Rows(50, ErrorKind::Unavailable), None, 200, 2),
        // The caller's own mistake ends both.
        (Act::Fail(120, ErrorKind::InvalidInput), Act::Answer(50), None, 120, 2),
    ];
    for (first, second, winner, time, unanswered) in cases {
        let (own, twin) = (then("own", first), Scripted::new("twin", move |_| second));
        let lines = Lines::new();
        let both = hedged(&own, &twin, 1.0);
        warm_up(&both).await;
        let (before, began) = (own.bill() + twin.bill(), Instant::now());
        let texts = ["one", "two", "three"];
        let result = ask(&both.clone().observed(lines.clone()), &texts).await;
        assert_eq!(began.elapsed(), time * MS, "{first:?} {second:?}");
        own_rows(own.fake(), &texts, &result);
        let usage = match &result {
            Ok(rows) => rows.usage(),
            Err(error) => error.total_usage(),
        };
        assert_eq!(before + usage, own.bill() + twin.bill(), "{first:?} {second:?}");
        assert_eq!(usage.unanswered, unanswered, "{first:?} {second:?}");
        let told = lines.take();
        assert_eq!(told[0], "2100: own hedged by twin after 100ms");
        let answered = told.iter().find(|line| line.contains("answered"));
        assert_eq!(answered.map(|line| line.contains(winner.unwrap_or("nobody"))), winner.map(|_| true), "{told:?}");
        assert_eq!(result.is_ok(), winner.is_some());
        assert!(own.log().iter().chain(&twin.log()).all(|call| call.how != How::Running), "nothing is under way");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_both_have_finished_are_told_once_and_a_third_member_is_asked_for_the_rest() {
    let rows = |time| Act::Rows(time, ErrorKind::Unavailable);
    for third_answers in [true, false] {
        let (own, twin) = (then("own", rows(200)), Scripted::new("twin", move |_| rows(50)));
        let third =
            Scripted::new(
                "third",
                move |_| {
                    if third_answers { Act::Answer(10) } else { Act::Fail(10, ErrorKind::Unavailable) }
                },
            );
        let hedging = Hedging::default().with_share(1.0);
        let builder = trusted(own.clone(), twin.clone()).with_fallback(third.clone()).with_hedging(hedging);
        let all = builder.build().expect("one space");
        warm_up(&all).await;
        let before = own.bill();
        let texts = ["zero", "one", "two", "three"];
        let result = ask(&all, &texts).await;
        assert_eq!(third.log()[0].texts, ["one", "three"]);
        let places = own_rows(own.fake(), &texts, &result);
        let usage = match &result {
            Ok(rows) => rows.usage(),
            Err(error) => {
                assert_eq!(error.partials().count(), 1, "one space, one matrix");
                error.total_usage()
            }
        };
        assert_eq!(places, if third_answers { vec![0, 1, 2, 3] } else { vec![0, 2] });
        assert_eq!(before + usage, own.bill() + twin.bill() + third.bill());
    }
}

#[tokio::test(start_paused = true)]
async fn extra_calls_keep_to_their_share() {
    for (share, most) in [(0.05, 1), (0.25, 4)] {
        let own = Scripted::new("own", |asked| Act::Answer(if asked.number < 20 { 100 } else { 1_000 }));
        let twin = Scripted::new("twin", |_| Act::Answer(10));
        let both = hedged(&own, &twin, share);
        warm_up(&both).await;
        for calls in 21..=200_u64 {
            ask(&both, &["a"]).await.expect("is answered");
            let extra = twin.log().len() as u64;
            let share = (share * 100.0) as u64;
            assert!(extra * 100 <= share * calls, "{extra} of {calls}");
        }
        assert!(twin.log().len() >= most);
        // Many slow calls at once take no more than what is saved up.
        let before = twin.log().len();
        join_all((0..100).map(|_| ask(&both, &["a"]))).await;
        assert!(twin.log().len() <= before + 5 + (100.0 * share) as usize);
    }
    // Bulk work and queries in the bulk lane are not made twice, however slow they are.
    let (own, twin) = (then("own", Act::Answer(60_000)), Scripted::new("twin", |_| Act::Answer(10)));
    let both = hedged(&own, &twin, 1.0);
    warm_up(&both).await;
    both.embed(Batch::documents(&["a"])).await.expect("is answered");
    both.embed(Batch::queries(&["a"]).with_lane(Lane::Bulk)).await.expect("is answered");
    assert_eq!(twin.log().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_of_a_member_that_hangs_opens_though_other_members_always_win() {
    // The second member may be much faster than the first one's usual time, as fast, or slower.
    for latency in [1, 40, 100, 500] {
        let own = then("own", Act::Hang);
        let twin = Scripted::new("twin", move |_| Act::Answer(latency));
        let both = hedged(&own, &twin, 1.0);
        warm_up(&both).await;
        for round in 0..15 {
            let result = ask(&both, &["a"]).await;
            assert_eq!(own_rows(twin.fake(), &["a"], &result), [0], "round {round}");
        }
        assert_eq!(both.members()[0].breaker, BreakerState::Open, "a twin of {latency} ms");
        assert!(own.log().len() <= 20 + 11, "a twin of {latency} ms: {}", own.log().len());
    }
    // A member that is merely slow answers the calls that are not made twice, and stays.
    let own = Scripted::new("own", |asked| Act::Answer(if asked.number % 10 == 9 { 250 } else { 100 }));
    let twin = Scripted::new("twin", |_| Act::Answer(1));
    let both = hedged(&own, &twin, 1.0);
    for _ in 0..500 {
        ask(&both, &["a"]).await.expect("is answered");
    }
    assert_eq!(both.members()[0].breaker, BreakerState::Closed);
    // A pause of all calls at once is not five failures.
    let own = then("own", Act::Answer(190));
    let both = hedged(&own, &twin, 1.0);
    warm_up(&both).await;
    join_all((0..50).map(|_| ask(&both, &["a"]))).await;
    assert_eq!(both.members()[0].breaker, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_second_call_is_no_probe() {
    let own = then("own", Act::Answer(1_000));
    let twin = Scripted::new("twin", |_| Act::Fail(10, ErrorKind::Unavailable));
    let lines = Lines::new();
    let policy = BreakerPolicy::default().with_consecutive_failures(1);
    let hedging = Hedging::default().with_share(1.0);
    let both = trusted(own.clone(), twin.clone()).with_hedging(hedging).with_breaker(policy);
    let both = both.build().expect("one space").observed(lines.clone());
    warm_up(&both).await;
    ask(&both, &["a"]).await.expect("is answered");
    assert_eq!(twin.log().len(), 1);
    tokio::time::sleep(60_000 * MS).await;
    lines.take();
    // The open time is over. A call that may be dropped at any moment shows nothing.
    ask(&both, &["a"]).await.expect("is answered");
    assert_eq!((twin.log().len(), lines.take().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_in_the_middle_of_a_race_ends_both_calls() {
    let (own, twin) = (then("own", Act::Hang), Scripted::new("twin", |_| Act::Hang));
    let both = hedged(&own, &twin, 1.0);
    warm_up(&both).await;
    tokio::time::timeout(150 * MS, ask(&both, &["a"])).await.expect_err("both hang");
    assert_eq!((own.log()[20].how, twin.log()[0].how), (How::Dropped, How::Dropped));
    assert_eq!(both.members()[0].breaker, BreakerState::Closed);
    assert_eq!(twin.bill(), Usage::of_given_up());
    assert_ne!(own.fake().vector_of(InputKind::Query, "a"), own.fake().vector_of(InputKind::Document, "a"));
}
