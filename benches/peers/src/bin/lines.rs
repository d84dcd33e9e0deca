//! Reads the lines of a batch's output file, 64 rows of 1,536 components in each: this crate beside serde_json and
//! base64, in turns.
//!
//! `lines [--pairs 11] [--lines 40]`. 782 lines are 50,000 vectors, which take 2 GB of memory. The whole file is in
//! memory, once with vectors in base64 and once as JSON numbers. Both sides read one line after the other and end with
//! its rows as floats in the order of the texts, which are then dropped: this crate with all its checks of the reply;
//! the other as users write it, by serde_json's `Value`, and base64's decoder or the numbers of an array. One thread.

use std::{hint::black_box, time::Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use docvector_embed::{
    Embeddings,
    provider::{OpenAi, batch_lines},
};
use peers::{Args, DIMENSIONS, MODEL, Result, Rounds, base64_row, median, unit_vector};
use serde_json::Value;

const TEXTS_PER_LINE: usize = 64;

/// Lines of a file, unless others are asked for: 21 MB of base64, or 74 MB of numbers.
const LINES: usize = 40;

fn main() -> Result<()> {
    let args = Args::read(&["pairs", "lines"])?;
    let pairs = args.get("pairs")?.unwrap_or(11_usize).max(1);
    let lines = args.get("lines")?.unwrap_or(LINES).max(1);
    let embedder = OpenAi::builder(MODEL).with_base_url("http://127.0.0.1:9/v1").build()?;
    println!(
        "A file of {lines} lines with {TEXTS_PER_LINE} x {DIMENSIONS} each, {pairs} pairs, medians, one thread.\n\n\
         | vectors | MB | this crate, MB/s | serde_json and base64, MB/s | ratio | pairs' ratios |\n\
         |---|---:|---:|---:|---:|---:|"
    );
    for (name, write) in [("base64", base64_row as fn(&[f32]) -> String), ("numbers", decimal_row)] {
        let file = file(lines, write);
        check_that_they_agree(&file, &embedder)?;
        let ours = |_: &mut ()| timed(&file, |line| ours(line, &embedder));
        let times = Rounds::run(pairs, &mut (), ours, |()| timed(&file, theirs))?;
        let (ratio, least, most) = times.ratio();
        let megabytes = file.len() as f64 / 1e6;
        println!(
            "| {name} | {megabytes:.1} | {:.0} | {:.0} | {ratio:.2} | {least:.2} to {most:.2} |",
            megabytes / median(&times.ours),
            megabytes / median(&times.peers)
        );
    }
    println!("\nWanted: at least 200 MB/s in both forms.");
    Ok(())
}

fn timed<T>(file: &[u8], read: impl Fn(&[u8]) -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    for line in lines(file) {
        drop(black_box(read(line)?));
    }
    Ok(start.elapsed().as_secs_f64())
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

fn ours(line: &[u8], embedder: &OpenAi) -> Result<Embeddings> {
    let read = batch_lines::read(line, |_| Some(TEXTS_PER_LINE), embedder)?;
    Ok(read.ok_or("a blank line")?.1?)
}

fn theirs(line: &[u8]) -> Result<Vec<Vec<f32>>> {
    let line: Value = serde_json::from_slice(line)?;
    let data = line["response"]["body"]["data"].as_array().ok_or("no rows")?;
    let mut rows = vec![Vec::new(); data.len()];
    for row in data {
        let index = row["index"].as_u64().ok_or("no index")? as usize;
        rows[index] = match &row["embedding"] {
            Value::String(text) => {
                let bytes = BASE64_STANDARD.decode(text)?;
                bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect()
            }
            Value::Array(numbers) => numbers.iter().map(|number| number.as_f64().unwrap_or(f64::NAN) as f32).collect(),
            _ => return Err("no vector".into()),
        };
    }
    Ok(rows)
}

fn check_that_they_agree(file: &[u8], embedder: &OpenAi) -> Result<()> {
    for line in lines(file) {
        let (ours, theirs) = (ours(line, embedder)?, theirs(line)?);
        if ours.len() != theirs.len() || !ours.rows().zip(&theirs).all(|(our_row, their_row)| our_row == their_row) {
            return Err("the two sides read different vectors".into());
        }
    }
    Ok(())
}

/// Writes an output file as the API does, with the rows of every second line in reverse.
fn file(lines: usize, write: fn(&[f32]) -> String) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut file = String::new();
    for line in 0..lines {
        let row = |at: usize| {
            let index = if line % 2 == 0 { at } else { TEXTS_PER_LINE - 1 - at };
            let vector = write(&f16_vector(&mut random));
            format!(r#"{{"object":"embedding","index":{index},"embedding":{vector}}}"#)
        };
        let rows: Vec<String> = (0..TEXTS_PER_LINE).map(row).collect();
        file += &format!(
            r#"{{"id":"batch_req_{line}","custom_id":"{line}-0123456789abcdef","response":{{"status_code":200,"request_id":"{line}","body":{{"object":"list","data":[{}],"model":"{MODEL}","usage":{{"prompt_tokens":640,"total_tokens":640}}}}}},"error":null}}"#,
            rows.join(",")
        );
        file.push('\n');
    }
    file.into_bytes()
}

/// Makes a random vector of length 1 whose components have the 11 bits of a 16-bit float, as OpenAI's have.
fn f16_vector(random: &mut fastrand::Rng) -> Vec<f32> {
    let vector = unit_vector(random, DIMENSIONS);
    vector.into_iter().map(|component| f32::from_bits(component.to_bits() & !0x1fff)).collect()
}

/// Writes a vector as a JSON array, each number with all its decimals.
fn decimal_row(vector: &[f32]) -> String {
    let numbers: Vec<String> = vector.iter().map(|&component| f64::from(component).to_string()).collect();
    format!("[{}]", numbers.join(","))
}
