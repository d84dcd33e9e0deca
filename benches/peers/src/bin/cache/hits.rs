//! `Cached` over `Memory`, all hits, beside hashing the same texts and copying the same rows.

use std::{hint::black_box, time::Instant};

use docvector_embed::{Batch, Embedder as _, Error, InputKind, cache::Memory, provider::Fake, wrap::Cached};
use peers::{Args, Result, Rounds, median};

use crate::{HEADER, allocations, grouped, runtime, texts};

const WIDTH: usize = 768;

pub fn run(args: &Args, folders: &[String]) -> Result<()> {
    let wanted: usize = args.get("texts")?.unwrap_or(30_000).max(1);
    let rounds: usize = args.get("rounds")?.unwrap_or(9).max(1);
    let runtime = runtime()?;
    let mut texts = texts::read(folders, wanted)?;
    let fake = Fake::builder().with_dimensions(WIDTH).without_log().build()?;
    // Twice the room, so that nothing is dropped however the keys fall on the parts of the table.
    let entry = (32 + HEADER + WIDTH * size_of::<f32>()) as u64 + Memory::OVERHEAD;
    let cached = Cached::new(fake.clone(), Memory::new(2 * texts.len() as u64 * entry))?;
    // Texts that are asked for together were not stored together.
    let stored: Vec<&str> = texts.iter().map(String::as_str).collect();
    runtime.block_on(async {
        for texts in stored.chunks(1_000) {
            cached.embed(Batch::documents(texts)).await?;
        }
        Ok::<_, Error>(())
    })?;
    fastrand::Rng::with_seed(7).shuffle(&mut texts);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let rows: Vec<Vec<f32>> = texts.iter().map(|text| fake.vector_of(InputKind::Document, text)).collect();
    check(&runtime, &cached, &texts, &rows)?;

    println!(
        "{WIDTH} components, asked for in random order; {rounds} rounds in turns, medians, one thread. The peer takes \
         the blake3 of each text and copies its row, whose place it knows, into a matrix of its own.\n"
    );
    println!(
        "| texts a call | `Cached` over `Memory`, rows/s | hash and copy, rows/s | ratio | of the rounds | \
         allocations a call | a text |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for batch in [256, 1_000] {
        let ours = |_: &mut ()| -> Result<f64> {
            let start = Instant::now();
            runtime.block_on(async {
                for texts in texts.chunks(batch) {
                    black_box(cached.embed(Batch::documents(texts)).await?);
                }
                Ok::<_, Error>(())
            })?;
            Ok(start.elapsed().as_secs_f64())
        };
        let hash_and_copy = |_: &mut ()| -> Result<f64> {
            let start = Instant::now();
            for (texts, rows) in texts.chunks(batch).zip(rows.chunks(batch)) {
                let mut matrix = Vec::with_capacity(rows.len() * WIDTH);
                for (text, row) in texts.iter().zip(rows) {
                    black_box(blake3::hash(text.as_bytes()));
                    matrix.extend_from_slice(row);
                }
                black_box(matrix);
            }
            Ok(start.elapsed().as_secs_f64())
        };
        let times = Rounds::run(rounds, &mut (), ours, hash_and_copy)?;
        let (ratio, least, most) = times.ratio();
        let before = allocations();
        ours(&mut ())?;
        let made = (allocations() - before) as f64;
        println!(
            "| {} | {} | {} | {ratio:.2} | {least:.2}-{most:.2} | {:.1} | {:.3} |",
            grouped(batch as f64),
            grouped(texts.len() as f64 / median(&times.ours)),
            grouped(texts.len() as f64 / median(&times.peers)),
            made / texts.len().div_ceil(batch) as f64,
            made / texts.len() as f64
        );
    }
    if cached.counts().misses as usize != texts.len() {
        return Err("not all were hits".into());
    }
    println!("\nWanted: at least 400,000 rows/s.");
    Ok(())
}

/// Checks that every text is a hit and has its own row.
fn check(runtime: &tokio::runtime::Runtime, cached: &Cached<Fake>, texts: &[&str], rows: &[Vec<f32>]) -> Result<()> {
    for (texts, rows) in texts.chunks(1_000).zip(rows.chunks(1_000)) {
        let found = runtime.block_on(cached.embed(Batch::documents(texts)))?;
        if found.usage().cached != texts.len() as u64 {
            return Err(format!("{} of {} texts were hits", found.usage().cached, texts.len()).into());
        }
        if !found.rows().eq(rows.iter().map(Vec::as_slice)) {
            return Err("a hit has another row than its text".into());
        }
    }
    Ok(())
}
