//! Connecting learns what a program did not say, and building needs no service.

use std::time::Duration;

use docvector_embed::{
    Embedder, EmbedderExt, ErrorKind, InputKind, Limits, Normalization, Pooling, Space,
    provider::{Remote, RemoteDialect},
};
use serde_json::json;

use super::{SPOKEN, TEXTS, builder, model, space_of};
use crate::support::service::{Act, Program, Service, counter_of};

#[tokio::test]
async fn the_own_service_tells_everything() {
    let fake = model("fake");
    let service = Service::start(Program::Own, &fake).await;
    for url in [service.url(), format!("{}/", service.url()), format!("{}/v1", service.url())] {
        let remote = Remote::connect(url).await.expect("connects");
        assert_eq!(
            (remote.space().expect("one space"), remote.to_string().as_str()),
            (&space_of(&fake), "remote/fake")
        );
        assert!(remote.endpoints()[0].verified);
        let rows = remote.embed_documents(&TEXTS).await.expect("rows");
        assert_eq!(rows.row(1), fake.vector_of(InputKind::Document, TEXTS[1]));
    }
    // Set limits go before those of the service.
    let limits = Limits::none().with_texts(3).with_tokens(counter_of(&fake));
    let remote = Remote::builder(service.url()).with_limits(limits).connect().await.expect("connects");
    assert_eq!((remote.limits().texts, remote.limits().tokens_per_text), (Some(3), Some(40)));
    assert_eq!(remote.limits().tokens, counter_of(&fake));
}

#[tokio::test]
async fn tei_tells_its_model_and_a_probe_tells_the_width() {
    let fake = model("BAAI/bge-m3");
    let service = Service::start(Program::Tei, &fake).await;
    let remote = Remote::connect(service.url()).await.expect("connects");
    let space = Space::builder("BAAI/bge-m3", 8)
        .with_revision("abc")
        .with_pooling([Pooling::Mean])
        .with_normalization(Normalization::L2)
        .build()
        .expect("valid");
    assert_eq!(remote.space().expect("one space"), &space);
    // A space of its own never changes: collections hold it.
    assert_eq!(space.id().to_string(), "6f284361ee6f5f0dea33156fb7e83300");
    let given = Remote::builder(service.url()).with_space(space_of(&fake)).connect().await.expect("connects");
    assert_eq!(given.space().expect("one space"), &space_of(&fake));
    assert_eq!(given.limits(), Limits::none().with_texts(7));
}

#[tokio::test]
async fn a_model_without_vectors_is_refused() {
    for model_type in [json!({"reranker": {}}), json!({"embedding": {"pooling": "splade"}})] {
        let info = json!({"model_id": "m", "model_type": model_type});
        let service = Service::scripted(Program::Tei, &model("m"), move |_, _| Act::json(200, &info, &[])).await;
        let error = Remote::connect(service.url()).await.expect_err("no embedder");
        assert_eq!((error.kind(), service.embeddings().len()), (ErrorKind::Config, 0), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_needs_a_dialect_or_a_space() {
    let fake = model("fake");
    let service = Service::start(Program::OpenAi, &fake).await;
    let error = Remote::connect(service.url()).await.expect_err("it says nothing");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("with_dialect"), "{error}");
    let result = Remote::builder(service.url()).with_space(space_of(&fake)).connect().await;
    match cfg!(feature = "openai") {
        true => {
            let remote = result.expect("OpenAI's dialect");
            assert!(remote.endpoints()[0].verified);
            let rows = remote.embed_documents(&TEXTS).await.expect("rows");
            assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, TEXTS[0]));
        }
        false => assert_eq!(result.expect_err("no such dialect").kind(), ErrorKind::Config),
    }
}

#[tokio::test]
async fn a_service_that_loads_or_has_another_space_is_not_connected() {
    let fake = model("fake");
    let loading = json!({"model_id": null, "docvector": {"space": null, "space_id": null, "state": "loading"}});
    let service = Service::scripted(Program::Own, &fake, move |_, _| Act::json(200, &loading, &[])).await;
    let error = Remote::connect(service.url()).await.expect_err("it loads");
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    let service = Service::start(Program::Own, &fake).await;
    let other = Remote::builder(service.url()).with_space(space_of(&model("other"))).connect().await;
    let error = other.expect_err("another model");
    assert_eq!((error.kind(), service.embeddings().len()), (ErrorKind::SpaceMismatch, 0), "{error}");
    // A gateway without the service behind it.
    let gateway = Service::scripted(Program::Own, &fake, |_, _| Act::reply(502, "<html></html>")).await;
    let error = Remote::connect(gateway.url()).await.expect_err("no service");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unavailable, Some(502)), "{error}");
}

#[tokio::test]
async fn the_first_endpoint_that_answers_tells() {
    let fake = model("fake");
    let (down, up) = (Service::start(Program::Own, &fake).await, Service::start(Program::Own, &fake).await);
    let url = down.url();
    down.stop().await;
    let remote = Remote::builder(&url).with_endpoint(up.url()).connect().await.expect("one of them is up");
    assert_eq!(remote.endpoints().iter().map(|endpoint| endpoint.verified).collect::<Vec<_>>(), [false, true]);
    let error = Remote::connect(url).await.expect_err("it is down");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// A stack is built while the service is down, and works once it is up.
#[tokio::test]
async fn building_needs_no_service() {
    for &(dialect, program) in SPOKEN {
        let fake = model("fake");
        let address = Service::start(program, &fake).await.stop().await;
        let remote = builder(&format!("http://{address}"), dialect, &fake).with_timeout(Duration::from_secs(20));
        let remote = remote.build().expect("valid");
        let error = remote.embed_documents(&TEXTS).await.expect_err("it is down");
        assert_eq!((error.kind(), error.usage().requests), (ErrorKind::Unavailable, 0), "{dialect}: {error}");
        let service = Service::start_at(address, program, &fake).await;
        let rows = remote.embed_documents(&TEXTS).await.unwrap_or_else(|error| panic!("{dialect}: {error}"));
        assert_eq!(rows.row(1), fake.vector_of(InputKind::Document, TEXTS[1]), "{dialect} at {program:?}");
        assert!(remote.endpoints()[0].verified);
        // One request tells what the server is. The probe goes to other programs alone.
        let asked = service.requests().len();
        assert_eq!(asked, if program == Program::Own { 2 } else { 3 }, "{dialect} at {program:?}");
        if dialect != RemoteDialect::Docvector && program == Program::Own {
            assert_eq!(service.embeddings()[0].header("x-embed-kind"), Some("document"));
        }
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let space = || space_of(&model("fake"));
    let fresh = || Remote::builder("http://127.0.0.1:1").with_space(space());
    let tei = || fresh().with_dialect(RemoteDialect::TextEmbeddingsInference);
    for (what, builder, why) in [
        ("no space", Remote::builder("http://127.0.0.1:1"), "with_space"),
        ("no URL", Remote::builder("nowhere").with_space(space()), "give one like"),
        ("another route", Remote::builder("http://host/info").with_space(space()), "/info"),
        ("twice", fresh().with_endpoint("http://127.0.0.1:1/"), "endpoint 1"),
        ("no time", fresh().with_timeout(Duration::ZERO), "with_timeout"),
        ("no texts", fresh().with_limits(Limits::none().with_texts(0)), "texts is 0"),
        ("no counter", tei().with_limits(Limits::none().with_tokens_per_text(9)), "TokenizerCounter"),
        ("a narrow probe", fresh().with_probe("text", vec![1.0; 7]), "7 components"),
        ("an empty probe", fresh().with_probe("", vec![1.0; 8]), "empty"),
        ("no probe", fresh().with_probe("text", vec![1.0; 8]).without_verification(), "contradict"),
        ("a key in the clear", Remote::builder("http://host").with_space(space()).with_api_key("k"), "https"),
        ("a header in the clear", fresh().with_endpoint("http://host").with_header("x-key", "k"), "https"),
        ("a wrong key", fresh().with_api_key("k\n"), "white space"),
    ] {
        let error = builder.build().expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Config, "{what}");
        assert!(error.message().contains(why), "{what}: {error}");
    }
    assert!(Remote::builder("http://host").with_space(space()).with_api_key("k").with_plain_http().build().is_ok());
    assert!(Remote::builder("https://host").with_space(space()).with_api_key("k").build().is_ok());
    assert!(fresh().with_limits(Limits::none().with_tokens_per_text(9)).build().is_ok(), "the own service counts");
}
