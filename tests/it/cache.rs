//! Stores for the cache: what each keeps, loses and survives.

mod guarded;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stores;
mod tiered;
