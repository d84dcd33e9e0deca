//! Fills a store with many entries, then reads and writes at that size: [`Millions`].

use std::sync::Arc;

use docvector_embed::cache::Key;
use peers::{Args, Result};
use tokio::runtime::Runtime;

use crate::{
    client::{Client, Load, wait},
    entries::{Entries, key},
    grouped,
};

/// Entries of a put while the store is filled, and of a call after that.
const FILL_BATCH: u64 = 4_096;
const BATCH: u64 = 256;
const CALLERS: usize = 4;

/// A store and what it is filled with.
pub struct Millions<'a> {
    runtime: &'a Runtime,
    client: Arc<dyn Client>,
    entries: Arc<Entries>,
    pub count: u64,
}

/// Entries per second while a store is filled.
pub struct Filled {
    /// Of the first tenth of the entries.
    first: f64,
    /// Of the last tenth.
    last: f64,
    pub all: f64,
}

impl<'a> Millions<'a> {
    pub fn new(runtime: &'a Runtime, client: Arc<dyn Client>, size: usize, count: u64) -> Self {
        Self { runtime, client, entries: Arc::new(Entries::of_size(size)), count }
    }

    pub fn fill(&self) -> Result<Filled> {
        let load = Load { callers: CALLERS, batch: FILL_BATCH, first: 0, count: self.count };
        let done = wait(self.runtime, load.put(&self.client, &self.entries))?;
        // All batches but the last one have the same size.
        let tenth = done.len().div_ceil(10);
        let (all, count) = (done[done.len() - 1], self.count as f64);
        let rest = done.len() - tenth;
        let before_last = if rest == 0 { 0.0 } else { done[rest - 1] };
        let of_last = count - (rest as u64 * FILL_BATCH) as f64;
        let of_first = count.min((tenth as u64 * FILL_BATCH) as f64);
        Ok(Filled { first: of_first / done[tenth - 1], last: of_last / (all - before_last), all: count / all })
    }

    /// Gets random entries, each batch of other ones; returns entries per second. A tenth of them warms up.
    pub fn read(&self, reads: u64) -> Result<f64> {
        let mut random = fastrand::Rng::with_seed(11);
        let mut keys = |count: u64| -> Arc<[Key]> { (0..count).map(|_| key(random.u64(0..self.count))).collect() };
        let (warm_up, asked) = (keys(reads.div_ceil(10)), keys(reads));
        self.get(&warm_up)?;
        let seconds = self.get(&asked)?;
        Ok(reads as f64 / seconds)
    }

    fn get(&self, keys: &Arc<[Key]>) -> Result<f64> {
        let load = Load { callers: CALLERS, batch: BATCH, first: 0, count: keys.len() as u64 };
        let done = wait(self.runtime, load.get(&self.client, keys, self.entries.size()))?;
        Ok(done[done.len() - 1])
    }

    /// Puts further entries; returns entries per second.
    pub fn write(&self, writes: u64) -> Result<f64> {
        let load = Load { callers: CALLERS, batch: BATCH, first: self.count, count: writes };
        let done = wait(self.runtime, load.put(&self.client, &self.entries))?;
        Ok(writes as f64 / done[done.len() - 1])
    }

    /// Returns how many bytes an entry takes, of those that all take.
    pub fn per_entry(&self, bytes: f64) -> String {
        format!("{} ({:.2} GB)", grouped(bytes / self.count as f64), bytes / 1e9)
    }
}

/// The table of one store, a fact per line.
pub struct Facts;

impl Facts {
    pub fn begin(store: &str, size: usize, count: u64) -> Self {
        println!("| {store}: {} entries of {} bytes | |", grouped(count as f64), grouped(size as f64));
        println!("|---|---:|");
        Self
    }

    pub fn tell(&self, what: &str, value: &str) {
        println!("| {what} | {value} |");
    }

    pub fn filled(&self, filled: &Filled) {
        let batches = format!("batches of {} from {CALLERS} callers, entries/s", grouped(FILL_BATCH as f64));
        self.tell(&format!("written in {batches}"), &grouped(filled.all));
        self.tell("of these, the first tenth", &grouped(filled.first));
        self.tell("of these, the last tenth", &grouped(filled.last));
    }

    /// Measures and tells reads and writes at this size.
    pub fn speeds(&self, args: &Args, millions: &Millions<'_>) -> Result<()> {
        let reads = args.get("reads")?.unwrap_or(1_000_000).max(1);
        let writes = args.get("writes")?.unwrap_or(200_000).max(1);
        let batches = format!("in batches of {BATCH} from {CALLERS} callers, entries/s");
        let rate = millions.read(reads)?;
        self.tell(&format!("{} random reads {batches}", grouped(reads as f64)), &grouped(rate));
        let rate = millions.write(writes)?;
        self.tell(&format!("{} new entries written {batches}", grouped(writes as f64)), &grouped(rate));
        Ok(())
    }
}
