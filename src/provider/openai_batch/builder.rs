//! Builds an [`OpenAiBatch`]: [`OpenAiBatchBuilder`] takes the settings of its jobs.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use super::{
    api::Api,
    context::{Account, Context, Settings, Standby},
    course::open_journal,
    embedder::OpenAiBatch,
    folder::Jobs,
    inner::Inner,
    shard_set,
};
use crate::{
    Embedder, Error, ErrorKind, Result,
    cache::CacheStore,
    provider::OpenAi,
    stored_vectors::{VectorEncoding, VectorStore},
    sync::Mutex,
};

/// The longest wait between two looks at a batch.
const LONGEST_POLL: Duration = Duration::from_secs(24 * 3600);

/// How long jobs that `embed` made stay in the folder after they have ended and their rows were returned. Another
/// process may wait for one, too.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

impl OpenAiBatch {
    /// Builds an embedder of one of OpenAI's models, with the key and the server that the environment names, as
    /// [`OpenAi::from_env`] does. Its jobs live in `folder`.
    ///
    /// # Errors
    /// Those of [`OpenAi::from_env`] and of [`OpenAiBatchBuilder::build`].
    pub fn from_env(model: impl Into<String>, folder: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(OpenAi::from_env(model)?, folder).build()
    }

    /// Returns a builder. Model, server, key, space, prompts and limits are those of `openai`.
    pub fn builder(openai: OpenAi, folder: impl Into<PathBuf>) -> OpenAiBatchBuilder {
        OpenAiBatchBuilder::new(openai, folder.into())
    }
}

/// Builds an [`OpenAiBatch`].
///
/// ```no_run
/// use std::time::Duration;
/// use docvector_embed::{cache::Memory, provider::{OpenAi, OpenAiBatch}};
/// # fn main() -> docvector_embed::Result<()> {
/// let openai = OpenAi::from_env("text-embedding-3-small")?;
/// let embedder = OpenAiBatch::builder(openai.clone(), "jobs")
///     // Later, `openai.cached(..)` over the same store finds the vectors.
///     .with_cache(Memory::new(64 << 20))
///     // After 20 hours, the rest is embedded at once, at the full price.
///     .with_standby(openai, Duration::from_secs(20 * 3600))
///     .build()?;
/// # Ok(()) }
/// ```
///
/// # Default
/// - 64 texts per line and 20,000 texts per batch;
/// - a look at the batches after 10 s, then less and less often, down to once a minute;
/// - 2 minutes for a new batch to appear in the provider's list;
/// - no cache, no standby; files stay at the provider until they expire.
pub struct OpenAiBatchBuilder {
    openai: OpenAi,
    folder: PathBuf,
    cache: Option<Arc<dyn CacheStore>>,
    standby: Option<Standby>,
    settings: Settings,
}

impl OpenAiBatchBuilder {
    pub(super) fn new(openai: OpenAi, folder: PathBuf) -> Self {
        let settings = Settings {
            shortest_poll: Duration::from_secs(10),
            longest_poll: Duration::from_secs(60),
            line_texts: 64,
            shard_texts: 20_000,
            enqueued_tokens: None,
            list_patience: Duration::from_secs(120),
            deletes_files: false,
            step_hook: None,
        };
        Self { openai, folder, cache: None, standby: None, settings }
    }

    /// Puts rows into a store as they come, as [`Cached`](crate::wrap::Cached) over the same model does. Texts that the
    /// store has are not sent. Rows of queries are stored too. If the store fails, the log has a warning, and the job has its rows all the same.
    #[must_use]
    pub fn with_cache(mut self, store: impl CacheStore) -> Self {
        self.cache = Some(Arc::new(store));
        self
    }

    /// Sets an embedder that answers at once, and the age of a job at which it takes over: batches that run are
    /// cancelled, what they finished is kept, and the standby is asked for the rest. It must have the same space.
    ///
    /// Batches expire after 24 hours, and cancelling one takes up to ten minutes.
    #[must_use]
    pub fn with_standby(mut self, embedder: impl Embedder + 'static, after: Duration) -> Self {
        self.standby = Some(Standby { embedder: Arc::new(embedder), after });
        self
    }

    /// Sets how long to wait between two looks at the batches: the shortest wait, which grows to the longest while
    /// nothing changes.
    #[must_use]
    pub const fn with_poll_interval(mut self, shortest: Duration, longest: Duration) -> Self {
        (self.settings.shortest_poll, self.settings.longest_poll) = (shortest, longest);
        self
    }

    /// Sets the texts per line of an input file. More texts per line make smaller files; but one text that the provider
    /// refuses costs all texts of its line a second round.
    #[must_use]
    pub const fn with_line_texts(mut self, texts: usize) -> Self {
        self.settings.line_texts = texts;
        self
    }

    /// Sets the texts per batch, at most OpenAI's 50,000. Smaller batches end sooner, and their rows are there sooner.
    #[must_use]
    pub const fn with_batch_texts(mut self, texts: usize) -> Self {
        self.settings.shard_texts = texts as u64;
        self
    }

    /// Sets the most tokens that the account may have enqueued for the model, as OpenAI judges them: a quarter of the
    /// bytes. Without it, the first refusal tells.
    #[must_use]
    pub const fn with_enqueued_tokens(mut self, tokens: u64) -> Self {
        self.settings.enqueued_tokens = Some(tokens);
        self
    }

    /// Sets how long a batch whose creation got no answer is looked for in the provider's list. After that it counts as
    /// not made, and is created again. The list may lag behind by seconds.
    #[must_use]
    pub const fn with_list_patience(mut self, patience: Duration) -> Self {
        self.settings.list_patience = patience;
        self
    }

    /// Sets whether the files of a batch are deleted at the provider once its results are kept.
    #[must_use]
    pub const fn with_files_deleted(mut self, deleted: bool) -> Self {
        self.settings.deletes_files = deleted;
        self
    }

    /// Sets a function that is called at each gap between an effect and its record, with the name of the gap. A test
    /// that kills the process there shows that nothing is lost or paid twice. The function runs on the thread of the
    /// jobs or on that which plans one, and holds it up.
    #[cfg(feature = "testing")]
    #[cfg_attr(docvector_docs, doc(cfg(feature = "testing")))]
    #[must_use]
    pub fn with_step_hook(mut self, hook: Arc<dyn Fn(&'static str) + Send + Sync>) -> Self {
        self.settings.step_hook = Some(hook);
        self
    }

    /// Builds the embedder, makes the folder if it is not there, and removes what `embed` left there a day ago. Nothing
    /// is sent, and no job goes on by itself: [`resume`](OpenAiBatch::resume) those of [`list`](OpenAiBatch::list).
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if a number of texts or tokens or the poll interval is zero, a batch has more than
    /// 50,000 texts, the longest poll is shorter than the shortest, or the folder cannot be made or written;
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) if the standby has another space.
    pub fn build(self) -> Result<OpenAiBatch> {
        let Self { openai, folder, cache, standby, settings } = self;
        let endpoint = &openai.0;
        check(&settings)?;
        let space = &endpoint.space;
        if let Some(other) = standby.as_ref().and_then(|standby| {
            let spaces = standby.embedder.spaces();
            (spaces != std::slice::from_ref(space)).then(|| spaces.iter().map(ToString::to_string).collect::<Vec<_>>())
        }) {
            let message = format!(
                "`with_standby` has {}, and the batches have {space}: take one of the same space",
                other.join(", ")
            );
            return Err(Error::new(ErrorKind::SpaceMismatch, message));
        }
        let jobs = Jobs::open(&folder)?;
        remove_old(&jobs)?;
        let cache = cache.map(|store| VectorStore::new(store, VectorEncoding::default(), space.clone()));
        let payee = Context::payee_of(endpoint);
        let api = Api::new(endpoint)?;
        let (endpoint, account) = (endpoint.clone(), Mutex::new(Account::default()));
        let context = Context { endpoint, api, payee, jobs, settings, cache, standby, account };
        Ok(OpenAiBatch::new(Arc::new(Inner::start(context)?)))
    }
}

/// Refuses numbers with which no job could go on.
fn check(settings: &Settings) -> Result<()> {
    let zero = |what: &str| {
        let message = format!("`{what}` of zero leaves nothing: give 1 or more");
        Err(Error::new(ErrorKind::Config, message))
    };
    if settings.line_texts == 0 {
        return zero("with_line_texts");
    }
    if settings.shard_texts == 0 {
        return zero("with_batch_texts");
    }
    if settings.shard_texts > shard_set::TEXTS {
        let message =
            format!("`with_batch_texts` of {}: a batch holds at most {}", settings.shard_texts, shard_set::TEXTS);
        return Err(Error::new(ErrorKind::Config, message));
    }
    if settings.enqueued_tokens == Some(0) {
        return zero("with_enqueued_tokens");
    }
    let (shortest, longest) = (settings.shortest_poll, settings.longest_poll);
    if shortest.is_zero() {
        return Err(Error::new(
            ErrorKind::Config,
            "`with_poll_interval` of zero polls without a pause: give at least 1 ms",
        ));
    }
    if longest > LONGEST_POLL {
        let message = format!("`with_poll_interval`: the longest wait is {longest:?}: give a day at most");
        return Err(Error::new(ErrorKind::Config, message));
    }
    if longest < shortest {
        let message =
            format!("`with_poll_interval`: the longest wait ({longest:?}) is below the shortest ({shortest:?})");
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(())
}

/// Removes jobs of `embed` that have ended, whose rows were returned, and that are old.
fn remove_old(jobs: &Jobs) -> Result<()> {
    for id in jobs.ids()? {
        // Another process may remove it, too.
        let Ok(folder) = jobs.job(&id) else { continue };
        let path = folder.journal();
        let is_old = path
            .metadata()
            .and_then(|about| about.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT_FOR));
        if !is_old {
            continue;
        }
        // The lock is held until the folder is gone.
        let Ok(Some((_journal, state))) = open_journal(&folder) else { continue };
        if state.plan.embed && state.done.is_some() && state.told {
            let removed = folder.remove();
            removed.unwrap_or_else(|error| tracing::warn!(job = id, error = %error, "an old batch job is not removed"));
        }
    }
    Ok(())
}

impl fmt::Debug for OpenAiBatchBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiBatchBuilder")
            .field("openai", &self.openai)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
