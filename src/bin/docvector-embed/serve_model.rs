//! Loads the model of `serve`, with what makes a service of it: a cache, merging of calls, a first run.

use std::{sync::Arc, time::Duration};

use docvector_embed::{
    Batch, Config, Embedder, EmbedderExt, Truncation, config::ModelSpec, provider::Onnx, server::ServedModel,
};
use tokio::runtime::Handle;

use crate::{
    cli::{model_choice::ModelChoice, serve::ServeOptions},
    embed_model::answering_at_once,
    failure::Failure,
};

/// How long small calls of a hosted model wait for others.
const COALESCE: Duration = Duration::from_millis(2);

/// A model that is served, and what has to run before.
pub(crate) struct Loaded {
    pub(crate) served: ServedModel,
    /// The local model without anything around it.
    local: Option<Onnx>,
}

/// Loads the model. Blocks for as long as that takes. `runtime` drives the connections to another service.
pub(crate) fn load(options: &ServeOptions, runtime: &Handle) -> Result<Loaded, Failure> {
    let mut local = None;
    let mut served = match &options.model {
        ModelChoice::Folder(folder) => {
            let model = options.load.builder(folder).build()?;
            let served = ServedModel::of_onnx(&model);
            local = Some(model.clone());
            // The engine merges callers by itself.
            served.with_embedder(with_cache(options, runtime, coalesced(model, options.coalesce.unwrap_or_default()))?)
        }
        ModelChoice::OpenAi(name) | ModelChoice::OpenAiBatch(name) => {
            let model = answering_at_once(options.openai.builder(name).build()?);
            let stack = with_cache(options, runtime, coalesced(model, options.coalesce.unwrap_or(COALESCE)))?;
            // Clients ask for the model, wherever it is.
            let name = ModelSpec::model_and_base_url(name).0;
            ServedModel::new(stack).with_name(name).with_device("hosted")
        }
        ModelChoice::Remote(url) => {
            let model = runtime.block_on(Config::new(ModelSpec::Remote(url.clone())).build())?;
            // The other service merges callers.
            let stack = with_cache(options, runtime, coalesced(model, options.coalesce.unwrap_or_default()))?;
            ServedModel::new(stack).with_device("another service")
        }
    };
    if let Some(name) = &options.name {
        served = served.with_name(name.clone());
    }
    let served = options.aliases.iter().fold(served, |served, alias| served.with_alias(alias.clone()));
    Ok(Loaded { served, local })
}

impl Loaded {
    /// Runs a local model on texts of several lengths, so that the first request finds everything in place. A hosted one
    /// would have to be paid for it, and a cache would keep these texts.
    pub(crate) async fn warm_up(&self) -> Result<(), Failure> {
        let Some(model) = &self.local else { return Ok(()) };
        for words in [4, 64, 1024] {
            let text = "a text to warm up ".repeat(words / 4);
            let texts: Vec<String> = (0..8).map(|number| format!("{number} {text}")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            model.embed_all(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await?;
        }
        Ok(())
    }
}

fn coalesced(model: impl Embedder, window: Duration) -> Arc<dyn Embedder> {
    if window.is_zero() { Arc::new(model) } else { Arc::new(model.coalesce(window)) }
}

fn with_cache(
    options: &ServeOptions,
    runtime: &Handle,
    model: Arc<dyn Embedder>,
) -> Result<Arc<dyn Embedder>, Failure> {
    match &options.cache {
        Some(store) => Ok(Arc::new(model.cached(runtime.block_on(store.open())?)?)),
        None => Ok(model),
    }
}
