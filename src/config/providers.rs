//! Makes the provider of a model, with what each hosted one needs around it.

use std::sync::Arc;
#[cfg(any(feature = "openai", feature = "remote"))]
use std::time::Duration;

use super::{model_spec::ModelSpec, settings::Config};
#[cfg(not(all(feature = "onnx", feature = "openai", feature = "remote")))]
use crate::not_built_in::not_built_in;
use crate::{Embedder, Result, Space};
#[cfg(any(feature = "openai", feature = "remote"))]
use crate::{EmbedderExt, wrap::RetryPolicy};
#[cfg(feature = "onnx")]
use crate::{Error, ErrorKind};

/// The most time that one request of a hosted model may take.
#[cfg(feature = "openai")]
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// The same for a service of one's own, whose queue may be long.
#[cfg(feature = "remote")]
const SERVICE_TIME: Duration = Duration::from_secs(600);
/// Requests to a hosted model at a time.
#[cfg(feature = "openai")]
const REQUESTS: usize = 8;

impl Config {
    /// Makes the provider of a spec. `space` is that of the primary, which a fall-back must share.
    pub(super) async fn provider(&self, spec: &ModelSpec, space: Option<&Space>) -> Result<Arc<dyn Embedder>> {
        match &spec.clone().resolved() {
            ModelSpec::Local(folder) => self.local(folder).await,
            ModelSpec::OpenAi(name) => self.openai(name, space),
            ModelSpec::OpenAiBatch(name) => self.openai_batch(name, space),
            ModelSpec::Remote(url) => self.remote(url, space).await,
        }
    }

    #[cfg(feature = "onnx")]
    async fn local(&self, folder: &std::path::Path) -> Result<Arc<dyn Embedder>> {
        use crate::provider::{Device, Onnx};
        let folder = folder.to_owned();
        let device: Option<Device> = self.device.as_deref().map(str::parse).transpose()?;
        let load = move || {
            let builder = Onnx::builder(folder);
            device.into_iter().fold(builder, |builder, device| builder.with_device(device)).build()
        };
        // Loading takes seconds.
        let loaded = tokio::task::spawn_blocking(load).await;
        let model =
            loaded.map_err(|error| Error::new(ErrorKind::Config, "the model was not loaded").with_source(error))?;
        Ok(Arc::new(model?))
    }

    #[cfg(not(feature = "onnx"))]
    async fn local(&self, _: &std::path::Path) -> Result<Arc<dyn Embedder>> {
        Err(not_built_in("a local model", "onnx"))
    }

    #[cfg(feature = "openai")]
    fn openai_model(&self, name: &str, space: Option<&Space>) -> Result<crate::provider::OpenAi> {
        use crate::{Limits, provider::OpenAi};
        let vars = &self.openai;
        let (name, url) = super::ModelSpec::model_and_base_url(name);
        let mut builder = OpenAi::builder(name);
        if let Some(key) = &vars.key {
            builder = builder.with_api_key(key.0.clone());
        }
        if let Some(url) = url.or(vars.base_url.as_deref()) {
            builder = builder.with_base_url(url);
        }
        if let Some(organization) = &vars.organization {
            builder = builder.with_organization(organization.0.clone());
        }
        if let Some(project) = &vars.project {
            builder = builder.with_project(project.0.clone());
        }
        // The same model elsewhere lies in the primary's space. OpenAI's own models have theirs.
        if let Some(space) = space.filter(|_| !crate::provider::is_openai_model(name)) {
            builder = builder.with_space(space.clone());
        }
        if let Some(texts) = self.batch_size {
            builder = builder.with_limits(Limits::none().with_texts(texts));
        }
        builder.build()
    }

    #[cfg(feature = "openai")]
    fn openai(&self, name: &str, space: Option<&Space>) -> Result<Arc<dyn Embedder>> {
        let model = self.openai_model(name, space)?;
        Ok(Arc::new(
            model
                .timeout(REQUEST_TIME)
                .concurrency(REQUESTS)
                .rate_limit(crate::wrap::RateLimiter::new())
                .retry(RetryPolicy::default()),
        ))
    }

    #[cfg(not(feature = "openai"))]
    fn openai(&self, _: &str, _: Option<&Space>) -> Result<Arc<dyn Embedder>> {
        Err(not_built_in("a model at OpenAI", "openai"))
    }

    #[cfg(feature = "openai")]
    fn openai_batch(&self, name: &str, space: Option<&Space>) -> Result<Arc<dyn Embedder>> {
        use crate::provider::OpenAiBatch;
        let model = self.openai_model(name, space)?;
        Ok(Arc::new(OpenAiBatch::builder(model, self.jobs.clone()).build()?))
    }

    #[cfg(not(feature = "openai"))]
    fn openai_batch(&self, _: &str, _: Option<&Space>) -> Result<Arc<dyn Embedder>> {
        Err(not_built_in("a batch job at OpenAI", "openai"))
    }

    #[cfg(feature = "remote")]
    async fn remote(&self, url: &str, space: Option<&Space>) -> Result<Arc<dyn Embedder>> {
        use crate::{Limits, provider::Remote};
        let mut builder = Remote::builder(url).with_timeout(SERVICE_TIME);
        let is_primary = matches!(&self.model, ModelSpec::Remote(own) if own == url);
        if is_primary {
            builder = self.more_endpoints.iter().fold(builder, |builder, url| builder.with_endpoint(url));
            builder = self.service_model.iter().fold(builder, |builder, name| builder.with_model(name));
        }
        if let Some(key) = &self.service_key {
            builder = builder.with_api_key(key.0.clone());
        }
        if let Some(texts) = self.batch_size {
            builder = builder.with_limits(Limits::none().with_texts(texts));
        }
        let known = if is_primary { self.space.as_ref() } else { space };
        let model = match known {
            Some(space) => builder.with_space(space.clone()).build()?,
            None => {
                // Without a user or a password that the URL may have.
                let shown = url.rsplit('@').next().unwrap_or(url).to_owned();
                let what = format!("asking the service {shown} what it serves");
                builder.connect().await.map_err(|error| error.while_doing(what))?
            }
        };
        Ok(Arc::new(model.retry(RetryPolicy::default())))
    }

    #[cfg(not(feature = "remote"))]
    async fn remote(&self, _: &str, _: Option<&Space>) -> Result<Arc<dyn Embedder>> {
        Err(not_built_in("an embedding service", "remote"))
    }
}
