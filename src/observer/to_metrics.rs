//! Measures what happens to calls through the `metrics` facade: [`ToMetrics`].

mod handles;
mod label;

use std::fmt;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use self::{
    handles::Handles,
    label::{Name, Part},
};
use super::{Event, EventKind, Observer, Queue};
use crate::{
    BreakerState, Charge, Error, ErrorKind, SpaceId, Tier, Usage,
    call_record::{CallOutcome, CallRecord},
    price::{self, PicoDollars, Price},
    shown_name, telemetry,
};

/// Measures each event through the [`metrics`](https://docs.rs/metrics) facade, for Prometheus and others.
///
/// ```
/// use docvector_embed::{EmbedderExt, cache::Memory, observer::ToMetrics, price::Price, provider::Fake};
/// # fn main() -> docvector_embed::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// // First the recorder of your program, see below. Then this one:
/// let metrics = ToMetrics::new().with_price(Price::per_million("fake", "fake", "0.02")?);
/// let embedder = Fake::new(8).metered(()).cached(Memory::new(1 << 20))?.observed(metrics);
/// embedder.embed_documents(&["a text"]).await?;
/// # Ok(()) }) }
/// ```
///
/// The recorder is a crate of your choice. For Prometheus it is `metrics-exporter-prometheus`:
///
/// ```ignore
/// // The buckets that OpenTelemetry advises; without them, the exporter makes summaries.
/// let seconds: Vec<f64> = (0..14).map(|n| 0.01 * f64::from(1 << n)).collect();
/// let tokens: Vec<f64> = (0..14).map(|n| 4_f64.powi(n)).collect();
/// metrics_exporter_prometheus::PrometheusBuilder::new()
///     .set_buckets_for_metric(Matcher::Full(telemetry::OPERATION_DURATION.into()), &seconds)?
///     .set_buckets_for_metric(Matcher::Full(telemetry::TOKEN_USAGE.into()), &tokens)?
///     .install()?;
/// ```
///
/// Install the recorder before the first event, or better before [`new`](Self::new): metrics stay with the recorder that
/// was there when they began.
///
/// # Metrics
/// [`telemetry::METRICS`] has the names and what they mean. They never change. Prometheus shows `embed.cache.requests` as
/// `embed_cache_requests`.
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `gen_ai.client.operation.duration` | histogram, seconds | OpenTelemetry's, `error.type` |
/// | `gen_ai.client.token.usage` | histogram | OpenTelemetry's, `gen_ai.token.type` |
/// | `embed.call.duration` | histogram, seconds | `embedder`, `error.type` |
/// | `embed.batch.size` | histogram | `provider`, `model`, `space` |
/// | `embed.cost` | gauge, US dollars | `provider`, `model`, `space` |
/// | `embed.cost.unknown` | counter | `provider`, `model`, `space` |
/// | `embed.cache.requests` | counter | `provider`, `model`, `result`: `hit`, `miss`, `corrupt` |
/// | `embed.dedup.saved`, `embed.timeouts` | counters | `provider`, `model` |
/// | `embed.retries`, `embed.retries.given_up` | counters | `provider`, `model`, `reason`: the [kind](ErrorKind::as_str) |
/// | `embed.queue.wait` | histogram, seconds | `provider`, `model`, `queue` |
/// | `embed.queue.depth` | gauge | `provider`, `model`, `queue` |
/// | `embed.queue.full` | counter | `provider`, `model`, `queue` |
/// | `embed.answers`, `embed.breaker.openings` | counters | `member` |
/// | `embed.fallbacks`, `embed.hedges` | counters | `from`, `to` |
/// | `embed.skips` | counter | `member`, `reason` |
/// | `embed.breaker.state` | gauge | `member` |
/// | `embed.verifications` | counter | `member`, `result`: `same`, `other` |
/// | `embed.verification.cosine` | gauge | `member` |
/// | `embed.routed` | counter | `arm` |
/// | `embed.coalesced.calls` | histogram | `provider`, `model` |
///
/// - OpenTelemetry's labels are `gen_ai.operation.name`, `gen_ai.provider.name` and `gen_ai.request.model`. `error.type` is
///   there if the call failed (the kind of the error) or was dropped (`dropped`).
/// - `provider` and `model` are those of the embedder at the bottom of the stack, and of the payee for the cost. Around
///   several embedders, `provider` is `several`. `space` is the beginning of the [id](SpaceId), if rows or the batch name
///   it. Labels without a value are left out.
/// - No label holds a text, a key, a routing key, a tenant or the provider's words. Give members and arms labels that
///   differ in the whole program, and few of them.
/// - Of `embed.cache.requests`, `corrupt` counts entries. Their texts are misses, too.
/// - `embed.queue.depth` is what the last call that had to wait has left behind it.
/// - Counters of failures are there with 0 from a provider's first call on.
///
/// # Tokens and money
/// These, the sizes and `gen_ai.client.operation.duration` are of the calls that a [`Metered`](crate::wrap::Metered)
/// records **directly around a provider**: put one there. A record from further out, or of an arm that is no provider, has
/// the same tokens once more. So it is in `embed.call.duration` alone, and nothing counts twice. A wrapper is known by its
/// name, `Wrapper(...)`, so a provider of your own should have another kind of name.
///
/// `embed.cost` is a gauge that only grows, because counters of the facade are whole numbers. A rate of it is a rate of
/// dollars. Each charge has the price that [`with_price`](Self::with_price) gave, or else that of [`price::of`]. Local work
/// costs 0. A charge without a price or without a number of tokens is no 0: its requests are in `embed.cost.unknown`, and
/// so are requests without an answer, which may have been billed.
///
/// # Cost
/// Each metric of an event costs a hash of its labels, a look-up under a lock, and the recorder's own work. Nothing is
/// allocated, except when a metric begins.
#[derive(Default)]
pub struct ToMetrics {
    handles: Handles,
    prices: Vec<Price>,
}

impl ToMetrics {
    /// Makes the observer and describes its metrics to the recorder.
    pub fn new() -> Self {
        describe();
        Self::default()
    }

    /// Sets a price of your own, for the charges of its provider and model. It goes before the table of
    /// [`price`](crate::price), and before prices that were set earlier.
    #[must_use]
    pub fn with_price(mut self, price: Price) -> Self {
        self.prices.insert(0, price);
        self
    }

    fn count(&self, metric: &'static str, parts: &[Part<'_>], number: u64) {
        self.handles.counter(metric, parts).increment(number);
    }

    fn record(&self, metric: &'static str, parts: &[Part<'_>], value: f64) {
        self.handles.histogram(metric, parts).record(value);
    }

    fn call(&self, call: &CallRecord<'_>) {
        let name = self.handles.name(&call.embedder);
        let error = Part::Word(telemetry::ERROR_TYPE, error_type(call.outcome));
        let latency = call.latency.as_secs_f64();
        if shown_name::inside(call.embedder).is_some() {
            return self.record(telemetry::CALL_DURATION, &[Part::Embedder(name), error], latency);
        }
        self.begin_provider(name);
        // Not the wanted space: callers may want any, and each would begin metrics of its own.
        let space = call.space;
        self.record(telemetry::OPERATION_DURATION, &[Part::Operation(name), error], latency);
        if call.usage.tokens > 0 {
            let parts = [Part::Operation(name), Part::Word(telemetry::TOKEN_TYPE, "input")];
            self.record(telemetry::TOKEN_USAGE, &parts, call.usage.tokens as f64);
        }
        self.record(telemetry::BATCH_SIZES, &[Part::Model(name), Part::Space(space)], call.texts as f64);
        for charge in call.charges.iter().filter(|charge| charge.usage != Usage::ZERO) {
            self.charge(charge, space);
        }
        let unattributed = requests(call.charges.unattributed());
        if unattributed > 0 {
            self.count(telemetry::COST_UNKNOWN, &[Part::Model(name), Part::Space(space)], unattributed);
        }
    }

    fn charge(&self, charge: &Charge, space: Option<SpaceId>) {
        let payee = &charge.payee;
        let provider = Part::Word(telemetry::PROVIDER, payee.provider());
        let parts = [provider, Part::Word(telemetry::MODEL, payee.model()), Part::Space(space)];
        let unknown = match price::cost_of(charge, &self.prices) {
            Some(cost) => {
                self.handles.gauge(telemetry::COST, &parts).increment(dollars(cost));
                if payee.tier() == Tier::Local { 0 } else { charge.usage.unanswered }
            }
            None => requests(charge.usage),
        };
        self.count(telemetry::COST_UNKNOWN, &parts, unknown);
    }

    /// Lets the counters of what may go wrong begin at 0, so that an alert sees the first one.
    fn begin_provider(&self, name: Name<'_>) {
        let model = Part::Model(name);
        self.handles.begin(&[model], || {
            for kind in ErrorKind::ALL.iter().filter(|kind| Error::new(**kind, "").is_retryable()) {
                let reason = Part::Word(telemetry::REASON, kind.as_str());
                self.count(telemetry::RETRIES, &[model, reason], 0);
                self.count(telemetry::RETRIES_GIVEN_UP, &[model, reason], 0);
            }
            for queue in [Queue::RateLimit, Queue::Concurrency] {
                self.count(telemetry::QUEUE_FULL, &[model, Part::Word(telemetry::QUEUE, queue.as_str())], 0);
            }
            self.count(telemetry::TIMEOUTS, &[model], 0);
        });
    }

    fn breaker(&self, member: Part<'_>, state: BreakerState) {
        let (value, openings) = match state {
            BreakerState::Closed => (0.0, 0),
            BreakerState::HalfOpen => (1.0, 0),
            BreakerState::Open => (2.0, 1),
        };
        self.handles.gauge(telemetry::BREAKER_STATE, &[member]).set(value);
        self.count(telemetry::BREAKER_OPENINGS, &[member], openings);
    }

    /// Counts an answer. A member that has answered has a breaker, which is closed as long as no event says otherwise.
    fn answer(&self, member: Part<'_>) {
        self.begin_member(member);
        self.count(telemetry::ANSWERS, &[member], 1);
    }

    /// Lets the metrics of a member begin at 0.
    fn begin_member(&self, member: Part<'_>) {
        self.handles.begin(&[member], || {
            let _ = self.handles.gauge(telemetry::BREAKER_STATE, &[member]);
            self.count(telemetry::BREAKER_OPENINGS, &[member], 0);
            self.count(telemetry::ANSWERS, &[member], 0);
        });
    }
}

impl Observer for ToMetrics {
    /// Has an arm for each kind, and none for the rest: a new kind does not compile until it is measured, too.
    fn observe(&self, event: &Event<'_>) {
        use telemetry::{FROM, MEMBER, QUEUE, REASON, RESULT, TO};
        let model = || Part::Model(self.handles.name(event.embedder));
        match event.kind {
            EventKind::Call(call) => self.call(call),
            EventKind::CacheLookUp { hits, misses, damaged } => {
                let model = model();
                for (result, texts) in [("hit", hits), ("miss", misses), ("corrupt", damaged)] {
                    self.count(telemetry::CACHE_REQUESTS, &[model, Part::Word(RESULT, result)], texts);
                }
            }
            EventKind::Deduplicated { texts } => self.count(telemetry::DEDUP_SAVED, &[model()], texts),
            EventKind::Retry { error, .. } => self.count(telemetry::RETRIES, &[model(), reason(error)], 1),
            EventKind::GaveUp { error, .. } => self.count(telemetry::RETRIES_GIVEN_UP, &[model(), reason(error)], 1),
            EventKind::Waited { queue, time, waiting } => {
                let parts = [model(), Part::Word(QUEUE, queue.as_str())];
                self.record(telemetry::QUEUE_WAIT, &parts, time.as_secs_f64());
                self.handles.gauge(telemetry::QUEUE_DEPTH, &parts).set(waiting as f64);
            }
            EventKind::QueueFull { queue } => {
                self.count(telemetry::QUEUE_FULL, &[model(), Part::Word(QUEUE, queue.as_str())], 1);
            }
            EventKind::TimedOut { .. } => self.count(telemetry::TIMEOUTS, &[model()], 1),
            EventKind::Answered { member, .. } => self.answer(Part::Word(MEMBER, member)),
            EventKind::FellBack { from, to, .. } => {
                self.begin_member(Part::Word(MEMBER, from));
                self.count(telemetry::FALLBACKS, &[Part::Word(FROM, from), Part::Word(TO, to)], 1);
            }
            EventKind::Skipped { member, why } => {
                self.count(telemetry::SKIPS, &[Part::Word(MEMBER, member), Part::Word(REASON, why.as_str())], 1);
            }
            EventKind::Hedged { first, second, .. } => {
                self.count(telemetry::HEDGES, &[Part::Word(FROM, first), Part::Word(TO, second)], 1);
            }
            EventKind::Breaker { member, state, .. } => self.breaker(Part::Word(MEMBER, member), state),
            EventKind::Verified { member, cosine, same } => {
                let (member, result) = (Part::Word(MEMBER, member), if same { "same" } else { "other" });
                self.count(telemetry::VERIFICATIONS, &[member, Part::Word(RESULT, result)], 1);
                self.handles.gauge(telemetry::VERIFICATION_COSINE, &[member]).set(cosine);
            }
            EventKind::Routed { arm } => self.count(telemetry::ROUTED, &[Part::Word(telemetry::ARM, arm)], 1),
            EventKind::Other { name, count } => {
                self.count(telemetry::OTHER_EVENTS, &[model(), Part::Word(telemetry::NAME, name)], count);
            }
            EventKind::Coalesced { calls, .. } => self.record(telemetry::COALESCED_CALLS, &[model()], calls as f64),
        }
    }
}

impl fmt::Debug for ToMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToMetrics").field("prices", &self.prices).finish_non_exhaustive()
    }
}

/// Describes all metrics to the recorder.
fn describe() {
    use telemetry::*;
    for &(name, about) in METRICS {
        match name {
            OPERATION_DURATION | CALL_DURATION | QUEUE_WAIT => describe_histogram!(name, Unit::Seconds, about),
            TOKEN_USAGE | BATCH_SIZES | COALESCED_CALLS => describe_histogram!(name, Unit::Count, about),
            // The facade has no unit for money.
            COST | BREAKER_STATE | VERIFICATION_COSINE => describe_gauge!(name, about),
            QUEUE_DEPTH => describe_gauge!(name, Unit::Count, about),
            _ => describe_counter!(name, Unit::Count, about),
        }
    }
}

fn error_type(outcome: CallOutcome) -> &'static str {
    match outcome {
        CallOutcome::Done => "",
        CallOutcome::Failed(kind) => kind.as_str(),
        CallOutcome::Dropped => "dropped",
    }
}

fn reason(error: &Error) -> Part<'static> {
    Part::Word(telemetry::REASON, error.kind().as_str())
}

/// Returns the requests of a usage, with those that were given up before anybody knew whether there was one.
fn requests(usage: Usage) -> u64 {
    usage.requests.max(usage.unanswered)
}

fn dollars(cost: PicoDollars) -> f64 {
    cost.as_picos() as f64 / 1e12
}

#[cfg(test)]
mod tests;
