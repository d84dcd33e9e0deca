//! Tests `provider::OpenAi` against an honest server and against a server that follows a test's script.
#![cfg(feature = "openai")]

mod faults;
mod laws;
mod limits;
mod llmock;
mod replies;
mod requests;
mod secrets;

use docvector_embed::{
    CountTokens, InputKind, Space,
    provider::{OpenAi, OpenAiBuilder},
};

use crate::support::{
    server::{DIMENSIONS, Server},
    stand_in,
};

/// Two texts for tests that need no others.
const TEXTS: [&str; 2] = ["the first text", "the second"];

/// Returns the tokens that the stand-in charges for these texts.
fn charged() -> u64 {
    TEXTS.iter().map(|text| stand_in::tokens(text)).sum()
}

/// Returns a builder for the stand-in's model, which is not OpenAI's and so needs a space.
fn builder(base_url: &str) -> OpenAiBuilder {
    let space = Space::builder("stand-in", DIMENSIONS).build().expect("valid");
    OpenAi::builder("stand-in").with_base_url(base_url).with_space(space)
}

fn client(server: &Server) -> OpenAi {
    builder(&server.base_url()).build().expect("valid")
}

/// Returns a builder for one of OpenAI's models, with the server's few dimensions.
fn small(base_url: &str) -> OpenAiBuilder {
    OpenAi::builder("text-embedding-3-small").with_base_url(base_url).with_dimensions(DIMENSIONS)
}

/// Counts tokens as the stand-in does.
#[derive(Debug)]
struct Quarters;

impl CountTokens for Quarters {
    fn count(&self, _: InputKind, text: &str) -> usize {
        stand_in::tokens(text) as usize
    }

    fn at_most(&self, kind: InputKind, text: &str) -> usize {
        self.count(kind, text)
    }
}

/// Fails unless each row is its text's vector.
fn assert_rows<'a>(rows: impl IntoIterator<Item = &'a [f32]>, texts: &[impl AsRef<str>]) {
    let mut rows = rows.into_iter();
    for (index, text) in texts.iter().enumerate() {
        let row = rows.next().unwrap_or_else(|| panic!("no row for text {index}"));
        assert_eq!(row, stand_in::vector(text.as_ref(), row.len()), "the row of text {index}");
    }
    assert!(rows.next().is_none(), "more rows than texts");
}
