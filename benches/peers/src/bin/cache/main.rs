//! Measures the cache: its stores, `Cached` over them, and a whole stack of wrappers, around an embedder without the
//! costs of a provider.
//!
//! - `cache memory [--entries 100000] [--rounds 9]`
//! - `cache hits [--texts 30000] [--rounds 9] [FOLDER ...]`
//! - `cache sqlite [--entries 200000] [--rounds 3] [--dir target] [FOLDER ...]`
//! - `cache stack [--texts 10240] [--rounds 9] [FOLDER ...]`
//!
//! The compared sides take turns in one run. Texts are chunks of the documentation in the FOLDERs; without any, of the
//! documentation in the crates that cargo has fetched and of the sources of `python3`'s own library. Allocations are
//! counted on all sides, which costs a few nanoseconds each.

mod hits;
mod memory;
mod sqlite;
mod stack;
mod texts;

use peers::{
    Args, Result,
    allocations::{Counting, allocations},
};

/// Bytes of an entry before its components.
const HEADER: usize = 16;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<()> {
    let args = Args::read(&["dir", "entries", "rounds", "texts"])?;
    let (benchmark, folders) = args.rest.split_first().ok_or("name a benchmark: memory, hits, sqlite or stack")?;
    match benchmark.as_str() {
        "memory" => memory::run(&args),
        "hits" => hits::run(&args, folders),
        "sqlite" => sqlite::run(&args, folders),
        "stack" => stack::run(&args, folders),
        other => Err(format!("{other} is none of memory, hits, sqlite and stack").into()),
    }
}

/// Makes a runtime of the calling thread.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_time().build()?)
}

/// Writes a whole number as people read it.
fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}
