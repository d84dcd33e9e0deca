//! Wider values in PostgreSQL: size and speed of the table as the server makes it by default, and as our store makes it,
//! with all values in their rows.

use std::sync::Arc;

use docvector_embed::cache::Postgres;
use peers::{Args, Result};
use tokio::runtime::Runtime;

use crate::{
    client::{Ours, wait},
    grouped,
    millions::Millions,
    postgres::Admin,
};

/// 384, 768 and 1,536 components in floats, with their headers.
const SIZES: [usize; 3] = [1_572, 3_108, 6_180];

pub fn run(args: &Args, runtime: &Runtime, url: &str) -> Result<()> {
    let count: u64 = args.get("entries")?.unwrap_or(1_000_000).max(1);
    let reads: u64 = args.get("reads")?.unwrap_or(400_000).max(1);
    let admin = wait(runtime, Admin::connect(url))?;
    println!(
        "{}: {} entries of each size, and {} random reads in batches of 256 from 4 callers. By default, \
         values that make a row longer than about 2 KB are moved out of it, in pieces of that size.\n",
        wait(runtime, admin.version())?,
        grouped(count as f64),
        grouped(reads as f64)
    );
    println!(
        "| bytes of a value | values | written, entries/s | read, entries/s | disk per entry, bytes | rows | out of \
         the row | index |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|");
    for size in SIZES {
        let mut measured = Vec::new();
        for in_rows in [false, true] {
            measured.push(measure(runtime, &admin, url, (size, in_rows), count, reads)?);
        }
        let [by_default, in_rows] = &measured[..] else { unreachable!("two were measured") };
        println!(
            "| | in their rows, of by default | {:.2} | {:.2} | {:.2} | | | |",
            in_rows.written / by_default.written,
            in_rows.read / by_default.read,
            in_rows.disk / by_default.disk
        );
    }
    Ok(())
}

struct Measured {
    written: f64,
    read: f64,
    disk: f64,
}

/// Makes a table, measures it and removes it.
fn measure(
    runtime: &Runtime,
    admin: &Admin,
    url: &str,
    (size, in_rows): (usize, bool),
    count: u64,
    reads: u64,
) -> Result<Measured> {
    let table = format!("values_{size}_{in_rows}");
    let store = wait(runtime, async {
        let store = Postgres::builder(url).with_table(&table).build().await?;
        if !in_rows {
            admin.run(&[&format!("ALTER TABLE {table} RESET (toast_tuple_target)")]).await?;
        }
        Ok(store)
    })?;
    let millions = Millions::new(runtime, Arc::new(Ours(store)), size, count);
    let written = millions.fill()?.all;
    let disk = wait(runtime, async {
        admin.vacuum(&table).await?;
        admin.size(&table).await
    })?;
    let read = millions.read(reads)?;
    let per_entry = |bytes: f64| grouped(bytes / count as f64);
    println!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        grouped(size as f64),
        if in_rows { "in their rows, as the store has it" } else { "by default" },
        grouped(written),
        grouped(read),
        per_entry(disk.all),
        per_entry(disk.heap),
        per_entry(disk.toast),
        per_entry(disk.index)
    );
    wait(runtime, admin.run(&[&format!("DROP TABLE {table}, {table}_spaces, {table}_meta"), "CHECKPOINT"]))?;
    Ok(Measured { written, read, disk: disk.all })
}
