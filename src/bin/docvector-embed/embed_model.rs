//! Loads the model of `embed` and `search`, in a folder, at OpenAI or at a service: [`EmbedModel`].

use std::{
    io::{self, Write},
    sync::Arc,
};

use docvector_embed::{
    Config, Embedder, EmbedderExt,
    config::ModelSpec,
    provider::{Device, OpenAi, TuningSource},
    wrap::{RateLimiter, RetryPolicy},
};

use crate::{
    cli::{model::LoadArgs, model_choice::ModelChoice, openai::OpenAiArgs},
    command_words::in_command_words,
    failure::Failure,
    runtime::runtime,
};

/// The bytes of texts in a call on this machine, and the most calls at a time but for one per thread. The calls take turns,
/// so they end at about the same time, and rows come early only if little is under way. For batches of like lengths a CPU
/// needs no more: about 2,000 tokens per call. A GPU needs much more.
const CPU_BYTES: u64 = 8 << 10;
const GPU_BYTES: u64 = 512 << 10;
const LOCAL_CALLS: usize = 4;
const LOCAL_BYTES: u32 = 4 << 20;

/// Requests to OpenAI at a time, and windows for them: most windows are one request.
const REQUESTS: usize = 8;

/// How an embedder is called for the texts of windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) at_a_time: usize,
    /// The bytes of lines in a call, or one line; `None` for those of a window.
    pub(crate) size: Option<u64>,
    /// The most bytes of lines in all calls together; a larger call is made alone.
    pub(crate) bytes: u32,
}

/// A window to a call, for embedders far away.
const REMOTE_CALLS: Calls = Calls { at_a_time: REQUESTS, size: None, bytes: (REQUESTS as u32) << 21 };

/// A model, and what a run says about it.
pub(crate) struct EmbedModel {
    pub(crate) embedder: Arc<dyn Embedder>,
    /// The most tokens per text; longer texts are truncated to it or are errors.
    pub(crate) max_tokens: Option<usize>,
    pub(crate) calls: Calls,
    /// The end of the summary.
    pub(crate) note: String,
}

impl EmbedModel {
    /// Loads a model from a folder, or connects to none yet: one at OpenAI.
    pub(crate) fn load(model: &ModelChoice, load: &LoadArgs, openai: &OpenAiArgs) -> Result<Self, Failure> {
        let folder = match model {
            ModelChoice::Folder(folder) => folder,
            ModelChoice::OpenAi(name) | ModelChoice::OpenAiBatch(name) => return Self::at_openai(openai, name),
            ModelChoice::Remote(url) => return Self::of_service(url),
        };
        let model = load.builder(folder).build()?;
        let info = model.info();
        if let Some(assumed) = &info.assumed {
            // A failed warning does not change the exit status.
            let _ = writeln!(
                io::stderr().lock(),
                "warning: {}: --pooling and --normalize state it",
                in_command_words(&assumed.to_string())
            );
        }
        let note = match &info.tuning_source {
            TuningSource::Defaults | TuningSource::Given => String::new(),
            others => format!("; settings: {others}"),
        };
        let size = if info.devices.contains(&Device::Cpu) { CPU_BYTES } else { GPU_BYTES };
        let calls = Calls { at_a_time: LOCAL_CALLS.max(info.threads), size: Some(size), bytes: LOCAL_BYTES };
        let max_tokens = info.max_tokens;
        Ok(Self { embedder: Arc::new(model), max_tokens, calls, note })
    }

    /// Loads a model of which nothing is asked. A model at OpenAI needs no key then.
    pub(crate) fn load_unasked(model: &ModelChoice, load: &LoadArgs, openai: &OpenAiArgs) -> Result<Self, Failure> {
        let (ModelChoice::OpenAi(name) | ModelChoice::OpenAiBatch(name)) = model else {
            return Self::load(model, load, openai);
        };
        let builder = openai.builder(name);
        let model = builder.clone().build().or_else(|_| builder.with_api_key("none").build())?;
        Ok(Self::around(model))
    }

    /// Asks a service what it serves.
    fn of_service(url: &str) -> Result<Self, Failure> {
        let embedder = runtime()?.block_on(Config::new(ModelSpec::Remote(url.to_owned())).build())?;
        let max_tokens = embedder.limits().tokens_per_text;
        Ok(Self { embedder, max_tokens, calls: REMOTE_CALLS, note: String::new() })
    }

    fn at_openai(openai: &OpenAiArgs, name: &str) -> Result<Self, Failure> {
        Ok(Self::around(openai.builder(name).build()?))
    }

    fn around(model: OpenAi) -> Self {
        let max_tokens = model.limits().tokens_per_text;
        let embedder = Arc::new(answering_at_once(model));
        Self { embedder, max_tokens, calls: REMOTE_CALLS, note: String::new() }
    }
}

/// Stacks what many calls to OpenAI need.
pub(crate) fn answering_at_once(model: OpenAi) -> impl Embedder + Clone {
    model.concurrency(REQUESTS).rate_limit(RateLimiter::new()).retry(RetryPolicy::default())
}
