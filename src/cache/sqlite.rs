//! Keeps entries in one SQLite file: [`Sqlite`].

mod beside;
mod builder;
mod failure;
mod foreign_wal;
mod immutable;
mod open;
mod read;
mod scan;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod write;

pub use self::{
    builder::SqliteBuilder,
    store::{Sqlite, SqliteStats},
};
