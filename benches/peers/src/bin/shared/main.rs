//! Measures the stores of many machines beside bare clients of the same server, and with millions of entries.
//!
//! - `shared redis --url URL [--entries 65536] [--rounds 9]`
//! - `shared postgres --url URL [--entries 65536] [--rounds 5]`
//! - `shared millions-redis --url URL --data FOLDER [--entries 5000000] [--reads 1000000] [--writes 200000]`
//! - `shared millions-postgres --url URL [--entries 5000000] [--reads 1000000] [--writes 200000]`
//! - `shared widths --url URL [--entries 1000000] [--reads 400000]`: PostgreSQL's, by where the table keeps values
//!
//! The server must be nobody else's: it is emptied. `scripts/bench-cache` starts one. FOLDER is that of the server, in
//! which Redis keeps its append-only file.

mod client;
mod contest;
mod entries;
mod millions;
mod millions_postgres;
mod millions_redis;
mod postgres;
mod redis;
mod widths;

use peers::{Args, Result};
use tokio::runtime::Runtime;

fn main() -> Result<()> {
    let args = Args::read(&["data", "entries", "reads", "rounds", "url", "writes"])?;
    let url: String = args.get("url")?.ok_or("--url is missing")?;
    let runtime = Runtime::new()?;
    match args.rest.first().map(String::as_str) {
        Some("redis") => redis::run(&args, &runtime, &url),
        Some("postgres") => postgres::run(&args, &runtime, &url),
        Some("millions-redis") => millions_redis::run(&args, &runtime, &url),
        Some("millions-postgres") => millions_postgres::run(&args, &runtime, &url),
        Some("widths") => widths::run(&args, &runtime, &url),
        _ => Err("name a benchmark: redis, postgres, millions-redis, millions-postgres or widths".into()),
    }
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
