//! Makes an embedder of a few words: of a [spec](ModelSpec), or of [environment variables](Config::from_env).
//!
//! ```no_run
//! use docvector_embed::{Config, EmbedderExt};
//! # async fn run() -> docvector_embed::Result<()> {
//! // EMBEDDING_PROVIDER=local EMBEDDING_MODEL=assets/all-MiniLM-L6-v2 EMBEDDING_CACHE=vectors.sqlite
//! let embedder = Config::from_env()?.build().await?;
//! let rows = embedder.embed_documents(&["a text"]).await?;
//! # Ok(()) }
//! ```

mod fallback;
mod from_vars;
mod model_spec;
mod providers;
mod settings;
mod stack;

pub use self::{model_spec::ModelSpec, settings::Config, stack::from_spec};
pub use crate::{assets::asset_folder, cache::CacheSpec};
