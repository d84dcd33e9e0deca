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
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod tiered;

pub(crate) use self::key::HashOfKey;
#[cfg(feature = "sqlite")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "sqlite")))]
pub use self::sqlite::{Sqlite, SqliteBuilder, SqliteStats};
pub use self::{
    guarded::Guarded,
    key::Key,
    memory::Memory,
    store::{CacheStore, Entry, Sink},
    tiered::Tiered,
};
