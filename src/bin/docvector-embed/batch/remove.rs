//! Runs `batch remove`: removes the files of a job that has ended.

use docvector_embed::provider::{OpenAi, OpenAiBatch};

use crate::{cli::batch::RemoveArgs, failure::Failure, jobs::open::find, runtime::runtime};

/// Removes a job's texts and vectors. Nothing is sent, so no key is needed.
pub(crate) fn run(args: &RemoveArgs) -> Result<(), Failure> {
    let status = find(&args.jobs, &args.job)?;
    let model = OpenAi::builder(&status.model).with_api_key("none").build()?;
    let provider = OpenAiBatch::builder(model, args.jobs.folder()).build()?;
    Ok(runtime()?.block_on(provider.remove(&status.id))?)
}
