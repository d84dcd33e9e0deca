//! Keeps what a simulator is from its start to its end: [`Settings`].

use std::sync::Arc;

use crate::{CountTokens, InputKind};

/// A model that the simulator serves.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) dimensions: usize,
    /// Whether a request may ask for fewer dimensions.
    pub(super) shortens: bool,
}

/// What OpenAI permits, unless a test says otherwise.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) models: Vec<Model>,
    pub(super) api_key: Option<String>,
    pub(super) counter: Option<Arc<dyn CountTokens>>,
    pub(super) speed: f64,
    /// Bytes of an uploaded file.
    pub(super) file_bytes: u64,
    /// Lines of an input file.
    pub(super) requests: usize,
    /// Texts of an input file, over all lines.
    pub(super) inputs: usize,
}

/// Texts of one request.
pub(super) const TEXTS_PER_REQUEST: usize = 2048;
/// Tokens of one text.
pub(super) const TOKENS_PER_TEXT: u64 = 8191;
/// Tokens of one request, as OpenAI estimates them.
pub(super) const TOKENS_PER_REQUEST: u64 = 300_000;

impl Default for Settings {
    fn default() -> Self {
        let model = |name: &str, dimensions, shortens| Model { name: name.to_owned(), dimensions, shortens };
        Self {
            models: vec![
                model("text-embedding-3-small", 1536, true),
                model("text-embedding-3-large", 3072, true),
                model("text-embedding-ada-002", 1536, false),
            ],
            api_key: None,
            counter: None,
            speed: 0.0,
            file_bytes: 200_000_000,
            requests: 50_000,
            inputs: 50_000,
        }
    }
}

impl Settings {
    pub(super) fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// Returns the tokens that are billed for a text.
    pub(super) fn tokens(&self, text: &str) -> u64 {
        match &self.counter {
            Some(counter) => counter.count(InputKind::Document, text) as u64,
            None => estimate(text.len()).max(1),
        }
    }
}

/// Returns the tokens of so many bytes as OpenAI's limits estimate them: four bytes each, rounded up.
pub(super) fn estimate(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}
