//! Every field of an event or span of this crate is in the table of `telemetry`, and holds no text.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use docvector_embed::{
    EmbedderExt, Error, ErrorKind, Result, SpaceId, async_trait,
    cache::{CacheStore, Entry, Guarded, Key, Memory, Sink, Tiered},
    provider::Fake,
    telemetry,
    wrap::{CallRecord, RateLimiter, RetryPolicy},
};
use tracing::{Event, Metadata, Subscriber, field::Visit, span};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

pub(crate) const TEXT: &str = "a text that no log may show";

/// Collects the names of fields, and everything that they hold.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<(BTreeSet<String>, String)>>);

impl Seen {
    fn note(&self, metadata: &Metadata<'_>, record: impl FnOnce(&mut dyn Visit)) {
        if !metadata.target().starts_with("docvector_embed") {
            return;
        }
        let mut seen = self.0.lock().expect("not poisoned");
        seen.0.extend(metadata.fields().iter().map(|field| field.name().to_owned()).filter(|name| name != "message"));
        record(&mut Values(&mut seen.1));
    }
}

struct Values<'v>(&'v mut String);

impl Visit for Values<'_> {
    fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{value:?}\n"));
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        self.note(attributes.metadata(), |visit| attributes.record(visit));
    }

    fn on_record(&self, _: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        values.record(&mut Values(&mut self.0.lock().expect("not poisoned").1));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.note(event.metadata(), |visit| event.record(visit));
    }
}

/// Runs a scenario, and returns the names of the fields that it logged.
pub(crate) fn fields<F: Future<Output = ()>>(scenario: impl FnOnce() -> F) -> BTreeSet<String> {
    let seen = Seen::default();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(seen.clone()), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(scenario());
    });
    let (names, values) = std::mem::take(&mut *seen.0.lock().expect("not poisoned"));
    assert!(!values.contains(TEXT), "{values}");
    let known: BTreeSet<&str> = telemetry::FIELDS.iter().map(|(name, _)| *name).collect();
    for name in &names {
        assert!(known.contains(name.as_str()), "{name} is not in the table");
    }
    names
}

pub(crate) fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

/// A store that fails.
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Broken")
    }
}

#[async_trait]
impl CacheStore for Broken {
    async fn get(&self, _: &[Key], _: &mut Sink<'_>) -> Result<()> {
        Err(Error::new(ErrorKind::Cache, "broken"))
    }

    async fn put(&self, _: &[Entry<'_>]) -> Result<()> {
        Err(Error::new(ErrorKind::Cache, "broken"))
    }

    async fn discard(&self, _: &[Entry<'_>]) -> Result<()> {
        Err(Error::new(ErrorKind::Cache, "broken"))
    }

    async fn note(&self, _: SpaceId, _: &str) -> Result<()> {
        Err(Error::new(ErrorKind::Cache, "broken"))
    }

    async fn flush(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Cache, "broken"))
    }
}

#[test]
fn a_retry() {
    let logged = fields(|| async {
        let fake = Fake::new(4);
        fake.fail_next(Error::new(ErrorKind::Unavailable, "as scripted"));
        let policy = RetryPolicy::default().with_backoff(Duration::from_millis(1), Duration::from_millis(1));
        fake.retry(policy).embed_query(TEXT).await.expect("the second attempt");
    });
    use telemetry::{EMBEDDER, ERROR_TYPE, RETRY_ATTEMPT, RETRY_WAIT_MS};
    assert_eq!(logged, names(&[EMBEDDER, ERROR_TYPE, RETRY_ATTEMPT, RETRY_WAIT_MS]));
}

#[test]
fn a_rate_limit() {
    let logged = fields(|| async {
        let fake = Fake::new(4);
        fake.fail_next(Error::new(ErrorKind::RateLimited, "as scripted").with_retry_after(Duration::from_millis(1)));
        fake.rate_limit(RateLimiter::new()).embed_query(TEXT).await.expect_err("as scripted");
    });
    assert_eq!(logged, names(&[telemetry::RATE_LIMIT_ASKED_MS]));
}

/// Counts the events at the level `info`.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<usize>>);

impl<S: Subscriber> Layer<S> for Told {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let is_told = *event.metadata().level() == tracing::Level::INFO;
        *self.0.lock().expect("not poisoned") +=
            usize::from(is_told && event.metadata().target().starts_with("docvector_embed"));
    }
}

/// A user who sees no progress is told why, once for each pause; a short pause is no news.
#[test]
fn a_long_pause_is_told_and_a_short_one_is_not() {
    for (wait, expected) in [(9, 0), (10, 1), (3600, 1)] {
        let told = Told::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(told.clone()), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
            runtime.expect("a runtime").block_on(async {
                let fake =
                    Fake::builder().with_dimensions(4).with_latency(Duration::from_secs(1)).build().expect("valid");
                let wait = Duration::from_secs(wait);
                // Two calls that are under way at once.
                (0..2).for_each(|_| fake.fail_next(Error::new(ErrorKind::RateLimited, "busy").with_retry_after(wait)));
                let embedder = fake.rate_limit(RateLimiter::new());
                let (one, other) = tokio::join!(embedder.embed_query(TEXT), embedder.embed_query(TEXT));
                assert!(one.is_err() && other.is_err());
            });
        });
        assert_eq!(*told.0.lock().expect("not poisoned"), expected, "{wait} s");
    }
}

#[test]
fn a_sink_that_panics() {
    let logged = fields(|| async {
        let metered = Fake::new(4).metered(|_: &CallRecord<'_>| panic!("as scripted"));
        metered.embed_query(TEXT).await.expect("embedded all the same");
    });
    assert_eq!(logged, names(&[telemetry::EMBEDDER]));
}

#[test]
fn stores_that_fail() {
    use telemetry::{ERROR, FAILURES, PAUSE, STORE};
    let alone = fields(|| async {
        let cached = Fake::new(4).cached(Broken).expect("one space");
        cached.embed_query(TEXT).await.expect("embedded all the same");
    });
    assert_eq!(alone, names(&[STORE, ERROR]));
    let tiered = fields(|| async {
        let cached = Fake::new(4).cached(Tiered::new(Broken, Memory::new(1 << 20))).expect("one space");
        cached.embed_query(TEXT).await.expect("embedded all the same");
    });
    assert_eq!(tiered, names(&[STORE, ERROR]));
    let guarded = fields(|| async {
        let cached = Fake::new(4).cached(Guarded::new(Broken)).expect("one space");
        for i in 0..12 {
            cached.embed_query(&format!("{TEXT} {i}")).await.expect("embedded all the same");
        }
    });
    assert_eq!(guarded, names(&[STORE, ERROR, FAILURES, PAUSE]));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_cache_file() {
    use docvector_embed::cache::Sqlite;
    let folder = tempfile::tempdir().expect("a folder");
    let logged = fields(|| async {
        let cached =
            Fake::new(4).cached(Sqlite::open(folder.path().join("c.sqlite")).expect("opens")).expect("one space");
        cached.embed_query(TEXT).await.expect("embedded");
    });
    assert!(logged.is_superset(&names(&[telemetry::CACHE_MADE, telemetry::CACHE_PAGE_SIZE])), "{logged:?}");
}

#[cfg(feature = "onnx")]
#[test]
fn a_model_whose_pooling_is_assumed() {
    use docvector_embed::provider::Onnx;
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("bge-base-en-v1.5");
    crate::onnx::folders::copy(&crate::support::golden("tiny/bert-cls"), &root);
    let load = || Onnx::load(&root).map(drop).expect("loads");
    let assumed = names(&[telemetry::FILE, telemetry::POOLING, telemetry::NORMALIZATION, telemetry::WHY]);
    assert!(fields(|| async { load() }).is_disjoint(&assumed));
    std::fs::remove_file(root.join("modules.json")).expect("removed");
    assert_eq!(fields(|| async { load() }), assumed);
}

#[cfg(feature = "onnx")]
#[test]
fn a_file_in_place_of_weights() {
    use docvector_embed::provider::Onnx;
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    crate::onnx::folders::copy_linked(&crate::support::minilm_int8(), root);
    std::fs::write(root.join("model.safetensors"), "").expect("written");
    let config = crate::support::json(&root.join("config.json")).to_string().replace("\"bert\"", "\"nomic_bert\"");
    std::fs::remove_file(root.join("config.json")).expect("removed");
    std::fs::write(root.join("config.json"), config).expect("written");
    let logged = fields(|| async { Onnx::load(root).map(drop).expect("loads") });
    assert_eq!(logged, names(&[telemetry::FILE, telemetry::WHY]));
}

#[cfg(feature = "openai")]
#[test]
fn a_request_to_a_provider() {
    use docvector_embed::provider::OpenAi;
    let logged = fields(|| async {
        // Nothing listens on this port of this machine.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a port");
        let builder = OpenAi::builder("text-embedding-3-small").with_api_key("sk-test");
        let openai = builder.with_base_url(format!("http://{closed}/v1")).build().expect("built");
        openai.embed_query(TEXT).await.expect_err("nobody is there");
    });
    let span: Vec<&str> = telemetry::FIELDS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| name.contains("gen_ai") || name.contains("otel"))
        .collect();
    assert!(logged.is_superset(&names(&span)), "{logged:?}");
    assert!(logged.contains(telemetry::ERROR_TYPE));
}
