//! Says what a server serves: [`ServedModel`], an embedder and the facts about it that clients ask for.

use std::{fmt, sync::Arc};

use super::{figure::Figure, vocabulary::Vocabulary};
use crate::{Embedder, Space};

/// An embedder to serve, with what clients may ask about it.
///
/// ```
/// use std::sync::Arc;
/// use docvector_embed::{EmbedderExt, provider::Fake, server::ServedModel};
/// // A whole stack can be served.
/// let stack = Fake::new(8).dedup();
/// let model = ServedModel::new(Arc::new(stack)).with_name("my-model").with_device("cpu");
/// assert_eq!(model.name(), "my-model");
/// ```
///
/// # Default
/// The name is that of the embedder's space: its label, or its model. No aliases, no device, no vocabulary, no figures.
#[derive(Clone)]
pub struct ServedModel {
    pub(super) embedder: Arc<dyn Embedder>,
    name: Option<String>,
    pub(super) aliases: Vec<String>,
    pub(super) device: Option<String>,
    pub(super) vocabulary: Option<Arc<dyn Vocabulary>>,
    pub(super) figures: Option<Arc<dyn Fn() -> Vec<Figure> + Send + Sync>>,
}

impl ServedModel {
    /// Serves this embedder.
    pub fn new(embedder: Arc<dyn Embedder>) -> Self {
        Self { embedder, name: None, aliases: Vec::new(), device: None, vocabulary: None, figures: None }
    }

    /// Serves another embedder in place of this one: a stack of wrappers around it. The facts stay.
    #[must_use]
    pub fn with_embedder(mut self, embedder: Arc<dyn Embedder>) -> Self {
        self.embedder = embedder;
        self
    }

    /// Sets the name that clients know the model by.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a name that requests may have in place of the model's: `text-embedding-3-small`, say, for a client whose
    /// name cannot be changed.
    #[must_use]
    pub fn with_alias(mut self, name: impl Into<String>) -> Self {
        self.aliases.push(name.into());
        self
    }

    /// Sets what the model runs on, for people.
    #[must_use]
    pub fn with_device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// Sets the vocabulary of the model, for `/tokenize` and `/decode`.
    #[must_use]
    pub fn with_vocabulary(mut self, vocabulary: impl Vocabulary) -> Self {
        self.vocabulary = Some(Arc::new(vocabulary));
        self
    }

    /// Sets a function that returns the engine's figures, for `/metrics`. It is called for each scrape, so it should be
    /// quick, and it must return the same names each time.
    #[must_use]
    pub fn with_figures(mut self, figures: impl Fn() -> Vec<Figure> + Send + Sync + 'static) -> Self {
        self.figures = Some(Arc::new(figures));
        self
    }

    /// Serves a local model, with its device, its vocabulary and its figures.
    #[cfg(feature = "onnx")]
    #[cfg_attr(docvector_docs, doc(cfg(feature = "onnx")))]
    pub fn of_onnx(model: &crate::provider::Onnx) -> Self {
        let devices: Vec<String> = model.info().devices.iter().map(ToString::to_string).collect();
        let engine = model.clone();
        Self::new(Arc::new(model.clone()))
            .with_device(devices.join(", "))
            .with_vocabulary(model.tokenizer())
            .with_figures(move || super::onnx_figures::figures(&engine.stats()))
    }

    /// Returns the name that clients know the model by.
    pub fn name(&self) -> &str {
        let of_space = || self.space().map_or("none", |space| space.label().unwrap_or_else(|| space.model()));
        self.name.as_deref().unwrap_or_else(of_space)
    }

    /// Returns the embedder.
    pub fn embedder(&self) -> &dyn Embedder {
        &*self.embedder
    }

    /// Returns the space, or the first of several.
    pub(super) fn space(&self) -> Option<&Space> {
        self.embedder.spaces().first()
    }

    /// Returns whether a request that names this model means this one: by its name, with or without the part before the
    /// last `/`, or by an alias.
    pub(super) fn is_called(&self, asked: &str) -> bool {
        let name = self.name();
        let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
        asked == name || asked == last(name) || self.aliases.iter().any(|alias| alias == asked)
    }
}

impl fmt::Debug for ServedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedModel")
            .field("embedder", &self.embedder)
            .field("name", &self.name())
            .field("aliases", &self.aliases)
            .field("device", &self.device)
            .field("vocabulary", &self.vocabulary)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Fake;

    #[test]
    fn a_model_is_called_by_its_names() {
        let model = ServedModel::new(Arc::new(Fake::new(4)));
        assert!(model.is_called("fake") && !model.is_called("") && !model.is_called("Fake"));
        let model = model.with_name("org/model").with_alias("other");
        assert_eq!(
            ["org/model", "model", "other", "org", "fake"].map(|name| model.is_called(name)),
            [true, true, true, false, false]
        );
    }
}
