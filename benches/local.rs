//! Measures the local provider against itself: int8 beside fp32, a query while a bulk job runs, and memory.
//!
//! `cargo bench --features onnx --bench local [-- int8 | latency | memory]`
//!
//! The compared settings take turns in one run, so that a drifting clock touches all alike. Each figure of memory is of
//! a process of its own. Texts: the paragraphs of this project's own sources and pages, and queries made of their first
//! eight words. `docvector-embed bench` compares batch sizes, `scripts/bench-peers` other libraries.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use docvector_embed::{
    Batch, EmbedderExt, Embeddings, InputKind, Precision, StreamOptions, Truncation,
    provider::{Onnx, OnnxBuilder},
};
use futures_util::{StreamExt, stream};

const ROUNDS: usize = 7;
/// Texts of each kind.
const TEXTS: usize = 200;
/// Set for a process that measures its own memory.
const ALONE: &str = "DOCVECTOR_EMBED_BENCH_ALONE";

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    if let Ok(what) = env::var(ALONE) {
        return alone(&what).await;
    }
    let asked: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    if wanted("int8") {
        int8().await?;
    }
    if wanted("latency") {
        latency().await?;
    }
    if wanted("memory") {
        memory()?;
    }
    Ok(())
}

fn builder() -> OnnxBuilder {
    let assets = env::var_os("DOCVECTOR_EMBED_ASSETS").map(PathBuf::from);
    let assets = assets.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("assets"));
    Onnx::builder(assets.join("all-MiniLM-L6-v2")).without_tuning()
}

async fn embed(embedder: &Onnx, texts: &[String]) -> docvector_embed::Result<Embeddings> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    embedder.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await
}

/// Compares int8 and fp32, packed and with one text per batch.
async fn int8() -> Result<()> {
    let (paragraphs, queries) = texts()?;
    let sides = [
        ("fp32, one text per batch", builder().with_batch_tokens(1).build()?),
        ("fp32, packed", builder().build()?),
        ("int8, one text per batch", builder().with_precision(Precision::Int8).with_batch_tokens(1).build()?),
        ("int8, packed", builder().with_precision(Precision::Int8).build()?),
    ];
    for (name, texts) in [("paragraphs", &paragraphs), ("queries", &queries)] {
        let mut rows = Vec::new();
        let mut speeds = vec![Vec::new(); sides.len()];
        // The first round warms up.
        for round in 0..=ROUNDS {
            for (at, (_, embedder)) in sides.iter().enumerate() {
                let start = Instant::now();
                let done = embed(embedder, texts).await?;
                let speed = done.usage().tokens as f64 / start.elapsed().as_secs_f64();
                if round == 0 {
                    rows.push(done);
                } else {
                    speeds[at].push(speed);
                }
            }
        }
        println!("\n{} {name}, {ROUNDS} rounds, medians; ratio and cosine to fp32 in the same batches", texts.len());
        println!("{:>24}  {:>9}  {:>6}  {:>8}  {:>8}", "", "tokens/s", "ratio", "mean", "min");
        for (at, (side, _)) in sides.iter().enumerate() {
            let base = at % 2;
            let ratios = speeds[at].iter().zip(&speeds[base]).map(|(own, base)| own / base).collect();
            let cosines: Vec<f64> = rows[at].rows().zip(rows[base].rows()).map(|(a, b)| cosine(a, b)).collect();
            let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
            let min = cosines.iter().copied().fold(f64::INFINITY, f64::min);
            let (speed, ratio) = (median(speeds[at].clone()), median(ratios));
            println!("{side:>24}  {speed:>9.0}  {ratio:>6.2}  {mean:>8.5}  {min:>8.5}");
        }
        let pairs = rows[2].rows().zip(rows[3].rows());
        let far = pairs.flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs())).fold(0.0, f32::max);
        println!("int8 alone and packed differ by at most {far:.1e}");
    }
    Ok(())
}

/// Times one query after the other, first alone and then while a bulk job runs.
async fn latency() -> Result<()> {
    const QUERIES: usize = 400;
    let (paragraphs, queries) = texts()?;
    let embedder = builder().build()?;
    let measure = async || -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(QUERIES);
        for query in queries.iter().cycle().take(QUERIES) {
            let start = Instant::now();
            embedder.embed_query(query).await?;
            times.push(start.elapsed());
            // People do not ask the next question at the moment of the answer.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        times.sort_unstable();
        Ok(times)
    };
    measure().await?;
    let idle = measure().await?;
    let over = AtomicBool::new(false);
    let bulk = async {
        while !over.load(Ordering::Relaxed) {
            embed(&embedder, &paragraphs).await?;
        }
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    };
    let busy = async {
        let times = measure().await;
        over.store(true, Ordering::Relaxed);
        times
    };
    let (bulk, busy) = tokio::join!(bulk, busy);
    bulk?;
    let busy = busy?;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let at = |times: &[Duration], share: f64| milliseconds(times[(times.len() as f64 * share) as usize]);
    println!("\n{QUERIES} queries one after the other, milliseconds");
    println!("{:>22}  {:>7}  {:>7}  {:>7}", "", "p50", "p99", "worst");
    for (name, times) in [("idle", &idle), ("while bulk work runs", &busy)] {
        println!("{name:>22}  {:>7.1}  {:>7.1}  {:>7.1}", at(times, 0.5), at(times, 0.99), at(times, 0.9999));
    }
    let longest = milliseconds(embedder.stats().longest_batch);
    let bound = 3.0 * at(&idle, 0.99) + longest;
    println!("longest batch {longest:.1}; 3 x idle p99 + longest batch = {bound:.1}");
    Ok(())
}

/// Measures peaks and growth of resident memory, each in a process of its own.
fn memory() -> Result<()> {
    let program = env::current_exe()?;
    let run = |what: &str| -> Result<f64> {
        let output = Command::new(&program).env(ALONE, what).output()?;
        let said = String::from_utf8(output.stdout)?;
        Ok(said.trim().parse().map_err(|_| format!("{what}: {said}{}", String::from_utf8_lossy(&output.stderr)))?)
    };
    println!("\nresident memory, MiB");
    let (few, many) = (run("stream 2500")?, run("stream 50000")?);
    println!("embed_stream of 2,500 texts peaks at {few:.0}, of 50,000 at {many:.0}: {:.2} x", many / few);
    for precision in ["full", "int8"] {
        let mut sessions: Vec<(f64, usize)> = Vec::new();
        for threads in 1..=3 {
            // The least of three runs: how much is not given back to the system differs from run to run.
            let runs = (0..3).map(|_| run(&format!("sessions {threads} {precision}"))).collect::<Result<Vec<f64>>>()?;
            sessions.push((runs.into_iter().fold(f64::INFINITY, f64::min), threads));
        }
        let all: Vec<String> = sessions.iter().map(|(used, threads)| format!("{used:.0} with {threads}")).collect();
        println!(
            "{precision}: after embedding, {}: a second session adds {:.1}",
            all.join(", "),
            sessions[1].0 - sessions[0].0
        );
    }
    Ok(())
}

async fn alone(what: &str) -> Result<()> {
    let words: Vec<&str> = what.split(' ').collect();
    match words[..] {
        ["stream", count] => {
            let count: usize = count.parse()?;
            let embedder = builder().build()?;
            let text =
                |i: usize| format!("line {i} is about this and that, and has a few more words, say {}", i * 7919);
            let options = StreamOptions::new(InputKind::Document);
            let mut windows = std::pin::pin!(embedder.embed_stream(stream::iter((0..count).map(text)), options));
            let (mut rows, mut tokens) = (0, 0);
            while let Some(window) = windows.next().await {
                let window = window?;
                rows += window.len();
                tokens += window.usage().tokens;
            }
            assert!(rows == count && (15..=25).contains(&(tokens / count as u64)), "{rows} rows, {tokens} tokens");
            println!("{}", status("VmHWM:")?);
        }
        ["sessions", threads, precision] => {
            let precision = if precision == "int8" { Precision::Int8 } else { Precision::Full };
            let embedder = builder().with_threads(threads.parse()?).with_precision(precision).build()?;
            let (paragraphs, _) = texts()?;
            embed(&embedder, &paragraphs).await?;
            println!("{}", status("VmRSS:")?);
        }
        _ => {
            return Err(
                format!("{what:?} cannot be measured: give `stream COUNT` or `sessions THREADS PRECISION`").into()
            );
        }
    }
    Ok(())
}

/// Reads a field of this process's status, in MiB.
fn status(field: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns paragraphs, and queries made of them.
fn texts() -> Result<(Vec<String>, Vec<String>)> {
    let mut paragraphs = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paragraphs)?;
    // Taken at equal distances, so that all files have their share.
    let stride = (paragraphs.len() / TEXTS).max(1);
    let paragraphs: Vec<String> = paragraphs.into_iter().step_by(stride).take(TEXTS).collect();
    let query = |text: &String| text.split_whitespace().take(8).collect::<Vec<_>>().join(" ");
    let queries = paragraphs.iter().map(query).collect();
    Ok((paragraphs, queries))
}

/// Collects the paragraphs of all sources below a folder.
fn walk(folder: &Path, paragraphs: &mut Vec<String>) -> std::io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<std::result::Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for path in entries.iter().map(fs::DirEntry::path) {
        if path.is_dir() {
            walk(&path, paragraphs)?;
            continue;
        }
        let text = fs::read_to_string(&path)?;
        paragraphs.extend(text.split("\n\n").map(str::trim).filter(|text| text.len() > 40).map(str::to_owned));
    }
    Ok(())
}
