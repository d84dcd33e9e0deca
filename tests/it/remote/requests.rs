//! What goes over the wire: every option of a batch, the time that is left, and nothing once a call is dropped.

use std::time::{Duration, Instant};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, ErrorKind, InputKind, Lane, Truncation, Usage,
    provider::{Remote, RemoteDialect},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{SPOKEN, TEXTS, builder, model, space_of};
use crate::support::service::{Act, Program, Service};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0b1902b7-01";

#[tokio::test]
async fn the_own_service_gets_every_option() {
    for &(dialect, program) in SPOKEN {
        let fake = model("fake");
        let service = Service::start(program, &fake).await;
        let remote = builder(&service.url(), dialect, &fake).with_header("x-own", "mine").build().expect("valid");
        let deadline = Instant::now() + Duration::from_secs(60);
        let batch = Batch::queries(&TEXTS).with_key("library:serde").with_tenant("a b").with_trace(TRACE);
        let batch = batch.with_lane(Lane::Bulk).with_truncation(Truncation::Truncate).with_deadline(deadline);
        let rows = remote.embed(batch).await.unwrap_or_else(|error| panic!("{dialect}: {error}"));
        let kind = if program == Program::Own { InputKind::Query } else { InputKind::Document };
        assert_eq!(rows.row(0), fake.vector_of(kind, TEXTS[0]), "{dialect} at {program:?}");
        let request = service.embeddings().pop().expect("a request");
        let is_own = program == Program::Own;
        assert_eq!(request.header("traceparent"), is_own.then_some(TRACE), "{dialect} at {program:?}");
        assert_eq!(request.header("x-own"), Some("mine"));
        let left = |text: &str| {
            let left: u64 = text.parse().expect("milliseconds");
            assert!((30_000..=60_000).contains(&left), "{left}");
        };
        if dialect == RemoteDialect::Docvector {
            let fields = request.fields();
            let id = space_of(&fake).id().to_string();
            for (name, value) in [
                ("texts", json!(TEXTS)),
                ("kind", json!("query")),
                ("lane", json!("bulk")),
                ("key", json!("library:serde")),
                ("tenant", json!("a b")),
                ("space", json!(id)),
                ("truncation", json!("truncate")),
            ] {
                assert_eq!(fields[name], value, "{name}");
            }
            left(&fields["timeout_ms"].to_string());
            assert_eq!(request.header("accept"), Some("application/vnd.docvector.embeddings"));
            continue;
        }
        for (name, value) in [
            ("x-embed-kind", "query"),
            ("x-embed-lane", "bulk"),
            ("x-embed-truncation", "truncate"),
            ("x-embed-space", &space_of(&fake).id().to_string()),
        ] {
            assert_eq!(request.header(name), Some(value), "{dialect} at {program:?}");
        }
        left(request.header("request-timeout-ms").expect("the time that is left"));
        assert_eq!(request.header("x-embed-key"), is_own.then_some("library%3Aserde"));
        assert_eq!(request.header("x-embed-tenant"), is_own.then_some("a%20b"));
    }
}

#[tokio::test]
async fn tei_is_asked_as_its_api_says() {
    let fake = model("fake");
    let service = Service::start(Program::Tei, &fake).await;
    let dialect = RemoteDialect::TextEmbeddingsInference;
    let remote = builder(&service.url(), dialect, &fake).build().expect("valid");
    remote.embed(Batch::documents(&TEXTS)).await.expect("rows");
    let truncated = remote.embed(Batch::documents(&TEXTS).with_truncation(Truncation::Truncate)).await.expect("rows");
    assert_eq!(truncated.usage(), Usage::of_request(None), "it tells no tokens");
    let bodies: Vec<serde_json::Value> = service.embeddings().iter().skip(1).map(|request| request.json()).collect();
    assert_eq!(bodies[0], json!({"inputs": TEXTS, "truncate": false, "normalize": true}));
    assert_eq!(bodies[1]["truncate"], true);
}

#[tokio::test]
async fn an_empty_batch_makes_no_request() {
    let fake = model("fake");
    let service = Service::start(Program::Own, &fake).await;
    let remote = builder(&service.url(), RemoteDialect::Docvector, &fake).build().expect("valid");
    assert!(remote.embed(Batch::documents(&[])).await.expect("nothing").is_empty());
    let error = remote.embed(Batch::documents(&["", "fine"])).await.expect_err("an empty text");
    assert_eq!((error.kind(), error.bad_texts()[0].index), (ErrorKind::InvalidInput, 0));
    assert!(service.requests().is_empty());
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_hangs() {
    for &(dialect, program) in SPOKEN {
        let fake = model("fake");
        let last = usize::from(program != Program::Own) + 1;
        let service =
            Service::scripted(program, &fake, move |number, _| if number == last { Act::Hang } else { Act::Honest });
        let service = service.await;
        let remote = builder(&service.url(), dialect, &fake).build().expect("valid");
        let deadline = Instant::now() + Duration::from_millis(300);
        let error = remote.embed(Batch::documents(&TEXTS).with_deadline(deadline)).await.expect_err("it hangs");
        assert_eq!(error.kind(), ErrorKind::DeadlinePassed, "{dialect}: {error}");
        assert_eq!(error.usage().unanswered, 1, "{dialect}: {error}");
        let past = Batch::documents(&TEXTS).with_deadline(Instant::now());
        let error = remote.embed(past).await.expect_err("too late");
        assert_eq!((error.kind(), error.usage()), (ErrorKind::DeadlinePassed, Usage::ZERO), "{dialect}: {error}");
    }
}

#[tokio::test]
async fn a_time_limit_ends_a_call_that_hangs() {
    let fake = model("fake");
    let service = Service::scripted(Program::Own, &fake, |number, _| if number == 0 { Act::Honest } else { Act::Hang });
    let service = service.await;
    let remote = builder(&service.url(), RemoteDialect::Docvector, &fake).with_timeout(Duration::from_millis(200));
    let error = remote.build().expect("valid").embed_documents(&TEXTS).await.expect_err("it hangs");
    assert_eq!((error.kind(), error.usage()), (ErrorKind::Timeout, Usage::of_unanswered()), "{error}");
}

#[tokio::test]
async fn dropping_a_call_closes_its_connection() {
    for &(dialect, program) in SPOKEN {
        let fake = model("fake");
        let last = usize::from(program != Program::Own) + 1;
        let service =
            Service::scripted(program, &fake, move |number, _| if number == last { Act::Hang } else { Act::Honest });
        let service = service.await;
        let remote = builder(&service.url(), dialect, &fake).build().expect("valid");
        let dropped = timeout(Duration::from_millis(300), remote.embed_documents(&TEXTS)).await;
        assert!(dropped.is_err(), "it hangs");
        for _ in 0..100 {
            if service.given_up() == 1 {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(service.given_up(), 1, "{dialect} at {program:?}");
        assert_eq!(remote.endpoints()[0].outstanding_texts, 0);
        remote.embed_documents(&TEXTS).await.expect("it stays usable");
    }
}

#[tokio::test]
async fn any_number_of_texts_is_split_by_the_limits_of_the_service() {
    let fake = model("fake");
    let service = Service::start(Program::Own, &fake).await;
    let remote = Remote::connect(service.url()).await.expect("connects");
    let texts: Vec<String> = crate::support::numbered(100);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let rows = remote.embed_documents(&texts).await;
    assert_eq!(crate::support::own(&fake, &texts, &rows).len(), 100);
    assert_eq!(service.embeddings().len(), 100_usize.div_ceil(7));
    let charged = rows.expect("rows").usage();
    assert_eq!(charged.tokens, fake.charged().tokens);
}

/// A result of several megabytes, which is decoded off the executor.
#[tokio::test]
async fn large_replies_come_whole() {
    let fake = docvector_embed::provider::Fake::builder().with_dimensions(2048).without_log().build().expect("valid");
    for &(dialect, program) in SPOKEN {
        let service = Service::start(program, &fake).await;
        let limits = docvector_embed::Limits::none().with_texts(256);
        let remote = builder(&service.url(), dialect, &fake).with_limits(limits).build().expect("valid");
        let texts: Vec<String> = crate::support::numbered(256);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let rows = remote.embed(Batch::documents(&texts)).await;
        let rows = rows.unwrap_or_else(|error| panic!("{dialect} at {program:?}: {error}"));
        for (text, row) in texts.iter().zip(rows.rows()) {
            let own = fake.vector_of(InputKind::Document, text);
            let far = own.iter().zip(row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // JSON's numbers may lose the last bit.
            assert!(far <= 1e-7, "{dialect}: {far}");
        }
    }
}
