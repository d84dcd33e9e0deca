//! Embeds many libraries at once under one rate limit, and shows how long each of them took and what it cost.
//!
//! `cargo run --features openai --example process_libraries`
//!
//! Offline and free: a provider without a model stands in, which is slow and refuses some calls. With
//! `-- --openai` the same texts go to OpenAI (export `OPENAI_API_KEY`), which costs about a tenth of a cent.

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error, ErrorKind, Limits, Result, Usage, price,
    provider::{Fake, OpenAi},
    wrap::{CallOutcome, CallRecord, MetricsSink, RateLimiter, RetryPolicy, Totals},
};
use futures_util::{StreamExt, stream};

const MODEL: &str = "text-embedding-3-small";
/// Libraries at once: enough that calls are always waiting, few enough that the first are done early.
const AT_ONCE: usize = 4;
/// Names, and how many passages their documentation has.
const LIBRARIES: [(&str, usize); 12] = [
    ("anyhow", 61),
    ("axum", 212),
    ("bytes", 97),
    ("clap", 344),
    ("hyper", 158),
    ("ndarray", 401),
    ("rayon", 133),
    ("regex", 189),
    ("reqwest", 176),
    ("serde", 240),
    ("tokio", 512),
    ("tracing", 205),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let argument = env::args().nth(1);
    let provider = match argument.as_deref() {
        None => stand_in().map(|fake| Box::new(fake) as Box<dyn Embedder>),
        Some("--openai") => OpenAi::from_env(MODEL).map(|openai| Box::new(openai) as Box<dyn Embedder>),
        Some(_) => {
            eprintln!("usage: process_libraries [--openai]");
            return ExitCode::from(2);
        }
    };
    match provider {
        Ok(provider) => run(provider).await,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(provider: Box<dyn Embedder>) -> ExitCode {
    let progress = Arc::new(Progress::new());
    let totals = Totals::new();
    let meter = {
        let (progress, totals) = (progress.clone(), totals.clone());
        move |call: &CallRecord<'_>| {
            totals.record(call);
            progress.call_ended(call);
        }
    };
    // One stack for all libraries: they share its limits, and the limits that it learns from the provider.
    let embedder = provider
        .metered(meter)
        .timeout(Duration::from_secs(60))
        .concurrency(8)
        .rate_limit(RateLimiter::new().with_requests_per_minute(3_000).with_tokens_per_minute(1_000_000))
        .retry(RetryPolicy::default());
    println!("{embedder}: {} libraries, {AT_ONCE} at once", LIBRARIES.len());

    let start = Instant::now();
    let mut reports = Vec::new();
    let mut libraries =
        stream::iter(LIBRARIES).map(|(name, chunks)| process(&embedder, name, chunks)).buffer_unordered(AT_ONCE);
    while let Some(report) = libraries.next().await {
        progress.library_ended(&report);
        reports.push(report);
    }
    progress.end();

    reports.sort_by_key(|report| report.name);
    print_table(&reports, start.elapsed());
    println!("\ncalls to the provider:\n{}", totals.snapshot());
    for report in &reports {
        if let Some(error) = &report.error {
            eprintln!("{}: {error}", report.name);
        }
    }
    if reports.iter().all(|report| report.error.is_none()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The result for one library.
struct Report {
    name: &'static str,
    chunks: usize,
    embedded: usize,
    usage: Usage,
    time: Duration,
    error: Option<Error>,
}

/// Embeds one library. The routing key keeps it together if a stack divides the work.
async fn process(embedder: &impl Embedder, name: &'static str, chunks: usize) -> Report {
    let start = Instant::now();
    let texts: Vec<String> = (1..=chunks).map(|number| passage(name, number)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let key = format!("library:{name}");
    let (rows, mut usage, error) = match embedder.embed_all(Batch::documents(&texts).with_key(&key)).await {
        Ok(rows) => (Some(rows), Usage::ZERO, None),
        // Finished rows are paid for: keep them, with the indices of their texts.
        Err(error) => {
            let rows = error.partial().map(|partial| partial.embeddings().clone());
            (rows, error.usage(), Some(error))
        }
    };
    // Here a program would store the rows, in a collection named by `rows.space().id()`.
    let embedded = rows.as_ref().map_or(0, |rows| rows.len());
    usage += rows.map_or(Usage::ZERO, |rows| rows.usage());
    Report { name, chunks, embedded, usage, time: start.elapsed(), error }
}

/// A text to embed, instead of a passage of documentation.
fn passage(library: &str, number: usize) -> String {
    format!("{library}, passage {number}: how {library} is used, what its types are for, and what they cost.")
}

/// A provider without a model: slow, with small calls, and overloaded now and then.
fn stand_in() -> Result<Fake> {
    let limits = Limits::none().with_texts(64).with_in_flight(8);
    let latency = Duration::from_millis(150);
    let fake = Fake::builder().with_dimensions(1536).with_limits(limits).with_latency(latency).without_log().build()?;
    for successes in [5, 0, 9, 12] {
        (0..successes).for_each(|_| fake.succeed_next());
        let busy = Error::new(ErrorKind::RateLimited, "as scripted").with_status(429);
        fake.fail_next(busy.with_retry_after(Duration::from_millis(400)));
    }
    Ok(fake)
}

/// Shows progress on standard error: on a terminal one line that is drawn again and again, elsewhere one line for each
/// library that is done.
struct Progress {
    chunks: usize,
    embedded: AtomicUsize,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let chunks = LIBRARIES.iter().map(|(_, chunks)| chunks).sum();
        Self { chunks, embedded: AtomicUsize::new(0), terminal: io::stderr().is_terminal() }
    }

    fn call_ended(&self, call: &CallRecord<'_>) {
        if call.outcome == CallOutcome::Done {
            let embedded = self.embedded.fetch_add(call.texts, Ordering::Relaxed) + call.texts;
            if self.terminal {
                eprint!("\r{embedded} of {} chunks ({} %)", self.chunks, embedded * 100 / self.chunks);
            }
        }
    }

    fn library_ended(&self, report: &Report) {
        if !self.terminal {
            let how = if report.error.is_none() { "done" } else { "failed" };
            eprintln!("{} {how}: {} of {} chunks", report.name, report.embedded, report.chunks);
        }
    }

    /// Clears the line.
    fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn print_table(reports: &[Report], time: Duration) {
    let total: Usage = reports.iter().map(|report| report.usage).sum();
    let mut rows = vec![["library", "chunks", "tokens", "requests", "seconds", "cost"].map(str::to_owned)];
    rows.extend(reports.iter().map(|report| row(report.name, report.embedded, report.usage, report.time)));
    rows.push(row("total", reports.iter().map(|report| report.embedded).sum(), total, time));

    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    println!();
    for [name, numbers @ ..] in &rows {
        print!("{name:<width$}", width = widths[0]);
        for (number, &width) in numbers.iter().zip(&widths[1..]) {
            print!("  {number:>width$}");
        }
        println!();
    }
    println!("\nThe cost is that of {MODEL}. Libraries share the time: it does not add up.");
}

fn row(name: &str, chunks: usize, usage: Usage, time: Duration) -> [String; 6] {
    let tokens = usage.exact_tokens().map_or("unknown".to_owned(), |tokens| tokens.to_string());
    let cost =
        usage.exact_tokens().zip(price::of("openai", MODEL)).map(|(tokens, price)| price.cost(tokens).to_string());
    let seconds = format!("{:.2}", time.as_secs_f64());
    let cost = cost.unwrap_or_else(|| "unknown".to_owned());
    [name.to_owned(), chunks.to_string(), tokens, usage.requests.to_string(), seconds, cost]
}
