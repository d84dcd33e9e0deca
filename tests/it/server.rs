//! The embedding service over real sockets, by clients that write every byte themselves.

mod admission;
mod bad_requests;
mod client;
mod dialects;
mod drain;
mod leaving;
mod probes;
#[cfg(all(feature = "onnx", feature = "openai", unix))]
mod python_clients;
#[cfg(feature = "remote")]
mod remote;
mod running;

pub(crate) use self::{
    client::Client,
    running::{Running, is_at_once},
};
