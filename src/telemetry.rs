//! Names what this crate logs and measures: the fields of its `tracing` events and spans, and OpenTelemetry's metrics.
//!
//! ```
//! use docvector_embed::telemetry;
//! // A dashboard or an alert names a field by its constant, so that it cannot be misspelled.
//! assert_eq!(telemetry::RETRY_ATTEMPT, "embed.retry.attempt");
//! // The whole table, to check a configuration against.
//! assert!(telemetry::FIELDS.iter().any(|(name, about)| *name == telemetry::STORE && !about.is_empty()));
//! ```
//!
//! Names never change. Fields that OpenTelemetry's conventions know have its names; the others begin with `embed.`, or are
//! one word. No field ever holds a text, a key or a body of a request.

/// Makes each name a constant, and all of them a table.
macro_rules! names {
    ($(#[$about_table:meta])* $table:ident, $($(#[doc = $about:literal])+ $constant:ident = $name:literal;)+) => {
        $($(#[doc = $about])+ pub const $constant: &str = $name;)+

        $(#[$about_table])*
        pub const $table: &[(&str, &str)] = &[$(($constant, concat!($($about),+).trim_ascii_start())),+];
    };
}

names! {
    /// All fields of events and spans: the name, and what it holds.
    FIELDS,
    /// The embedder that acts, as it displays itself.
    EMBEDDER = "embedder";
    /// The cache store that acts, as it displays itself.
    STORE = "store";
    /// The error, in one line.
    ERROR = "error";
    /// The provider's code of an error, or the kind's name.
    ERROR_TYPE = "error.type";
    /// The file that is meant.
    FILE = "file";
    /// The reason, in words.
    WHY = "why";
    /// The pooling of a local model.
    POOLING = "embed.pooling";
    /// The normalization of a local model.
    NORMALIZATION = "embed.normalization";
    /// The number of damaged entries.
    DAMAGED = "damaged";
    /// The number of entries that were not written.
    LOST = "lost";
    /// Failures of a store in a row.
    FAILURES = "failures";
    /// How long a store is not asked.
    PAUSE = "pause";
    /// The attempt that failed, from 1.
    RETRY_ATTEMPT = "embed.retry.attempt";
    /// The wait before the next attempt, in milliseconds.
    RETRY_WAIT_MS = "embed.retry.wait_ms";
    /// The pause that a provider asked for, in milliseconds.
    RATE_LIMIT_ASKED_MS = "embed.rate_limit.asked_ms";
    /// Whether a cache file was made by this opening.
    CACHE_MADE = "embed.cache.made";
    /// The page size of a cache file, in bytes.
    CACHE_PAGE_SIZE = "embed.cache.page_size";
    /// Calls whose entries one transaction writes.
    CACHE_PUTS = "embed.cache.puts";
    /// The size of a cache file's WAL, in bytes.
    CACHE_JOURNAL_BYTES = "embed.cache.journal_bytes";
    /// The span's name as OpenTelemetry shows it.
    OTEL_NAME = "otel.name";
    /// The span's kind: `client`.
    OTEL_KIND = "otel.kind";
    /// The operation: `embeddings`.
    OPERATION_NAME = "gen_ai.operation.name";
    /// The provider by OpenTelemetry's name: `openai` or `azure.ai.openai`.
    PROVIDER_NAME = "gen_ai.provider.name";
    /// The model that was asked for.
    REQUEST_MODEL = "gen_ai.request.model";
    /// The model that the provider says answered.
    RESPONSE_MODEL = "gen_ai.response.model";
    /// The components of a vector.
    DIMENSION_COUNT = "gen_ai.embeddings.dimension.count";
    /// The form that vectors are asked for in: `base64` or `float`.
    ENCODING_FORMATS = "gen_ai.request.encoding_formats";
    /// The tokens that the provider counted.
    INPUT_TOKENS = "gen_ai.usage.input_tokens";
    /// The host that a request goes to.
    SERVER_ADDRESS = "server.address";
    /// The port that a request goes to.
    SERVER_PORT = "server.port";
    /// The texts of a request.
    BATCH_SIZE = "embed.batch.size";
    /// The most texts per request that a server said it takes.
    LIMIT_TEXTS = "embed.limit.texts";
    /// The first 8 hex digits of the id of the vectors' space.
    SPACE = "space";
    /// The time that a call took, in milliseconds.
    CALL_LATENCY_MS = "embed.call.latency_ms";
    /// The end of a call: `done`, `failed` or `dropped`.
    CALL_OUTCOME = "embed.call.outcome";
    /// The texts whose vectors a cache had.
    CACHE_HITS = "embed.cache.hits";
    /// The texts whose vectors a cache did not have.
    CACHE_MISSES = "embed.cache.misses";
    /// The texts that were not sent, because an equal text was.
    DEDUP_TEXTS = "embed.dedup.texts";
    /// The queue that a call waits in, by its name.
    QUEUE = "queue";
    /// The time that a call has waited for its turn, in milliseconds.
    QUEUE_WAIT_MS = "embed.queue.wait_ms";
    /// The calls that still wait.
    QUEUE_WAITING = "embed.queue.waiting";
    /// The time that a call may take, in milliseconds.
    TIMEOUT_LIMIT_MS = "embed.timeout.limit_ms";
    /// The label of a member.
    MEMBER = "member";
    /// The place of a member: 0 is the primary.
    MEMBER_PLACE = "embed.member.place";
    /// The label of the member that failed or is late.
    FROM = "from";
    /// The label of the member that is asked in its place, or beside it.
    TO = "to";
    /// The time that was waited for the first member, in milliseconds.
    HEDGE_AFTER_MS = "embed.hedge.after_ms";
    /// The reason, by its code.
    REASON = "reason";
    /// The new state of a breaker: `closed`, `half_open` or `open`.
    BREAKER = "breaker";
    /// How long no call goes to the member, in milliseconds.
    BREAKER_OPEN_MS = "embed.breaker.open_ms";
    /// The least cosine of two vectors of one probe text.
    COSINE = "cosine";
    /// Whether the vectors of two members are of one model.
    SAME_MODEL = "embed.verification.same_model";
    /// The label of the arm that a router has chosen.
    ARM = "arm";
    /// The number of calls that became one.
    COALESCED = "embed.coalesced";
    /// The name of what a wrapper outside of this crate tells.
    OTHER = "embed.other";
    /// How often that happened.
    OTHER_COUNT = "embed.other.count";
}

names! {
    /// The metrics that `observer::ToMetrics` measures: the name, and what it is. The first two are of OpenTelemetry's
    /// conventions for generative AI.
    METRICS,
    /// The latency of a provider's calls, in seconds.
    OPERATION_DURATION = "gen_ai.client.operation.duration";
    /// The tokens of a provider's calls.
    TOKEN_USAGE = "gen_ai.client.token.usage";
    /// The latency of calls that are recorded further out than at the provider, in seconds.
    CALL_DURATION = "embed.call.duration";
    /// The texts of a provider's calls.
    BATCH_SIZES = "embed.batch.size";
    /// The known cost, in US dollars; it only grows.
    COST = "embed.cost";
    /// Requests whose cost is not known: no price, no number of tokens, or no answer.
    COST_UNKNOWN = "embed.cost.unknown";
    /// The texts that caches had or had not, and the damaged entries.
    CACHE_REQUESTS = "embed.cache.requests";
    /// The texts that were not sent, because an equal text was.
    DEDUP_SAVED = "embed.dedup.saved";
    /// Failed calls that were made again.
    RETRIES = "embed.retries";
    /// Failed calls that were not made again, though their errors may pass.
    RETRIES_GIVEN_UP = "embed.retries.given_up";
    /// The time that calls waited for their turn, in seconds. Calls without a wait are not among them.
    QUEUE_WAIT = "embed.queue.wait";
    /// The calls that still waited when a call that had waited had its turn.
    QUEUE_DEPTH = "embed.queue.depth";
    /// Calls that were refused, because too many waited.
    QUEUE_FULL = "embed.queue.full";
    /// Calls that took too long and were ended.
    TIMEOUTS = "embed.timeouts";
    /// Calls that a member answered.
    ANSWERS = "embed.answers";
    /// Calls that went on to another member, because one had failed.
    FALLBACKS = "embed.fallbacks";
    /// Calls for which a member was not asked.
    SKIPS = "embed.skips";
    /// Calls for which a second member was asked beside a late one.
    HEDGES = "embed.hedges";
    /// The state of a member's breaker: 0 is closed, 1 half open, 2 open.
    BREAKER_STATE = "embed.breaker.state";
    /// The times that a member's breaker has opened.
    BREAKER_OPENINGS = "embed.breaker.openings";
    /// Comparisons of a member with the primary, by probe texts.
    VERIFICATIONS = "embed.verifications";
    /// The least cosine of two vectors of one probe text, at the last comparison.
    VERIFICATION_COSINE = "embed.verification.cosine";
    /// Calls that a router sent to an arm.
    ROUTED = "embed.routed";
    /// The calls that became one.
    COALESCED_CALLS = "embed.coalesced.calls";
    /// What wrappers outside of this crate have told, by name.
    OTHER_EVENTS = "embed.other.events";
}

names! {
    /// The attributes of these metrics that are no fields of events: the name, and what it holds.
    ATTRIBUTES,
    /// The type of the tokens that the metric of tokens counts: `input`.
    TOKEN_TYPE = "gen_ai.token.type";
    /// The provider by this crate's name, as in its prices: `openai`, `azure`, `onnx`.
    PROVIDER = "provider";
    /// The model by its provider's name.
    MODEL = "model";
    /// The result: `hit`, `miss` or `corrupt` of a cache, `same` or `other` of a comparison.
    RESULT = "result";
    /// The name of what a wrapper outside of this crate has told.
    NAME = "name";
}

/// The target of the events that `observer::ToTracing` writes.
pub const OBSERVER_TARGET: &str = "docvector_embed::observer";

/// The span of one request to a remote provider.
pub const REQUEST_SPAN: &str = "embeddings";

#[cfg(test)]
mod tests {
    use super::*;

    /// Dashboards and alerts hold these. Add to the table; change nothing in it.
    #[test]
    fn names_stay_as_they_are_and_are_distinct() {
        let names: Vec<&str> = [FIELDS, METRICS, ATTRIBUTES].concat().into_iter().map(|(name, _)| name).collect();
        let known = [
            "embedder",
            "store",
            "error",
            "error.type",
            "file",
            "why",
            "embed.pooling",
            "embed.normalization",
            "damaged",
            "lost",
            "failures",
            "pause",
            "embed.retry.attempt",
            "embed.retry.wait_ms",
            "embed.rate_limit.asked_ms",
            "embed.cache.made",
            "embed.cache.page_size",
            "embed.cache.puts",
            "embed.cache.journal_bytes",
            "otel.name",
            "otel.kind",
            "gen_ai.operation.name",
            "gen_ai.provider.name",
            "gen_ai.request.model",
            "gen_ai.response.model",
            "gen_ai.embeddings.dimension.count",
            "gen_ai.request.encoding_formats",
            "gen_ai.usage.input_tokens",
            "server.address",
            "server.port",
            "embed.batch.size",
            "embed.limit.texts",
            "space",
            "embed.call.latency_ms",
            "embed.call.outcome",
            "embed.cache.hits",
            "embed.cache.misses",
            "embed.dedup.texts",
            "queue",
            "embed.queue.wait_ms",
            "embed.queue.waiting",
            "embed.timeout.limit_ms",
            "member",
            "embed.member.place",
            "from",
            "to",
            "embed.hedge.after_ms",
            "reason",
            "breaker",
            "embed.breaker.open_ms",
            "cosine",
            "embed.verification.same_model",
            "arm",
            "embed.coalesced",
            "embed.other",
            "embed.other.count",
            "gen_ai.client.operation.duration",
            "gen_ai.client.token.usage",
            "embed.call.duration",
            "embed.batch.size",
            "embed.cost",
            "embed.cost.unknown",
            "embed.cache.requests",
            "embed.dedup.saved",
            "embed.retries",
            "embed.retries.given_up",
            "embed.queue.wait",
            "embed.queue.depth",
            "embed.queue.full",
            "embed.timeouts",
            "embed.answers",
            "embed.fallbacks",
            "embed.skips",
            "embed.hedges",
            "embed.breaker.state",
            "embed.breaker.openings",
            "embed.verifications",
            "embed.verification.cosine",
            "embed.routed",
            "embed.coalesced.calls",
            "embed.other.events",
            "gen_ai.token.type",
            "provider",
            "model",
            "result",
            "name",
        ];
        assert_eq!(names, known);
        // A field may have the name of a metric.
        for table in [[FIELDS, ATTRIBUTES].concat(), METRICS.to_vec()] {
            let distinct: std::collections::HashSet<&str> = table.iter().map(|(name, _)| *name).collect();
            assert_eq!(distinct.len(), table.len());
        }
        assert_eq!(OBSERVER_TARGET, "docvector_embed::observer");
        let about = [FIELDS, METRICS, ATTRIBUTES].concat();
        assert!(about.iter().all(|(_, about)| about.ends_with('.') && about.trim() == *about && !about.contains("[`")));
    }
}
