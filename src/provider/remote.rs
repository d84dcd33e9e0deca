//! Embeds through an embedding service: this crate's own server, or one of another kind: [`Remote`].

mod builder;
mod call;
mod choice;
mod connecting;
mod contact;
mod dialect;
mod embedder;
mod endpoint;
mod failure;
mod frame;
mod info;
mod inner;
mod known;
mod limits;
mod matrix;
mod native;
mod probe;
mod received_rows;
mod rest;
mod sending;
mod service_url;
mod stats;
mod tei;

pub use self::{builder::RemoteBuilder, dialect::RemoteDialect, embedder::Remote, stats::RemoteEndpointStats};
