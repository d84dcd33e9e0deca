//! Opens a job by its id, with the model that it is of: [`open_job`].

use docvector_embed::provider::Job;

use crate::{
    cli::{batch::RunArgs, jobs::JobsArgs, openai::ServerArgs},
    failure::Failure,
    jobs::open::{find, open},
};

/// Opens a job. It goes on as long as the result is there.
pub(super) async fn open_job(id: &str, jobs: &JobsArgs, run: &RunArgs, server: &ServerArgs) -> Result<Job, Failure> {
    let status = find(jobs, id)?;
    let model = server.builder(&status.model).with_dimensions(status.dimensions);
    Ok(open(model, jobs, &run.course, run.cache.as_ref())?.resume(id).await?)
}
