//! Submits texts as jobs of batches, and returns them: [`OpenAiBatch`].

use std::{fmt, path::Path, pin::pin, sync::Arc, time::Instant};

use async_trait::async_trait;
use futures_util::{Stream, StreamExt};

use super::{
    course::{busy, open_journal},
    folder::Jobs,
    inner::Inner,
    job::Job,
    outcome::status_of,
    planning::{Maker, Planning},
    status::{JobState, JobStatus},
    worker,
};
use crate::{
    Batch, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, OwnedOptions, Result, Space, Usage,
    deadline::until, explanation::Explanation,
};

/// Texts per call of `embed`. Wrappers take "any number" for a local model and make small calls, each of which would be a
/// job.
const CALL_TEXTS: usize = 1_000_000;

/// Maximum texts per window that goes to the planning thread.
const WINDOW_TEXTS: usize = 1024;

/// Maximum bytes of text per window, unless one text has more.
const WINDOW_BYTES: usize = 4 << 20;

/// Embeds through OpenAI's Batch API: half the price, an answer within a day.
///
/// ```no_run
/// use docvector_embed::{Batch, provider::OpenAiBatch};
/// # async fn run() -> docvector_embed::Result<()> {
/// // Reads OPENAI_API_KEY. Jobs live in the folder `jobs`, so that nothing is paid twice, whatever happens.
/// let embedder = OpenAiBatch::from_env("text-embedding-3-small", "jobs")?;
/// let job = embedder.submit(Batch::documents(&["Any number of texts,", "in as many batches as they need."])).await?;
/// println!("if this program ends, another one resumes {}", job.id());
/// let report = job.wait().await?;
/// println!("{report}");
/// // Rows by ranges of texts, so that a large job never is in memory as a whole.
/// let rows = job.rows(0..report.texts.min(1000)).await?;
/// # Ok(()) }
/// ```
///
/// [`docs::batches`](crate::docs::batches) says when batches pay, and what happens in each failure. Without a key, try it
/// over [`testing::Simulator`](crate::testing::Simulator).
///
/// # Semantics
/// A job is a folder: its texts as input files, its rows, and a journal. [`submit`](Self::submit) makes the folder at
/// once, whole or not at all. A thread of the embedder then uploads the files, creates a batch for each, looks at them
/// and keeps their results. The journal has each step before the next one begins, and each create before it is sent. So
/// a job goes on after a crash, on this machine or, with its folder copied, on another one, and no text is paid for twice: a batch whose creation got no
/// answer is found again in the provider's list, before another one is created.
///
/// All results of a batch are kept, even if it expired, failed or was cancelled. The other texts are sent again. A text
/// fails if the provider refuses it, if its result is unusable, or if five batches in a row had no answer for it. An
/// account without credit pauses the job; no text fails for that.
///
/// [`embed`](Embedder::embed) submits a job and waits for it. If the folder has a job of exactly these texts whose rows
/// no call has returned yet, it waits for that one and submits nothing. So a [`Timeout`](crate::wrap::Timeout), a
/// [`Retry`](crate::wrap::Retry) or a dropped future around it costs nothing. `submit` always makes a new job.
///
/// Vectors, limits, prompts and truncation are those of the [`OpenAi`](crate::provider::OpenAi) that it is built with. Up to 1,000,000
/// texts are one call; `submit` takes any number.
///
/// # Errors
/// Bad texts are named before anything is sent. A paused job is an error of `embed` that says what to do; the job stays
/// in the folder, and the next call with the same texts goes on.
///
/// # Cancellation
/// Dropping a future changes nothing about its job, which goes on as long as the embedder or one of its [`Job`]s lives.
///
/// # Two processes
/// One process at a time works on a job. Another one that opens it sees how far it is
/// ([`Elsewhere`](super::JobState::Elsewhere)), and takes over when the first one ends.
///
/// # Space
/// That of the `OpenAi`: vectors of batches and of calls can be compared.
///
/// # Stacking
/// Outermost. Each call of `embed` is a job, so do not put [`embed_stream`](crate::EmbedderExt::embed_stream) over it, which
/// makes a call per window: [`submit_stream`](Self::submit_stream) takes streams. For a cache, take
/// [`with_cache`](crate::provider::OpenAiBatchBuilder::with_cache), which keeps rows as they come.
///
/// # Cost
/// Texts wait on the disk until they are answered, readable by their owner alone; rows take 4 bytes per component. In
/// memory are a window of texts, the index of one batch (41 bytes per text), one line of results, and a bit per text of
/// the job.
///
/// # Tracing
/// No spans. Warnings name the job and the file. They never hold a text, a key or a body.
#[derive(Clone)]
pub struct OpenAiBatch(Arc<Inner>);

impl OpenAiBatch {
    /// Returns how far each job of a folder is, as its journal says, the oldest first. It needs no key and no model, and
    /// writes nothing. A folder that does not exist has no jobs. A job whose journal cannot be read is left out, with a
    /// warning in the log.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn jobs_in(folder: impl AsRef<Path>) -> Result<Vec<JobStatus>> {
        let folder = folder.as_ref();
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let jobs = Jobs::at(folder);
        Ok(jobs.ids()?.iter().filter_map(|id| status_in(&jobs, id)).collect())
    }

    pub(super) const fn new(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    /// Submits any number of texts as a new job, and returns once the job is on the disk.
    ///
    /// Two equal jobs that are submitted are two jobs, and are paid for twice. A job of no texts ends at once. Of the
    /// options, the kind, the truncation and the space count; key, tenant, trace, lane and deadline take no part.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) names the bad texts, about 100,000 at most, and nothing is sent;
    /// [`Config`](ErrorKind::Config) if the job cannot be written.
    ///
    /// # Cancellation
    /// Dropped before the job is on the disk, this leaves nothing. Dropped later, the job is in [`list`](Self::list).
    pub async fn submit(&self, batch: Batch<'_>) -> Result<Job> {
        self.job_of(batch, Maker::Submit).await.map_err(|error| error.with_embedder(self))
    }

    /// Submits a stream of texts as a new job, as [`submit`](Self::submit) does. Memory does not grow with it.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub async fn submit_stream<T, S>(&self, texts: S, options: OwnedOptions) -> Result<Job>
    where
        T: AsRef<str> + Send,
        S: Stream<Item = T> + Send,
    {
        self.job_of_stream(texts, options, Maker::Submit).await.map_err(|error| error.with_embedder(self))
    }

    /// Submits a stream as [`submit_stream`](Self::submit_stream) does, unless the folder has a job of exactly these texts that goes on, or whose rows are there: then it
    /// returns that one, and nothing is paid again.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub async fn attach_stream<T, S>(&self, texts: S, options: OwnedOptions) -> Result<Job>
    where
        T: AsRef<str> + Send,
        S: Stream<Item = T> + Send,
    {
        self.job_of_stream(texts, options, Maker::Attach).await.map_err(|error| error.with_embedder(self))
    }

    /// Opens a job of the folder and goes on with it, also if another process or machine submitted it. A job that has
    /// ended is opened for its rows and its report.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if there is no such job, if its journal is damaged or of another version, or if it
    /// was submitted for another space or server.
    pub async fn resume(&self, id: &str) -> Result<Job> {
        self.open(id.to_owned()).await.map_err(|error| error.with_embedder(self))
    }

    /// Returns how far each job of the folder is, the oldest first. Nothing is sent. A job that is not open shows what
    /// its journal says; one whose journal cannot be read is left out, with a warning in the log.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub async fn list(&self) -> Result<Vec<JobStatus>> {
        let open = self.0.worker.handles().await?;
        let jobs = &self.0.context.jobs;
        let mut list = Vec::new();
        for id in jobs.ids()? {
            if let Some(handle) = open.iter().find(|handle| *handle.id == *id) {
                list.push(handle.snapshot.borrow().status.clone());
                continue;
            }
            list.extend(status_in(jobs, &id));
        }
        Ok(list)
    }

    /// Removes a job that has ended from the folder, with its rows.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if there is no such job, or if it has not ended: cancel it first.
    pub async fn remove(&self, id: &str) -> Result<()> {
        let removed = async {
            let folder = self.0.context.jobs.job(id)?;
            if worker::read(&folder)?.done.is_none() {
                let message = format!("job {id} has not ended, so it is not removed: `cancel` it first");
                return Err(Error::new(ErrorKind::Config, message));
            }
            self.0.worker.forget(id.to_owned()).await?;
            // Nobody else may open it meanwhile.
            let _locked = open_journal(&folder)?.ok_or_else(|| busy(id))?;
            folder.remove()
        };
        removed.await.map_err(|error: Error| error.with_embedder(self))
    }

    async fn job_of(&self, batch: Batch<'_>, maker: Maker) -> Result<Job> {
        batch.check_space(self.spaces())?;
        let planning = Planning::start(&self.0.context, batch.options().to_owned(), maker)?;
        let mut texts = batch.texts();
        while !texts.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            while count < texts.len().min(WINDOW_TEXTS) && (count == 0 || bytes + texts[count].len() <= WINDOW_BYTES) {
                bytes += texts[count].len();
                count += 1;
            }
            let (window, rest) = texts.split_at(count);
            texts = rest;
            if !planning.add(window.iter().map(|&text| text.to_owned()).collect()).await {
                break;
            }
        }
        self.open_made(planning.finish().await?, maker).await
    }

    async fn job_of_stream<T, S>(&self, texts: S, options: OwnedOptions, maker: Maker) -> Result<Job>
    where
        T: AsRef<str> + Send,
        S: Stream<Item = T> + Send,
    {
        Batch::with_options(&[], options.borrow()).check_space(self.spaces())?;
        let planning = Planning::start(&self.0.context, options, maker)?;
        let mut texts = pin!(texts);
        let (mut window, mut bytes) = (Vec::new(), 0);
        while let Some(text) = texts.next().await {
            let text = text.as_ref().to_owned();
            bytes += text.len();
            window.push(text);
            if window.len() >= WINDOW_TEXTS || bytes >= WINDOW_BYTES {
                bytes = 0;
                if !planning.add(std::mem::take(&mut window)).await {
                    break;
                }
            }
        }
        if !window.is_empty() {
            // If the thread has ended, `finish` says why.
            planning.add(window).await;
        }
        self.open_made(planning.finish().await?, maker).await
    }

    async fn embed_by_job(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let passed = |when: &str| Error::new(ErrorKind::DeadlinePassed, when.to_owned());
        if batch.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(passed("before the job was made"));
        }
        if batch.len() > CALL_TEXTS {
            // Says how to split it.
            batch.check(self.spaces(), &Limits::none().with_texts(CALL_TEXTS))?;
        }
        let job = self.job_of(batch, Maker::Embed).await?;
        let Some(ended) = until(batch.deadline(), job.wait()).await else {
            let message = format!("before job {} ended: it goes on, and the same texts find it again", job.id());
            return Err(passed(&message));
        };
        // The rows first: until the charges are told, a call with the same texts finds the job again.
        let result = match ended {
            Ok(report) => job.embeddings_of(report).await?,
            Err(error) => Err(error),
        };
        // The first caller tells the charges. They are told once; others share the rows.
        let told = job.tell().await;
        let charges = told.unwrap_or_else(|error| {
            tracing::warn!(job = job.id(), error = %error, "the charges of a batch job are not told: its report has them");
            Charges::NONE
        });
        let shared = Usage::ZERO.with_deduplicated(if charges.is_none() { batch.len() as u64 } else { 0 });
        match result {
            Ok(rows) => Ok(rows.with_charges(&charges).with_usage(shared)),
            Err(error) => Err(error.with_charges(&charges)),
        }
    }

    /// Opens a job that was made or found. A new one that has paused already stays so: its caller is told.
    async fn open_made(&self, id: String, maker: Maker) -> Result<Job> {
        match maker {
            Maker::Submit => Ok(Job::new(self.0.clone(), self.0.worker.open(id).await?)),
            Maker::Attach | Maker::Embed => self.open(id).await,
        }
    }

    /// Opens a job, and lets it go on if it is paused.
    async fn open(&self, id: String) -> Result<Job> {
        let job = Job::new(self.0.clone(), self.0.worker.open(id).await?);
        if job.status().state == JobState::Paused {
            job.resume().await?;
        }
        Ok(job)
    }
}

/// Returns what the journal of a job says. If it cannot be read, the log has a warning.
fn status_in(jobs: &Jobs, id: &str) -> Option<JobStatus> {
    let state = jobs.job(id).and_then(|folder| worker::read(&folder));
    let warn = |error: &Error| tracing::warn!(job = id, error = %error, "a batch job is left out of the list");
    Some(status_of(&state.inspect_err(warn).ok()?))
}

#[async_trait]
impl Embedder for OpenAiBatch {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        if batch.is_empty() {
            batch.check_space(self.spaces()).map_err(|error| error.with_embedder(self))?;
            return Ok(Embeddings::empty(&self.0.context.endpoint.space));
        }
        self.embed_by_job(batch).await.map_err(|error| error.with_embedder(self))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.0.context.endpoint.space)
    }

    /// Returns the limits of one text, and 1,000,000 texts per call: a call is a job.
    fn limits(&self) -> Limits {
        let mut limits = self.0.context.endpoint.limits();
        limits.texts = Some(CALL_TEXTS);
        (limits.bytes, limits.tokens_per_call, limits.in_flight) = (None, None, None);
        limits
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        Explanation::of_provider(self, batch, self.spaces(), &self.limits(), Some(&self.0.context.payee))
    }
}

impl fmt::Display for OpenAiBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for OpenAiBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.0.context;
        f.debug_struct("OpenAiBatch")
            .field("name", &self.0.to_string())
            .field("host", &context.endpoint.url.host_str())
            .field("space", &context.endpoint.space.id())
            .finish_non_exhaustive()
    }
}
