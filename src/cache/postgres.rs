//! Keeps entries in a table of PostgreSQL: [`Postgres`].

mod address;
mod builder;
mod failure;
mod gate;
mod names;
mod parts;
mod pool;
mod read;
mod scan;
mod schema;
mod session;
mod shared;
mod statements;
mod stats;
mod store;
mod tls;
mod tries;
mod url;
mod write;

pub use self::{builder::PostgresBuilder, stats::PostgresStats, store::Postgres};
