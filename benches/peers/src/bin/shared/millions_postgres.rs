//! Millions of entries in PostgreSQL: what they take on the disk, and how fast they are.

use std::sync::Arc;

use docvector_embed::cache::Postgres;
use peers::{Args, Result};
use tokio::runtime::Runtime;

use crate::{
    client::{Ours, wait},
    millions::{Facts, Millions},
    postgres::{Admin, TABLE},
};

/// Of 384 components in halves, with the header.
const SIZE: usize = 804;

pub fn run(args: &Args, runtime: &Runtime, url: &str) -> Result<()> {
    let count: u64 = args.get("entries")?.unwrap_or(5_000_000).max(1);
    let (store, admin) = wait(runtime, async { Ok((Postgres::connect(url).await?, Admin::connect(url).await?)) })?;
    let millions = Millions::new(runtime, Arc::new(Ours(store)), SIZE, count);
    let facts = Facts::begin(&wait(runtime, admin.version())?, SIZE, count);
    facts.filled(&millions.fill()?);

    let size = wait(runtime, async {
        admin.vacuum(TABLE).await?;
        admin.size(TABLE).await
    })?;
    facts.tell("disk per entry, bytes", &millions.per_entry(size.all));
    facts.tell("of these, rows", &millions.per_entry(size.heap));
    facts.tell("of these, the index", &millions.per_entry(size.index));
    facts.tell("of these, values out of the row", &millions.per_entry(size.toast));
    facts.speeds(args, &millions)?;
    println!("\nThe table was vacuumed after it was filled, as the server does it by itself later.\n");
    Ok(())
}
