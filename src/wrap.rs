//! Wraps embedders with one job each; wrappers are embedders, so they stack.

pub mod dedup;

pub use dedup::Dedup;
