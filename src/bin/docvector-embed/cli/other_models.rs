//! Refuses options that are for another kind of model: [`refuse_options_of_other_models`].

use super::{model::LoadArgs, model_choice::ModelChoice, openai::OpenAiArgs};

/// The models that an option is for.
const LOCAL: &str = "a model in a folder";
const HOSTED: &str = "a model at OpenAI, such as openai:text-embedding-3-small";
const BATCH: &str = "batch jobs, as with openai-batch:text-embedding-3-small";

/// Refuses an option that says nothing about this model. `job_option` is one of batch jobs that was given.
pub(super) fn refuse_options_of_other_models(
    model: &ModelChoice,
    load: &LoadArgs,
    openai: &OpenAiArgs,
    job_option: Option<&'static str>,
) -> Result<(), String> {
    let (is_local, is_hosted, is_batch) = match model {
        ModelChoice::Folder(_) => (true, false, false),
        ModelChoice::OpenAi(_) => (false, true, false),
        ModelChoice::OpenAiBatch(_) => (false, true, true),
        ModelChoice::Remote(_) => (false, false, false),
    };
    if let ModelChoice::OpenAi(name) | ModelChoice::OpenAiBatch(name) = model {
        openai.refuse_two_urls(name)?;
    }
    let given = [(load.given(), is_local, LOCAL), (openai.given(), is_hosted, HOSTED), (job_option, is_batch, BATCH)];
    match given.into_iter().find_map(|(option, fits, whose)| Some((option?, whose)).filter(|_| !fits)) {
        Some((option, whose)) => Err(format!("{option} is for {whose}")),
        None => Ok(()),
    }
}
