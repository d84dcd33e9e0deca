//! `Memory::get` beside copying the same values from known places.

use std::{hint::black_box, time::Instant};

use docvector_embed::{
    Error,
    cache::{CacheStore as _, Entry, Key, Memory},
};
use peers::{Args, Result, Rounds, median};

use crate::{HEADER, grouped, runtime};

const WIDTH: usize = 768;

/// Bytes of a row.
const ROW: usize = WIDTH * size_of::<f32>();

/// Keys of a call.
const BATCH: usize = 1_000;

pub fn run(args: &Args) -> Result<()> {
    let entries: usize = args.get("entries")?.unwrap_or(100_000).max(1);
    let rounds: usize = args.get("rounds")?.unwrap_or(9).max(1);
    let runtime = runtime()?;
    let mut random = fastrand::Rng::with_seed(7);
    let keys: Vec<Key> =
        (0..entries).map(|number| Key::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())).collect();
    let values: Vec<Box<[u8]>> = (0..entries)
        .map(|_| {
            let mut value = vec![0_u8; HEADER + ROW];
            random.fill(&mut value);
            value.into_boxed_slice()
        })
        .collect();
    // Twice the room, so that nothing is dropped however the keys fall on the parts of the table.
    let store = Memory::new(2 * entries as u64 * ((32 + HEADER + ROW) as u64 + Memory::OVERHEAD));
    runtime.block_on(async {
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let put: Vec<Entry<'_>> = keys.iter().zip(values).map(|(&key, value)| Entry::new(key, value)).collect();
            store.put(&put).await?;
        }
        Ok::<_, Error>(())
    })?;

    let mut order: Vec<usize> = (0..entries).collect();
    random.shuffle(&mut order);
    let asked: Vec<Key> = order.iter().map(|&number| keys[number]).collect();
    let mut matrix = vec![0_u8; BATCH * ROW];
    let ours = |matrix: &mut Vec<u8>| -> Result<f64> {
        let start = Instant::now();
        let mut rows = 0;
        runtime.block_on(async {
            for keys in asked.chunks(BATCH) {
                let mut sink = |place: usize, value: &[u8]| {
                    matrix[place * ROW..(place + 1) * ROW].copy_from_slice(&value[HEADER..]);
                    rows += 1;
                };
                store.get(keys, &mut sink).await?;
                black_box(matrix.as_slice());
            }
            Ok::<_, Error>(())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        if rows == entries { Ok(seconds) } else { Err(format!("{rows} of {entries} entries were found").into()) }
    };
    let copying = |matrix: &mut Vec<u8>| -> Result<f64> {
        let start = Instant::now();
        for numbers in order.chunks(BATCH) {
            for (place, &number) in numbers.iter().enumerate() {
                matrix[place * ROW..(place + 1) * ROW].copy_from_slice(&values[number][HEADER..]);
            }
            black_box(matrix.as_slice());
        }
        Ok(start.elapsed().as_secs_f64())
    };

    // Of the last call, all of whose rows are in the matrix.
    ours(&mut matrix)?;
    let found = matrix.clone();
    matrix.fill(0);
    copying(&mut matrix)?;
    let last = (entries - 1) % BATCH + 1;
    if found[..last * ROW] != matrix[..last * ROW] {
        return Err("the store gave other bytes than were put".into());
    }

    let times = Rounds::run(rounds, &mut matrix, ours, copying)?;
    let (ratio, least, most) = times.ratio();
    println!(
        "{} entries of {} bytes ({WIDTH} components), asked for in random order, {BATCH} keys a call, into one matrix; \
         {rounds} rounds in turns, medians, one thread.\n",
        grouped(entries as f64),
        HEADER + ROW
    );
    println!("| | rows/s | GB/s | ratio |");
    println!("|---|---:|---:|---:|");
    for (name, seconds, ratio) in [("`Memory::get`", &times.ours, ratio), ("copying the same bytes", &times.peers, 1.0)]
    {
        let rows = entries as f64 / median(seconds);
        println!("| {name} | {} | {:.2} | {ratio:.2} |", grouped(rows), rows * ROW as f64 / 1e9);
    }
    println!("\nRatio of the rounds: {least:.2} to {most:.2}. Wanted: at least 1,000,000 rows/s, or half of copying.");
    Ok(())
}
