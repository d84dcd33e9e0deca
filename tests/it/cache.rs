//! Stores for the cache: what each keeps, loses and survives.

mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stores;
mod tiered;
