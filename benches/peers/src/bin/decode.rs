//! Decodes one reply of 2,048 rows of 1,536 components in base64: this crate beside async-openai, in turns.
//!
//! `decode [--pairs 21]`. Both begin with the whole body in memory and end with all components as floats: async-openai
//! as its client does it, serde_json into its reply type and then its own conversion of every row; this crate with all
//! its checks of the reply. One thread. Allocations are counted on both sides, which costs a few nanoseconds each.

use std::{hint::black_box, time::Instant};

use async_openai::types::embeddings::CreateBase64EmbeddingResponse;
use docvector_embed::{EmbedderExt as _, Embeddings, Space, provider::OpenAi};
use peers::{
    Args, DIMENSIONS, MODEL, Result, Rounds, TEXTS_PER_REQUEST,
    allocations::{Counting, allocations},
    base64_row, median, reply, unit_vector,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<()> {
    let pairs = Args::read(&["pairs"])?.get("pairs")?.unwrap_or(21_usize).max(1);
    let space = OpenAi::builder(MODEL).with_base_url("http://127.0.0.1:9/v1").build()?.space()?.clone();
    let body = body(TEXTS_PER_REQUEST);
    check_that_they_agree(&body, &space)?;

    let ours_of = |_: &mut ()| timed(|| ours(&body, TEXTS_PER_REQUEST, &space));
    let times = Rounds::run(pairs, &mut (), ours_of, |()| timed(|| theirs(&body)))?;
    let (ratio, least, most) = times.ratio();

    let floats = (TEXTS_PER_REQUEST * DIMENSIONS * size_of::<f32>()) as f64;
    println!(
        "One reply of {TEXTS_PER_REQUEST} x {DIMENSIONS} in base64, {:.1} MB, {pairs} pairs, medians, one thread.\n",
        body.len() as f64 / 1e6
    );
    println!("| decoder | ms | GB/s of floats | ratio | allocations, 2,048 rows | 1,024 rows |");
    println!("|---|---:|---:|---:|---:|---:|");
    let half = self::body(TEXTS_PER_REQUEST / 2);
    let our_allocations = [
        allocations_of(|| ours(&body, TEXTS_PER_REQUEST, &space))?,
        allocations_of(|| ours(&half, TEXTS_PER_REQUEST / 2, &space))?,
    ];
    let their_allocations = [allocations_of(|| theirs(&body))?, allocations_of(|| theirs(&half))?];
    for (name, times, ratio, [whole, half]) in [
        ("docvector-embed", &times.ours, ratio, our_allocations),
        ("async-openai", &times.peers, 1.0, their_allocations),
    ] {
        let seconds = median(times);
        println!("| {name} | {:.1} | {:.2} | {ratio:.2} | {whole} | {half} |", seconds * 1e3, floats / seconds / 1e9);
    }
    println!("\nRatio of the pairs: {least:.2} to {most:.2}. Wanted: at least 3, 0.5 GB/s, and no allocation per row.");
    Ok(())
}

fn body(rows: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let rows = (0..rows).map(|_| base64_row(&unit_vector(&mut random, DIMENSIONS)));
    reply(rows, TEXTS_PER_REQUEST * 10).into_bytes()
}

fn ours(body: &[u8], rows: usize, space: &Space) -> Result<Embeddings> {
    Ok(docvector_embed::provider::bench::decode(body, rows, space)?)
}

fn theirs(body: &[u8]) -> Result<Vec<Vec<f32>>> {
    let reply: CreateBase64EmbeddingResponse = serde_json::from_slice(body)?;
    Ok(reply.data.into_iter().map(|row| row.embedding.into()).collect())
}

fn check_that_they_agree(body: &[u8], space: &Space) -> Result<()> {
    let (ours, theirs) = (ours(body, TEXTS_PER_REQUEST, space)?, theirs(body)?);
    let equal = ours.len() == theirs.len() && ours.rows().zip(&theirs).all(|(our_row, their_row)| our_row == their_row);
    if equal { Ok(()) } else { Err("the two decoders read different vectors".into()) }
}

/// Seconds that a decoding took, without the drop of its result.
fn timed<T>(decode: impl FnOnce() -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    let decoded = black_box(decode()?);
    let seconds = start.elapsed().as_secs_f64();
    drop(decoded);
    Ok(seconds)
}

fn allocations_of<T>(decode: impl FnOnce() -> Result<T>) -> Result<u64> {
    let before = allocations();
    let decoded = black_box(decode()?);
    let count = allocations() - before;
    drop(decoded);
    Ok(count)
}
