//! Embeds libraries through OpenAI's Batch API: half the price, and nothing is lost or paid twice if the program ends.
//!
//! `cargo run --features openai,testing --example openai_batch`
//!
//! Without `OPENAI_API_KEY` a simulator on this machine stands in for OpenAI, whose hour takes some seconds: offline and
//! free, but its vectors mean nothing. With the key it asks OpenAI, which costs less than a tenth of a cent and may take up to
//! 24 hours. Jobs are then in the folder `docvector-jobs`. End the program with Ctrl-C whenever you like and start it again:
//! it goes on with the same job.

use std::{env, error::Error as _, io, process::ExitCode, time::Duration};

use docvector_embed::{
    EmbedderExt, Error, ErrorKind, InputKind, OwnedOptions, Payee, Result, Tier,
    cache::Memory,
    provider::{Job, JobReport, JobState, OpenAi, OpenAiBatch},
    testing::Simulator,
};
use futures_util::{StreamExt, stream};

const MODEL: &str = "text-embedding-3-small";
/// Names, and how many passages their documentation has.
const LIBRARIES: [(&str, usize); 6] =
    [("anyhow", 61), ("axum", 212), ("clap", 344), ("ndarray", 401), ("serde", 240), ("tokio", 512)];
/// Rows that are read at once. A large job never is in memory as a whole.
const ROWS: u64 = 500;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    if env::var_os("OPENAI_API_KEY").is_some_and(|key| !key.is_empty()) {
        return embed_libraries(OpenAi::from_env(MODEL)?, "docvector-jobs", Duration::from_secs(10)).await;
    }
    println!("OPENAI_API_KEY is not set: a simulator on this machine answers, with vectors that mean nothing\n");
    // An hour of its time takes ten seconds.
    let simulator = Simulator::builder().with_speed(360.0).start()?;
    let openai = OpenAi::builder(MODEL)
        .with_base_url(simulator.base_url())
        .with_api_key("sk-any")
        // Tokens cost what they would at OpenAI.
        .with_payee(Payee::new("openai", MODEL, Tier::Standard))
        .build()?;
    let folder = tempfile::tempdir().map_err(no_folder)?;
    let path = folder.path().to_string_lossy();
    embed_libraries(openai, &path, Duration::from_millis(100)).await?;
    let bills = simulator.bills();
    println!("\nbilled: {} texts, each at most {} time", bills.texts, bills.most_per_text);
    Ok(())
}

async fn embed_libraries(openai: OpenAi, folder: &str, poll: Duration) -> Result<()> {
    // Rows go into a cache as they come. In a service it would be `cache::Sqlite`.
    let cache = Memory::new(64 << 20);
    let batches = OpenAiBatch::builder(openai.clone(), folder)
        .with_poll_interval(poll, 6 * poll)
        .with_cache(cache.clone())
        .build()?;

    // All libraries are one job, whose texts come as a stream. If the folder has a job of these texts, that is the one:
    // `attach_stream` pays for nothing twice. (`submit_stream` always makes a new job.)
    let texts = LIBRARIES.iter().flat_map(|&(name, count)| (1..=count).map(move |number| passage(name, number)));
    let job = batches.attach_stream(stream::iter(texts), OwnedOptions::new(InputKind::Document)).await?;
    println!("job {}, in the folder {folder}", job.id());

    let report = follow(&job).await?;
    println!("\n{report}");
    store(&job, &report).await?;

    // A later call finds the vectors in the cache: nothing is sent.
    let embedder = openai.cached(cache)?;
    let one = embedder.embed_documents(&[passage("serde", 1)]).await?;
    println!("\na call for one of the texts: {} from the cache, {} tokens", one.usage().cached, one.usage().tokens);

    // The job's texts and vectors are on the disk until they are removed. Here they are somewhere else now.
    let id = job.id().to_owned();
    drop(job);
    batches.remove(&id).await
}

/// Shows how far the job is, until it has ended.
async fn follow(job: &Job) -> Result<JobReport> {
    let mut progress = job.progress();
    let mut shown = None;
    while let Some(status) = progress.next().await {
        let tenth = status.processed * 10 / status.texts.max(1);
        if shown != Some((status.state, tenth)) {
            shown = Some((status.state, tenth));
            println!("{}: {} of {} texts", status.state, status.processed, status.texts);
        }
        if let (JobState::Paused, Some(trouble)) = (status.state, &status.trouble) {
            println!("paused: {trouble}");
        }
    }
    job.wait().await
}

/// Reads the rows of each library, in ranges. A program would put them into its collections here.
async fn store(job: &Job, report: &JobReport) -> Result<()> {
    println!();
    let mut first = 0;
    for (name, count) in LIBRARIES {
        let (end, mut rows) = (first + count as u64, 0);
        while first < end {
            let next = end.min(first + ROWS);
            // The indices are those of the texts in the job. A text that failed has no row.
            let part = job.rows(first..next).await?;
            rows += part.indices().len();
            first = next;
        }
        println!("{name:<8} {rows:>4} of {count:>4} rows");
    }
    for failed in &report.failed {
        println!("text {} got no row: {}", failed.index, failed.kind);
    }
    Ok(())
}

/// A text to embed, instead of a passage of documentation.
fn passage(library: &str, number: usize) -> String {
    format!("{library}, passage {number}: how {library} is used, what its types are for, and what they cost.")
}

fn no_folder(error: io::Error) -> Error {
    Error::new(ErrorKind::Config, "this machine gives no temporary folder").with_source(error)
}

/// Prints what failed, why, and what can be done.
fn explain(error: &Error) {
    eprintln!("{error}");
    let mut cause = error.source();
    while let Some(source) = cause {
        eprintln!("  because: {source}");
        cause = source.source();
    }
    let advice = match error.kind() {
        ErrorKind::Auth => "check that OPENAI_API_KEY is a key of this account and may use batches",
        ErrorKind::QuotaExhausted => "the account's money is used up: pay, and start again; what was answered is kept",
        _ => "start again when the cause is gone: the job goes on where it was",
    };
    eprintln!("  {advice}");
}
