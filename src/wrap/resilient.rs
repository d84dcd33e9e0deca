//! Asks another member when one fails: [`Resilient`], with a breaker per member, in one proved space.

mod breaker;
mod builder;
mod course;
mod ends;
mod hedging;
mod inner;
mod member;
mod proof;
mod reference;
mod shortened;
mod turns;
mod verification;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{runtime::Handle, task::JoinHandle};

pub use self::{breaker::BreakerPolicy, builder::ResilientBuilder, hedging::Hedging, proof::Proof};
use self::{course::Course, inner::Inner, shortened::Shortened};
use crate::{
    Batch, BreakerState, Charges, Embedder, Embeddings, Error, ErrorKind, Limits, Result, Space,
    explanation::Explanation, planner, sync::Mutex, telemetry,
};

/// Asks a primary first, and fall-backs if it fails.
///
/// ```
/// use docvector_embed::{EmbedderExt, Error, ErrorKind, provider::Fake, wrap::Resilient};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// // A model of your own, and the same model at a vendor. The build embeds a few probe texts with both, and fails if
/// // their vectors differ.
/// let (own, twin) = (Fake::new(8), Fake::new(8));
/// let embedder = Resilient::builder(own.clone()).with_fallback(twin.clone()).build_verified().await?;
///
/// own.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
/// let rows = embedder.embed_documents(&["a text"]).await?;
/// assert_eq!(rows.row(0), own.vector_of(docvector_embed::InputKind::Document, "a text"));
///
/// for member in embedder.members() {
///     println!("{}: {} answered, {} failed, breaker {}", member.label, member.answered, member.failed, member.breaker);
/// }
/// # Ok(()) }) }
/// ```
///
/// # Semantics
/// Members are asked in their order, one after the other, until one answers. An error goes on to the next member if
/// [`should_fall_back`](Error::should_fall_back) says that another provider may do better. A caller's own mistake (a bad
/// text, a wrong space, a deadline that has passed) does not. Rows that a failed member has finished are kept, and the next
/// member is asked for the rest. The batch is passed on unchanged; its texts are truncated first, where members take texts
/// of different lengths.
///
/// Each member has a breaker, with the rules of a [`BreakerPolicy`]. While a member's breaker is open, calls pass it by.
/// When the time is over, single probes go to it, then two and four at once, and then all calls. So a member that
/// recovers is not flooded. These count as failures: `Unavailable`, `Timeout`, `Protocol`, `Inference`, `Auth`,
/// `Config`, `QuotaExhausted` and `Cache`. `RateLimited` and `Overloaded` do not count, though the call goes on to the next
/// member: a busy server is not a broken one. A call that ends at its deadline counts if the member has answered nobody
/// for the whole call, and has been asked for a second in all since it last answered. So a member that hangs is found out
/// by callers in a hurry, too. A member that queues calls itself needs deadlines that its queue can keep.
///
/// If no other member has answered, a call goes to a member whose breaker is open all the same: one call at a time, and
/// calls that come meanwhile wait for its end. So a call fails only if every member that may answer it has failed it, or
/// has failed such a probe while it waited.
///
/// # Space
/// All members lie in one [`Space`], or building fails. A member that states the space may still be another model behind
/// the same name. So a fall-back gets no calls until it is proved: its vectors of six probe texts, as documents and as
/// queries, must have a cosine of at least 0.999 with the primary's. [`verify`](Self::verify) does it, and
/// [`build_verified`](ResilientBuilder::build_verified); [`verify_every`](Self::verify_every) repeats it. `build` alone
/// proves nothing: until `verify` was called once while the primary answered, no fall-back is asked.
/// A member that could not be reached then is proved when a call needs it, as a part of that call. Other calls that need
/// it wait for that proof. If it fails, the member has failed all of them.
/// [`with_trusted_spaces`](ResilientBuilder::with_trusted_spaces) takes members at their word.
///
/// [`with_fallback_in_another_space`](ResilientBuilder::with_fallback_in_another_space) adds a member whose vectors cannot
/// be compared with those of the primary. Each result says by its [`space`](Embeddings::space) where it came from, and
/// a batch that wants a space ([`Batch::with_space`]) goes to the members of that space alone. A batch with a routing key
/// belongs to a collection, so it stays in the primary's space. A `Cached` around such a
/// stack does not build.
///
/// # Hedging
/// Off unless asked for, since it costs money: see [`with_hedging`](ResilientBuilder::with_hedging). If the first member
/// has not answered an interactive call in the time that it usually takes, the next member of the same space is asked,
/// too. The first success is the answer. The other call is dropped, and counts as one
/// [`unanswered`](crate::Usage::unanswered) call of the result, as it may be billed. If a member makes several attempts
/// itself ([`Retry`](super::Retry)), those of the dropped call are told to a [`MetricsSink`](super::MetricsSink) alone.
///
/// # Errors
/// If no member has answered, the error says of each why, and has all finished rows. Its kind is that of the first failure
/// that may pass, or else of the first failure; its [`source`](std::error::Error::source) is that failure. Its usage is
/// that of all members together, and so is that of a result. [`SpaceMismatch`](ErrorKind::SpaceMismatch) or
/// [`Config`](ErrorKind::Config) when building.
///
/// # Cancellation
/// Dropping the future drops the calls under way, and gives their places as probes back.
///
/// # Stacking
/// Inside [`Cached`](super::Cached), and around a whole stack per member:
/// `Cached(Resilient(Retry(.. own), Retry(.. twin)))`. Each member needs a time limit of its own, such as a
/// [`Timeout`](super::Timeout): a member that hangs without one holds the call. A `Retry` outside would repeat the whole
/// walk. In a member, few attempts are enough: the next member is the better second attempt.
///
/// # Cost
/// On the good path, a lock of the primary's breaker before and after the call. Each failed member costs its own time.
/// Waits are on tokio's clock, which a runtime must have (`enable_time`): those for a probe, a proof or a hedge.
#[derive(Clone)]
pub struct Resilient(Arc<Inner>);

impl Resilient {
    /// Begins with the primary.
    pub fn builder(primary: impl Embedder) -> ResilientBuilder {
        ResilientBuilder::new(Arc::new(primary))
    }

    /// Proves by probe texts that all members in the primary's space are the same model. Returns what that cost.
    ///
    /// The first time, the primary's vectors are kept; from then on, the primary is compared with them, too. A member that
    /// proves to be another model gets no calls until a later verification finds it right. The breakers take no notice. Each
    /// member is asked twice, for about 1,400 tokens each time. Without a time limit of its own, a member that hangs holds the
    /// verification.
    ///
    /// # Errors
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) if a member is another model; else the error of a member that could not
    /// be asked. It has the cost of all probes. The other members are proved all the same, once the primary has answered.
    ///
    /// # Cancellation
    /// Dropping the future leaves members that have not answered yet as they were.
    pub async fn verify(&self) -> Result<Charges> {
        let ledger = Mutex::new(Charges::NONE);
        let result = self.0.verify(&*self.0, &ledger).await;
        let cost = ledger.with(std::mem::take);
        result.map_err(|error| error.with_charges(&cost)).map(|()| cost.clone())
    }

    /// Verifies the members now and then, for as long as the returned guard and this wrapper live. The first time is now.
    ///
    /// What it costs is added to [`unclaimed`](Self::unclaimed), also if the guard is dropped in the middle. A member that is another model is shut out with a warning;
    /// one that cannot be reached stays as it is.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) outside a tokio runtime, or if `period` is 0. The runtime must have its clock
    /// (`enable_time`): the task ends without one.
    pub fn verify_every(&self, period: Duration) -> Result<Verifier> {
        let config = |message: &str| Error::new(ErrorKind::Config, message).with_embedder(self);
        if period.is_zero() {
            return Err(config("members are verified every 0 s: `verify_every` takes a longer time"));
        }
        let runtime = Handle::try_current();
        let runtime = runtime.map_err(|_| config("`verify_every` needs a tokio runtime, and there is none here"))?;
        // Weak, so that a forgotten guard does not keep the members.
        let inner = Arc::downgrade(&self.0);
        Ok(Verifier(runtime.spawn(async move {
            while let Some(inner) = inner.upgrade() {
                if let Err(error) = inner.verify(&*inner, &inner.unclaimed).await {
                    tracing::warn!(
                        { telemetry::EMBEDDER } = %inner,
                        { telemetry::ERROR } = %error,
                        "not all members could be verified"
                    );
                }
                drop(inner);
                tokio::time::sleep(period).await;
            }
        })))
    }

    /// Returns how the members are, the primary first.
    pub fn members(&self) -> Vec<MemberStatus> {
        let status = |member: &member::Member| {
            let (breaker, opens_in) = member.breaker();
            MemberStatus {
                label: member.label.to_string(),
                space: member.space.clone(),
                proof: member.proof(),
                breaker,
                open_for: opens_in,
                answered: member.answered.load(Ordering::Relaxed),
                failed: member.failed.load(Ordering::Relaxed),
            }
        };
        self.0.members.iter().map(status).collect()
    }

    /// Returns the cost that no caller was told of: that of [`verify_every`](Self::verify_every) and of
    /// [`build_verified`](ResilientBuilder::build_verified).
    pub fn unclaimed(&self) -> Charges {
        self.0.unclaimed.with(|unclaimed| unclaimed.clone())
    }
}

impl ResilientBuilder {
    /// Builds the wrapper, without a call. Fall-backs in the primary's space get no calls until
    /// [`Resilient::verify`] has proved them, unless spaces are [trusted](Self::with_trusted_spaces).
    ///
    /// # Errors
    /// [`SpaceMismatch`](ErrorKind::SpaceMismatch) if a fall-back lies in another space, unless it was added as such;
    /// [`Config`](ErrorKind::Config) if a member has several spaces, or a number makes no sense.
    pub fn build(self) -> Result<Resilient> {
        Ok(Resilient(Arc::new(self.into_inner()?)))
    }

    /// Builds the wrapper, and proves that the members in the primary's space are the same model: see
    /// [`Resilient::verify`]. The cost is added to [`Resilient::unclaimed`]. If a member may be down at this moment, [`build`](Self::build) and
    /// verify later.
    ///
    /// # Errors
    /// Those of [`build`](Self::build) and of [`Resilient::verify`].
    pub async fn build_verified(self) -> Result<Resilient> {
        let resilient = self.build()?;
        let cost = resilient.verify().await?;
        resilient.0.unclaimed.with(|unclaimed| *unclaimed += cost);
        Ok(resilient)
    }
}

/// How a member of a [`Resilient`] is at the moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// The label: see [`with_label`](ResilientBuilder::with_label).
    pub label: String,
    /// The space of its vectors.
    pub space: Space,
    /// What is known about its vectors.
    pub proof: Proof,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// The time until an open breaker lets a probe through.
    pub open_for: Option<Duration>,
    /// The calls that it has answered with rows.
    pub answered: u64,
    /// The calls that it has answered with an error.
    pub failed: u64,
}

/// Verifies the members of a [`Resilient`] now and then. Dropping it ends that.
///
/// Returned by [`Resilient::verify_every`].
#[derive(Debug)]
#[must_use = "dropping it ends the verification"]
pub struct Verifier(JoinHandle<()>);

impl Drop for Verifier {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Display for Resilient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Resilient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resilient").field("members", &self.0.members).finish_non_exhaustive()
    }
}

impl Inner {
    /// Truncates the texts that are over the limit that all members share, if members differ.
    fn shortened<'a>(&self, batch: &Batch<'a>) -> Option<Shortened<'a>> {
        if self.alike { None } else { Shortened::of(batch, &self.limits) }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Embedder for Resilient {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        let inner = &*self.0;
        batch.check_space(&inner.spaces).map_err(|error| error.with_embedder(self))?;
        if batch.is_empty() {
            let wanted = inner.spaces.iter().find(|space| batch.space().is_none_or(|wanted| wanted == space.id()));
            return Ok(Embeddings::empty(wanted.unwrap_or(&inner.spaces[0])));
        }
        if inner.alike {
            return Course::new(inner, batch).run().await;
        }
        let counting = planner::check(&batch, &inner.spaces, &inner.limits).await;
        let counting = counting.map_err(|error| error.with_embedder(self))?;
        let batch = batch.with_counted(counting.counted(&batch));
        match Shortened::of(&batch, &inner.limits) {
            None => Course::new(inner, batch).run().await,
            Some(shortened) => shortened.mark(Course::new(inner, shortened.batch(&batch)).run().await),
        }
    }

    fn spaces(&self) -> &[Space] {
        &self.0.spaces
    }

    /// Returns the limits that fit all members, and the calls in flight of the primary.
    fn limits(&self) -> Limits {
        self.0.limits.clone()
    }

    fn explain(&self, batch: &Batch<'_>) -> Explanation {
        let members = self.0.members.iter().filter(|member| self.0.may_answer(member, batch)).enumerate();
        members.fold(Explanation::new("Resilient"), |whole, (place, member)| {
            let (breaker, _) = member.breaker();
            let proof = member.proof();
            let role = if place == 0 { "is asked first" } else { "is asked if those before fail" };
            let proof = match proof {
                Proof::Stated => "taken at its word",
                Proof::Missing => "not proved yet, so it gets no calls",
                Proof::Verified => "proved to be the same model",
                Proof::Refuted => "another model than it states, so it gets no calls",
            };
            let one = Explanation::new(&*member.label).with_fact(role);
            let one = one.with_fact(format!("its breaker is {breaker}")).with_fact(proof);
            whole.with_inner(one.with_inner(member.embedder.explain(batch)))
        })
    }
}
