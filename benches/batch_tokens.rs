//! Compares sizes of batches on this machine's CPU: prints tokens/s of each and its ratio to the default.
//!
//! `cargo bench --features onnx --bench batch_tokens`
//!
//! All sizes take turns in one run, so that a drifting clock touches them alike. Texts: the paragraphs of this
//! project's own sources, and short queries made of their beginnings.

use std::{error::Error, fs, path::Path, time::Instant};

use docvector_embed::{Batch, EmbedderExt, TooLong, provider::Onnx};

const BUDGETS: [usize; 6] = [64, 128, 256, 512, 1024, 4096];
const DEFAULT: usize = 256;
const ROUNDS: usize = 7;
/// Texts of each kind.
const TEXTS: usize = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paragraphs = Vec::new();
    walk(&root.join("src"), &mut paragraphs)?;
    // Every so many, so that all files have their share.
    let stride = (paragraphs.len() / TEXTS).max(1);
    let paragraphs: Vec<String> = paragraphs.into_iter().step_by(stride).take(TEXTS).collect();
    let queries: Vec<String> =
        paragraphs.iter().map(|text| text.split_whitespace().take(8).collect::<Vec<_>>().join(" ")).collect();
    let embedders: Vec<Onnx> = BUDGETS
        .iter()
        .map(|&budget| Onnx::builder(root.join("assets/all-MiniLM-L6-v2")).with_batch_tokens(budget).build())
        .collect::<Result<_, _>>()?;
    println!("{} threads, {ROUNDS} rounds, median tokens/s", embedders[0].info().threads);
    for (name, texts) in [("paragraphs", &paragraphs), ("queries", &queries)] {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let batch = Batch::documents(&texts).with_too_long(TooLong::Truncate);
        let mut speeds = vec![Vec::new(); BUDGETS.len()];
        for round in 0..=ROUNDS {
            for (embedder, speeds) in embedders.iter().zip(&mut speeds) {
                let start = Instant::now();
                let rows = embedder.embed_all(batch).await?;
                let speed = rows.usage().tokens.unwrap_or(0) as f64 / start.elapsed().as_secs_f64();
                // The first round warms up.
                if round > 0 {
                    speeds.push(speed);
                }
            }
        }
        let medians: Vec<f64> = speeds.into_iter().map(median).collect();
        let base = BUDGETS.iter().position(|&budget| budget == DEFAULT).map_or(1.0, |at| medians[at]);
        println!("\n{} {name}", texts.len());
        println!("{:>14}  {:>9}  {:>6}", "padded tokens", "tokens/s", "ratio");
        for (budget, speed) in BUDGETS.iter().zip(&medians) {
            println!("{budget:>14}  {speed:>9.0}  {:>6.2}", speed / base);
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Collects the paragraphs of all sources below a folder.
fn walk(folder: &Path, paragraphs: &mut Vec<String>) -> std::io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
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
