//! Measures what the wrappers of several providers add to a call, and how fast `Coalesce` serves many small calls.
//!
//! `cargo bench --bench routing [-- overhead | coalesce]`
//!
//! The compared sides take turns call by call, so that a drifting clock touches all alike. A figure is the median of the
//! rounds; that of a wrapper is the median of its differences to the embedder alone beside it.

use std::{
    env,
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Limits, Result, Space, Usage, async_trait,
    observer::Event,
    provider::Fake,
    wrap::{AbSplit, Hedging, Resilient},
};
use futures_util::future::try_join_all;

const TEXTS: usize = 256;
const ROUNDS: usize = 31;
const CALLS_PER_ROUND: usize = 400;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
    let asked: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    if wanted("overhead") {
        overhead(Fake::builder().with_dimensions(1).without_log().build()?, "`Fake` of 1 component").await?;
        overhead(Fixed::new()?, "an embedder that returns the same rows again").await?;
    }
    if wanted("coalesce") {
        coalesce().await?;
    }
    Ok(())
}

/// Returns the same rows again, so that nearly all of the time is the wrapper's.
#[derive(Clone, Debug)]
struct Fixed(Arc<Embeddings>);

impl Fixed {
    fn new() -> Result<Self> {
        let space = Space::builder("fixed", 1).build()?;
        Ok(Self(Arc::new(Embeddings::new(TEXTS, &space, vec![1.0; TEXTS], Usage::of_request(Some(1)))?)))
    }
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fixed")
    }
}

#[async_trait]
impl Embedder for Fixed {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.limits())?;
        Ok(Embeddings::clone(&self.0))
    }
    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(self.0.space())
    }
    fn limits(&self) -> Limits {
        Limits::none()
    }
}

/// Prints what each wrapper adds to a call of 256 texts.
async fn overhead<E: Embedder + Clone>(inner: E, what: &str) -> Result<()> {
    let texts: Vec<String> = (0..TEXTS).map(|at| format!("text {at} of some forty bytes in length, or so")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let members = |inner: &E| Resilient::builder(inner.clone()).with_fallback(inner.clone()).with_trusted_spaces();
    let split = AbSplit::builder("bench").with_arm("one", 90, inner.clone()).with_arm("two", 10, inner.clone());
    let sides: [(&str, Arc<dyn Embedder>); 5] = [
        ("alone", Arc::new(inner.clone())),
        ("`Resilient`, two members", Arc::new(members(&inner).build()?)),
        ("`Resilient`, hedged, queries", Arc::new(members(&inner).with_hedging(Hedging::default()).build()?)),
        ("`AbSplit`, two arms, by key", Arc::new(split.build()?)),
        ("`Observed`", Arc::new(inner.clone().observed(|_: &Event<'_>| {}))),
    ];
    let mut times = vec![Vec::new(); sides.len()];
    for round in 0..=ROUNDS {
        let mut seconds = vec![0.0; sides.len()];
        for call in 0..CALLS_PER_ROUND {
            for turn in 0..sides.len() {
                let who = (turn + call) % sides.len();
                let (name, embedder) = &sides[who];
                let is_query = name.ends_with("queries");
                let batch = if is_query { Batch::queries(&texts) } else { Batch::documents(&texts) };
                let begun = Instant::now();
                let rows = embedder.embed(batch.with_key("library:serde")).await?;
                seconds[who] += begun.elapsed().as_secs_f64();
                assert_eq!(rows.len(), TEXTS);
            }
        }
        // The first round only warms up.
        if round > 0 {
            times.iter_mut().zip(seconds).for_each(|(times, sum)| times.push(sum * 1e6 / CALLS_PER_ROUND as f64));
        }
    }
    println!(
        "Over {what}, {TEXTS} texts per call, microseconds per call, {ROUNDS} rounds of {CALLS_PER_ROUND} calls:\n"
    );
    println!("| | per call | adds | from ... to |\n|---|---:|---:|---:|");
    for (who, (name, _)) in sides.iter().enumerate() {
        let mut added: Vec<f64> = times[who].iter().zip(&times[0]).map(|(with, alone)| with - alone).collect();
        let middle = median(&mut added);
        let (from, to) = (added[ROUNDS / 10], added[ROUNDS - 1 - ROUNDS / 10]);
        let per_call = median(&mut times[who].clone());
        match who {
            0 => println!("| {name} | {per_call:.2} | | |"),
            _ => println!("| {name} | {per_call:.2} | {middle:.2} | {from:.2} ... {to:.2} |"),
        }
    }
    println!();
    Ok(())
}

/// Prints how long 1,000 single texts take over an embedder that takes 10 ms per call.
async fn coalesce() -> Result<()> {
    const CALLS: usize = 1_000;
    const LATENCY: Duration = Duration::from_millis(10);
    let fake = || Fake::builder().with_dimensions(8).with_latency(LATENCY).build();
    let mut sides =
        [("eight calls at once", Vec::new(), 0), ("`Coalesce` of 2 ms, of up to 1,000 texts", Vec::new(), 0)];
    for _ in 0..7 {
        for (who, (_, times, made)) in sides.iter_mut().enumerate() {
            let fake = fake()?;
            let gate = fake.clone().concurrency(8);
            let embedder: Arc<dyn Embedder> = match who {
                0 => Arc::new(gate),
                _ => Arc::new(gate.coalesce(Duration::from_millis(2)).with_max_texts(CALLS)),
            };
            let begun = Instant::now();
            let tasks = (0..CALLS).map(|at| {
                let embedder = embedder.clone();
                tokio::spawn(async move { embedder.embed_query(&format!("query {at}")).await })
            });
            for result in try_join_all(tasks).await.expect("no task panics") {
                result?;
            }
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            *made = fake.calls().len();
        }
    }
    println!(
        "{CALLS} tasks of one query each, over an embedder that takes {LATENCY:?} per call, two threads, 7 rounds:\n"
    );
    println!("| | calls made | milliseconds | in calls' time |\n|---|---:|---:|---:|");
    for (name, times, made) in &mut sides {
        let middle = median(times);
        println!("| {name} | {made} | {middle:.1} | {:.2} |", middle / LATENCY.as_secs_f64() / 1e3);
    }
    Ok(())
}

/// Sorts the numbers and returns the middle one.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
