//! Hands a job to its callers: [`Job`].

use std::{
    fmt,
    ops::Range,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::oneshot;

use super::{
    handle::{Handle, JobRows, Order, Snapshot},
    inner::Inner,
    job_file,
    report::JobReport,
    rows_file::RowsFile,
    status::{JobState, JobStatus},
    texts_hasher::TextsHasher,
};
use crate::{BadText, BadTextReason, Charges, Embeddings, Error, ErrorKind, Partial, Result, Space, Usage};

/// How often, and how soon after each other, the charges are asked for while another process has the journal.
const TELL_TRIES: u32 = 100;
const TELL_PAUSE: Duration = Duration::from_millis(20);

/// A job of batches: see [`OpenAiBatch`](super::OpenAiBatch) for an example.
///
/// # Semantics
/// The job goes on by itself, on the embedder's thread, as long as the embedder or one of its jobs lives. If the program
/// ends before the job does, [`OpenAiBatch::resume`](super::OpenAiBatch::resume) goes on, in this process or in another. Clones are the same job.
///
/// # Cancellation
/// Dropping a job or any of its futures changes nothing about the job. [`cancel`](Self::cancel) ends it.
#[derive(Clone)]
pub struct Job {
    inner: Arc<Inner>,
    handle: Handle,
}

impl Job {
    pub(super) const fn new(inner: Arc<Inner>, handle: Handle) -> Self {
        Self { inner, handle }
    }

    /// Returns the job's id, which is the name of its folder.
    pub fn id(&self) -> &str {
        &self.handle.id
    }

    /// Returns the space of the job's rows.
    pub fn space(&self) -> &Space {
        &self.handle.rows.space
    }

    /// Returns how far the job is, as last known. Nothing is sent.
    pub fn status(&self) -> JobStatus {
        self.handle.snapshot.borrow().status.clone()
    }

    /// Returns how far the job is, now and after each change. The stream ends when the job has ended or is paused. A slow
    /// reader skips states.
    ///
    /// ```no_run
    /// # use docvector_embed::provider::Job;
    /// use futures_util::StreamExt;
    /// # async fn show(job: &Job) {
    /// let mut progress = job.progress();
    /// while let Some(status) = progress.next().await {
    ///     println!("{status}");
    /// }
    /// # }
    /// ```
    pub fn progress(&self) -> impl Stream<Item = JobStatus> + Send + Unpin + use<> {
        let snapshots = self.handle.snapshot.clone();
        // The job is held, so that it goes on as long as somebody looks at it.
        let job = self.clone();
        let stream =
            stream::unfold((snapshots, job, false, false), |(mut snapshots, job, is_later, is_over)| async move {
                if is_over || (is_later && snapshots.changed().await.is_err()) {
                    return None;
                }
                let status = snapshots.borrow_and_update().status.clone();
                let is_over = status.state.is_ended() || status.state == JobState::Paused;
                Some((status, (snapshots, job, true, is_over)))
            });
        Box::pin(stream) as Pin<Box<dyn Stream<Item = JobStatus> + Send>>
    }

    /// Waits until the job has ended. If another process works on the job, this waits for that one.
    ///
    /// # Errors
    /// The reason for which the job is paused: [`QuotaExhausted`](ErrorKind::QuotaExhausted),
    /// [`Auth`](ErrorKind::Auth), or [`Config`](ErrorKind::Config), which a full disk is too. Paid rows are kept.
    /// [`resume`](Self::resume) goes on.
    pub async fn wait(&self) -> Result<JobReport> {
        let mut snapshots = self.handle.snapshot.clone();
        loop {
            if let Some(end) = end_of(&snapshots.borrow_and_update()) {
                return end;
            }
            if snapshots.changed().await.is_err() {
                let message = format!("the work on job {} ended, which is a bug in this crate: `resume` it", self.id());
                return Err(Error::new(ErrorKind::Unavailable, message).mark_exhausted());
            }
        }
    }

    /// Cancels the job: nothing more is sent, and batches that run are cancelled. [`wait`](Self::wait) returns when
    /// what they finished is kept, which may take ten minutes. A paused job goes on, to end. A job that has ended stays as
    /// it is.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the journal cannot be written; [`Unavailable`](ErrorKind::Unavailable) if another
    /// process works on the job.
    pub async fn cancel(&self) -> Result<()> {
        self.order(Order::Cancel).await
    }

    /// Goes on after a pause. A job that is not paused, or that another process works on, stays as it is.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the journal cannot be written.
    pub async fn resume(&self) -> Result<()> {
        self.order(Order::Resume).await
    }

    /// Returns whether these are exactly the texts of the job, in their order: row `i` of the job is that of text `i`.
    /// Nothing is sent.
    pub async fn holds<T, S>(&self, texts: S) -> bool
    where
        T: AsRef<str> + Send,
        S: Stream<Item = T> + Send,
    {
        let own = &self.handle.texts;
        let mut hasher = TextsHasher::new(&self.inner.context.endpoint, own.kind, own.truncation);
        let mut texts = pin!(texts);
        while let Some(text) = texts.next().await {
            hasher.add(text.as_ref());
        }
        hasher.finish() == own.hash
    }

    /// Returns the charges that no caller was told of, and notes that they are told.
    ///
    /// Another process may have the journal for a moment.
    pub(super) async fn tell(&self) -> Result<Charges> {
        let mut tries = 0;
        loop {
            match self.order(Order::Tell).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && tries < TELL_TRIES => tries += 1,
                told => return told,
            }
            tokio::time::sleep(TELL_PAUSE).await;
        }
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<Result<T>>) -> Order) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        // If nobody listens, the answer never comes, and says so.
        _ = self.handle.orders.send(order(reply));
        let ended = |_| Err(Error::new(ErrorKind::Unavailable, format!("the work on job {} has ended", self.id())));
        answer.await.unwrap_or_else(ended)
    }

    /// Returns the rows that are there, of the texts in this range. It can be called at any time.
    ///
    /// A range that ends behind the last text is shortened. Rows of texts that have failed or are not answered yet are
    /// absent, so the result may be empty. The indices of the result are those of the job. The rows carry no charges: [`wait`](Self::wait) tells them.
    ///
    /// # Errors
    /// If the rows cannot be read from the disk.
    ///
    /// # Cost
    /// The rows of the range are in memory at once: choose ranges of some thousand texts.
    pub async fn rows(&self, range: Range<u64>) -> Result<Partial> {
        let rows = self.handle.rows.clone();
        read_off_executor(move || rows.read(range)).await
    }

    /// Waits until the job has ended, and returns all its rows.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait). If texts have failed, the error has the rows of the others. It names the texts that
    /// the provider refused, or if there are none, those with an unusable result. [`JobReport::failed`] has all of them.
    ///
    /// # Cost
    /// All rows are in memory at once: see [`rows`](Self::rows).
    pub async fn embeddings(&self) -> Result<Embeddings> {
        let report = self.wait().await?;
        let charges = report.charges.clone();
        let result = self.embeddings_of(report).await?;
        result.map(|rows| rows.with_charges(&charges)).map_err(|error| error.with_charges(&charges))
    }

    /// Returns all rows of a job that has ended, without charges, or the error of a job in which texts have failed.
    ///
    /// # Errors
    /// If the rows cannot be read.
    pub(super) async fn embeddings_of(&self, report: JobReport) -> Result<Result<Embeddings>> {
        let (rows, id) = (self.handle.rows.clone(), self.handle.id.clone());
        let usage = Usage::ZERO.with_cached(report.cached);
        let named = |error: Error| error.with_embedder(&*self.inner);
        let read = read_off_executor(move || {
            let partial = rows.read(0..report.texts)?;
            if partial.indices().len() as u64 == report.texts {
                return Ok(Ok(partial.into_parts().1.with_usage(usage)));
            }
            let error = error_of(&id, &report).with_usage(usage);
            Ok(Err(if partial.indices().is_empty() { error } else { error.with_partial(partial) }))
        });
        read.await.map(|result| result.map_err(named)).map_err(named)
    }
}

/// Runs work with files where it may block.
async fn read_off_executor<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let failed = |_| Err(Error::new(ErrorKind::Unavailable, "the runtime is shutting down, so the rows were not read"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
}

/// Returns how a job ended, or why it is paused; `None` if it goes on.
fn end_of(snapshot: &Snapshot) -> Option<Result<JobReport>> {
    if let Some(report) = &snapshot.report {
        return Some(Ok(JobReport::clone(report)));
    }
    if snapshot.status.state != JobState::Paused {
        return None;
    }
    let unknown = || {
        let trouble = snapshot.status.trouble.clone().unwrap_or_default();
        Error::new(ErrorKind::Config, format!("job {} is paused: {trouble}", snapshot.status.id))
    };
    Some(Err(snapshot.error.clone().unwrap_or_else(unknown)))
}

/// Makes the error of a job that has not a row for each text.
fn error_of(id: &str, report: &JobReport) -> Error {
    let of_kind = |kind| report.failed.iter().filter(move |text| text.kind == kind);
    let bad = |kind, reason: BadTextReason| {
        of_kind(kind).map(|text| BadText::new(text.index as usize, reason.clone())).collect::<Vec<_>>()
    };
    let rejected = bad(ErrorKind::InvalidInput, BadTextReason::Rejected);
    if !rejected.is_empty() {
        return Error::invalid_texts(rejected);
    }
    let unusable = bad(ErrorKind::Protocol, BadTextReason::Unusable);
    let missing = report.texts - report.answered;
    if !unusable.is_empty() {
        let message = format!("{missing} of {} texts of job {id} got no usable vector", report.texts);
        return Error::new(ErrorKind::Protocol, message).with_bad_texts(unusable);
    }
    if report.state == JobState::Cancelled {
        let message = format!("job {id} was cancelled, and {missing} of {} texts have no row", report.texts);
        return Error::new(ErrorKind::Unavailable, message).mark_exhausted();
    }
    let message = format!(
        "the provider had no answer for {missing} of {} texts of job {id} in five rounds: submit them again later",
        report.texts
    );
    Error::new(ErrorKind::Unavailable, message)
}

impl JobRows {
    /// Reads the rows that are there.
    fn read(self: &Arc<Self>, range: Range<u64>) -> Result<Partial> {
        let indices: Vec<u64> = self
            .present
            .with(|present| (range.start..range.end.min(present.texts())).filter(|&at| present.has(at)).collect());
        let width = self.space.dimensions();
        let mut components = vec![0.0; indices.len() * width];
        {
            let file = RowsFile::open(&self.path, width)?;
            let mut rest = &mut components[..];
            for run in indices.chunk_by(|one, next| one + 1 == *next) {
                let (rows, after) = rest.split_at_mut(run.len() * width);
                file.read_range(run[0], rows)?;
                if let Some(hole) = rows.chunks(width).position(|row| !RowsFile::is_there(row)) {
                    let what = format!("the row of text {} is not there", run[0] + hole as u64);
                    return Err(job_file::damaged(&self.path, what));
                }
                rest = after;
            }
        }
        let is_truncated = |index: &u64| self.truncated.binary_search(index).is_ok();
        let truncated =
            indices.iter().enumerate().filter(|(_, index)| is_truncated(index)).map(|(row, _)| row).collect();
        let rows = Embeddings::new(indices.len(), &self.space, components, Charges::NONE)?.with_truncated(truncated);
        Partial::new(indices.into_iter().map(|index| index as usize).collect(), rows)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("id", &self.id()).field("state", &self.status().state).finish_non_exhaustive()
    }
}
