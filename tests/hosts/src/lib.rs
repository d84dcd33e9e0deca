//! Two programs with TLS of their own, each a test in a process of its own: `tests/own_reqwest.rs`, `tests/own_rustls.rs`.

use docvector_embed::{Result, provider::OpenAi};

/// Builds the embedder of a server without encryption and that of one with it.
///
/// # Errors
/// Those of [`OpenAi`]'s builder.
pub fn embedders() -> Result<[OpenAi; 2]> {
    let build = |url: &str| OpenAi::builder("text-embedding-3-small").with_api_key("key").with_base_url(url).build();
    Ok([build("http://127.0.0.1:1/v1")?, build("https://127.0.0.1:1/v1")?])
}
