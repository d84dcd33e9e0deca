//! Embedders made of specs and of variables, over real services and models.
#![cfg(all(feature = "server", feature = "remote", feature = "openai", feature = "onnx", feature = "sqlite"))]

use docvector_embed::{
    Config, EmbedderExt, ErrorKind, InputKind,
    config::{CacheSpec, ModelSpec, from_spec},
    provider::Fake,
    server::Server,
};

use crate::{server::Running, support::minilm};

fn config(vars: &[(&str, &str)]) -> docvector_embed::Result<Config> {
    Config::from_vars(|name| vars.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned()))
}

#[tokio::test]
async fn a_local_model_with_a_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("vectors.sqlite").to_string_lossy().into_owned();
    let model = minilm().to_string_lossy().into_owned();
    let vars = [
        ("EMBEDDING_PROVIDER", "local"),
        ("EMBEDDING_MODEL", model.as_str()),
        ("EMBEDDING_DEVICE", "cpu"),
        ("EMBEDDING_CACHE", cache.as_str()),
        ("EMBEDDING_BATCH_SIZE", "32"),
    ];
    let embedder = config(&vars).expect("valid").build().await.expect("builds");
    let first = embedder.embed_documents(&["a text"]).await.expect("a row");
    let again = embedder.embed_documents(&["a text"]).await.expect("a row");
    assert_eq!((first.usage().cached, again.usage().cached), (0, 1));
    assert!(embedder.to_string().starts_with("Cached(onnx/"), "{embedder}");
    let same = from_spec(&format!("local:{model}")).await.expect("builds");
    assert_eq!(same.space().expect("one"), embedder.space().expect("one"));
    let missing = from_spec("no-such-model").await.expect_err("not there");
    assert_eq!(missing.kind(), ErrorKind::Config);
    assert!(missing.to_string().contains("no-such-model"), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_a_key_a_space_and_a_fallback() {
    let fake = Fake::new(16);
    let running = Running::with(Server::builder().with_api_key("secret"), fake.clone());
    let twin = Running::of(fake.clone());
    let (url, twin_url) = (running.url(), twin.url());
    let space = fake.space().expect("one").to_text();
    let vars = [
        ("EMBEDDING_PROVIDER", "remote"),
        ("EMBEDDING_SERVICE_URL", url.as_str()),
        ("EMBEDDING_SERVICE_KEY", "secret"),
    ];
    let embedder = config(&vars).expect("valid").build().await.expect("connects");
    let row = embedder.embed_query("a query").await.expect("a row");
    assert_eq!(row, fake.vector_of(InputKind::Query, "a query"));
    // With a known space, the stack builds while nobody listens; the twin answers then.
    drop(running);
    let fallback = format!("remote:{twin_url}");
    let more = [
        ("EMBEDDING_SPACE", space.as_str()),
        ("EMBEDDING_FALLBACK", fallback.as_str()),
        ("EMBEDDING_CACHE", "memory:1MB"),
    ];
    let config = config(&[&vars[..], &more].concat()).expect("valid");
    assert_eq!(config.cache, Some(CacheSpec::Memory(1 << 20)));
    let embedder = config.build().await.expect("builds");
    assert_eq!(embedder.to_string(), "Cached(Resilient(Retry(remote/fake), Retry(remote/fake)))");
    // Nobody can prove that the twin is the same model while the first one is down, so it gets no call.
    let error = embedder.embed_documents(&["a text"]).await.expect_err("the service is down");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proved_fallback_answers_and_another_model_is_refused() {
    let fake = Fake::new(16);
    let (running, twin) = (Running::of(fake.clone()), Running::of(fake.clone()));
    let first = Config::new(ModelSpec::Remote(running.url()));
    let embedder = first.clone().with_fallback(ModelSpec::Remote(twin.url())).build().await.expect("builds");
    // The proof runs in the background.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while fake.calls().len() < 4 && std::time::Instant::now() < end {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    tokio::task::spawn_blocking(move || drop(running)).await.expect("stopped");
    let row = embedder.embed_query("a query").await.expect("the twin answers");
    assert_eq!(row, fake.vector_of(InputKind::Query, "a query"));
    // OpenAI's own models lie in another space.
    let other = Config::new(ModelSpec::Remote(twin.url()));
    let error = other.with_fallback(ModelSpec::OpenAi("text-embedding-3-small".into())).build().await;
    let error = error.expect_err("another space or no key");
    assert!(error.to_string().contains("the fall-back"), "{error}");
}
