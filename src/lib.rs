//! Turns texts into vectors, from any provider, in a known vector space.
//!
//! ```
//! use docvector_embed::{EmbedderExt, provider::Fake};
//! # fn main() -> docvector_embed::Result<()> {
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! // Any embedder: `provider::Onnx` runs a real model in this process; `Fake` needs none.
//! let embedder = Fake::new(384).dedup();
//!
//! // Any number of texts; one contiguous matrix; row i belongs to text i.
//! let documents = embedder.embed_documents(&["the first text", "the second"]).await?;
//! let query = embedder.embed_query_in(documents.space(), "which one?").await?;
//! let cosine: f32 = documents.row(0).iter().zip(&query).map(|(a, b)| a * b).sum();
//! # assert!(cosine.abs() <= 1.0);
//!
//! // Every result knows its space and its cost.
//! assert_eq!(documents.space().id(), embedder.space()?.id());
//! assert_eq!(documents.usage().requests, 1);
//! # Ok(()) }) }
//! ```
//!
//! # The ideas, in reading order
//! - [`Embedder`] is the one trait: three methods to write, nine laws. Providers and wrappers implement it.
//! - [`EmbedderExt`] is what users call: any number of texts, streams, one result per text, and the wrappers as
//!   methods.
//! - A [`Batch`] is the question: borrowed texts, their [kind](InputKind), and what to do with those that are [too
//!   long](Truncation). [`Embeddings`] are the answer: a matrix with its [`Space`], its [`Usage`], and the indices of
//!   the truncated texts.
//! - A [`Space`] says which vectors can be compared. Name a collection by its [`SpaceId`].
//! - An [`Error`] says what failed and which texts are the cause, and returns the rows that were finished.
//! - [`wrap::Cached`] embeds each text once, ever. It keeps the vectors in a [store](cache): in memory, in a file, or
//!   one of your own.
//! - [`Config`] makes a whole stack of environment variables.
//! - [`wrap::Resilient`] and [`wrap::AbSplit`] put several providers behind one embedder, and an [`observer`] hears what
//!   happens in a stack.
//! - [`provider::Fake`] is the simplest provider and [`wrap::Dedup`] the simplest wrapper: read them before you write
//!   your own, and run [`conformance`] on it.
//!
//! Further pages: [stacking](docs::stacking) wrappers and where the cache goes,
//! [calls that survive the real world](docs::calls), the [architecture](docs::architecture) and its files, the
//! [design](docs::design) and its reasons, [writing a provider](docs::writing_a_provider) or a wrapper,
//! [testing](docs::testing) code that embeds.
//!
//! # Cargo features
//! | feature | adds | default |
//! |---|---|---|
//! | `openai` | `provider::OpenAi`: OpenAI and every server that speaks its API; needs a C compiler to build | no |
//! | `remote` | `provider::Remote`: the client of embedding services: this crate's own server, text-embeddings-inference, and with `openai` servers of OpenAI's API; needs a C compiler to build | no |
//! | `sqlite` | `cache::Sqlite`: a cache in one file, for several processes; needs a C compiler to build | no |
//! | `onnx` | `provider::Onnx`: local models on ONNX Runtime, loaded at run time; needs a C compiler to build | no |
//! | `cuda` | `Device::Cuda` for `provider::Onnx`; needs ONNX Runtime's build for CUDA when it runs; turns on `onnx` | no |
//! | `tokenizers` | `TokenizerCounter`: counts tokens by a `tokenizer.json`, without ONNX Runtime; needs a C compiler to build; `onnx` turns it on | no |
//! | `serde` | `Serialize` and `Deserialize` for spaces, ids, usage, charges, totals, limits and prices | no |
//! | `metrics` | `observer::ToMetrics`: measures calls through the `metrics` facade, as for Prometheus | no |
//! | `testing` | `testing::Simulator`: OpenAI's Files and Batches API on loopback, for tests without a key | no |
//! | `server` | `server::Server`: an embedder as a service over HTTP, for clients of three dialects | no |
//! | `cli` | the command `docvector-embed`; turns on `onnx`, `openai`, `remote`, `server` and `sqlite` | no |
//! | `full` | everything | no |
//!
//! Features only add items: no feature changes what another one does. `serde` is for formats that name their fields, such
//! as JSON. Absent fields have their defaults, and fields of later versions are ignored. Only a [`Space`] is refused if its
//! fields do not make its id.
#![cfg_attr(docvector_docs, feature(doc_cfg))]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod all;
mod assets;
mod batch;
#[cfg(any(feature = "arrow", feature = "sqlite"))]
mod beside;
mod breaker_state;
mod byte_size;
pub mod cache;
pub mod cache_tools;
mod call_record;
mod charges;
mod checked;
pub mod config;
pub mod conformance;
mod counted;
mod counting;
mod deadline;
mod driven;
mod embedder;
mod embeddings;
mod error;
mod explanation;
mod ext;
mod finished;
mod gather;
#[cfg(feature = "__http")]
#[cfg_attr(not(feature = "openai"), allow(dead_code, reason = "not every remote provider uses all of it"))]
mod http;
mod input_kind;
mod lanes;
mod limits;
mod named;
mod not_built_in;
mod numerics;
pub mod observer;
mod options;
mod packed;
mod pause;
#[cfg(any(feature = "redis", feature = "server"))]
mod percent;
pub mod plan;
mod planner;
pub mod price;
pub mod provider;
mod rate_limit_status;
#[cfg(feature = "server")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "server")))]
#[doc = include_str!("docs/serving.md")]
pub mod server;
mod shared_call;
mod shown_name;
mod space;
mod stored_vectors;
mod sync;
pub mod telemetry;
#[cfg(feature = "testing")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "testing")))]
pub mod testing;
#[cfg(feature = "tokenizers")]
mod tokenizer;
#[cfg(feature = "tokenizers")]
mod tokenizer_counter;
mod totals;
mod under_way;
mod usage;
mod user_folder;
#[cfg(any(feature = "__http", feature = "server"))]
#[cfg_attr(
    not(all(feature = "remote", feature = "server")),
    allow(dead_code, reason = "each side uses its own part of it")
)]
mod wire;
pub mod wrap;

pub use async_trait::async_trait;
pub use ndarray;

#[cfg(feature = "tokenizers")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "tokenizers")))]
pub use self::tokenizer_counter::TokenizerCounter;
pub use self::{
    batch::Batch,
    breaker_state::BreakerState,
    charges::{Charge, Charges, Payee, Tier},
    config::Config,
    embedder::Embedder,
    embeddings::Embeddings,
    error::{BadText, BadTextReason, Error, ErrorKind, Partial, Result},
    ext::{Each, EmbedderExt, StreamOptions},
    gather::RowCollector,
    input_kind::InputKind,
    limits::{CountTokens, Limits, TokenCount},
    named::ParseError,
    options::{Lane, Options, OwnedOptions, Truncation},
    rate_limit_status::{RateLimitStatus, RateLimitWindow},
    space::{Normalization, Pooling, Precision, Prompts, PromptsBy, Space, SpaceBuilder, SpaceId},
    usage::Usage,
};

/// Re-exports the internal functions that `tests/fuzz` tests.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz {
    #[cfg(feature = "onnx")]
    pub use crate::provider::onnx_fuzz as onnx;
    #[cfg(feature = "openai")]
    pub use crate::provider::{batch_lines, openai_fuzz as openai};
    pub use crate::wrap::fuzz::*;
}

/// Pages about the crate as a whole.
pub mod docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}

    /// Needs the features `openai` and `testing`, for its example.
    #[cfg(all(feature = "openai", feature = "testing"))]
    #[cfg_attr(docvector_docs, doc(cfg(all(feature = "openai", feature = "testing"))))]
    #[doc = include_str!("docs/batches.md")]
    pub mod batches {}

    #[doc = include_str!("docs/calls.md")]
    pub mod calls {}

    #[doc = include_str!("docs/design.md")]
    pub mod design {}

    #[doc = include_str!("docs/stacking.md")]
    pub mod stacking {}

    #[doc = include_str!("docs/writing_a_provider.md")]
    pub mod writing_a_provider {}

    #[doc = include_str!("docs/testing.md")]
    pub mod testing {}
}

/// Compiles the README's examples as doctests.
#[cfg(all(doctest, feature = "onnx", feature = "openai", feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;
