//! `cache::Redis` beside a bare client of the redis crate: [`run`], and what is asked of a server ([`Admin`]).

use std::{sync::Arc, time::Duration};

use ::redis::{Cmd, Pipeline, Value, aio::MultiplexedConnection, cmd};
use docvector_embed::{
    async_trait,
    cache::{Entry, Key, Redis},
};
use futures_util::future::try_join_all;
use peers::{Args, Result};
use tokio::runtime::Runtime;

use crate::{
    client::{Client, Fault, Found, Ours, wait},
    contest::{Contest, Server},
    grouped,
};

/// The entries of a pipeline, or the keys of an `MGET`, of the bare client. It sends all parts of a batch at once.
/// Parts of 128 were about as fast, whole batches of 4,096 were slower.
const PART: usize = 512;

/// The names of entries begin so at our store, unless it is told otherwise. The bare client reads the same entries.
const PREFIX: &[u8] = b"dve:";

pub fn run(args: &Args, runtime: &Runtime, url: &str) -> Result<()> {
    let entries: u64 = args.get("entries")?.unwrap_or(65_536).max(1);
    let rounds: usize = args.get("rounds")?.unwrap_or(9).max(1);
    let (store, admin, one, each) = wait(runtime, async {
        let store = Redis::connect(url).await?;
        Ok((store, Admin::connect(url).await?, Bare::new(url, 1).await?, Bare::new(url, 4).await?))
    })?;
    println!(
        "{} entries, {rounds} rounds in turns, medians; {}, which appends to a file and syncs it each second. The bare \
         client sends all parts of a batch at once, {PART} entries as a pipeline of `SET NX` or {PART} keys as an \
         `MGET`, and adds up the lengths of values. It has one `MultiplexedConnection` for all batches, and in the \
         last columns one per batch at once. Our store has its default of 2 connections.\n",
        grouped(entries as f64),
        wait(runtime, admin.version())?
    );
    let contest = Contest {
        runtime,
        server: &admin,
        ours: Arc::new(Ours(store)),
        one: Arc::new(one),
        each: Arc::new(each),
        entries,
        rounds,
    };
    contest.run()
}

async fn connect(url: &str) -> Result<MultiplexedConnection, Fault> {
    // The client of 1.x gives up replies after half a second otherwise; our store waits longer, too.
    let config = ::redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    Ok(::redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

/// The redis crate as it is.
struct Bare(Vec<MultiplexedConnection>);

impl Bare {
    async fn new(url: &str, connections: usize) -> Result<Self, Fault> {
        let mut made = Vec::with_capacity(connections);
        for _ in 0..connections {
            made.push(connect(url).await?);
        }
        Ok(Self(made))
    }

    fn connection(&self, caller: usize) -> MultiplexedConnection {
        self.0[caller % self.0.len()].clone()
    }
}

fn add_name(command: &mut Cmd, key: &Key) {
    let mut name = [0; PREFIX.len() + 32];
    name[..PREFIX.len()].copy_from_slice(PREFIX);
    name[PREFIX.len()..].copy_from_slice(key.as_bytes());
    command.arg(&name[..]);
}

/// Stores a part of a batch; returns how many of the entries are new.
async fn put_part(mut connection: MultiplexedConnection, entries: &[Entry<'_>]) -> Result<usize, Fault> {
    let mut pipeline = Pipeline::with_capacity(entries.len());
    for entry in entries {
        let mut command = Cmd::with_capacity(4, 48 + entry.value.len());
        command.arg("SET");
        add_name(&mut command, &entry.key);
        command.arg(entry.value).arg("NX");
        pipeline.add_command(command);
    }
    let replies: Vec<Value> = pipeline.query_async(&mut connection).await?;
    Ok(replies.iter().filter(|reply| **reply == Value::Okay).count())
}

async fn get_part(mut connection: MultiplexedConnection, keys: &[Key]) -> Result<Found, Fault> {
    let mut command = Cmd::with_capacity(1 + keys.len(), 4 + keys.len() * (PREFIX.len() + 32));
    command.arg("MGET");
    keys.iter().for_each(|key| add_name(&mut command, key));
    let Value::Array(values) = command.query_async(&mut connection).await? else {
        return Err("MGET gave no array".into());
    };
    let mut found = Found::default();
    for value in &values {
        if let Value::BulkString(bytes) = value {
            found.add(bytes);
        }
    }
    Ok(found)
}

#[async_trait]
impl Client for Bare {
    async fn put(&self, caller: usize, entries: &[Entry<'_>]) -> Result<(), Fault> {
        let parts = entries.chunks(PART).map(|part| put_part(self.connection(caller), part));
        // The server is empty before, so that each entry is a new one.
        let stored: usize = try_join_all(parts).await?.into_iter().sum();
        if stored == entries.len() { Ok(()) } else { Err(format!("{stored} of {} were stored", entries.len()).into()) }
    }

    async fn get(&self, caller: usize, keys: &[Key]) -> Result<Found, Fault> {
        let parts = keys.chunks(PART).map(|part| get_part(self.connection(caller), part));
        let mut found = Found::default();
        for part in try_join_all(parts).await? {
            found.entries += part.entries;
            found.bytes += part.bytes;
        }
        Ok(found)
    }
}

/// Asks a server for what no store does.
pub struct Admin(MultiplexedConnection);

impl Admin {
    pub async fn connect(url: &str) -> Result<Self, Fault> {
        Ok(Self(connect(url).await?))
    }

    pub async fn version(&self) -> Result<String, Fault> {
        Ok(format!("Redis {}", self.told("server", "redis_version").await?))
    }

    /// Returns a fact of `INFO`.
    pub async fn told(&self, section: &str, name: &str) -> Result<String, Fault> {
        let told: String = cmd("INFO").arg(section).query_async(&mut self.0.clone()).await?;
        let fact = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(fact.ok_or_else(|| format!("INFO {section} has no {name}"))?.trim().to_owned())
    }

    /// Writes the append-only file anew, without what was removed.
    pub async fn rewrite(&self) -> Result<(), Fault> {
        let _: Value = cmd("BGREWRITEAOF").query_async(&mut self.0.clone()).await?;
        loop {
            let under_way = self.told("persistence", "aof_rewrite_in_progress").await?;
            let planned = self.told("persistence", "aof_rewrite_scheduled").await?;
            if under_way == "0" && planned == "0" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match self.told("persistence", "aof_last_bgrewrite_status").await?.as_str() {
            "ok" => Ok(()),
            status => Err(format!("the append-only file could not be rewritten: {status}").into()),
        }
    }
}

#[async_trait]
impl Server for Admin {
    async fn empty(&self) -> Result<(), Fault> {
        let _: Value = cmd("FLUSHALL").arg("SYNC").query_async(&mut self.0.clone()).await?;
        // Otherwise the file grows by what each round puts.
        self.rewrite().await
    }

    async fn settle(&self) -> Result<(), Fault> {
        Ok(())
    }
}
