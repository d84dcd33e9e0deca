//! Serves an embedder over HTTP, to clients of three dialects. Its page is `docs/serving.md`.

mod admission;
mod builder;
mod call;
mod checks;
mod connection_io;
mod connections;
mod dialect;
mod drain_rate;
mod exchange;
mod figure;
mod handle;
mod health;
mod inner;
mod intake;
mod keys;
mod memory;
mod metrics;
mod model;
#[cfg(feature = "onnx")]
mod onnx_figures;
mod options;
mod refusal;
mod reply;
mod request;
mod routes;
mod state;
mod throughput;
mod vocabulary;

#[cfg(feature = "openai")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "openai")))]
pub use self::vocabulary::Cl100k;
pub use self::{
    builder::ServerBuilder,
    figure::Figure,
    handle::Server,
    model::ServedModel,
    options::ServerLimits,
    state::ServerState,
    vocabulary::{Token, Vocabulary},
};
