//! Keeps vectors in a store of bytes: the keys of texts, the bytes of entries, and [`VectorStore`], which uses both.

mod counts;
mod entry;
mod key;
mod rows;
mod vector_store;

#[cfg(fuzzing)]
pub use self::entry::fuzz;
pub use self::entry::{EntryInfo, VectorEncoding};
pub(crate) use self::{counts::StoreCounts, key::Keys, rows::Rows, vector_store::VectorStore};
