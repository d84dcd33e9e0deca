//! Lets a store and bare clients of the same server take turns, and prints how they compare: [`Contest`].

use std::sync::Arc;

use docvector_embed::{async_trait, cache::Key};
use peers::{Result, median};
use tokio::runtime::Runtime;

use crate::{
    client::{Client, Fault, Load, wait},
    entries::{Entries, key},
    grouped,
};

/// 384 components in halves and 384 and 768 in floats, with their headers.
const SIZES: [usize; 3] = [804, 1_572, 3_108];
const BATCHES: [u64; 2] = [256, 4_096];
const CALLERS: [usize; 2] = [1, 4];
const WANTED: f64 = 0.7;

/// What is done to a server while no clock runs.
#[async_trait]
pub trait Server: Send + Sync {
    /// Removes all entries, and waits until the server has no work left from them.
    async fn empty(&self) -> Result<(), Fault>;

    /// Does what the server would do to new entries sooner or later.
    async fn settle(&self) -> Result<(), Fault>;
}

pub struct Contest<'a> {
    pub runtime: &'a Runtime,
    pub server: &'a dyn Server,
    pub ours: Arc<dyn Client>,
    /// A bare client with one connection for all callers.
    pub one: Arc<dyn Client>,
    /// A bare client with a connection per caller.
    pub each: Arc<dyn Client>,
    pub entries: u64,
    pub rounds: usize,
}

/// The seconds that a side took, round by round, side by side.
type Times = Vec<Vec<f64>>;

impl Contest<'_> {
    pub fn run(&self) -> Result<()> {
        println!(
            "| | bytes of a value | entries per batch | batches at once | our store, entries/s | MB/s | bare, one \
             connection, entries/s | **ratio** | of the rounds | bare, one per caller, entries/s | ratio |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        let mut least = f64::INFINITY;
        for size in SIZES {
            let entries = Arc::new(Entries::of_size(size));
            for batch in BATCHES {
                for callers in CALLERS {
                    let load = Load { callers, batch, first: 0, count: self.entries };
                    least = least.min(self.print("put", size, load, &self.puts(load, &entries)?));
                    least = least.min(self.print("get", size, load, &self.gets(load, &entries)?));
                }
            }
        }
        println!(
            "\nWanted: at least {WANTED:.2} of the bare client with one connection. The least is {least:.2}{}.",
            if least >= WANTED { "" } else { ", which is less" }
        );
        Ok(())
    }

    /// Lets each side put all entries into an empty server.
    fn puts(&self, load: Load, entries: &Arc<Entries>) -> Result<Times> {
        self.in_turns(load, |client| {
            wait(self.runtime, async {
                self.server.empty().await?;
                let done = load.put(client, entries).await?;
                Ok(done.last().copied().unwrap_or_default())
            })
        })
    }

    /// Lets each side get the same entries, all that there are, in random order.
    fn gets(&self, load: Load, entries: &Arc<Entries>) -> Result<Times> {
        let mut keys: Vec<Key> = (0..load.count).map(key).collect();
        fastrand::Rng::with_seed(7).shuffle(&mut keys);
        let keys: Arc<[Key]> = keys.into();
        wait(self.runtime, async {
            self.server.empty().await?;
            load.put(&self.ours, entries).await?;
            self.server.settle().await
        })?;
        self.in_turns(load, |client| {
            let done = wait(self.runtime, load.get(client, &keys, entries.size()))?;
            Ok(done.last().copied().unwrap_or_default())
        })
    }

    /// Runs all sides in each round, each time from the next one on. A first round warms up.
    fn in_turns(&self, load: Load, run: impl Fn(&Arc<dyn Client>) -> Result<f64>) -> Result<Times> {
        let mut sides = vec![&self.ours, &self.one];
        if load.callers > 1 {
            sides.push(&self.each);
        }
        let mut times = vec![Vec::with_capacity(self.rounds); sides.len()];
        for round in 0..=self.rounds {
            for turn in 0..sides.len() {
                let side = (turn + round) % sides.len();
                let seconds = run(sides[side])?;
                if round > 0 {
                    times[side].push(seconds);
                }
            }
        }
        Ok(times)
    }

    /// Prints a line; returns the ratio to the bare client with one connection.
    fn print(&self, what: &str, size: usize, load: Load, times: &Times) -> f64 {
        let rate = |side: usize| load.count as f64 / median(&times[side]);
        let ratios =
            |side: usize| -> Vec<f64> { times[side].iter().zip(&times[0]).map(|(bare, ours)| bare / ours).collect() };
        let (of_one, ratio) = (ratios(1), median(&ratios(1)));
        let bounds =
            of_one.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), &ratio| (least.min(ratio), most.max(ratio)));
        let each = match times.get(2) {
            Some(_) => format!("{} | {:.2}", grouped(rate(2)), median(&ratios(2))),
            None => " | ".to_owned(),
        };
        println!(
            "| {what} | {} | {} | {} | {} | {:.0} | {} | {ratio:.2} | {:.2} ... {:.2} | {each} |",
            grouped(size as f64),
            grouped(load.batch as f64),
            load.callers,
            grouped(rate(0)),
            rate(0) * size as f64 / 1e6,
            grouped(rate(1)),
            bounds.0,
            bounds.1,
        );
        ratio
    }
}
