//! Millions of entries in Redis: what they take in memory and in the append-only file, and how fast they are.

use std::{fs, io, path::Path, sync::Arc};

use docvector_embed::cache::Redis;
use peers::{Args, Result};
use tokio::runtime::Runtime;

use crate::{
    client::{Ours, wait},
    grouped,
    millions::{Facts, Millions},
    redis::Admin,
};

/// Of 384 components in halves, with the header.
const SIZE: usize = 804;

pub fn run(args: &Args, runtime: &Runtime, url: &str) -> Result<()> {
    let count: u64 = args.get("entries")?.unwrap_or(5_000_000).max(1);
    let data: String = args.get("data")?.ok_or("--data is missing")?;
    let (store, admin) = wait(runtime, async { Ok((Redis::connect(url).await?, Admin::connect(url).await?)) })?;
    let number = |section: &str, name: &str| -> Result<f64> { Ok(wait(runtime, admin.told(section, name))?.parse()?) };
    let empty = number("memory", "used_memory")?;
    let millions = Millions::new(runtime, Arc::new(Ours(store.clone())), SIZE, count);
    let facts = Facts::begin(&wait(runtime, admin.version())?, SIZE, count);
    facts.filled(&millions.fill()?);

    let stats = wait(runtime, async { Ok(store.stats().await?) })?;
    // The mark of the store is a key, too.
    if stats.entries < count {
        return Err(format!("{} of {} entries are there", grouped(stats.entries as f64), grouped(count as f64)).into());
    }
    facts.tell("memory per entry, bytes", &millions.per_entry(number("memory", "used_memory")? - empty));
    facts.tell("the same, as the system counts it", &millions.per_entry(number("memory", "used_memory_rss")?));
    wait(runtime, admin.rewrite())?;
    let file = bytes_below(&Path::new(&data).join("appendonlydir"))?;
    facts.tell("append-only file after a rewrite, per entry, bytes", &millions.per_entry(file as f64));
    facts.speeds(args, &millions)?;
    println!("\nThe server rewrote its append-only file only when it was told to.\n");
    Ok(())
}

fn bytes_below(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
}
