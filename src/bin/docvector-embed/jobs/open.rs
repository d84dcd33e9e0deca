//! Opens batch jobs as a command uses them: [`open`], [`list`], [`find`].

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use docvector_embed::{
    cache::CacheSpec,
    provider::{JobStatus, OpenAiBatch, OpenAiBuilder},
};

use super::hints::Hints;
use crate::{
    cache_warning::CacheWithWarning,
    cli::jobs::{CourseArgs, JobsArgs},
    embed_model::answering_at_once,
    failure::Failure,
    wording::without_controls,
};

/// The name of a job's journal.
const JOURNAL: &str = "journal.jsonl";

/// Opens the folder of the jobs for a model, with these options.
pub(crate) fn open(
    model: OpenAiBuilder,
    jobs: &JobsArgs,
    course: &CourseArgs,
    cache: Option<&CacheSpec>,
) -> Result<OpenAiBatch, Failure> {
    let model = model.build()?;
    let mut builder = OpenAiBatch::builder(model.clone(), jobs.folder());
    if let Some(interval) = course.poll_seconds {
        builder = builder.with_poll_interval(interval, interval);
    }
    if let Some(after) = course.standby_after {
        builder = builder.with_standby(answering_at_once(model), after);
    }
    if let Some(store) = cache {
        builder = builder.with_cache(CacheWithWarning::open(store)?);
    }
    Ok(builder.build()?)
}

/// Returns all jobs of the folder, the oldest first. Nothing is sent. Warns of jobs that cannot be read.
pub(crate) fn list(jobs: &JobsArgs) -> Result<Vec<JobStatus>, Failure> {
    let folder = jobs.folder();
    if !folder.is_dir() {
        let message =
            format!("there are no jobs: the folder {} does not exist (--jobs names another one)", folder.display());
        return Err(Failure::new(message));
    }
    let readable = OpenAiBatch::jobs_in(&folder)?;
    for id in ids_in(&folder).into_iter().filter(|id| readable.iter().all(|status| status.id != *id)) {
        // A failed warning does not change the exit status.
        let _ = writeln!(io::stderr().lock(), "warning: {}", unreadable(&folder, &id));
    }
    Ok(readable)
}

/// Returns the names of the folders that hold a journal.
fn ids_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.path().join(JOURNAL).is_file()).map(|entry| entry.file_name());
    let mut ids: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    // Hidden ones are being made or removed.
    ids.retain(|id| !id.starts_with('.'));
    ids.sort_unstable();
    ids
}

fn unreadable(folder: &Path, id: &str) -> String {
    let journal = folder.join(id).join(JOURNAL);
    format!(
        "{} cannot be read: it is damaged, or of a later version of this program",
        without_controls(&journal.to_string_lossy())
    )
}

/// Returns a job of the folder as it was last known.
pub(crate) fn find(jobs: &JobsArgs, id: &str) -> Result<JobStatus, Failure> {
    let folder = jobs.folder();
    if let Some(found) = list(jobs)?.into_iter().find(|status| status.id == id) {
        return Ok(found);
    }
    if ids_in(&folder).iter().any(|other| other == id) {
        return Err(Failure::new(unreadable(&folder, id)));
    }
    let list = Hints::of_batch(jobs).list();
    Err(Failure::new(format!("there is no job {id} in {}: {list} lists the jobs", folder.display())))
}
