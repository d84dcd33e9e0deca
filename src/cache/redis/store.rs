//! Reads and writes entries at a server: [`Redis`].

use std::{fmt, sync::Arc};

use ::redis::Value;
use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{
    command::command,
    connection::{Commands, Request},
    parts::{ReplySizes, first_of_each_key, parts_of},
    pool::Pool,
};
use crate::{
    Error, ErrorKind, Result, SpaceId,
    cache::{CacheStore, Entry, Key, Sink},
};

/// The parts of one call that are sent and not yet answered.
const PARTS_IN_FLIGHT: usize = 4;

/// The maximum size of a value, which is that of the server.
const MAX_VALUE_BYTES: usize = 512 << 20;

/// Keeps entries at a Redis or Valkey server, or in a cluster, for many machines. Clones share.
///
/// ```no_run
/// use docvector_embed::cache::{CacheStore, Entry, Key, Redis};
/// # async fn store() -> docvector_embed::Result<()> {
/// let store = Redis::connect("redis://localhost").await?;
/// let key = Key::from_bytes([7; 32]);
/// store.put(&[Entry::new(key, b"bytes")]).await?;
/// let mut found = Vec::new();
/// store.get(&[key], &mut |_, value| found.push(value.to_vec())).await?;
/// assert_eq!(found, [b"bytes"]);
/// # Ok(()) }
/// ```
///
/// # Semantics
/// An `Ok` of [`put`](CacheStore::put) means that the server has the entries in its memory. With `appendonly yes`, they
/// are on its disk within a second, or before the reply if `appendfsync always` is set. A replica may get them later,
/// so a failover can lose the last ones. [`flush`](CacheStore::flush) shows that the server answers; it does not wait
/// for a disk.
///
/// An entry is a string under a prefix and the 32 bytes of its key, without a time to live. The first value of a key
/// stays (`SET NX`). The notes are a hash under the prefix and `spaces`. Under the prefix and `store` is a random mark.
///
/// **A server that may forget entries is refused**: one whose `maxmemory-policy` evicts any key, or that has no
/// append-only file. [`Volatile`](super::Volatile) allows it. This is checked at each new connection, by `INFO`.
///
/// **A server that has lost its entries** (a failover to an empty server, `FLUSHALL`) is recognized at the next
/// connection: its mark is gone, or is another one. A warning is logged, [`losses`](Self::losses) counts it, the server
/// gets a new mark, and the store goes on: the entries are not found, and their texts are paid for again. In a cluster,
/// the mark is at one of the servers, and shows the losses of that one.
///
/// **A broken connection** is made again, one attempt at a time, and the call is sent again, once. So a server that just
/// restarted costs no error. While a server cannot be reached, calls fail at once with the last error, and a new
/// attempt is made after 0.2 s, then after twice as long each time, up to 5 s. A call that is not
/// answered in time is not sent again.
///
/// **A read-only replica** can be read. Puts fail. If a primary becomes a replica, the next put connects again, so that
/// an address which leads to the new primary is followed.
///
/// **TLS** (`rediss://`) trusts the authorities of the system, or those in the file that `SSL_CERT_FILE` names. It uses
/// the cryptography that the process has installed for rustls. If none is installed, the first such connection installs
/// ring; a program that installs another one should do so before.
///
/// # Errors
/// [`Cache`](ErrorKind::Cache), with host, port and what to do, if the server cannot be reached, does not answer in
/// time, or refuses: its memory or disk is full, it is a replica, it loads its data, the user has no right. Also for a
/// value of more than 512 MiB, before anything is sent. [`Config`](ErrorKind::Config) if the URL or an option of the
/// [builder](super::RedisBuilder) is wrong. If a put fails, some of its entries may be stored; it can be repeated.
///
/// # Cancellation
/// A dropped `put` may have stored some of its entries, each of them whole. The connection stays in use.
///
/// # Cost
/// Needs a tokio runtime with time and I/O. Each connection is a task of the runtime in which it was made. A look-up is
/// sent in parts of about a megabyte of reply (`MGET` of at most 512 keys), a put in parts of a megabyte; up to 4 parts
/// are under way per call. The size of a reply is estimated from those before, so the memory of a call is bounded by
/// about 4 MiB where values have similar sizes. A put takes about three times its parts: the redis crate copies a value
/// into a command, into a request and into the connection. In a cluster, entries are sent one by one, 128 at a time per
/// part, because their slots differ. At the server, an entry takes its value, its key, and about 100 bytes.
#[derive(Clone)]
pub struct Redis(Arc<Shared>);

struct Shared {
    pool: Pool,
    sizes: ReplySizes,
}

impl Redis {
    pub(super) fn new(pool: Pool) -> Self {
        Self(Arc::new(Shared { pool, sizes: ReplySizes::default() }))
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Returns how many entries make a part of a look-up.
    pub(super) fn keys_per_part(&self) -> usize {
        self.0.sizes.keys_per_part()
    }

    /// Returns how often the server was found without the entries that it had before. They are paid for again.
    pub fn losses(&self) -> u64 {
        self.pool().checks.losses()
    }

    /// Looks up a part of the keys. Returns the place of the first one, and a value or nothing for each.
    async fn look_up(&self, first: usize, keys: &[Key]) -> Result<(usize, Vec<Value>)> {
        const WHAT: &str = "entries could not be looked up";
        let reply = self.pool().send(&Request::One(self.pool().names.look_up(keys)), WHAT).await?;
        let Value::Array(values) = reply else { return Err(self.pool().unexpected(WHAT)) };
        let mut largest = None;
        for value in &values {
            match value {
                Value::BulkString(bytes) => largest = largest.max(Some(bytes.len())),
                Value::Nil => {}
                _ => return Err(self.pool().unexpected(WHAT)),
            }
        }
        if values.len() != keys.len() {
            return Err(self.pool().unexpected(WHAT));
        }
        self.0.sizes.learn(largest);
        Ok((first, values))
    }

    async fn put_part(&self, entries: &[Entry<'_>]) -> Result<()> {
        const WHAT: &str = "entries were not stored";
        let make = |at: usize| self.pool().names.put(&entries[at]);
        let commands = Commands { count: entries.len(), key_at: 1, make: &make };
        // Nothing instead of OK: the key has a value.
        self.send_each(commands, WHAT, |reply| matches!(reply, Value::Okay | Value::Nil)).await
    }

    async fn discard_part(&self, entries: &[Entry<'_>]) -> Result<()> {
        const WHAT: &str = "entries were not discarded";
        let make = |at: usize| self.pool().names.discard(&entries[at]);
        let commands = Commands { count: entries.len(), key_at: 3, make: &make };
        self.send_each(commands, WHAT, |reply| matches!(reply, Value::Int(_))).await
    }

    async fn send_each(&self, commands: Commands<'_>, what: &str, is_expected: fn(&Value) -> bool) -> Result<()> {
        let count = commands.count;
        match self.pool().send(&Request::Each(commands), what).await? {
            Value::Array(replies) if replies.len() == count && replies.iter().all(is_expected) => Ok(()),
            _ => Err(self.pool().unexpected(what)),
        }
    }

    /// Refuses values that the server would refuse, by breaking the connection.
    fn check_sizes(&self, entries: &[Entry<'_>]) -> Result<()> {
        let Some(entry) = entries.iter().find(|entry| entry.value.len() > MAX_VALUE_BYTES) else { return Ok(()) };
        let (bytes, at) = (entry.value.len(), &self.pool().address);
        let message =
            format!("redis at {at}: an entry of {bytes} bytes cannot be stored: the limit is {MAX_VALUE_BYTES}");
        Err(Error::new(ErrorKind::Cache, message))
    }
}

impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis")
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("servers", &self.pool().address)
            .field("is_cluster", &self.pool().address.is_cluster)
            .field("prefix", &self.pool().names.prefix())
            .field("losses", &self.losses())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl CacheStore for Redis {
    async fn get(&self, keys: &[Key], sink: &mut Sink<'_>) -> Result<()> {
        let (mut under_way, mut next) = (FuturesUnordered::new(), 0);
        loop {
            // While the size of values is not known, one part goes alone.
            let most = if self.0.sizes.is_known() { PARTS_IN_FLIGHT } else { 1 };
            while next < keys.len() && under_way.len() < most {
                let end = keys.len().min(next + self.keys_per_part());
                under_way.push(self.look_up(next, &keys[next..end]));
                next = end;
            }
            let Some(part) = under_way.next().await else { return Ok(()) };
            let (first, values) = part?;
            for (at, value) in values.iter().enumerate() {
                if let Value::BulkString(bytes) = value {
                    sink(first + at, bytes);
                }
            }
        }
    }

    async fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.check_sizes(entries)?;
        // The commands of one part arrive in their order, except in a cluster.
        let is_ordered = !self.pool().address.is_cluster && parts_of(entries).nth(1).is_none();
        let firsts = if is_ordered { Vec::new() } else { first_of_each_key(entries) };
        let entries = if is_ordered { entries } else { &firsts };
        let mut under_way = FuturesUnordered::new();
        for part in parts_of(entries) {
            if under_way.len() >= PARTS_IN_FLIGHT
                && let Some(done) = under_way.next().await
            {
                let () = done?;
            }
            under_way.push(self.put_part(&entries[part]));
        }
        while let Some(done) = under_way.next().await {
            let () = done?;
        }
        Ok(())
    }

    async fn discard(&self, damaged: &[Entry<'_>]) -> Result<()> {
        self.check_sizes(damaged)?;
        for part in parts_of(damaged) {
            self.discard_part(&damaged[part]).await?;
        }
        Ok(())
    }

    async fn note(&self, space: SpaceId, about: &str) -> Result<()> {
        const WHAT: &str = "a note about a space was not kept";
        let command = self.pool().names.note(&space.to_string(), about);
        match self.pool().send(&Request::One(command), WHAT).await? {
            Value::Int(_) => Ok(()),
            _ => Err(self.pool().unexpected(WHAT)),
        }
    }

    async fn flush(&self) -> Result<()> {
        self.pool().send(&Request::Servers(command(&["PING"])), "the server does not answer").await.map(|_| ())
    }
}
