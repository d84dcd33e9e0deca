//! Works on the jobs, in the process that is killed: [`run`].

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

#[cfg(feature = "sqlite")]
use docvector_embed::cache::Sqlite;
use docvector_embed::{
    Batch,
    provider::{Job, JobReport, JobState, OpenAiBatch},
};
use futures_util::{StreamExt, future::join_all};

use super::{BAD, CANCELLED, JOBS, builder, is_bad, texts};

/// Stands before the name of a gap that was reached.
pub(super) const STEP: &str = "step ";
/// Stands before the name of the gap where the process waits to be killed.
pub(super) const AT: &str = "at ";
/// The work begins.
pub(super) const BEGUN: &str = "begun";
/// A job pauses, and will go on soon.
pub(super) const PAUSED: &str = "paused";
/// All jobs have ended.
pub(super) const DONE: &str = "done";

/// What a process is to do.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) base_url: String,
    pub(super) folder: PathBuf,
    /// The file of a cache, if there is one.
    pub(super) cache: Option<PathBuf>,
    /// Whether files are deleted at the provider.
    pub(super) deletes: bool,
    /// The process waits to be killed when it reaches one of these gaps for the `nth` time.
    pub(super) gaps: Vec<String>,
    pub(super) nth: usize,
}

impl Task {
    /// Returns the words that tell a process of it.
    pub(super) fn words(&self) -> [String; 6] {
        let cache = self.cache.as_ref().map(|cache| cache.display().to_string()).unwrap_or_default();
        let folder = self.folder.display().to_string();
        let (deletes, nth) = (self.deletes.to_string(), self.nth.to_string());
        [self.base_url.clone(), folder, cache, deletes, self.gaps.join(","), nth]
    }

    fn read(words: &[String]) -> Self {
        Self {
            base_url: words[0].clone(),
            folder: words[1].clone().into(),
            cache: (!words[2].is_empty()).then(|| words[2].clone().into()),
            deletes: words[3] == "true",
            gaps: words[4].split(',').map(str::to_owned).collect(),
            nth: words[5].parse().expect("a number"),
        }
    }
}

/// Submits the jobs that are not there, goes on with those that are, and waits for all.
pub(super) fn run(words: &[String]) {
    let task = Task::read(words);
    let builder = builder(&task.base_url, &task.folder).expect("valid").with_files_deleted(task.deletes);
    let builder = builder.with_step_hook(hook(task.gaps, task.nth));
    #[cfg(feature = "sqlite")]
    let builder = match task.cache {
        Some(path) => builder.with_cache(Sqlite::open(path).expect("it opens")),
        None => builder,
    };
    let provider = builder.build().expect("it opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
    // The test's name stands on the line before.
    println!("\n{BEGUN}");
    runtime.block_on(work(&provider));
    println!("{DONE}");
}

fn hook(gaps: Vec<String>, nth: usize) -> Arc<dyn Fn(&'static str) + Send + Sync> {
    let left = AtomicUsize::new(nth);
    Arc::new(move |name| {
        println!("{STEP}{name}");
        if gaps.iter().any(|gap| gap == name) && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            println!("{AT}{name}");
            loop {
                thread::park();
            }
        }
    })
}

async fn work(provider: &OpenAiBatch) {
    let known = provider.list().await.expect("it reads");
    let mut jobs = Vec::new();
    for (number, size) in JOBS.into_iter().enumerate() {
        let known = known.iter().find(|status| status.texts == size as u64);
        let job = match known {
            Some(status) => provider.resume(&status.id).await,
            None => {
                let texts = texts(number);
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                provider.submit(Batch::documents(&texts)).await
            }
        };
        jobs.push(job.unwrap_or_else(|error| panic!("job {number}: {error}")));
    }
    let (reports, ()) = tokio::join!(join_all(jobs.iter().map(finish)), cancel(&jobs[CANCELLED]));
    for (number, report) in reports.iter().enumerate().filter(|(number, _)| *number != CANCELLED) {
        let bad: Vec<usize> =
            texts(number).iter().enumerate().filter(|(_, text)| is_bad(text)).map(|(index, _)| index).collect();
        let mut failed: Vec<usize> = report.failed.iter().map(|bad| bad.index as usize).collect();
        failed.sort_unstable();
        assert_eq!(failed, bad, "job {number} fails for the texts with '{BAD}':\n{report}");
        assert_eq!(report.answered, (JOBS[number] - bad.len()) as u64, "job {number}:\n{report}");
    }
}

/// Cancels a job when its first batch was sent, or at once.
async fn cancel(job: &Job) {
    if fastrand::u8(..3) > 0 {
        let mut progress = job.progress();
        while progress.next().await.is_some_and(|status| status.batches_sent == 0) {}
    }
    // It may end, or pause for a moment, before it hears of it.
    if let Err(error) = job.cancel().await {
        assert!(job.status().state.is_ended(), "{}: {error}", job.status());
    }
}

/// Waits for a job, however often it pauses.
async fn finish(job: &Job) -> JobReport {
    loop {
        match job.wait().await {
            Ok(report) => return report,
            Err(error) if job.status().state == JobState::Paused => {
                println!("{PAUSED} {}", error.kind());
                tokio::time::sleep(Duration::from_millis(20)).await;
                job.resume().await.expect("it goes on");
            }
            Err(error) => panic!("{}: {error}", job.status()),
        }
    }
}
