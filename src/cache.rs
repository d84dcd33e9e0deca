//! Stores for [`Cached`](crate::wrap::Cached): bytes under keys, kept for ever or while there is room.
//!
//! ```
//! use docvector_embed::cache::{CacheStore, Entry, Key, Memory};
//! # fn main() -> docvector_embed::Result<()> {
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Memory::new(1 << 20);
//! let key = Key::from_bytes([7; 32]);
//! store.put(&[Entry::new(key, b"bytes")]).await?;
//! let mut found = Vec::new();
//! store.get(&[key, Key::from_bytes([8; 32])], &mut |place, value| found.push((place, value.to_vec()))).await?;
//! assert_eq!(found, [(0, b"bytes".to_vec())]);
//! # Ok(()) }) }
//! ```
//!
//! [`Cached`](crate::wrap::Cached) alone knows what an entry means and whether it is whole; a store keeps bytes. Write
//! a store of your own by implementing [`CacheStore`], and check it with
//! [`conformance::store`](fn@crate::conformance::store).

mod guarded;
mod key;
mod memory;
pub(crate) mod owned_entries;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod scan;
mod spec;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod tiered;
mod write_behind;

pub(crate) use self::key::HashOfKey;
#[cfg(feature = "postgres")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "postgres")))]
pub use self::postgres::{Postgres, PostgresBuilder, PostgresStats};
#[cfg(feature = "redis")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "redis")))]
pub use self::redis::{Redis, RedisBuilder, RedisStats, Volatile};
#[cfg(feature = "sqlite")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "sqlite")))]
pub use self::sqlite::{Sqlite, SqliteBuilder, SqliteStats};
pub use self::{
    guarded::Guarded,
    key::Key,
    memory::Memory,
    scan::{CacheScan, ScanPlace, ScanSink},
    spec::{CacheSpec, CacheUrl, from_url},
    store::{CacheStore, Entry, Sink},
    tiered::Tiered,
    write_behind::{WriteBehind, WriteBehindCounts},
};
