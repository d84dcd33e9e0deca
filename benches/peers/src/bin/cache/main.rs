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
    median,
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

/// The seconds that two sides took, round by round.
#[derive(Default)]
struct Rounds {
    ours: Vec<f64>,
    peers: Vec<f64>,
}

impl Rounds {
    /// Lets two sides take turns with the state that they share; they swap places in each round. A first round warms
    /// up.
    fn run<S>(
        rounds: usize,
        shared: &mut S,
        mut ours: impl FnMut(&mut S) -> Result<f64>,
        mut peers: impl FnMut(&mut S) -> Result<f64>,
    ) -> Result<Self> {
        let mut times = Self::default();
        for round in 0..=rounds {
            let (our_time, peer_time) = if round % 2 == 0 {
                let first = ours(shared)?;
                (first, peers(shared)?)
            } else {
                let first = peers(shared)?;
                (ours(shared)?, first)
            };
            if round > 0 {
                times.ours.push(our_time);
                times.peers.push(peer_time);
            }
        }
        Ok(times)
    }

    /// Our speed divided by the peer's: the median of the rounds, the least and the most.
    fn ratio(&self) -> (f64, f64, f64) {
        let ratios: Vec<f64> = self.peers.iter().zip(&self.ours).map(|(peer, ours)| peer / ours).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        (median(&ratios), least, most)
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
