//! Tests `provider::Remote` against services of three kinds: honest ones, and ones that follow a test's script.
#![cfg(feature = "remote")]

mod connecting;
mod endpoints;
mod errors;
mod laws;
#[cfg(all(feature = "openai", unix))]
mod llmock;
mod replies;
mod requests;
mod secrets;
mod spaces;

use docvector_embed::{
    Embedder, Limits, Space,
    provider::{Fake, Remote, RemoteBuilder, RemoteDialect},
};

use crate::support::service::Program;

/// Two texts for tests that need no others.
const TEXTS: [&str; 2] = ["the first text", "the second"];

/// The dialects, each with the programs that speak it.
const SPOKEN: &[(RemoteDialect, Program)] = &[
    (RemoteDialect::Docvector, Program::Own),
    (RemoteDialect::TextEmbeddingsInference, Program::Own),
    (RemoteDialect::TextEmbeddingsInference, Program::Tei),
    #[cfg(feature = "openai")]
    (RemoteDialect::OpenAi, Program::Own),
    #[cfg(feature = "openai")]
    (RemoteDialect::OpenAi, Program::OpenAi),
];

/// Returns a model with limits, so that every law has something to check.
fn model(name: &str) -> Fake {
    let limits = Limits::none().with_texts(7).with_tokens_per_text(40).with_bytes(4000);
    Fake::builder().with_model(name).with_dimensions(8).with_limits(limits).build().expect("valid")
}

fn space_of(fake: &Fake) -> Space {
    fake.spaces()[0].clone()
}

/// Returns a builder that states what a program must state before the service is up.
fn builder(url: &str, dialect: RemoteDialect, fake: &Fake) -> RemoteBuilder {
    Remote::builder(url).with_dialect(dialect).with_space(space_of(fake))
}
