//! Two real servers are killed, started again and cut at random under thousands of calls: each call gets its own rows or
//! a stated error, and what callers and sinks were told is what the servers billed, but for requests without an answer.
//!
//! One seed decides the calls and what the servers do with each; when the kills meet them is up to the threads.
//!
//! | variable | meaning |
//! |---|---|
//! | `DOCVECTOR_EMBED_SERVERS_SEED=n` | plays this seed, not a random one |
//! | `DOCVECTOR_EMBED_SERVERS_CALLS=n` | makes so many calls per test |
//!
//! There are 10,000 calls, and 5,000 of those that are hedged: 10,000 with `DOCVECTOR_EMBED_FULL=1`.

mod books;
mod calls;
mod members;
mod saboteur;

use std::{
    collections::BTreeMap,
    env,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use docvector_embed::{
    BreakerState, Charges, Embedder, EmbedderExt, ErrorKind,
    observer::{Event, EventKind},
    wrap::{BreakerPolicy, Hedging, Proof, Resilient, ResilientBuilder, RetryPolicy},
};

use self::{
    books::{Ledger, reconcile},
    calls::{make_calls, until_well},
    members::{MODEL, Member, NAMES, member},
    saboteur::{Outage, Sabotaged, Saboteur},
};
use crate::support::{
    processes::{alone, inner},
    server_process::{self, Billed, Mood, ServerProcess},
};

/// The time limit of a request that may be met by a fault.
const SHORT: Duration = Duration::from_millis(100);

/// The time limit of a request to an honest server.
const LONG: Duration = Duration::from_secs(60);

fn number_from(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable}={value}: {error}")))
}

/// Starts a test again as two servers, without faults, of these models.
fn servers(test: &str, folder: &Path, models: [&str; 2]) -> [ServerProcess; 2] {
    let of = |server: usize| {
        let arguments = alone(module_path!(), test);
        let mut server = ServerProcess::new(arguments, folder, NAMES[server], models[server]);
        server.start(Mood::Honest, 0);
        server
    };
    let servers = [of(0), of(1)];
    servers.iter().for_each(ServerProcess::until_ready);
    servers
}

/// Breakers that open and close many times in a run.
fn breaker() -> BreakerPolicy {
    let policy = BreakerPolicy::default().with_window(Duration::from_secs(1));
    policy.with_open_for(Duration::from_millis(10)).with_max_open(Duration::from_millis(40))
}

fn pair(primary: impl Embedder, twin: impl Embedder) -> ResilientBuilder {
    Resilient::builder(primary).with_label(NAMES[0]).with_fallback(twin).with_label(NAMES[1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_outlive_servers_that_are_killed() {
    run("calls_outlive_servers_that_are_killed", 10_000, |[primary, twin]| {
        let backoff = Duration::from_millis(2);
        let policy = RetryPolicy::default().with_attempts(2).with_backoff(backoff, backoff).without_budget();
        pair(primary.retry(policy), twin)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_made_twice_are_paid_twice() {
    let calls = if env::var_os("DOCVECTOR_EMBED_FULL").is_some() { 10_000 } else { 5_000 };
    run("calls_that_are_made_twice_are_paid_twice", calls, |[primary, twin]| {
        // More than anybody would want.
        let hedging = Hedging::default().with_quantile(0.5).with_share(1.0).with_burst(64);
        let hedging = hedging.with_min_delay(Duration::from_millis(1));
        pair(primary, twin).with_hedging(hedging)
    })
    .await;
}

/// Makes so many calls to two members while their servers are killed, and checks what comes of it.
async fn run(test: &str, calls: u64, stack: impl FnOnce([Member; 2]) -> ResilientBuilder + Send) {
    if let Some(words) = inner() {
        return server_process::serve(&words).await;
    }
    let seed = number_from("DOCVECTOR_EMBED_SERVERS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let calls = number_from("DOCVECTOR_EMBED_SERVERS_CALLS").unwrap_or(calls);
    say(&format!("{test}: {calls} calls of seed {seed}"));
    let folder = tempfile::tempdir().expect("a folder");
    let servers = servers(test, folder.path(), [MODEL; 2]);
    let (ledger, events) = (Ledger::default(), Events::default());
    let members = [0, 1].map(|server| member(server, &servers[server].base_url(), SHORT, ledger.sink(server)));
    let resilient = stack(members).with_breaker(breaker()).build().expect("one space");
    is_billed(&verify(&resilient).await, &servers);

    let (began, outage) = (Instant::now(), Arc::new(Outage::default()));
    let heard = events.clone();
    let embedder = Arc::new(resilient.observed(move |event: &Event<'_>| heard.count(event)));
    let saboteur = Saboteur::begin(servers, seed, outage.clone());
    let mut ended = make_calls(embedder.clone(), seed, calls, &outage).await;
    let Sabotaged { mut servers, kills, .. } = saboteur.end();
    servers.iter_mut().for_each(|server| server.start(Mood::Honest, 0));
    servers.iter().for_each(ServerProcess::until_ready);
    ended.extend(until_well(&embedder, seed, calls.., &outage).await);
    servers.iter_mut().for_each(ServerProcess::kill);
    let bills = servers.each_ref().map(ServerProcess::bill);

    let figures = reconcile(&ended, &ledger, &bills);
    let time = began.elapsed();
    say(&format!("{test}: {calls} calls of seed {seed} in {time:.1?}, {kills} kills\n{figures}\n{}", events.show()));
}

/// Proves that the twin is one. Returns the cost. A slow machine may need several attempts.
async fn verify(resilient: &Resilient) -> Charges {
    let mut told = Charges::NONE;
    loop {
        match resilient.verify().await {
            Ok(cost) => {
                told += cost;
                break;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                told += error.total_charges();
            }
        }
    }
    assert!(resilient.members().iter().skip(1).all(|member| member.proof == Proof::Verified));
    told
}

/// Compares the cost of a proof with the bill.
fn is_billed(told: &Charges, servers: &[ServerProcess; 2]) {
    let billed: u64 = servers.iter().flat_map(ServerProcess::bill).map(|billed| billed.tokens).sum();
    let told = told.usage();
    assert!(told.tokens <= billed && (told.unanswered > 0 || told.tokens == billed), "{told:?} of {billed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_that_is_another_model_is_refused() {
    const NAME: &str = "a_twin_that_is_another_model_is_refused";
    if let Some(words) = inner() {
        return server_process::serve(&words).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut servers = servers(NAME, folder.path(), [MODEL, "impostor"]);
    let members = [0, 1].map(|server| member(server, &servers[server].base_url(), LONG, ()));
    let [primary, twin] = members.clone();
    let error = pair(primary, twin).build_verified().await.expect_err("another model");
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    assert!(error.message().starts_with("second states"), "{error}");
    let bill = |servers: &[ServerProcess; 2]| servers.each_ref().map(ServerProcess::bill);
    let tokens = |bill: &[Billed]| bill.iter().map(|billed| billed.tokens).sum::<u64>();
    let paid = bill(&servers).map(|bill| tokens(&bill));
    assert_eq!(error.total_usage().tokens, paid.iter().sum::<u64>(), "the probes are paid for");
    let charges = error.total_charges();
    for (name, paid) in NAMES.into_iter().zip(paid) {
        let charge = charges.iter().find(|charge| charge.payee.provider() == name);
        assert_eq!(charge.map(|charge| charge.usage.tokens), Some(paid), "{name}");
    }

    // Nor is it asked later, not even if nobody else is there.
    let [primary, twin] = members;
    let resilient = pair(primary, twin).build().expect("they state one space");
    resilient.verify().await.expect_err("another model");
    let before = bill(&servers)[1].len();
    resilient.embed_query("a text").await.expect("the primary answers");
    servers[0].kill();
    let error = resilient.embed_query("a text").await.expect_err("no primary, and no twin");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("second was not asked: its vectors are those of another model"), "{error}");
    assert_eq!(bill(&servers)[1].len(), before, "the other model is not asked");
}

/// How often things happened to calls on their way.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Events {
    fn count(&self, event: &Event<'_>) {
        let name = match event.kind {
            EventKind::FellBack { .. } => "calls on to the next member",
            EventKind::Skipped { .. } => "members passed by",
            EventKind::Hedged { .. } => "calls made twice at once",
            EventKind::Breaker { state: BreakerState::Open, .. } => "breakers opened",
            EventKind::Breaker { state: BreakerState::Closed, .. } => "breakers closed",
            _ => return,
        };
        *self.0.lock().expect("nobody panicked").entry(name).or_default() += 1;
    }

    fn show(&self) -> String {
        let events = self.0.lock().expect("nobody panicked");
        events.iter().map(|(name, times)| format!("  {times} {name}")).collect::<Vec<_>>().join("\n")
    }
}

/// Tells the reader of the log. Not by `print`, which tests hold back: the figures are part of the result.
fn say(words: &str) {
    let _ = writeln!(std::io::stdout(), "{words}");
}
