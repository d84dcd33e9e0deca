//! Puts the recommended stack together: [`Config::build`].

use std::sync::Arc;

use super::{fallback::Proved, model_spec::ModelSpec, settings::Config};
use crate::{Embedder, EmbedderExt, Result, wrap::Resilient};

/// Makes the embedder of a [spec](ModelSpec), with what a hosted model needs around it and without a cache. Keys and
/// addresses are those that the environment has.
///
/// ```no_run
/// use docvector_embed::{EmbedderExt, config::from_spec};
/// # async fn run() -> docvector_embed::Result<()> {
/// let embedder = from_spec("assets/all-MiniLM-L6-v2").await?;
/// println!("{}", embedder.space()?);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) for a spec that is no spec, or a provider that is not built in; those of loading
/// the model, or of asking the service.
pub async fn from_spec(spec: &str) -> Result<Arc<dyn Embedder>> {
    Config::new(spec.parse()?).build().await
}

impl Config {
    /// Makes the embedder with its stack. A local model is loaded, which takes seconds; a service is asked what it serves,
    /// unless its [space](Self::space) is known; nobody else is called.
    ///
    /// A [fall-back](Self::fallback) is compared with the model by probe texts, now in the background and then every hour,
    /// for about 3,000 tokens each time. It gets no call before it is proved to be the same model. A tokio runtime with its
    /// clock is needed for that.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) names what is missing: a key, a folder, a feature of this crate;
    /// [`SpaceMismatch`](crate::ErrorKind::SpaceMismatch) for a fall-back that is another model; those of loading the model,
    /// of asking the service, of opening the cache.
    pub async fn build(&self) -> Result<Arc<dyn Embedder>> {
        let model = self.provider(&self.model, None).await?;
        let model = match &self.fallback {
            Some(fallback) => self.with_proved_fallback(model, fallback).await?,
            None => model,
        };
        match &self.cache {
            Some(cache) => Ok(Arc::new(model.cached(cache.open().await?)?)),
            None => Ok(model),
        }
    }

    async fn with_proved_fallback(&self, model: Arc<dyn Embedder>, fallback: &ModelSpec) -> Result<Arc<dyn Embedder>> {
        let space = model.space()?.clone();
        let of_fallback = |error: crate::Error| error.while_doing("the fall-back");
        let fallback = self.provider(fallback, Some(&space)).await.map_err(of_fallback)?;
        let stack = Resilient::builder(model).with_fallback(fallback).build().map_err(of_fallback)?;
        Ok(Arc::new(Proved::new(stack)?))
    }
}
