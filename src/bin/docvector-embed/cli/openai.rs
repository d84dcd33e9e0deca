//! Defines the arguments of models at OpenAI: [`OpenAiArgs`], and [`ServerArgs`] where the model is known.

use std::num::NonZeroUsize;

use clap::Args;
use docvector_embed::{
    config::ModelSpec,
    provider::{OpenAi, OpenAiBuilder},
};

use super::at_least_one::at_least_one;

/// The dimensions and the server of a model. The key comes from the environment alone, so that it is in no list of processes.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OpenAiArgs {
    /// Dimensions of the vectors, fewer than the model has; another number is another space [default: the model's]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Models at OpenAI")]
    dimensions: Option<NonZeroUsize>,
    #[command(flatten)]
    server: ServerArgs,
}

/// The server of OpenAI's API.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServerArgs {
    /// Server that speaks OpenAI's API, up to and including `/v1` [default: OPENAI_BASE_URL, else OpenAI's]. The key is
    /// read from OPENAI_API_KEY
    #[arg(long, value_name = "URL", help_heading = "Models at OpenAI")]
    base_url: Option<String>,
}

impl ServerArgs {
    /// Returns the server that was named.
    pub(crate) fn base_url(&self) -> Option<&str> {
        self.base_url.as_deref()
    }

    /// Returns a builder of this model with these arguments and what the environment says.
    pub(crate) fn builder(&self, model: &str) -> OpenAiBuilder {
        let (model, url) = ModelSpec::model_and_base_url(model);
        let builder = OpenAi::builder(model).with_env();
        match url.or(self.base_url.as_deref()) {
            Some(url) => builder.with_base_url(url),
            None => builder,
        }
    }
}

impl OpenAiArgs {
    /// Returns a builder of this model with these arguments and what the environment says.
    pub(crate) fn builder(&self, model: &str) -> OpenAiBuilder {
        let builder = self.server.builder(model);
        match self.dimensions {
            Some(dimensions) => builder.with_dimensions(dimensions.get()),
            None => builder,
        }
    }

    /// Returns the server that was named, with a model or alone.
    pub(crate) fn base_url<'a>(&'a self, model: &'a str) -> Option<&'a str> {
        ModelSpec::model_and_base_url(model).1.or(self.server.base_url())
    }

    /// Refuses a base URL beside a model that names one.
    pub(crate) fn refuse_two_urls(&self, model: &str) -> Result<(), String> {
        match (ModelSpec::model_and_base_url(model).1, &self.server.base_url) {
            (Some(_), Some(_)) => Err("--base-url and --model both name a server: leave one of them out".to_owned()),
            _ => Ok(()),
        }
    }

    /// Returns an option that was given, if one was.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [("--dimensions", self.dimensions.is_some()), ("--base-url", self.server.base_url.is_some())];
        given.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }
}
