//! Loads the model of `embed`, in a folder or at OpenAI: [`EmbedModel`].

use std::{
    io::{self, Write},
    sync::Arc,
};

use docvector_embed::{
    Config, Embedder, EmbedderExt,
    config::ModelSpec,
    provider::{OpenAi, TuningSource},
    wrap::{RateLimiter, RetryPolicy},
};

use crate::{
    cli::{embed::EmbedOptions, model_choice::ModelChoice},
    failure::Failure,
    runtime::runtime,
};

/// Windows being embedded at a time on this machine: the embedder has work while the rows of another window are sent on.
const LOCAL_WINDOWS: usize = 2;
/// Requests to OpenAI at a time, and windows for them: most windows are one request.
const REQUESTS: usize = 8;

/// A model, and what a run says about it.
pub(crate) struct EmbedModel {
    pub(crate) embedder: Arc<dyn Embedder>,
    /// The most tokens per text; longer texts are truncated to it or are errors.
    pub(crate) max_tokens: Option<usize>,
    /// Windows to embed at a time.
    pub(crate) windows: usize,
    /// The end of the summary.
    pub(crate) note: String,
}

impl EmbedModel {
    /// Loads a model from a folder, or connects to none yet: one at OpenAI.
    pub(crate) fn load(options: &EmbedOptions) -> Result<Self, Failure> {
        let folder = match &options.model {
            ModelChoice::Folder(folder) => folder,
            ModelChoice::OpenAi(name) | ModelChoice::OpenAiBatch(name) => return Self::at_openai(options, name),
            ModelChoice::Remote(url) => return Self::of_service(url),
        };
        let model = options.load.builder(folder).build()?;
        let info = model.info();
        if let Some(assumed) = &info.assumed {
            // A failed warning does not change the exit status.
            let _ = writeln!(io::stderr().lock(), "warning: {assumed}: --pooling and --normalize state it");
        }
        let note = match &info.tuning_source {
            TuningSource::Defaults => String::new(),
            others => format!("; settings: {others}"),
        };
        let max_tokens = info.max_tokens;
        Ok(Self { embedder: Arc::new(model), max_tokens, windows: LOCAL_WINDOWS, note })
    }

    /// Asks a service what it serves.
    fn of_service(url: &str) -> Result<Self, Failure> {
        let embedder = runtime()?.block_on(Config::new(ModelSpec::Remote(url.to_owned())).build())?;
        let max_tokens = embedder.limits().tokens_per_text;
        Ok(Self { embedder, max_tokens, windows: REQUESTS, note: String::new() })
    }

    fn at_openai(options: &EmbedOptions, name: &str) -> Result<Self, Failure> {
        let model = options.openai.builder(name).build()?;
        let max_tokens = model.limits().tokens_per_text;
        let embedder = Arc::new(answering_at_once(model));
        Ok(Self { embedder, max_tokens, windows: REQUESTS, note: String::new() })
    }
}

/// Stacks what many calls to OpenAI need.
pub(crate) fn answering_at_once(model: OpenAi) -> impl Embedder + Clone {
    model.concurrency(REQUESTS).rate_limit(RateLimiter::new()).retry(RetryPolicy::default())
}
