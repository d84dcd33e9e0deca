//! A stack is logged and measured as it happens, with stable names, nothing twice, and nothing that nobody may see.

use std::{sync::Arc, time::Duration};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Error, ErrorKind,
    cache::Memory,
    observer::{Observer, ToTracing},
    provider::Fake,
    telemetry,
    wrap::{RateLimiter, RetryPolicy},
};

use crate::telemetry::{TEXT, fields, names};

/// The error that the provider gives, with the text in each part that an embedder can set.
fn failure() -> Error {
    Error::new(ErrorKind::Unavailable, TEXT).with_provider_message(TEXT).with_request_id(TEXT)
}

fn stack(fake: &Fake, observer: impl Observer) -> Arc<dyn Embedder> {
    let limiter = RateLimiter::new().with_requests_per_minute(6);
    let policy = RetryPolicy::default().with_attempts(2).with_backoff(Duration::from_secs(1), Duration::from_secs(1));
    let embedder = fake.clone().metered(()).rate_limit(limiter).retry(policy);
    Arc::new(embedder.cached(Memory::new(1 << 20)).expect("one space").observed(observer))
}

/// Meets a miss with a repeated text and a failing call, a hit, and two failing calls in a row.
async fn scenario(observer: impl Observer) {
    let fake = Fake::builder().with_latency(Duration::from_secs(2)).build().expect("valid");
    let embedder = stack(&fake, observer);
    let texts = [TEXT, "two", TEXT];
    let batch = Batch::documents(&texts).with_key(TEXT).with_tenant(TEXT).with_trace(TEXT);
    fake.fail_next(failure());
    embedder.embed_all(batch).await.expect("the second attempt answers");
    embedder.embed_all(batch.with_texts(&texts[..2])).await.expect("from the cache");
    (0..2).for_each(|_| fake.fail_next(failure()));
    embedder.embed_query(TEXT).await.expect_err("fails twice");
}

#[test]
fn a_stack_is_logged() {
    use telemetry::*;
    let logged = fields(|| async {
        tokio::time::pause();
        scenario(ToTracing::new()).await;
    });
    // `fields` has looked for the text in all values, and for all names in the table.
    let call = [CALL_OUTCOME, CALL_LATENCY_MS, INPUT_TOKENS, ERROR_TYPE, SPACE];
    let others = [CACHE_HITS, CACHE_MISSES, DAMAGED, DEDUP_TEXTS, RETRY_ATTEMPT, RETRY_WAIT_MS];
    let waits = [QUEUE, QUEUE_WAIT_MS, QUEUE_WAITING, EMBEDDER, BATCH_SIZE];
    assert_eq!(logged, names(&[&call[..], &others, &waits].concat()));
}

#[cfg(feature = "metrics")]
mod measured {
    use std::collections::BTreeMap;

    use docvector_embed::{
        observer::ToMetrics,
        price::Price,
        wrap::{BreakerPolicy, Resilient, Totals},
    };
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    /// Half a dollar per token, so that sums are exact.
    fn to_metrics() -> ToMetrics {
        ToMetrics::new().with_price(Price::per_million("fake", "fake", "500000").expect("a price"))
    }

    /// Runs a scenario, and returns the value of each metric as `name{label=value}`.
    fn measured<F: Future<Output = ()>>(scenario: impl FnOnce() -> F) -> BTreeMap<String, String> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
            runtime.expect("a runtime").block_on(scenario());
        });
        let shown = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, about, value)| {
            let key = key.key();
            assert!(about.is_some(), "{} is described", key.name());
            let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) => format!("{value:.2}"),
                DebugValue::Histogram(values) => {
                    values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(" ")
                }
            };
            (format!("{}{{{}}}", key.name(), labels.join(",")), value)
        });
        let all: BTreeMap<String, String> = shown.collect();
        assert!(!format!("{all:?}").contains(TEXT), "{all:?}");
        all
    }

    #[test]
    fn a_stack_is_measured() {
        let all = measured(|| scenario(to_metrics()));
        let space = Fake::new(384).spaces()[0].id().to_string();
        let otel = "gen_ai.operation.name=embeddings,gen_ai.provider.name=fake";
        let mut expected = BTreeMap::new();
        let mut add = |name: String, value: &str| assert_eq!(expected.insert(name, value.to_owned()), None);
        // Four calls of the provider: one fails, one answers, and two of the query fail.
        add(format!("gen_ai.client.operation.duration{{{otel}}}"), "2.00");
        add(format!("gen_ai.client.operation.duration{{{otel},error.type=unavailable}}"), "2.00 2.00 2.00");
        add(format!("gen_ai.client.token.usage{{{otel},gen_ai.token.type=input}}"), "8.00");
        add(format!("embed.batch.size{{provider=fake,space={}}}", &space[..8]), "2.00");
        add("embed.batch.size{provider=fake}".into(), "2.00 1.00 1.00");
        add(format!("embed.cost{{provider=fake,model=fake,space={}}}", &space[..8]), "4.00");
        add(format!("embed.cost.unknown{{provider=fake,model=fake,space={}}}", &space[..8]), "0");
        // Three texts and a query, then two texts again.
        add("embed.cache.requests{provider=fake,result=miss}".into(), "4");
        add("embed.cache.requests{provider=fake,result=hit}".into(), "2");
        add("embed.cache.requests{provider=fake,result=corrupt}".into(), "0");
        add("embed.dedup.saved{provider=fake}".into(), "1");
        for reason in ["overloaded", "rate_limited", "timeout"] {
            add(format!("embed.retries{{provider=fake,reason={reason}}}"), "0");
            add(format!("embed.retries.given_up{{provider=fake,reason={reason}}}"), "0");
        }
        add("embed.retries{provider=fake,reason=unavailable}".into(), "2");
        add("embed.retries.given_up{provider=fake,reason=unavailable}".into(), "1");
        // One request per ten seconds, and a refused one gives its turn back. So the query waits for what is left of them
        // after an answer that took two.
        add("embed.queue.wait{provider=fake,queue=rate_limit}".into(), "8.00");
        add("embed.queue.depth{provider=fake,queue=rate_limit}".into(), "0.00");
        add("embed.queue.full{provider=fake,queue=rate_limit}".into(), "0");
        add("embed.queue.full{provider=fake,queue=concurrency}".into(), "0");
        add("embed.timeouts{provider=fake}".into(), "0");
        assert_eq!(all, expected);
    }

    /// The record from further out has the same tokens once more, and two observers would hear of both.
    #[test]
    fn no_token_and_no_dollar_counts_twice() {
        let totals = Totals::new();
        let sink = totals.clone();
        let all = measured(|| async move {
            let fake = Fake::new(8);
            let embedder = fake.clone().metered(sink).retry(RetryPolicy::default()).metered(());
            let embedder = embedder.cached(Memory::new(1 << 20)).expect("one space").metered(()).observed(to_metrics());
            fake.fail_next(
                Error::new(ErrorKind::Unavailable, "as scripted")
                    .with_usage(docvector_embed::Usage::of_request(Some(3))),
            );
            embedder.embed_documents(&["one", "two", "three"]).await.expect("the second attempt");
        });
        let tokens = totals.snapshot().usage.tokens;
        let sum = |metric: &str| -> f64 {
            let values = all.iter().filter(|(name, _)| name.starts_with(&format!("{metric}{{")));
            values.flat_map(|(_, value)| value.split(' ')).map(|value| value.parse::<f64>().expect("a number")).sum()
        };
        assert!(tokens > 3, "the failed attempt cost something, too");
        assert_eq!(sum("gen_ai.client.token.usage"), tokens as f64);
        assert_eq!(sum("embed.cost"), tokens as f64 / 2.0);
        let outer: Vec<&String> = all.keys().filter(|name| name.starts_with("embed.call.duration")).collect();
        let embedders = ["Cached(Metered(Retry(Metered(fake))))", "Retry(Metered(fake))"];
        assert_eq!(
            outer,
            embedders.map(|name| format!("embed.call.duration{{embedder={name}}}")).iter().collect::<Vec<_>>()
        );
    }

    #[test]
    fn members_are_measured() {
        let all = measured(|| async {
            let (own, twin) = (Fake::new(8), Fake::new(8));
            let builder = Resilient::builder(own.clone().metered(())).with_label("own");
            let builder = builder.with_fallback(twin.metered(())).with_label("twin").with_trusted_spaces();
            let breaker = BreakerPolicy::default().with_consecutive_failures(2);
            let embedder = builder.with_breaker(breaker).build().expect("one space").observed(to_metrics());
            embedder.embed_query(TEXT).await.expect("answers");
            (0..2).for_each(|_| own.fail_next(failure()));
            for _ in 0..3 {
                embedder.embed_query(TEXT).await.expect("the twin answers");
            }
        });
        for (name, value) in [
            ("embed.answers{member=own}", "1"),
            ("embed.answers{member=twin}", "3"),
            ("embed.fallbacks{from=own,to=twin}", "2"),
            ("embed.skips{member=own,reason=breaker_open}", "1"),
            ("embed.breaker.state{member=own}", "2.00"),
            ("embed.breaker.state{member=twin}", "0.00"),
            ("embed.breaker.openings{member=own}", "1"),
            ("embed.breaker.openings{member=twin}", "0"),
        ] {
            assert_eq!(all.get(name).map(String::as_str), Some(value), "{name} of {all:#?}");
        }
    }
}
