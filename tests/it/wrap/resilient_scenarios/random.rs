//! Thousands of calls to members that come and go at random: none is lost that a member could answer.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use docvector_embed::{
    Batch, BreakerState, Embedder, EmbedderExt, Embeddings, ErrorKind, Lane, Result,
    wrap::{BreakerPolicy, Hedging, Resilient},
};
use fastrand::Rng;
use tokio::time::Instant;

use super::{
    MS, own_rows,
    scripted::{Act, How, Scripted},
    was_not_asked,
};

/// Each member has a time limit, and after this time all are up.
const LIMIT: u64 = 1_500;
const ALL_UP: u64 = 60_000;
const CALLERS: usize = 80;

/// A call that waits for others waits for one after the other, so it may take long. It must not take longer.
const BOUND: u64 = 120_000;

/// How a caller leaves before there is an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    No,
    After(u64),
    AfterPolls(usize),
    /// Its future stays where it is, and is never polled again.
    Left(usize),
}

#[derive(Clone, Debug)]
struct Caller {
    name: String,
    texts: Vec<String>,
    at: u64,
    deadline: Option<u64>,
    lane: Lane,
    leaves: Leaves,
}

fn caller(random: &mut Rng, number: usize) -> Caller {
    let name = format!("caller {number}");
    Caller {
        texts: (0..random.usize(1..5)).map(|text| format!("text {text} of {name}")).collect(),
        // Many come together.
        at: random.u64(10..120) * 500,
        deadline: (random.u8(..3) == 0).then(|| random.u64(100..6_000)),
        lane: if random.bool() { Lane::Interactive } else { Lane::Bulk },
        leaves: match random.u8(..10) {
            0 => Leaves::After(random.u64(1..3_000)),
            1 => Leaves::AfterPolls(random.usize(1..6)),
            2 if random.u8(..4) == 0 => Leaves::Left(random.usize(1..4)),
            _ => Leaves::No,
        },
        name,
    }
}

/// A member whose moods last from half a second to ten seconds each.
fn member(random: &mut Rng, name: &'static str, begins_well: bool) -> Scripted {
    use ErrorKind::{Auth, Protocol, RateLimited, Unavailable};
    let mut moods = Vec::new();
    let mut until = 0;
    while until < ALL_UP {
        until += random.u64(500..10_000);
        let time = [1, 20, 100, 400, 1_000][random.usize(..5)];
        moods.push((
            until,
            match random.u8(..12) {
                _ if begins_well && moods.is_empty() => Act::Answer(20),
                0..5 => Act::Answer(time),
                5..7 => Act::Fail(time, [Unavailable, Protocol, Auth][random.usize(..3)]),
                7 => Act::Fail(time, RateLimited),
                8 => Act::Rows(time, Unavailable),
                9 => Act::Panic(time),
                _ => Act::Hang,
            },
        ));
    }
    Scripted::new(name, move |asked| {
        let mood = moods.iter().find(|(until, _)| asked.at < *until && asked.at < ALL_UP);
        mood.map_or(Act::Answer(20), |(_, act)| *act)
    })
}

/// How a call ended, and when it began and ended.
struct Ended {
    caller: Caller,
    begin: u64,
    end: u64,
    /// `None` if the caller left.
    result: Option<Result<Embeddings>>,
}

type Futures = Arc<Mutex<Vec<Pin<Box<dyn Future<Output = ()> + Send>>>>>;

async fn play(embedder: impl Embedder, clock: Scripted, caller: Caller, left: Futures) -> Ended {
    let start = Instant::now();
    tokio::time::sleep_until(start + Duration::from_millis(caller.at.saturating_sub(clock.now()))).await;
    let begin = clock.now();
    let answer = Arc::new(Mutex::new(None));
    let (asks, told) = (caller.clone(), answer.clone());
    let mut future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        let texts: Vec<&str> = asks.texts.iter().map(String::as_str).collect();
        let batch = Batch::documents(&texts).with_tenant(&asks.name).with_lane(asks.lane);
        let end = |time| (Instant::now() + Duration::from_millis(time)).into_std();
        let batch = asks.deadline.map_or(batch, |time| batch.with_deadline(end(time)));
        let result = embedder.embed(batch).await;
        *told.lock().expect("no panic") = Some(result);
    });
    match caller.leaves {
        Leaves::No => future.await,
        Leaves::After(time) => drop(tokio::time::timeout(Duration::from_millis(time), future).await),
        Leaves::AfterPolls(polls) | Leaves::Left(polls) => {
            let mut polls = polls;
            poll_fn(|context| {
                polls -= 1;
                match future.as_mut().poll(context) {
                    Poll::Pending if polls == 0 => Poll::Ready(()),
                    other => other,
                }
            })
            .await;
            let has_ended = answer.lock().expect("no panic").is_some();
            if !has_ended && matches!(caller.leaves, Leaves::Left(_)) {
                left.lock().expect("no panic").push(future);
            }
        }
    }
    let result = answer.lock().expect("no panic").take();
    Ended { caller, begin, end: clock.now(), result }
}

/// What was seen in all rounds, so that none of it is missed.
#[derive(Debug, Default)]
struct Seen(BTreeMap<String, usize>);

impl Seen {
    fn add(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }
}

fn check(seed: u64, ended: Ended, members: &[Scripted], seen: &mut Seen) {
    let Ended { caller, begin, end, result } = ended;
    let Some(result) = result else {
        return seen.add(if matches!(caller.leaves, Leaves::Left(_)) { "left" } else { "dropped" });
    };
    let what = format!("seed {seed}: {caller:?} from {begin} to {end}: {result:?}");
    assert!(end - begin <= BOUND, "it took long: {what}");
    assert!(caller.deadline.is_none_or(|time| end <= begin + time), "it ended after its deadline: {what}");
    let places = own_rows(members[0].fake(), &caller.texts, &result);
    let bill = members.iter().map(|member| member.bill_of(&*caller.name)).sum();
    let error = match result {
        Ok(rows) => {
            assert_eq!((rows.len(), rows.usage()), (caller.texts.len(), bill), "{what}");
            return seen.add("answered");
        }
        Err(error) => error,
    };
    assert_eq!(error.total_usage(), bill, "{what}");
    assert!(error.partials().count() <= 1, "{what}");
    if places.len() == caller.texts.len() {
        seen.add("all rows, and an error");
    }
    if error.kind() == ErrorKind::DeadlinePassed {
        assert_eq!(Some(end - begin), caller.deadline, "the deadline has not passed: {what}");
        return seen.add("late");
    }
    // Each member failed this call, or a probe for which it waited.
    for member in members {
        assert!(member.failed_between(begin, end, LIMIT), "{member:?} could have answered: {what}");
    }
    seen.add(if was_not_asked(&error) { "failed with a probe of others" } else { "failed" });
}

async fn round(seed: u64, seen: &mut Seen) {
    let mut random = Rng::with_seed(seed);
    let count = random.usize(2..4);
    let members: Vec<Scripted> =
        (0..count).map(|place| member(&mut random, ["own", "twin", "third"][place], place == 0)).collect();
    let limited = |member: &Scripted| member.clone().timeout(LIMIT as u32 * MS);
    let policy = BreakerPolicy::default().with_consecutive_failures(3).with_min_calls(10);
    let policy = policy.with_open_for(2_000 * MS).with_max_open(8_000 * MS);
    let mut builder = Resilient::builder(limited(&members[0])).with_breaker(policy);
    for member in &members[1..] {
        builder = builder.with_fallback(limited(member));
    }
    if random.bool() {
        builder = builder.with_hedging(Hedging::default().with_share([0.05, 1.0][random.usize(..2)]));
    }
    let is_trusted = random.bool();
    let resilient = if is_trusted { builder.with_trusted_spaces().build() } else { builder.build() };
    let resilient = resilient.expect("one space");
    if !is_trusted {
        // The primary answers. Others are proved when they are needed.
        let cost = match resilient.verify().await {
            Ok(cost) => cost,
            Err(error) => error.total_charges(),
        };
        assert_eq!(cost.usage(), members.iter().map(|member| member.bill_of(None)).sum());
    }
    let left = Futures::default();
    let callers = (0..CALLERS).map(|number| caller(&mut random, number));
    let callers: Vec<_> =
        callers.map(|caller| tokio::spawn(play(resilient.clone(), members[0].clone(), caller, left.clone()))).collect();
    for caller in callers {
        check(seed, caller.await.expect("no panic"), &members, seen);
    }
    if random.bool() {
        left.lock().expect("no panic").clear();
    }
    // Whatever was dropped or left, the primary gets its calls again.
    let end = Duration::from_millis(ALL_UP.saturating_sub(members[0].now()));
    tokio::time::sleep(end + 10_000 * MS).await;
    for _ in 0..5 {
        let before = members[0].log().len();
        resilient.embed_documents(&["after"]).await.expect("all are up");
        assert_eq!(members[0].log().len(), before + 1, "seed {seed}: {:?}", resilient.members());
    }
    assert_eq!(resilient.members()[0].breaker, BreakerState::Closed, "seed {seed}");
    left.lock().expect("no panic").clear();
    let running = members.iter().flat_map(Scripted::log).filter(|call| call.how == How::Running);
    assert_eq!(running.count(), 0, "seed {seed}");
}

#[test]
fn no_call_is_lost_that_a_member_could_answer() {
    let mut seen = Seen::default();
    for seed in 0..150 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(round(seed, &mut seen));
    }
    println!("{seen:?}");
    for what in ["answered", "dropped", "left", "late", "failed", "failed with a probe of others"] {
        assert!(seen.0.get(what).is_some_and(|count| *count >= 20), "{what} is rare: {seen:?}");
    }
}
