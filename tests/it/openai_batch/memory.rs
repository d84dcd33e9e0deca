//! Measures how much memory a client needs at most for a large job. The simulator is in another process than the client.
//!
//! There are 10,000 texts, or as many as `DOCVECTOR_EMBED_BATCH_TEXTS` says: scripts/check-memory says a million.
//! `DOCVECTOR_EMBED_BATCH_LINE_TEXTS` sets the texts per line, to see what that changes.
#![cfg(target_os = "linux")]

use std::{
    env, fs,
    io::Write,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use docvector_embed::{
    InputKind, OwnedOptions, Result,
    provider::{JobState, OpenAi, OpenAiBatch},
    testing::{BatchPlan, LineOrder, Simulator},
};
use futures_util::stream;

use crate::support::processes::{Running, alone, inner};

const MODEL: &str = "text-embedding-3-small";
const DIMENSIONS: usize = 256;

/// Rows that are compared at once.
const ROWS: u64 = 4_000;

const MOST_KIB: u64 = 512 << 10;

fn text(number: u64) -> String {
    format!("passage {number} of a library with very many of them, about as long as a sentence is")
}

/// Sends so many texts and compares all rows.
async fn send(base_url: &str, folder: &Path, texts: u64) -> Result<()> {
    let openai = OpenAi::builder(MODEL).with_api_key("sk-any").with_base_url(base_url).with_dimensions(DIMENSIONS);
    let mut builder = OpenAiBatch::builder(openai.build()?, folder);
    if let Ok(texts) = env::var("DOCVECTOR_EMBED_BATCH_LINE_TEXTS") {
        builder = builder.with_line_texts(texts.parse().expect("a number"));
    }
    let provider = builder.with_poll_interval(Duration::from_millis(50), Duration::from_millis(200)).build()?;
    let job =
        provider.submit_stream(stream::iter((0..texts).map(text)), OwnedOptions::new(InputKind::Document)).await?;
    println!("\nsubmitted");
    let report = job.wait().await?;
    assert_eq!((report.state, report.answered), (JobState::Completed, texts), "{report}");
    println!("answered");
    // Only for its vectors.
    let simulator = Simulator::start()?;
    for first in (0..texts).step_by(ROWS as usize) {
        let range = first..texts.min(first + ROWS);
        let rows = job.rows(range.clone()).await?;
        assert_eq!(rows.indices().len() as u64, range.end - range.start);
        for (&number, row) in rows.indices().iter().zip(rows.embeddings().rows()) {
            assert_eq!(row, simulator.vector(MODEL, DIMENSIONS, &text(number as u64)), "the row of text {number}");
        }
    }
    println!("compared");
    Ok(())
}

/// Returns how much memory this process had at most, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("it reads");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is told");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_large_job_needs_little_memory() {
    const NAME: &str = "a_large_job_needs_little_memory";
    if let Some(words) = inner() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
        let sent = send(&words[0], Path::new(&words[1]), words[2].parse().expect("a number"));
        runtime.block_on(sent).expect("it is sent");
        println!("peak {}", peak());
        return;
    }
    let texts = env::var("DOCVECTOR_EMBED_BATCH_TEXTS").map_or(10_000, |texts| texts.parse().expect("a number"));
    let simulator = Simulator::builder().with_speed(10_000.0).start().expect("starts");
    simulator.plan_all(BatchPlan::default().with_order(LineOrder::Shuffled(7)));
    let (folder, (lines, told)) = (tempfile::tempdir().expect("a folder"), mpsc::channel());
    let words = [simulator.base_url(), folder.path().display().to_string(), texts.to_string()];
    let mut client = Running::start(alone(module_path!(), NAME), &words.each_ref().map(String::as_str), 0, lines);
    let mut began = Instant::now();
    let mut seconds = Vec::new();
    let peak: u64 = loop {
        let (_, line) = told.recv_timeout(Duration::from_secs(1_800)).expect("it tells, and does not end before");
        if let Some(peak) = line.strip_prefix("peak ") {
            break peak.parse().expect("a number");
        } else if ["submitted", "answered", "compared"].contains(&line.as_str()) {
            seconds.push(format!("{line} in {:.1} s", began.elapsed().as_secs_f64()));
            began = Instant::now();
        }
    };
    client.kill();
    let bills = simulator.bills();
    assert_eq!(
        (bills.texts, bills.distinct_texts, bills.most_per_text),
        (texts, texts, 1),
        "each text is paid for once"
    );
    // Shown whether or not the test's output is shown.
    let seconds = seconds.join(", ");
    let _ = writeln!(
        std::io::stderr(),
        "a job of {texts} texts of {DIMENSIONS} dimensions: {seconds}; at most {} MiB of memory",
        peak >> 10
    );
    assert!(peak < MOST_KIB, "{peak} KiB of memory for {texts} texts");
}
