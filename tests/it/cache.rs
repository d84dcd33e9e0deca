//! Stores for the cache: what each keeps, loses and survives.

mod guarded;
mod memory;
mod postgres;
mod redis;
mod shared_faults;
mod shared_laws;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stores;
mod tiered;
mod write_behind;
