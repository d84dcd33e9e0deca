//! Writes what happens to calls to the log: [`ToTracing`].

use std::time::Duration;

use super::{Event, EventKind, Observer, short_space::ShortSpace};
use crate::{
    BreakerState, Error,
    call_record::{CallOutcome, CallRecord},
    telemetry,
};

/// Writes each event to `tracing`.
///
/// ```
/// use docvector_embed::{EmbedderExt, cache::Memory, observer::ToTracing, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let embedder = Fake::new(8).metered(()).cached(Memory::new(1 << 20))?.observed(ToTracing::new());
/// // With a subscriber, at the level `debug`:
/// // DEBUG docvector_embed::observer: a cache has looked texts up embedder=Cached(Metered(fake)) embed.cache.hits=0 ...
/// embedder.embed_documents(&["a text"]).await?;
/// # Ok(()) }) }
/// ```
///
/// # Levels
/// | level | events |
/// |---|---|
/// | `warn` | a breaker opens; a member is of another model |
/// | `info` | a fall-back; a hedge; a breaker closes, or lets a few calls through |
/// | `debug` | all others |
///
/// The target of all events is [`OBSERVER_TARGET`](telemetry::OBSERVER_TARGET), whatever else of this crate is logged.
/// [`Retry`](crate::wrap::Retry) writes its attempts to the log without an observer, too, and
/// [`Resilient`](crate::wrap::Resilient) its warnings.
///
/// # Fields
/// [`telemetry::FIELDS`] has the names, which never change. Each event has [`EMBEDDER`](telemetry::EMBEDDER) and
/// [`BATCH_SIZE`](telemetry::BATCH_SIZE). An error is named by the code of its kind alone. No field holds a text, a
/// routing key, a tenant, a trace or the provider's words.
///
/// # Cost
/// An event that nobody subscribes to costs one or two loads.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToTracing(());

impl ToTracing {
    /// Makes the observer.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Writes one event. The first two fields are those that all have.
macro_rules! write_event {
    ($level:ident, $event:ident, $message:literal, { $($field:ident = $value:expr),* $(,)? }) => {
        tracing::$level!(
            target: telemetry::OBSERVER_TARGET,
            {
                { telemetry::EMBEDDER } = %$event.embedder,
                { telemetry::BATCH_SIZE } = $event.texts,
                $({ telemetry::$field } = $value,)*
            },
            $message
        )
    };
}

impl Observer for ToTracing {
    /// Has an arm for each kind, and none for the rest: a new kind does not compile until it is written, too.
    fn observe(&self, event: &Event<'_>) {
        match event.kind {
            EventKind::Call(call) => write_call(event, call),
            EventKind::CacheLookUp { hits, misses, damaged } => {
                write_event!(debug, event, "a cache has looked texts up", {
                    CACHE_HITS = hits, CACHE_MISSES = misses, DAMAGED = damaged,
                })
            }
            EventKind::Deduplicated { texts } => {
                write_event!(debug, event, "equal texts were not sent again", { DEDUP_TEXTS = texts });
            }
            EventKind::Retry { attempt, wait, error } => write_event!(debug, event, "a call will be made again", {
                ERROR_TYPE = code(error), RETRY_ATTEMPT = attempt, RETRY_WAIT_MS = millis(wait),
            }),
            EventKind::GaveUp { attempts, error } => write_event!(debug, event, "a call will not be made again", {
                ERROR_TYPE = code(error), RETRY_ATTEMPT = attempts,
            }),
            EventKind::Waited { queue, time, waiting } => {
                write_event!(debug, event, "a call has waited for its turn", {
                    QUEUE = queue.as_str(), QUEUE_WAIT_MS = millis(time), QUEUE_WAITING = waiting,
                })
            }
            EventKind::QueueFull { queue } => {
                write_event!(debug, event, "a queue is full, and a call was refused", { QUEUE = queue.as_str() });
            }
            EventKind::TimedOut { limit } => {
                write_event!(debug, event, "a call took too long", { TIMEOUT_LIMIT_MS = millis(limit) });
            }
            EventKind::Answered { member, place } => {
                write_event!(debug, event, "a member has answered", { MEMBER = member, MEMBER_PLACE = place });
            }
            EventKind::FellBack { from, to, error } => write_event!(info, event, "a call falls back", {
                FROM = from, TO = to, ERROR_TYPE = code(error),
            }),
            EventKind::Skipped { member, why } => {
                write_event!(debug, event, "a member was not asked", { MEMBER = member, REASON = why.as_str() });
            }
            EventKind::Hedged { first, second, after } => write_event!(info, event, "a second member is asked", {
                FROM = first, TO = second, HEDGE_AFTER_MS = millis(after),
            }),
            EventKind::Breaker { member, state, open_for } => write_breaker(event, member, state, open_for),
            EventKind::Verified { member, cosine, same } => write_proof(event, member, cosine, same),
            EventKind::Routed { arm } => write_event!(debug, event, "an arm was chosen", { ARM = arm }),
            EventKind::Other { name, count } => {
                write_event!(debug, event, "a wrapper tells", { OTHER = name, OTHER_COUNT = count });
            }
            EventKind::Coalesced { calls, texts: _ } => {
                write_event!(debug, event, "calls have become one", { COALESCED = calls });
            }
        }
    }
}

fn write_call(event: &Event<'_>, call: &CallRecord<'_>) {
    let outcome = match call.outcome {
        CallOutcome::Done => "done",
        CallOutcome::Failed(_) => "failed",
        CallOutcome::Dropped => "dropped",
    };
    // A record names the embedder that was called, and not the one that measured.
    tracing::debug!(
        target: telemetry::OBSERVER_TARGET,
        {
            { telemetry::EMBEDDER } = call.embedder,
            { telemetry::BATCH_SIZE } = event.texts,
            { telemetry::CALL_OUTCOME } = outcome,
            { telemetry::CALL_LATENCY_MS } = call.latency.as_secs_f64() * 1e3,
            { telemetry::INPUT_TOKENS } = call.usage.tokens,
            { telemetry::ERROR_TYPE } = call.error.map(code),
            { telemetry::SPACE } = call.space.map(ShortSpace).map(tracing::field::display),
        },
        "a call has ended"
    );
}

fn write_breaker(event: &Event<'_>, member: &str, state: BreakerState, open_for: Option<Duration>) {
    let open_ms = open_for.map(millis);
    match state {
        BreakerState::Open => write_event!(warn, event, "a breaker has opened", {
            MEMBER = member, BREAKER = state.as_str(), BREAKER_OPEN_MS = open_ms,
        }),
        BreakerState::HalfOpen => write_event!(info, event, "a breaker lets a few calls through", {
            MEMBER = member, BREAKER = state.as_str(),
        }),
        BreakerState::Closed => write_event!(info, event, "a breaker has closed", {
            MEMBER = member, BREAKER = state.as_str(),
        }),
    }
}

fn write_proof(event: &Event<'_>, member: &str, cosine: f32, same: bool) {
    if same {
        write_event!(debug, event, "a member is of the same model", {
            MEMBER = member, COSINE = cosine, SAME_MODEL = same,
        });
    } else {
        write_event!(warn, event, "a member is of another model", {
            MEMBER = member, COSINE = cosine, SAME_MODEL = same,
        });
    }
}

/// Returns the only part of an error that is written. Its message may quote what a provider says.
fn code(error: &Error) -> &'static str {
    error.kind().as_str()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
