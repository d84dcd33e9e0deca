//! Counts what the server holds: [`RedisStats`].

use ::redis::Value;

use super::{check::infos_of, command::command, connection::Request, store::Redis};
use crate::Result;

/// The counts of [`Redis::stats`].
///
/// ```no_run
/// use docvector_embed::cache::Redis;
/// # async fn stats() -> docvector_embed::Result<()> {
/// let store = Redis::connect("redis://localhost").await?;
/// let stats = store.stats().await?;
/// println!("{} entries in {} bytes, {}", stats.entries, stats.used_memory, stats.version);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RedisStats {
    /// The keys in the database. These are the entries, the notes and the mark of this store, and all keys of others.
    pub entries: u64,
    /// The bytes of memory that the server uses, for all its databases.
    pub used_memory: u64,
    /// The limit of the memory in bytes; 0 if there is none or the server does not tell.
    pub max_memory: u64,
    /// The version of the server, such as `7.0.15`.
    pub version: String,
    /// Whether the server is Valkey.
    pub is_valkey: bool,
    /// The servers that hold entries: 1, or the primaries of a cluster.
    pub servers: u64,
    /// How often the server was found without the entries that it had before: see [`Redis::losses`].
    pub losses: u64,
}

impl Redis {
    /// Asks the server how much it holds. In a cluster, the counts are sums over its primaries.
    ///
    /// # Errors
    /// Those of [`CacheStore::get`](crate::cache::CacheStore::get).
    pub async fn stats(&self) -> Result<RedisStats> {
        const WHAT: &str = "the counts could not be read";
        let entries = self.count_keys(WHAT).await?;
        let infos = infos_of(self.pool().send(&Request::Servers(command(&["INFO"])), WHAT).await?);
        let mut stats =
            RedisStats { entries, servers: infos.len() as u64, losses: self.losses(), ..RedisStats::default() };
        for (_, info) in infos {
            stats.used_memory = stats.used_memory.saturating_add(info.used_memory);
            stats.max_memory = stats.max_memory.saturating_add(info.max_memory.unwrap_or_default());
            stats.is_valkey |= info.is_valkey;
            stats.version = info.version;
        }
        Ok(stats)
    }

    /// Counts the keys of all servers.
    pub(super) async fn count_keys(&self, what: &str) -> Result<u64> {
        let reply = self.pool().send(&Request::Servers(command(&["DBSIZE"])), what).await?;
        let Value::Map(counts) = reply else { return Err(self.pool().unexpected(what)) };
        let mut sum = 0_u64;
        for (_, count) in counts {
            match count {
                Value::Int(count) => sum = sum.saturating_add(count.unsigned_abs()),
                _ => return Err(self.pool().unexpected(what)),
            }
        }
        Ok(sum)
    }
}
