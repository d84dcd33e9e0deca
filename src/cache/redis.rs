//! Keeps entries at a Redis or Valkey server, or in a cluster: [`Redis`].

mod address;
mod builder;
mod check;
mod command;
mod connection;
mod failure;
mod info;
mod parts;
mod pool;
mod scan;
mod stats;
mod store;
mod volatile;

pub use self::{builder::RedisBuilder, stats::RedisStats, store::Redis, volatile::Volatile};
