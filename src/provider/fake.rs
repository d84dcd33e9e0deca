//! Stands in for a model in tests: [`Fake`] has deterministic vectors, scripted failures, latency, and a log of calls.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    BadText, BadTextReason, Batch, Charges, CountTokens, Embedder, Embeddings, Error, ErrorKind, InputKind, Lane,
    Limits, Normalization, Payee, Result, Space, SpaceId, Tier, TokenCount, Truncation, Usage, deadline::until,
    explanation::Explanation,
};

/// Characters per token.
const TOKEN: usize = 4;

/// An embedder without a model, for tests.
///
/// ```
/// use docvector_embed::{EmbedderExt, Error, ErrorKind, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let fake = Fake::new(8);
/// fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
/// assert_eq!(fake.embed_query("hello").await.unwrap_err().kind(), ErrorKind::Unavailable);
/// let first = fake.embed_query("hello").await?;
/// assert_eq!(first, fake.embed_query("hello").await?);
/// assert_eq!(fake.calls().len(), 3);
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// A vector is made from the blake3 hash of space, kind and text, and scaled to length 1. Equal texts have equal
/// vectors; different texts have different vectors, and vectors say nothing about meaning. Every four characters of a
/// text are one token, and the rest is one more. The space is that of a model called `fake`. Clones share the script,
/// the log and the [holds](Self::hold).
///
/// # Errors
/// The scripted errors, and those of [`Batch::check`].
///
/// # Cancellation
/// A dropped call is logged with [`FakeOutcome::Dropped`] and costs nothing.
///
/// # Cost
/// The log keeps every text; [`without_log`](FakeBuilder::without_log) turns it off for long runs and benchmarks.
#[derive(Clone)]
pub struct Fake(Arc<Shared>);

struct Shared {
    space: Space,
    payee: Payee,
    limits: Limits,
    latency: Option<Duration>,
    logs: bool,
    state: Mutex<State>,
    /// The number of [`Hold`]s that exist.
    holds: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Option<Error>>,
    refusal: Option<Refusal>,
    calls: Vec<FakeCall>,
    usage: Usage,
}

/// Returns the error of a call, or `None` to let it succeed.
type Refusal = Arc<dyn Fn(&Fake, &Batch<'_>) -> Option<Error> + Send + Sync>;

/// One call in the log, as [`Fake::calls`] returns it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FakeCall {
    /// The texts, in the caller's order.
    pub texts: Vec<String>,
    /// The kind of the texts.
    pub kind: InputKind,
    /// The routing key.
    pub key: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The trace.
    pub trace: Option<String>,
    /// The wanted space, if the caller named one.
    pub space: Option<SpaceId>,
    /// The policy for over-long texts.
    pub truncation: Truncation,
    /// The lane.
    pub lane: Lane,
    /// The deadline.
    pub deadline: Option<Instant>,
    /// Whether the batch carried an [observer](crate::observer).
    pub observed: bool,
    /// The outcome, or [`Running`](FakeOutcome::Running).
    pub outcome: FakeOutcome,
}

/// The outcome of a call of a [`Fake`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FakeOutcome {
    /// The call has not ended.
    Running,
    /// It returned vectors.
    Done,
    /// It returned an error.
    Failed,
    /// The caller dropped it.
    Dropped,
}

impl Fake {
    /// Makes a fake without limits whose vectors have `dimensions` components. A number below 1 counts as 1, and one
    /// above 65,536 as 65,536.
    pub fn new(dimensions: usize) -> Self {
        let builder = Self::builder().with_dimensions(dimensions.clamp(1, 65_536));
        match builder.build() {
            Ok(fake) => fake,
            // The name is not empty and the width is in range.
            Err(error) => unreachable!("{error}"),
        }
    }

    /// Returns a builder, for a fake with other properties than the default ones.
    pub fn builder() -> FakeBuilder {
        FakeBuilder::default()
    }

    /// Adds to the script: the next call that has no entry in it yet fails with `error`.
    pub fn fail_next(&self, error: Error) {
        self.state().script.push_back(Some(error));
    }

    /// Adds to the script: the next call that has no entry in it yet succeeds, so that a later one can be made to fail.
    pub fn succeed_next(&self) {
        self.state().script.push_back(None);
    }

    /// Sets a function that may refuse any call that the script does not make fail. This is for errors that depend on
    /// the texts of the call.
    pub(crate) fn refuse_by(&self, refusal: impl Fn(&Self, &Batch<'_>) -> Option<Error> + Send + Sync + 'static) {
        self.state().refusal = Some(Arc::new(refusal));
    }

    /// Returns the payee of its calls.
    pub(crate) fn payee(&self) -> &Payee {
        &self.0.payee
    }

    /// Holds back the answers of all calls, those under way and later ones, until the guard is dropped.
    ///
    /// ```
    /// use docvector_embed::{EmbedderExt, provider::Fake};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let fake = Fake::new(8);
    /// let hold = fake.hold();
    /// let call = tokio::spawn({ let fake = fake.clone(); async move { fake.embed_query("held").await } });
    /// tokio::task::yield_now().await;
    /// assert!(!call.is_finished());
    /// drop(hold);
    /// assert!(call.await.unwrap().is_ok());
    /// # });
    /// ```
    #[must_use = "dropping the guard lets the calls go on"]
    pub fn hold(&self) -> Hold {
        self.0.holds.send_modify(|holds| *holds += 1);
        Hold(self.0.clone())
    }

    /// Returns the calls so far, in the order in which they began.
    pub fn calls(&self) -> Vec<FakeCall> {
        self.state().calls.clone()
    }

    /// Returns all that was charged so far. The results of all callers must add up to this.
    pub fn charged(&self) -> Usage {
        self.state().usage
    }

    /// Returns the vector of a text of this kind, without a call.
    pub fn vector_of(&self, kind: InputKind, text: &str) -> Vec<f32> {
        let mut vector = Vec::with_capacity(self.0.space.dimensions());
        self.push_vector(kind, text, &mut vector);
        vector
    }

    fn push_vector(&self, kind: InputKind, text: &str, out: &mut Vec<f32>) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.0.space.id().as_bytes()).update(&[kind as u8]).update(text.as_bytes());
        let mut bytes = hasher.finalize_xof();
        let start = out.len();
        // Many bytes at once: the hash makes them in blocks, and each fill makes its first block again.
        let (mut block, mut left) = ([0; 1024], self.0.space.dimensions());
        while left > 0 {
            let part = &mut block[..left.min(256) * 4];
            bytes.fill(part);
            let (fours, _) = part.as_chunks::<4>();
            out.extend(fours.iter().map(|&four| i32::from_le_bytes(four) as f32 / i32::MAX as f32));
            left -= fours.len();
        }
        let length = out[start..].iter().map(|component| component * component).sum::<f32>().sqrt();
        if length > 0.0 {
            out[start..].iter_mut().for_each(|component| *component /= length);
        } else {
            out[start] = 1.0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the set latency and for the end of all holds, but not past the deadline.
    async fn wait(&self, deadline: Option<Instant>) -> Result<()> {
        let wait = async {
            if let Some(latency) = self.0.latency {
                tokio::time::sleep(latency).await;
            }
            // The wait fails only if the sender is gone, and the sender lives in `self`.
            let _ = self.0.holds.subscribe().wait_for(|&holds| holds == 0).await;
        };
        until(deadline, wait).await.ok_or_else(|| {
            Error::new(ErrorKind::DeadlinePassed, "while the call waited (`with_latency`, `hold`)").with_embedder(self)
        })
    }
}

impl fmt::Display for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fake")
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake")
            .field("space", &self.0.space.id())
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Embedder for Fake {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        batch.check(self.spaces(), &self.0.limits).map_err(|error| error.with_embedder(self))?;
        if batch.is_empty() {
            return Ok(Embeddings::empty(&self.0.space));
        }
        let log = LoggedCall::begin(self, &batch);
        let scripted = self.state().script.pop_front().flatten();
        self.wait(batch.deadline()).await.inspect_err(|_| log.end(FakeOutcome::Failed))?;
        let refusal = self.state().refusal.clone();
        let refused = scripted.or_else(|| refusal.and_then(|refusal| refusal(self, &batch)));
        if let Some(error) = refused {
            log.end(FakeOutcome::Failed);
            return Err(error.with_embedder(self).with_payee(&self.0.payee));
        }
        let limit = self.0.limits.tokens_of_one_text().unwrap_or(usize::MAX);
        let mut components = Vec::with_capacity(batch.len() * self.0.space.dimensions());
        let (mut truncated, mut over_long, mut tokens) = (Vec::new(), Vec::new(), 0);
        for (index, text) in batch.texts().iter().enumerate() {
            let end = text.char_indices().nth(limit.saturating_mul(TOKEN)).map_or(text.len(), |(at, _)| at);
            if end < text.len() {
                truncated.push(index);
                over_long.push(BadText::new(index, BadTextReason::TooLong { tokens: limit.saturating_add(1), limit }));
            }
            tokens += Characters.count(batch.kind(), &text[..end]) as u64;
            self.push_vector(batch.kind(), &text[..end], &mut components);
        }
        // If the limits do not let callers count tokens, `Batch::check` could not find the over-long texts.
        if batch.truncation() == Truncation::Error && !over_long.is_empty() {
            log.end(FakeOutcome::Failed);
            return Err(Error::invalid_texts(over_long).with_embedder(self));
        }
        let usage = Usage::of_request(Some(tokens));
        self.state().usage += usage;
        log.end(FakeOutcome::Done);
        let charges = Charges::of(&self.0.payee, usage);
        Ok(Embeddings::new(batch.len(), &self.0.space, components, charges)?.with_truncated(truncated))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.0.space)
    }

    fn limits(&self) -> Limits {
        self.0.limits.clone()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        Explanation::of_provider(self, batch, self.spaces(), &self.0.limits, Some(&self.0.payee))
    }
}

/// Releases the held calls when dropped. See [`Fake::hold`].
pub struct Hold(Arc<Shared>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.send_modify(|holds| *holds -= 1);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

/// Keeps the outcome in the log true, also if the call is dropped.
struct LoggedCall<'a> {
    fake: &'a Fake,
    place: Option<usize>,
}

impl<'a> LoggedCall<'a> {
    fn begin(fake: &'a Fake, batch: &Batch<'_>) -> Self {
        let place = fake.0.logs.then(|| {
            let call = FakeCall {
                texts: batch.texts().iter().map(ToString::to_string).collect(),
                kind: batch.kind(),
                key: batch.key().map(str::to_owned),
                tenant: batch.tenant().map(str::to_owned),
                trace: batch.trace().map(str::to_owned),
                space: batch.space(),
                truncation: batch.truncation(),
                lane: batch.lane(),
                deadline: batch.deadline(),
                observed: batch.observer().is_some(),
                outcome: FakeOutcome::Running,
            };
            let mut state = fake.state();
            state.calls.push(call);
            state.calls.len() - 1
        });
        Self { fake, place }
    }

    fn end(&self, outcome: FakeOutcome) {
        if let Some(place) = self.place {
            self.fake.state().calls[place].outcome = outcome;
        }
    }
}

impl Drop for LoggedCall<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let call = &mut self.fake.state().calls[place];
            if call.outcome == FakeOutcome::Running {
                call.outcome = FakeOutcome::Dropped;
            }
        }
    }
}

/// Counts the tokens of a [`Fake`].
#[derive(Debug)]
struct Characters;

impl CountTokens for Characters {
    fn count(&self, _: InputKind, text: &str) -> usize {
        text.chars().count().div_ceil(TOKEN)
    }

    fn at_most(&self, _: InputKind, text: &str) -> usize {
        text.len().div_ceil(TOKEN)
    }
}

/// Builds a [`Fake`].
///
/// # Default
/// A model called `fake` with 384 dimensions, no limits, countable tokens, no latency, and a log.
#[derive(Clone, Debug)]
pub struct FakeBuilder {
    model: String,
    dimensions: usize,
    limits: Limits,
    latency: Option<Duration>,
    logs: bool,
}

impl Default for FakeBuilder {
    fn default() -> Self {
        Self { model: "fake".into(), dimensions: 384, limits: Limits::none(), latency: None, logs: true }
    }
}

impl FakeBuilder {
    /// Sets the model's name. Another name makes another space.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// Sets the number of components of a vector, 1 to 65,536.
    #[must_use]
    pub const fn with_dimensions(mut self, dimensions: usize) -> Self {
        self.dimensions = dimensions;
        self
    }

    /// Sets the limits. If they say no [token count](TokenCount::Unknown), the fake adds its own counter.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the time that each call takes, on tokio's clock (which tests can pause).
    #[must_use]
    pub const fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = Some(latency);
        self
    }

    /// Turns the log of calls off.
    #[must_use]
    pub const fn without_log(mut self) -> Self {
        self.logs = false;
        self
    }

    /// Makes the fake.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the model's name is empty or the dimensions are out of range.
    pub fn build(self) -> Result<Fake> {
        let payee = Payee::new("fake", self.model.as_str(), Tier::Standard);
        let space = Space::builder(self.model, self.dimensions).with_normalization(Normalization::L2).build()?;
        let mut limits = self.limits;
        if matches!(limits.tokens, TokenCount::Unknown) {
            limits.tokens = TokenCount::Exact(Arc::new(Characters));
        }
        let holds = watch::Sender::new(0);
        let state = Mutex::default();
        Ok(Fake(Arc::new(Shared { space, payee, limits, latency: self.latency, logs: self.logs, state, holds })))
    }
}
