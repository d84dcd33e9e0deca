//! A run that is killed half-way and started again pays only for the texts that were in flight. The provider is in the
//! process that kills, so that the counts survive.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use docvector_embed::{EmbedderExt, Limits, Result, Space, cache::Sqlite, provider::OpenAi, wrap::Cached};

use crate::support::{
    processes::{Running, alone, inner},
    server::{DIMENSIONS, Server, Step},
    stand_in,
};

const TEXTS: usize = 2_000;

/// Texts per call.
const A_CALL: usize = 50;

/// Calls in flight.
const AT_ONCE: usize = 2;

const KILLS: usize = 8;

/// The last line of the run.
const DONE: &str = "done";

/// The message of the server when the run must be killed.
const NOW: &str = "now";

fn texts() -> Vec<String> {
    (0..TEXTS).map(|number| format!("passage {number} of a long run")).collect()
}

fn embedder(base_url: &str, path: &str) -> Result<Cached<OpenAi>> {
    let space = Space::builder("stand-in", DIMENSIONS).build()?;
    let limits = Limits::none().with_texts(A_CALL).with_in_flight(AT_ONCE);
    let openai = OpenAi::builder("stand-in").with_base_url(base_url).with_space(space).with_limits(limits);
    Cached::new(openai.build()?, Sqlite::open(path)?)
}

/// What the server does.
#[derive(Default)]
struct Orders {
    /// The number of the request at which the run is killed.
    requests: usize,
    /// Whether that request, and those after it, get no answer, so that they are certainly in flight.
    holds: bool,
    /// The texts of those requests.
    held: HashSet<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_in_flight_is_paid_again() {
    const NAME: &str = "only_what_was_in_flight_is_paid_again";
    if let Some(words) = inner() {
        let cached = embedder(&words[0], &words[1]).expect("it opens");
        println!();
        cached.embed_documents(&texts()).await.expect("it embeds");
        println!("{DONE}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store").display().to_string();
    let orders = Arc::new(Mutex::new(Orders::default()));
    let (lines, told) = mpsc::channel();
    let (for_server, teller) = (orders.clone(), lines.clone());
    let server = Server::handling(move |_, request| {
        let mut orders = for_server.lock().expect("nobody panicked");
        let reached = orders.requests <= 1;
        if orders.requests == 1 {
            teller.send((usize::MAX, NOW.to_owned())).expect("the test listens");
        }
        orders.requests = orders.requests.saturating_sub(1);
        if reached && orders.holds {
            orders.held.extend(request.texts());
            return Step::SlowHeaders(Duration::from_secs(3_600));
        }
        // Long enough for a kill to find calls at all their stages.
        Step::SlowHeaders(Duration::from_millis(fastrand::u64(0..4)))
    })
    .await;
    let base_url = server.base_url();
    let start = |run: usize| Running::start(alone(module_path!(), NAME), &[&base_url, &path], run, lines.clone());
    // Whether the run came to its end.
    let is_done = |run: usize| {
        loop {
            let (of, line) = told.recv_timeout(Duration::from_secs(120)).expect("it embeds, or it ends");
            if line == NOW || (of == run && line == DONE) {
                return line == DONE;
            }
        }
    };

    let mut kills = 0;
    for run in 0..KILLS {
        let holds = run % 2 == 0;
        {
            let mut orders = orders.lock().expect("nobody panicked");
            (orders.requests, orders.holds) = (fastrand::usize(1..7), holds);
        }
        let mut running = start(run);
        if is_done(run) {
            break;
        }
        if !holds {
            thread::sleep(Duration::from_micros(fastrand::u64(0..10_000)));
        }
        running.kill();
        kills += 1;
    }
    {
        let mut orders = orders.lock().expect("nobody panicked");
        (orders.requests, orders.holds) = (0, false);
    }
    let mut last = start(KILLS);
    while !is_done(KILLS) {}
    assert!(last.ended(), "nobody killed the last run");

    let all = texts();
    let mut paid: HashMap<String, usize> = HashMap::new();
    server.requests().iter().flat_map(stand_in::Request::texts).for_each(|text| *paid.entry(text).or_default() += 1);
    let unpaid = all.iter().filter(|text| !paid.contains_key(*text)).count();
    assert_eq!((unpaid, paid.len()), (0, TEXTS), "each text is paid for, and nothing else");
    let again: usize = paid.values().map(|times| times - 1).sum();
    let most = kills * AT_ONCE * A_CALL;
    assert!(again <= most, "{kills} kills cost {again} texts, at most {most} were in flight");
    // The texts that were certainly in flight were paid again: these kills came half-way.
    let held = std::mem::take(&mut orders.lock().expect("nobody panicked").held);
    assert!(!held.is_empty() && held.iter().all(|text| paid[text] > 1), "of {} held texts, some came back", held.len());

    let requests = server.requests().len();
    let cached = embedder(&base_url, &path).expect("it opens");
    let rows = cached.embed_documents(&all).await.expect("it embeds");
    for (number, (row, text)) in rows.rows().zip(&all).enumerate() {
        assert_eq!(row, stand_in::vector(text, DIMENSIONS), "the row of text {number}");
    }
    assert_eq!((rows.usage().cached, cached.counts().damaged), (TEXTS as u64, 0));
    assert_eq!(server.requests().len(), requests, "there was nothing left to pay for");
}
