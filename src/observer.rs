//! Tells what happens to calls on their way: an [`Observer`] hears of each [`Event`].
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use docvector_embed::{EmbedderExt, Error, ErrorKind, observer::{Event, EventKind}, provider::Fake, wrap::RetryPolicy};
//! # fn main() -> docvector_embed::Result<()> {
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let fake = Fake::new(8);
//! fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
//! let retries = Arc::new(Mutex::new(Vec::new()));
//! let heard = retries.clone();
//! // A closure is an observer. It hears all wrappers inside, so it goes outside of everything.
//! let embedder = fake.retry(RetryPolicy::default()).observed(move |event: &Event<'_>| {
//!     if let EventKind::Retry { attempt, error, .. } = event.kind {
//!         heard.lock().unwrap().push((attempt, error.kind()));
//!     }
//! });
//! embedder.embed_query("hello").await?;
//! assert_eq!(*retries.lock().unwrap(), [(1, ErrorKind::Unavailable)]);
//! # Ok(()) }) }
//! ```
//!
//! # Who tells what
//! | wrapper | events |
//! |---|---|
//! | `Metered` | [`Call`](EventKind::Call) |
//! | `Cached` | [`CacheLookUp`](EventKind::CacheLookUp), [`Deduplicated`](EventKind::Deduplicated) |
//! | `Dedup` | [`Deduplicated`](EventKind::Deduplicated) |
//! | `Retry` | [`Retry`](EventKind::Retry), [`GaveUp`](EventKind::GaveUp) |
//! | `RateLimit`, `Concurrency` | [`Waited`](EventKind::Waited), [`QueueFull`](EventKind::QueueFull) |
//! | `Timeout` | [`TimedOut`](EventKind::TimedOut) |
//! | `Resilient` | [`Answered`](EventKind::Answered), [`FellBack`](EventKind::FellBack), [`Skipped`](EventKind::Skipped), [`Hedged`](EventKind::Hedged), [`Breaker`](EventKind::Breaker), [`Verified`](EventKind::Verified) |
//! | `AbSplit` | [`Routed`](EventKind::Routed) and, for each arm, [`Call`](EventKind::Call) |
//! | `Coalesce` | [`Coalesced`](EventKind::Coalesced) |
//!
//! A batch carries its observer ([`Batch::with_observer`](crate::Batch::with_observer)), so a stack needs no other
//! connection to it. A call that several callers share tells the observer of the caller that began it.
//!
//! A wrapper of yours tells [`Other`](EventKind::Other), through [`Batch::tell`](crate::Batch::tell).
//!
//! An event never has a text, a vector or a secret. An observer may not change what happens.
//!
//! [`ToTracing`] writes all events to the log. `ToMetrics`, with the feature `metrics`, measures them.

#[cfg(test)]
mod samples;
mod short_space;
#[cfg(feature = "metrics")]
mod to_metrics;
mod to_tracing;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

#[cfg(feature = "metrics")]
#[cfg_attr(docvector_docs, doc(cfg(feature = "metrics")))]
pub use self::to_metrics::ToMetrics;
pub use self::to_tracing::ToTracing;
use crate::{BreakerState, Error, Options, call_record::CallRecord, named::named, telemetry};

/// Hears what happens to calls on their way. Closures are observers, and so is an `Arc` of an observer.
///
/// See the [module](self) for an example.
pub trait Observer: Send + Sync + 'static {
    /// Hears of an event. This runs in the thread of the call, often on an async executor and sometimes inside a
    /// `drop`. So it should be quick, and hand slow work to another thread or task. If it panics, there is a warning
    /// (through `tracing`), and the call goes on.
    fn observe(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn observe(&self, event: &Event<'_>) {
        self(event);
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn observe(&self, event: &Event<'_>) {
        (**self).observe(event);
    }
}

/// Both hear of each event, the first one first. If it panics, the second one still hears.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn observe(&self, event: &Event<'_>) {
        tell(&self.0, event);
        tell(&self.1, event);
    }
}

/// Something that happened to a call on its way, for an [`Observer`].
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The embedder that tells. It displays its name, with those inside it.
    pub embedder: &'a dyn fmt::Display,
    /// All that the batch said beside its texts, such as kind, lane, routing key, tenant and trace.
    pub options: Options<'a>,
    /// The number of texts of the batch.
    pub texts: usize,
    /// The event itself.
    pub kind: EventKind<'a>,
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("embedder", &format_args!("{}", self.embedder))
            .field("texts", &self.texts)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The kind of an [`Event`], with its numbers. Later versions have more kinds, and more fields.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// A call has ended.
    Call(&'a CallRecord<'a>),
    /// A cache has looked texts up.
    #[non_exhaustive]
    CacheLookUp {
        /// The texts whose vectors the store had.
        hits: u64,
        /// The texts that the store did not have then, though another call may have stored them since.
        misses: u64,
        /// The entries that were damaged, and discarded.
        damaged: u64,
    },
    /// Texts were not sent, because an equal text is.
    #[non_exhaustive]
    Deduplicated {
        /// The number of texts that were saved.
        texts: u64,
    },
    /// A failed call will be made again.
    #[non_exhaustive]
    Retry {
        /// The attempt that failed, from 1.
        attempt: u32,
        /// The wait before the next attempt.
        wait: Duration,
        /// The error of the attempt.
        error: &'a Error,
    },
    /// A failed call will not be made again, though its error may pass.
    #[non_exhaustive]
    GaveUp {
        /// The number of attempts.
        attempts: u32,
        /// The error, which says why there are no more.
        error: &'a Error,
    },
    /// A call has had its turn, after it had to wait for it.
    #[non_exhaustive]
    Waited {
        /// The queue that it waited in.
        queue: Queue,
        /// The length of the wait.
        time: Duration,
        /// The calls that still wait in the queue.
        waiting: usize,
    },
    /// A call was refused, because too many wait already.
    #[non_exhaustive]
    QueueFull {
        /// The queue that is full.
        queue: Queue,
    },
    /// A call took too long and was ended.
    #[non_exhaustive]
    TimedOut {
        /// The time that a call may take.
        limit: Duration,
    },
    /// A member has answered, with rows.
    #[non_exhaustive]
    Answered {
        /// The label of the member.
        member: &'a str,
        /// The place of the member: 0 is the primary.
        place: usize,
    },
    /// A member has failed a call, and the next one is asked.
    #[non_exhaustive]
    FellBack {
        /// The label of the member that failed.
        from: &'a str,
        /// The label of the member that is asked.
        to: &'a str,
        /// The error of the first one.
        error: &'a Error,
    },
    /// A member was not asked.
    #[non_exhaustive]
    Skipped {
        /// The label of the member.
        member: &'a str,
        /// The reason.
        why: SkipReason,
    },
    /// A member has not answered in its usual time, and a second one is asked beside it.
    #[non_exhaustive]
    Hedged {
        /// The label of the member that is late.
        first: &'a str,
        /// The label of the member that is asked beside it.
        second: &'a str,
        /// The time that was waited for the first.
        after: Duration,
    },
    /// The breaker of a member has changed its state.
    #[non_exhaustive]
    Breaker {
        /// The label of the member.
        member: &'a str,
        /// The new state.
        state: BreakerState,
        /// How long no call goes to the member, if the breaker has opened.
        open_for: Option<Duration>,
    },
    /// A member was compared with the primary, by probe texts.
    #[non_exhaustive]
    Verified {
        /// The label of the member.
        member: &'a str,
        /// The least cosine of two vectors of one probe text.
        cosine: f32,
        /// Whether the vectors are of one model.
        same: bool,
    },
    /// A router has chosen an arm.
    #[non_exhaustive]
    Routed {
        /// The label of the arm.
        arm: &'a str,
    },
    /// Something that a wrapper outside of this crate tells. All other kinds are made here alone, so that they can grow.
    Other {
        /// The name of what happened, such as `texts_trimmed`. It becomes a label: take few names.
        name: &'static str,
        /// How often it happened.
        count: u64,
    },
    /// Several calls have become one.
    #[non_exhaustive]
    Coalesced {
        /// The number of calls that became one.
        calls: usize,
        /// The number of all their texts.
        texts: usize,
    },
}

/// A queue that calls wait in.
///
/// Part of [`EventKind::Waited`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Queue {
    /// That of a [`RateLimit`](crate::wrap::RateLimit).
    RateLimit,
    /// That of a [`Concurrency`](crate::wrap::Concurrency).
    Concurrency,
}

named! {
    /// Returns the name: `rate_limit` or `concurrency`.
    Queue, "a queue",
    RateLimit = "rate_limit",
    Concurrency = "concurrency",
}

/// The reason why a member was not asked.
///
/// Part of [`EventKind::Skipped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its breaker is open.
    BreakerOpen,
    /// Its breaker lets few calls through, and they are under way.
    Probing,
    /// It states the space, and nobody has proved that it is the same model.
    Unverified,
    /// The proof has failed: it is another model.
    OtherModel,
}

named! {
    /// Returns the name: `breaker_open`, `probing`, `unverified` or `other_model`.
    SkipReason, "a reason why a member was not asked",
    BreakerOpen = "breaker_open",
    Probing = "probing",
    Unverified = "unverified",
    OtherModel = "other_model",
}

/// Tells an observer. Its panic costs a warning, and nothing else.
pub(crate) fn tell(observer: &dyn Observer, event: &Event<'_>) {
    if catch_unwind(AssertUnwindSafe(|| observer.observe(event))).is_err() {
        tracing::warn!({ telemetry::EMBEDDER } = %event.embedder, "the observer panicked and missed an event");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named::check_names;

    #[test]
    fn names_are_read_back() {
        check_names(Queue::ALL);
        check_names(SkipReason::ALL);
    }
}
