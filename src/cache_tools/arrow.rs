//! Keeps entries in an Arrow file, which pyarrow, polars and others read: [`ArrowTarget`] and [`ArrowSource`].

mod batches;
mod footer;
mod partial;
mod schema;
mod source;
mod target;

pub use self::{source::ArrowSource, target::ArrowTarget};
