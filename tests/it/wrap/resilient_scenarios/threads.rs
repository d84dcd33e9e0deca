//! Four threads in real time: callers leave at random, and what the others are told is what the members billed.

use std::{sync::Arc, time::Duration};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, ErrorKind, Lane, Usage,
    wrap::{BreakerPolicy, Hedging, Resilient},
};
use fastrand::Rng;

use super::{
    MS, own_rows,
    scripted::{Act, How, Scripted},
};

const TASKS: usize = 64;
const CALLS: usize = 40;

/// Has good and bad times, a few dozen calls each.
fn moody(name: &'static str, seed: u64) -> Scripted {
    Scripted::new(name, move |asked| {
        let mut random = Rng::with_seed(seed ^ (asked.number as u64 / 40));
        let is_bad = random.bool();
        let mut random = Rng::with_seed(seed ^ (asked.number as u64) << 32);
        match random.u8(..8) {
            0..6 if !is_bad => Act::Answer(random.u64(..3)),
            0 => Act::Hang,
            1 => Act::Rows(1, ErrorKind::Unavailable),
            2 => Act::Fail(random.u64(..2), ErrorKind::RateLimited),
            3 => Act::Panic(1),
            _ => Act::Fail(random.u64(..2), ErrorKind::Unavailable),
        }
    })
}

/// Makes calls, of which it leaves some. Returns how many it saw the end of.
async fn caller(resilient: Resilient, members: Arc<[Scripted; 3]>, task: usize) -> usize {
    let mut random = Rng::with_seed(task as u64);
    let mut ended = 0;
    for call in 0..CALLS {
        let name = format!("task {task} call {call}");
        let texts = [format!("first of {name}"), format!("second of {name}")];
        let texts = texts.each_ref().map(String::as_str);
        let lane = if random.bool() { Lane::Interactive } else { Lane::Bulk };
        let batch = Batch::documents(&texts).with_tenant(&name).with_lane(lane);
        let patience = if random.u8(..4) == 0 { MS * random.u32(..5) } else { Duration::from_secs(300) };
        let Ok(result) = tokio::time::timeout(patience, resilient.embed(batch)).await else { continue };
        own_rows(members[0].fake(), &texts, &result);
        let told = match &result {
            Ok(rows) => rows.usage(),
            Err(error) => error.total_usage(),
        };
        let bill: Usage = members.iter().map(|member| member.bill_of(&*name)).sum();
        assert_eq!(told, bill, "{name}: {result:?}");
        ended += 1;
    }
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn usage_is_conserved_on_four_threads() {
    let members = Arc::new([moody("own", 1), moody("twin", 2), moody("third", 3)]);
    let limited = |place: usize| members[place].clone().timeout(10 * MS);
    let policy = BreakerPolicy::default().with_open_for(3 * MS).with_max_open(12 * MS).with_consecutive_failures(3);
    let hedging = Hedging::default().with_share(0.5).with_min_delay(MS);
    let builder = Resilient::builder(limited(0)).with_fallback(limited(1)).with_fallback(limited(2));
    let resilient = builder.with_breaker(policy).with_hedging(hedging).build().expect("one space");
    let guard = resilient.verify_every(MS).expect("in a runtime");
    let callers: Vec<_> =
        (0..TASKS).map(|task| tokio::spawn(caller(resilient.clone(), members.clone(), task))).collect();
    let mut ended = 0;
    for caller in callers {
        ended += caller.await.expect("each row and each bill is right");
    }
    drop(guard);
    assert!(ended > TASKS * CALLS / 2, "{ended} are few");
    // The task of the timer ends a little later, and then nothing is under way any more.
    while members.iter().flat_map(Scripted::log).any(|call| call.how == How::Running) {
        tokio::task::yield_now().await;
    }
    while resilient.unclaimed().usage() != members.iter().map(|member| member.bill_of(None)).sum() {
        tokio::task::yield_now().await;
    }
}
