//! Counts and measures for Prometheus: [`Metrics`]. Everything is there from the start, with zeros.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{dialect::Dialect, state::ServerState};
use crate::{InputKind, Lane};

/// The bounds of the durations, in seconds.
const SECONDS: [f64; 18] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];
/// The bounds of the number of texts of a request.
const TEXTS: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 8192.0, 65536.0];

/// How a request ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// It was answered with vectors.
    Ok,
    /// The request itself is wrong.
    Invalid,
    /// It has no accepted key.
    Unauthorized,
    /// It is larger than the server takes.
    TooLarge,
    /// There was no room.
    Overloaded,
    /// Its body or its vectors were not there in time.
    Late,
    /// The server was loading or going away.
    NotReady,
    /// The model, or a provider below, failed.
    Failed,
    /// The client went away.
    Cancelled,
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::Invalid,
        Self::Unauthorized,
        Self::TooLarge,
        Self::Overloaded,
        Self::Late,
        Self::NotReady,
        Self::Failed,
        Self::Cancelled,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::TooLarge => "too_large",
            Self::Overloaded => "overloaded",
            Self::Late => "late",
            Self::NotReady => "not_ready",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the outcome of a reply with this status.
    pub(super) const fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Ok,
            401 => Self::Unauthorized,
            408 | 504 => Self::Late,
            413 => Self::TooLarge,
            429 => Self::Overloaded,
            503 => Self::NotReady,
            424 | 500..=599 => Self::Failed,
            _ => Self::Invalid,
        }
    }
}

/// A label with one name, whose value is a word of ours.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($label:ident),+ }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: Word),+ }
    };
}

/// A value of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }
}

labels!(RequestLabels { dialect, outcome });
labels!(DialectLabels { dialect });
labels!(KindLabels { kind });
labels!(LaneLabels { lane });
labels!(StateLabels { state });

type Counters<L> = Family<L, Counter<u64, AtomicU64>>;
type Gauges<L> = Family<L, Gauge>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The numbers that a scrape reads from elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) state: ServerState,
    /// Requests, texts, tokens and the limit of tokens of each lane.
    pub(super) queues: [(Lane, [usize; 4]); 2],
    pub(super) memory: [usize; 2],
    pub(super) connections: usize,
    pub(super) under_way: usize,
}

/// All counters, histograms and gauges.
pub(super) struct Metrics {
    registry: Registry,
    requests: Counters<RequestLabels>,
    texts: Counters<KindLabels>,
    tokens: Counter<u64, AtomicU64>,
    truncated: Counter<u64, AtomicU64>,
    request_time: Histograms<DialectLabels>,
    embed_time: Histograms<LaneLabels>,
    request_texts: Histogram,
    queue: [Gauges<LaneLabels>; 4],
    memory: [Gauge; 2],
    connections: Gauge,
    under_way: Gauge,
    state: Gauges<StateLabels>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("docvector_embed"),
            requests: Family::default(),
            texts: Family::default(),
            tokens: Counter::default(),
            truncated: Counter::default(),
            request_time: Family::new_with_constructor(seconds),
            embed_time: Family::new_with_constructor(seconds),
            request_texts: Histogram::new(TEXTS),
            queue: Default::default(),
            memory: Default::default(),
            connections: Gauge::default(),
            under_way: Gauge::default(),
            state: Family::default(),
        };
        metrics.register();
        metrics.make_zeros();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Requests for vectors that ended", self.requests.clone());
        registry.register("texts", "Texts that were embedded", self.texts.clone());
        registry.register("tokens", "Tokens that were charged", self.tokens.clone());
        registry.register("truncated_texts", "Texts of which only the beginning was embedded", self.truncated.clone());
        let about = "Time of a request, from its head to its last byte";
        registry.register_with_unit("request_duration", about, Unit::Seconds, self.request_time.clone());
        let about = "Time in the queue and in the model";
        registry.register_with_unit("embed_duration", about, Unit::Seconds, self.embed_time.clone());
        registry.register("request_texts", "Texts per request", self.request_texts.clone());
        let about = [
            ("queue_requests", "Requests that wait or are worked on"),
            ("queue_texts", "Texts that wait or are worked on"),
            ("queue_tokens", "Tokens that wait or are worked on, estimated"),
            ("queue_limit_tokens", "The most tokens that may wait"),
        ];
        for ((name, about), gauge) in about.into_iter().zip(&self.queue) {
            registry.register(name, about, gauge.clone());
        }
        let about = [("memory_used", "Memory that requests hold"), ("memory_limit", "The most memory of requests")];
        for ((name, about), gauge) in about.into_iter().zip(&self.memory) {
            registry.register_with_unit(name, about, Unit::Bytes, gauge.clone());
        }
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register("requests_under_way", "Requests that are not answered yet", self.under_way.clone());
        registry.register("state", "1 for the state that the server is in", self.state.clone());
    }

    /// Makes every series, so that a rate is right from the first event on.
    fn make_zeros(&self) {
        for dialect in Dialect::ALL {
            let dialect = Word(dialect.as_str());
            for outcome in Outcome::ALL {
                drop(self.requests.get_or_create(&RequestLabels { dialect, outcome: Word(outcome.as_str()) }));
            }
            drop(self.request_time.get_or_create(&DialectLabels { dialect }));
        }
        for kind in [InputKind::Document, InputKind::Query] {
            drop(self.texts.get_or_create(&KindLabels { kind: Word(kind.as_str()) }));
        }
        for lane in [Lane::Interactive, Lane::Bulk] {
            drop(self.embed_time.get_or_create(&LaneLabels { lane: Word(lane.as_str()) }));
        }
    }

    /// Counts a request that ended.
    pub(super) fn request(&self, dialect: Dialect, outcome: Outcome, time: Duration) {
        let dialect = Word(dialect.as_str());
        self.requests.get_or_create(&RequestLabels { dialect, outcome: Word(outcome.as_str()) }).inc();
        self.request_time.get_or_create(&DialectLabels { dialect }).observe(time.as_secs_f64());
    }

    /// Counts texts that were embedded.
    pub(super) fn embedded(
        &self,
        kind: InputKind,
        lane: Lane,
        texts: usize,
        tokens: u64,
        truncated: usize,
        time: Duration,
    ) {
        self.texts.get_or_create(&KindLabels { kind: Word(kind.as_str()) }).inc_by(texts as u64);
        self.tokens.inc_by(tokens);
        self.truncated.inc_by(truncated as u64);
        self.request_texts.observe(texts as f64);
        self.embed_time.get_or_create(&LaneLabels { lane: Word(lane.as_str()) }).observe(time.as_secs_f64());
    }

    /// Writes everything as text.
    pub(super) fn text(&self, now: &Snapshot) -> String {
        for (lane, values) in now.queues {
            for (gauge, value) in self.queue.iter().zip(values) {
                gauge.get_or_create(&LaneLabels { lane: Word(lane.as_str()) }).set(value as i64);
            }
        }
        for (gauge, value) in self.memory.iter().zip(now.memory) {
            gauge.set(value as i64);
        }
        self.connections.set(now.connections as i64);
        self.under_way.set(now.under_way as i64);
        for state in ServerState::KNOWN {
            let label = StateLabels { state: Word(state.as_str()) };
            self.state.get_or_create(&label).set((state == now.state).into());
        }
        let mut text = String::new();
        // A string takes everything.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let queues = [(Lane::Interactive, [1, 2, 3, 4]), (Lane::Bulk, [0, 0, 0, 9])];
        Snapshot { state: ServerState::Ready, queues, memory: [5, 6], connections: 7, under_way: 8 }
    }

    #[test]
    fn everything_is_there_from_the_start() {
        let metrics = Metrics::new();
        let text = metrics.text(&snapshot());
        for line in [
            "docvector_embed_requests_total{dialect=\"native\",outcome=\"ok\"} 0",
            "docvector_embed_requests_total{dialect=\"openai\",outcome=\"cancelled\"} 0",
            "docvector_embed_texts_total{kind=\"query\"} 0",
            "docvector_embed_request_duration_seconds_count{dialect=\"tei\"} 0",
            "docvector_embed_embed_duration_seconds_sum{lane=\"bulk\"} 0",
            "docvector_embed_queue_tokens{lane=\"interactive\"} 3",
            "docvector_embed_queue_limit_tokens{lane=\"bulk\"} 9",
            "docvector_embed_memory_limit_bytes 6",
            "docvector_embed_state{state=\"ready\"} 1",
            "docvector_embed_state{state=\"draining\"} 0",
        ] {
            assert!(text.lines().any(|have| have.trim_end_matches(".0") == line), "{line}\n{text}");
        }
        metrics.request(Dialect::Tei, Outcome::of_status(424), Duration::from_millis(3));
        metrics.embedded(InputKind::Query, Lane::Interactive, 3, 17, 1, Duration::from_millis(2));
        let text = metrics.text(&snapshot());
        for line in [
            "docvector_embed_requests_total{dialect=\"tei\",outcome=\"failed\"} 1",
            "docvector_embed_texts_total{kind=\"query\"} 3",
            "docvector_embed_tokens_total 17",
            "docvector_embed_truncated_texts_total 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
    }
}
