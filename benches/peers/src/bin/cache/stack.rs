//! A stack of six wrappers over an embedder that only makes vectors up.

use std::time::{Duration, Instant};

use docvector_embed::{
    Batch, Embedder, EmbedderExt as _,
    cache::Memory,
    provider::Fake,
    wrap::{RateLimiter, RetryPolicy, Totals},
};
use peers::{Args, Result, median};

use crate::{HEADER, allocations, runtime, texts};

const BATCH: usize = 256;

/// The sides, in the order of the table.
const NAMES: [&str; 5] = [
    "`Fake` alone",
    "five wrappers, without `Cached`",
    "all six, all misses, a store that keeps nothing",
    "all six, all misses",
    "all six, all hits",
];
const PASSED: usize = 2;
const MISSES: usize = 3;
const HITS: usize = 4;

/// Bytes of the store of the misses, which is full after the first rounds.
const BOUND: u64 = 64 << 20;

pub fn run(args: &Args, folders: &[String]) -> Result<()> {
    let wanted: usize = args.get("texts")?.unwrap_or(40 * BATCH).max(2 * BATCH);
    let rounds: usize = args.get("rounds")?.unwrap_or(9).max(1);
    let texts = texts::read(folders, wanted.next_multiple_of(BATCH))?;
    println!(
        "`Cached(Retry(RateLimit(Concurrency(Timeout(Metered(fake))))))` over `Memory`, {BATCH} texts a call; \
         {rounds} rounds, in each of which all take turns call by call, medians, one thread. Misses go into a store of \
         {} MiB that is full and lets go of as much as it takes.\n",
        BOUND >> 20
    );
    for width in [384, 1_536] {
        of_width(width, rounds, &texts)?;
    }
    println!(
        "Wanted: adds at most 2 us per text; a call of hits makes as many allocations for 512 texts as for {BATCH}."
    );
    Ok(())
}

fn of_width(width: usize, rounds: usize, texts: &[String]) -> Result<()> {
    let runtime = runtime()?;
    let fake = Fake::builder().with_dimensions(width).without_log().build()?;
    let five = || {
        // High enough that nobody waits, but the limiter still counts.
        let limiter =
            RateLimiter::new().with_requests_per_minute(1_000_000_000).with_tokens_per_minute(1_000_000_000_000);
        fake.clone()
            .metered(Totals::new())
            .timeout(Duration::from_secs(60))
            .concurrency(4)
            .rate_limit(limiter)
            .retry(RetryPolicy::default())
    };
    let entry = (32 + HEADER + width * size_of::<f32>()) as u64 + Memory::OVERHEAD;
    let without_cache = five();
    let passed = five().cached(Memory::new(0))?;
    let misses = five().cached(Memory::new(BOUND))?;
    let hits = five().cached(Memory::new(2 * texts.len() as u64 * entry))?;
    let embedders: [&dyn Embedder; 5] = [&fake, &without_cache, &passed, &misses, &hits];
    let known: Vec<&str> = texts.iter().map(String::as_str).collect();
    for texts in known.chunks(BATCH) {
        runtime.block_on(hits.embed(Batch::documents(texts)))?;
    }

    let mut times: [Vec<f64>; 5] = Default::default();
    let mut made = [0_u64; 5];
    // The cost of a full store shows only when it is full.
    let warm_up = 1 + BOUND as usize / (texts.len() * entry as usize).max(1);
    for round in 0..rounds + warm_up {
        // All sides but the hits have the same texts, which no store has seen.
        let fresh: Vec<String> = texts.iter().map(|text| format!("{text}\n({round})")).collect();
        let fresh: Vec<&str> = fresh.iter().map(String::as_str).collect();
        let mut seconds = [0.0; 5];
        for (call, (fresh, known)) in fresh.chunks_exact(BATCH).zip(known.chunks_exact(BATCH)).enumerate() {
            for turn in 0..embedders.len() {
                let who = (turn + call + round) % embedders.len();
                let batch = Batch::documents(if who == HITS { known } else { fresh });
                let before = allocations();
                let start = Instant::now();
                let rows = runtime.block_on(embedders[who].embed(batch))?;
                seconds[who] += start.elapsed().as_secs_f64();
                if round >= warm_up {
                    made[who] += allocations() - before;
                }
                let (found, expected) = (rows.usage().cached, if who == HITS { BATCH as u64 } else { 0 });
                if found != expected {
                    return Err(format!("{}: {found} of {BATCH} texts were hits", NAMES[who]).into());
                }
            }
        }
        if round >= warm_up {
            for (times, seconds) in times.iter_mut().zip(seconds) {
                times.push(seconds * 1e6 / texts.len() as f64);
            }
        }
    }

    println!("| {width} components | us per text | more than `Fake` | allocations per text |");
    println!("|---|---:|---:|---:|");
    for (who, name) in NAMES.iter().enumerate() {
        let more = if who == 0 { String::new() } else { format!("{:+.2}", added(&times[who], &times[0])) };
        let made = made[who] as f64 / (rounds * texts.len()) as f64;
        println!("| {name} | {:.2} | {more} | {made:.3} |", median(&times[who]));
    }
    let of_call = |texts: &[&str]| -> Result<u64> {
        let before = allocations();
        let rows = runtime.block_on(hits.embed(Batch::documents(texts)))?;
        let made = allocations() - before;
        if rows.usage().cached == texts.len() as u64 { Ok(made) } else { Err("not all were hits".into()) }
    };
    let (one, two) = (of_call(&known[..BATCH])?, of_call(&known[..2 * BATCH])?);
    println!("\nAllocations of a call of hits: {one} for {BATCH} texts, {two} for {}.", 2 * BATCH);
    let more = added(&times[MISSES], &times[0]);
    let wrappers = added(&times[PASSED], &times[0]);
    println!(
        "The stack adds {wrappers:.2} us to a text that is a miss, {more:.2} us with storing; a hit takes {:.2} us.\n",
        median(&times[HITS])
    );
    Ok(())
}

/// How much more one side takes than the other, in the median of the rounds.
fn added(with: &[f64], without: &[f64]) -> f64 {
    let differences: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
    median(&differences)
}
