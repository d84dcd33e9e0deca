//! Serves an embedder over HTTP: a model on this machine or a whole stack, to clients of three dialects.
//!
//! ```
//! use std::{net::TcpListener, sync::Arc};
//! use docvector_embed::{provider::Fake, server::Server};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let server = Server::new(Arc::new(Fake::new(8)))?;
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! println!("curl http://{}/embed -d '{{\"texts\": [\"hello\"]}}'", listener.local_addr()?);
//! let serving = tokio::spawn({ let server = server.clone(); async move { server.serve(listener).await } });
//! // Later, to go away without losing a request:
//! server.drain();
//! serving.await??;
//! # Ok(()) }) }
//! ```
//!
//! The command is `docvector-embed serve --model DIR`. The client of this crate is `provider::Remote`.

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
mod inner;
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
