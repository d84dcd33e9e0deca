//! Makes a job of texts as they come, on a thread of its own: [`plan`].
//!
//! Nothing is sent. The job's folder appears when it is whole, so a program that ends while it plans leaves nothing.

use std::{
    sync::Arc,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    context::Context,
    folder::NewJob,
    index_file::IndexedText,
    journal::Journal,
    record::{Plan, Record},
    rows_file::RowsFile,
    shard_set::ShardSet,
    state::State,
    texts_hasher::TextsHasher,
};
use crate::{
    BadText, BadTextReason, Batch, Error, ErrorKind, InputKind, Limits, OwnedOptions, Result, Truncation, planner,
    provider::openai::request::inputs_of,
};

/// Windows of texts that wait for the thread.
const WINDOWS: usize = 2;

/// Bad texts that an error names at most. With more, the rest of the texts is not looked at.
const BAD_TEXTS: usize = 100_000;

/// How a caller gets a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    /// A new job is wanted, whatever there is.
    Submit,
    /// A job of the same texts will do.
    Attach,
    /// The same, for `embed`, which removes its jobs after a while.
    Embed,
}

/// The channel to the planning thread.
pub(super) struct Planning {
    texts: mpsc::Sender<Option<Vec<String>>>,
    result: oneshot::Receiver<Result<String>>,
}

impl Planning {
    /// Starts the thread.
    pub(super) fn start(context: &Arc<Context>, options: OwnedOptions, maker: Maker) -> Result<Self> {
        let (texts, windows) = mpsc::channel(WINDOWS);
        let (reply, result) = oneshot::channel();
        let context = context.clone();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let planned = match runtime {
                Ok(runtime) => runtime.block_on(plan(&context, &options, maker, windows)),
                Err(error) => Err(no_thread(error)),
            };
            // A caller who has gone knows the job by the list.
            _ = reply.send(planned);
        };
        thread::Builder::new().name("docvector-plan".to_owned()).spawn(work).map_err(no_thread)?;
        Ok(Self { texts, result })
    }

    /// Hands over the next texts. Returns whether more are wanted.
    pub(super) async fn add(&self, texts: Vec<String>) -> bool {
        self.texts.send(Some(texts)).await.is_ok()
    }

    /// Says that there are no more texts. Returns the id of the job.
    pub(super) async fn finish(self) -> Result<String> {
        // If nobody listens, the thread has ended, and says why.
        _ = self.texts.send(None).await;
        let lost = |_| Err(Error::new(ErrorKind::Config, "planning the job panicked, which is a bug in this crate"));
        self.result.await.unwrap_or_else(lost)
    }
}

fn no_thread(error: std::io::Error) -> Error {
    let message = format!("this machine gives no thread for a batch job: {error}");
    Error::new(ErrorKind::Config, message).with_source(error)
}

/// Plans a job of all texts, and returns its id, or that of another job of the same texts if that will do.
async fn plan(
    context: &Arc<Context>,
    options: &OwnedOptions,
    maker: Maker,
    mut windows: mpsc::Receiver<Option<Vec<String>>>,
) -> Result<String> {
    let mut plan = TextsPlan::new(context, options)?;
    loop {
        match windows.recv().await {
            Some(Some(texts)) => plan.add(&texts).await?,
            Some(None) => break,
            None => {
                return Err(Error::new(ErrorKind::Config, "the caller has gone before all texts were there"));
            }
        }
    }
    plan.finish(maker)
}

/// A job that is being planned.
struct TextsPlan<'c> {
    context: &'c Arc<Context>,
    options: &'c OwnedOptions,
    /// The limits of one text. Those of a request are kept by its line.
    limits: Limits,
    line_bytes: usize,
    job: NewJob,
    rows: RowsFile,
    shards: ShardSet,
    hasher: TextsHasher,
    texts: u64,
    cached: u64,
    truncated: Vec<u64>,
    bad: Vec<BadText>,
}

impl<'c> TextsPlan<'c> {
    fn new(context: &'c Arc<Context>, options: &'c OwnedOptions) -> Result<Self> {
        let endpoint = &context.endpoint;
        let mut limits = endpoint.limits();
        let hasher = TextsHasher::new(endpoint, options.kind, options.truncation);
        (limits.texts, limits.bytes, limits.tokens_per_call) = (None, None, None);
        let shard_limits = context.shard_limits();
        let job = context.jobs.begin()?;
        let rows = RowsFile::open_or_create(&job.folder().rows(), endpoint.space.dimensions())?;
        let line_bytes = shard_limits.line_bytes;
        let shards = ShardSet::new(job.folder(), endpoint, options.kind, shard_limits, 0, 1);
        let (truncated, bad) = (Vec::new(), Vec::new());
        Ok(Self {
            context,
            options,
            limits,
            line_bytes,
            job,
            rows,
            shards,
            hasher,
            texts: 0,
            cached: 0,
            truncated,
            bad,
        })
    }

    /// Adds texts. Once one of them is bad, the others are only looked at.
    async fn add(&mut self, texts: &[String]) -> Result<()> {
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        let batch = Batch::with_options(&borrowed, self.options.borrow());
        let first = self.texts;
        self.texts += texts.len() as u64;
        let place = |bad: &BadText| BadText::new(first as usize + bad.index, bad.reason.clone());
        let spaces = std::slice::from_ref(&self.context.endpoint.space);
        let too_large = |(index, text): (usize, &&str)| {
            let reason = BadTextReason::TooLarge { bytes: text.len(), limit: self.line_bytes };
            (text.len() > self.line_bytes).then(|| BadText::new(first as usize + index, reason))
        };
        self.bad.extend(borrowed.iter().enumerate().filter_map(too_large));
        if !self.bad.is_empty() {
            // Its own check is enough: nothing is written any more.
            let checked = planner::check(&batch, spaces, &self.limits).await;
            self.bad.extend(checked.err().iter().flat_map(Error::bad_texts).map(place));
            return if self.bad.len() < BAD_TEXTS { Ok(()) } else { Err(self.bad_texts()) };
        }
        let (inputs, truncated) = match inputs_of(&self.context.endpoint, &batch, &self.limits).await {
            Ok(inputs) => inputs,
            Err(error) if error.bad_texts().is_empty() => return Err(error),
            Err(error) => {
                self.bad.extend(error.bad_texts().iter().map(place));
                return Ok(());
            }
        };
        let mut is_truncated = vec![false; texts.len()];
        truncated.iter().for_each(|&index| is_truncated[index] = true);
        self.truncated.extend(truncated.iter().map(|&index| first + index as u64));
        let keys: Vec<_> = borrowed.iter().map(|text| self.hasher.add(text)).collect();
        let found = match &self.context.cache {
            Some(cache) => Some(cache.rows_of(&keys).await),
            None => None,
        };
        for (place, input) in inputs.into_iter().enumerate() {
            let index = first + place as u64;
            match found.as_ref().and_then(|rows| rows.row(place)).filter(|row| RowsFile::is_there(row)) {
                Some(row) => {
                    self.rows.put(index, row)?;
                    self.cached += 1;
                }
                None => {
                    let text = IndexedText { index, key: keys[place], truncated: is_truncated[place] };
                    self.shards.push(input.into_owned(), text)?;
                }
            }
        }
        Ok(())
    }

    fn bad_texts(&mut self) -> Error {
        let mut bad = std::mem::take(&mut self.bad);
        // A text may be too large and too long.
        bad.sort_by_key(|bad| bad.index);
        bad.dedup_by_key(|bad| bad.index);
        Error::invalid_texts(bad)
    }

    /// Ends the plan: the job appears, unless another one will do.
    fn finish(mut self, maker: Maker) -> Result<String> {
        if !self.bad.is_empty() {
            return Err(self.bad_texts());
        }
        let hash = self.hasher.finish();
        let lock = if maker == Maker::Submit { None } else { Some(self.context.jobs.lock()?) };
        if lock.is_some()
            && let Some(id) = find(self.context, &hash, maker)?
        {
            return Ok(id);
        }
        let shards = self.shards.finish()?;
        self.rows.sync()?;
        let endpoint = &self.context.endpoint;
        let plan = Plan {
            id: self.job.id().to_owned(),
            created_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
            texts_hash: hash,
            space: endpoint.space.to_text(),
            model: endpoint.model.clone(),
            server: endpoint.url.origin().ascii_serialization(),
            texts: self.texts,
            cached: self.cached,
            truncated: self.truncated,
            query: self.options.kind == InputKind::Query,
            truncates: self.options.truncation == Truncation::Truncate,
            embed: maker == Maker::Embed,
            shards,
        };
        let id = plan.id.clone();
        Journal::create(&self.job.folder().journal(), &Record::Planned(Box::new(plan)))?;
        self.context.step("planned");
        // Open files would stop the new name on Windows.
        drop(self.rows);
        self.job.publish()?;
        self.context.step("published");
        drop(lock);
        Ok(id)
    }
}

/// Finds a job of these texts that a caller can wait for: one that goes on, or whose end no caller was told. For a maker
/// that tells nobody, one with all rows will do at any time.
fn find(context: &Context, hash: &str, maker: Maker) -> Result<Option<String>> {
    for id in context.jobs.ids()?.into_iter().rev() {
        // A journal that cannot be read is no reason to refuse new work; whoever opens it is told.
        // Another process may have removed it.
        let Ok(folder) = context.jobs.job(&id) else { continue };
        let path = folder.journal();
        let Ok(state) = Journal::read(&path).and_then(|records| State::of(records, &path)) else { continue };
        let endpoint = &context.endpoint;
        let is_of_server =
            state.plan.server == endpoint.url.origin().ascii_serialization() && state.plan.model == endpoint.model;
        if state.plan.texts_hash != hash || (state.done.is_none() && !is_of_server) {
            continue;
        }
        let serves = match state.done {
            None => !state.cancelling,
            Some(true) => false,
            Some(false) => !state.told || (maker == Maker::Attach && state.failed.is_empty()),
        };
        if serves {
            return Ok(Some(id));
        }
    }
    Ok(None)
}
