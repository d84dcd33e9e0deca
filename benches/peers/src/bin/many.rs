//! Embeds many short texts through `OpenAi` and prints time and memory, as one line of JSON.
//!
//! `many --base-url URL [--mode documents|stream] [--texts 200000] [--in-flight 8] [--dimensions 1536]`
//!
//! `documents` holds all texts and all rows in memory; `stream` takes texts as they come and drops each window of rows.
//! The texts are those that `scripts/bench_openai.py` makes. The clock starts before the first call.

use std::{fs, pin::pin, time::Instant};

use docvector_embed::{Embedder as _, EmbedderExt as _, InputKind, StreamOptions, provider::OpenAi};
use futures_util::{StreamExt as _, stream};
use peers::{Args, DIMENSIONS, MODEL, Result, TEXTS_PER_REQUEST};

const VERBS: [&str; 7] = ["open", "parse", "sort", "merge", "cache", "split", "trace"];
const NOUNS: [&str; 11] =
    ["file", "query", "table", "stream", "socket", "header", "buffer", "thread", "vector", "record", "token"];
const PLACES: [&str; 5] = ["a test", "one pass", "a loop", "the server", "parallel"];

/// Makes a text of about ten tokens, another one for each number.
fn text(number: usize) -> String {
    let (verb, noun, place) = (VERBS[number % 7], NOUNS[number / 7 % 11], PLACES[number / 77 % 5]);
    format!("how to {verb} the {noun} {number} in {place}")
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::read(&["base-url", "mode", "texts", "in-flight", "dimensions"])?;
    let base_url: String = args.get("base-url")?.ok_or("--base-url is missing")?;
    let mode: String = args.get("mode")?.unwrap_or_else(|| "documents".into());
    let texts: usize = args.get("texts")?.unwrap_or(200_000);
    let in_flight: usize = args.get("in-flight")?.unwrap_or(8);
    let dimensions: usize = args.get("dimensions")?.unwrap_or(DIMENSIONS);

    let builder = || {
        let builder = OpenAi::builder(MODEL).with_base_url(&base_url).with_api_key("bench");
        if dimensions == DIMENSIONS { builder } else { builder.with_dimensions(dimensions) }
    };
    let limits = builder().build()?.limits().with_in_flight(in_flight);
    let embedder = builder().with_limits(limits).build()?;

    let (seconds, rows, requests) = match mode.as_str() {
        "documents" => {
            let texts: Vec<String> = (0..texts).map(text).collect();
            let start = Instant::now();
            let embeddings = embedder.embed_documents(&texts).await?;
            (start.elapsed().as_secs_f64(), embeddings.len(), embeddings.usage().requests)
        }
        "stream" => {
            // A window is one request.
            let options = StreamOptions::new(InputKind::Document)
                .with_window_texts(TEXTS_PER_REQUEST)
                .with_window_bytes(usize::MAX)
                .with_windows_in_flight(in_flight);
            let start = Instant::now();
            let mut windows = pin!(embedder.embed_stream(stream::iter((0..texts).map(text)), options));
            let (mut rows, mut requests) = (0, 0);
            while let Some(window) = windows.next().await {
                let window = window?;
                rows += window.len();
                requests += window.usage().requests;
            }
            (start.elapsed().as_secs_f64(), rows, requests)
        }
        other => return Err(format!("--mode {other} is neither documents nor stream").into()),
    };
    if rows != texts {
        return Err(format!("{rows} rows for {texts} texts").into());
    }
    let told = serde_json::json!({
        "texts": texts,
        "requests": requests,
        "seconds": seconds,
        "texts_per_second": texts as f64 / seconds,
        "peak_rss_mib": peak_rss_mib()?,
    });
    println!("{told}");
    Ok(())
}

/// The peak resident memory of this process.
fn peak_rss_mib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM: Linux is needed")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
    Ok(kib / 1024.0)
}
