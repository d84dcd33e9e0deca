//! Helpers that the tests share: find assets, read golden data, start servers, and compare rows.

pub(crate) mod deaf;
#[cfg(feature = "onnx")]
mod golden;
#[cfg(all(feature = "openai", unix))]
pub(crate) mod llmock;
#[cfg(all(unix, feature = "postgres"))]
pub(crate) mod postgres_server;
#[cfg(any(feature = "openai", feature = "postgres", feature = "redis", feature = "sqlite", feature = "testing"))]
pub(crate) mod processes;
#[cfg(all(unix, feature = "redis"))]
pub(crate) mod redis_client;
#[cfg(all(unix, feature = "redis"))]
pub(crate) mod redis_cluster;
#[cfg(all(unix, feature = "redis"))]
pub(crate) mod redis_server;
#[cfg(feature = "openai")]
pub(crate) mod server;
#[cfg(all(unix, any(feature = "redis", feature = "postgres")))]
pub(crate) mod server_child;
#[cfg(feature = "openai")]
pub(crate) mod server_process;
#[cfg(feature = "remote")]
pub(crate) mod service;
#[cfg(all(unix, any(feature = "redis", feature = "postgres")))]
pub(crate) mod small_disk;
#[cfg(any(feature = "openai", feature = "remote"))]
pub(crate) mod stand_in;
#[cfg(all(unix, any(feature = "redis", feature = "postgres")))]
pub(crate) mod tcp_proxy;
pub(crate) mod warnings;

use std::path::{Path, PathBuf};

use docvector_embed::{Embeddings, InputKind, Result, provider::Fake};

#[cfg(feature = "onnx")]
pub(crate) use self::golden::{Distance, distance, golden, json, minilm, minilm_int8, npy, texts, tiny};

/// The folder that scripts/fetch-assets fills.
pub(crate) fn assets() -> PathBuf {
    std::env::var_os("DOCVECTOR_EMBED_ASSETS").map_or_else(|| root().join("assets"), PathBuf::from)
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the path of a Python that has the clients.
#[cfg(all(unix, any(feature = "arrow", all(feature = "onnx", feature = "openai", feature = "server"))))]
pub(crate) fn clients_python() -> PathBuf {
    let python = std::env::var_os("DOCVECTOR_EMBED_CLIENTS_PYTHON")
        .map_or_else(|| root().join("target/clients/bin/python"), PathBuf::from);
    assert!(python.is_file(), "{} is missing: run scripts/fetch-clients", python.display());
    python
}

/// Makes so many texts, no two of them alike.
pub(crate) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("text number {i}")).collect()
}

/// Fails where a row that came back, be it with an error, is not its text's own; tells the places that have one.
pub(crate) fn own(fake: &Fake, texts: &[impl AsRef<str>], result: &Result<Embeddings>) -> Vec<usize> {
    let (places, rows): (Vec<usize>, Option<&Embeddings>) = match result {
        Ok(rows) => ((0..texts.len()).collect(), Some(rows)),
        Err(error) => match error.partial() {
            Some(partial) => (partial.indices().to_vec(), Some(partial.embeddings())),
            None => (Vec::new(), None),
        },
    };
    assert_eq!(rows.map_or(0, Embeddings::len), places.len(), "a row a place");
    for (&place, row) in places.iter().zip(rows.into_iter().flat_map(Embeddings::rows)) {
        assert_eq!(row, fake.vector_of(InputKind::Document, texts[place].as_ref()), "row {place}");
    }
    places
}
