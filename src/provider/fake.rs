//! Stands in for a model in tests: [`Fake`], with deterministic vectors, scripted failures, latency, and a log of calls.

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
    Limits, Normalization, Payee, Result, Space, SpaceId, Tier, TokenCount, Truncation, Usage,
};

/// Characters a token.
const TOKEN: usize = 4;

/// An embedder without a model.
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
/// A vector is the blake3 hash of space, kind and text, stretched to unit length: equal texts have equal vectors, other
/// texts have others, and nothing is similar to anything. A token is up to four characters. The space is that of a
/// model called `fake`. Clones share the script, the log and the gate.
///
/// # Errors
/// Those scripted, and those of [`Batch::check`].
///
/// # Cancellation
/// A dropped call is logged with [`FakeOutcome::Dropped`] and has cost nothing.
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
    /// How many [`Hold`]s there are.
    holds: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Option<Error>>,
    refusal: Option<Refusal>,
    calls: Vec<FakeCall>,
    usage: Usage,
}

/// Answers a call with an error, or lets it succeed.
type Refusal = Arc<dyn Fn(&Fake, &Batch<'_>) -> Option<Error> + Send + Sync>;

/// One call as [`Fake::calls`] tells it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FakeCall {
    /// The texts, in the order they came in.
    pub texts: Vec<String>,
    /// What they were said to be.
    pub kind: InputKind,
    /// The routing key.
    pub key: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The trace.
    pub trace: Option<String>,
    /// The wanted space.
    pub space: Option<SpaceId>,
    /// What was asked for over-long texts.
    pub truncation: Truncation,
    /// The lane.
    pub lane: Lane,
    /// The deadline.
    pub deadline: Option<Instant>,
    /// How it ended.
    pub outcome: FakeOutcome,
}

/// How a call of a [`Fake`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FakeOutcome {
    /// It has not.
    Running,
    /// With vectors.
    Done,
    /// With an error.
    Failed,
    /// The caller dropped it.
    Dropped,
}

impl Fake {
    /// Makes a fake of `dimensions` components (taken to be at least 1 and at most 65,536) without limits.
    pub fn new(dimensions: usize) -> Self {
        let builder = Self::builder().with_dimensions(dimensions.clamp(1, 65_536));
        match builder.build() {
            Ok(fake) => fake,
            // The name is not empty and the width is in range.
            Err(error) => unreachable!("{error}"),
        }
    }

    /// Begins a fake with other than the default properties.
    pub fn builder() -> FakeBuilder {
        FakeBuilder::default()
    }

    /// Makes the next call that is not scripted yet fail with `error`.
    pub fn fail_next(&self, error: Error) {
        self.state().script.push_back(Some(error));
    }

    /// Makes the next call that is not scripted yet succeed, so that a later one can be made to fail.
    pub fn succeed_next(&self) {
        self.state().script.push_back(None);
    }

    /// Asks `refusal` about each call that no script makes fail: for errors that depend on the texts of the call.
    pub(crate) fn refuse_by(&self, refusal: impl Fn(&Self, &Batch<'_>) -> Option<Error> + Send + Sync + 'static) {
        self.state().refusal = Some(Arc::new(refusal));
    }

    /// Who is paid for its calls.
    pub(crate) fn payee(&self) -> &Payee {
        &self.0.payee
    }

    /// Stops every call, now and later, before its answer, until the guard is dropped.
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

    /// The calls so far, in the order they came in.
    pub fn calls(&self) -> Vec<FakeCall> {
        self.state().calls.clone()
    }

    /// All that was charged so far: what the results of all callers must add up to.
    pub fn charged(&self) -> Usage {
        self.state().usage
    }

    /// The vector that a text of this kind has, without a call.
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
        let mut four = [0; 4];
        for _ in 0..self.0.space.dimensions() {
            bytes.fill(&mut four);
            out.push(i32::from_le_bytes(four) as f32 / i32::MAX as f32);
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

    /// Waits for the scripted latency and for the gate, but not past the deadline.
    async fn wait(&self, deadline: Option<Instant>) -> Result<()> {
        let wait = async {
            if let Some(latency) = self.0.latency {
                tokio::time::sleep(latency).await;
            }
            // The sender lives in `self`, so waiting cannot fail.
            let _ = self.0.holds.subscribe().wait_for(|&holds| holds == 0).await;
        };
        let Some(deadline) = deadline else {
            wait.await;
            return Ok(());
        };
        let passed = |_| Error::new(ErrorKind::DeadlinePassed, "while the call waited").with_embedder(self);
        tokio::time::timeout_at(deadline.into(), wait).await.map_err(passed)
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
        // Where the limits say that tokens cannot be counted from outside, this is the first to know.
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

/// Keeps the outcome in the log true even where the call is dropped.
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
/// A model called `fake` of 384 dimensions, no limits, countable tokens, no latency, a log.
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
    /// Sets the model's name, and so the space: another name, another space.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// Sets the components of a vector, 1 to 65,536.
    #[must_use]
    pub const fn with_dimensions(mut self, dimensions: usize) -> Self {
        self.dimensions = dimensions;
        self
    }

    /// Sets the limits. Where they leave tokens [uncounted](TokenCount::Unknown), the fake's own count is used.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long each call takes, on tokio's clock (which tests can pause).
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
    /// [`Config`](ErrorKind::Config) where the model has no name or the dimensions are out of range.
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
