//! Wider values in PostgreSQL: size and speed of the table as our store makes it, and with all values in their rows.

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

/// The most bytes of a row in a page of 8 KiB. By default, values that make a row longer than about 2 KB are moved out
/// of it, in pieces of that size.
const ROW_BYTES: usize = 8_160;

pub fn run(args: &Args, runtime: &Runtime, url: &str) -> Result<()> {
    let count: u64 = args.get("entries")?.unwrap_or(1_000_000).max(1);
    let reads: u64 = args.get("reads")?.unwrap_or(400_000).max(1);
    let admin = wait(runtime, Admin::connect(url))?;
    println!(
        "{}: {} entries of each size, and {} random reads in batches of 256 from 4 callers. A row is longer than 2 KB \
         only if the table is told so.\n",
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
        let [as_it_is, in_rows] = &measured[..] else { unreachable!("two were measured") };
        println!(
            "| | in their rows, of as it is | {:.2} | {:.2} | {:.2} | | | |",
            in_rows.written / as_it_is.written,
            in_rows.read / as_it_is.read,
            in_rows.disk / as_it_is.disk
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
        if in_rows {
            admin.run(&[&format!("ALTER TABLE {table} SET (toast_tuple_target = {ROW_BYTES})")]).await?;
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
        if in_rows { "in their rows: `toast_tuple_target = 8160`" } else { "as it is" },
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
