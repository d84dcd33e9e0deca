//! Several endpoints: calls are divided, a dead one is passed over, and a refusal goes elsewhere once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use docvector_embed::{
    Batch, Embedder, EmbedderExt, ErrorKind, InputKind, Usage,
    provider::{Fake, Remote, RemoteDialect},
};
use serde_json::json;
use tokio::time::sleep;

use super::{SPOKEN, TEXTS, builder, model};
use crate::support::service::{Act, Program, Service};

const TEI: RemoteDialect = RemoteDialect::TextEmbeddingsInference;

/// Returns an embedder over these services.
fn over(services: &[&Service], dialect: RemoteDialect, fake: &Fake) -> Remote {
    let first = builder(&services[0].url(), dialect, fake);
    let all = services[1..].iter().fold(first, |builder, service| builder.with_endpoint(service.url()));
    all.with_connect_timeout(Duration::from_secs(5)).build().expect("valid")
}

/// A service that refuses texts while it is told to.
async fn refusing(fake: &Fake, status: u16, refuses: &Arc<AtomicBool>) -> Service {
    let refuses = refuses.clone();
    Service::scripted(Program::Own, fake, move |number, _| {
        if number == 0 || !refuses.load(Ordering::SeqCst) {
            return Act::Honest;
        }
        Act::json(status, &json!({"detail": "no"}), &[("retry-after-ms", "300")])
    })
    .await
}

#[tokio::test]
async fn calls_are_divided_by_what_is_under_way() {
    let fake = model("fake");
    let slow = || Act::Late(Duration::from_millis(50));
    let service =
        || Service::scripted(Program::Own, &fake, move |number, _| if number == 0 { Act::Honest } else { slow() });
    let (one, two, three) = (service().await, service().await, service().await);
    let remote = over(&[&one, &two, &three], RemoteDialect::Docvector, &fake);
    let results = futures_util::future::join_all((0..60).map(|_| remote.embed_documents(&TEXTS))).await;
    results.iter().for_each(|rows| assert_eq!(rows.as_ref().expect("rows").len(), 2));
    let calls: Vec<usize> = [&one, &two, &three].iter().map(|service| service.embeddings().len()).collect();
    assert_eq!(calls.iter().sum::<usize>(), 60);
    assert!(calls.iter().all(|calls| (10..=32).contains(calls)), "{calls:?}");
    let stats = remote.endpoints();
    assert_eq!(stats.iter().map(|endpoint| endpoint.calls).sum::<u64>(), 60);
    assert!(
        stats.iter().all(|endpoint| endpoint.outstanding_texts == 0 && endpoint.failures == 0 && endpoint.verified)
    );
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    for &(dialect, program) in SPOKEN {
        let fake = model("fake");
        let (up, down) = (Service::start(program, &fake).await, Service::start(program, &fake).await);
        let remote = over(&[&down, &up], dialect, &fake);
        let address = down.stop().await;
        for _ in 0..20 {
            let rows = remote.embed_documents(&TEXTS).await;
            let rows = rows.unwrap_or_else(|error| panic!("{dialect} at {program:?}: {error}"));
            assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, TEXTS[0]));
        }
        let stats = remote.endpoints();
        assert!(stats[0].failures <= 2, "it is not asked again and again: {stats:?}");
        // It comes back, and gets calls once its rest is over.
        let _back = Service::start_at(address, program, &fake).await;
        let end = Instant::now() + Duration::from_secs(10);
        while remote.endpoints()[0].calls <= stats[0].failures && Instant::now() < end {
            remote.embed_documents(&TEXTS).await.expect("rows");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(remote.endpoints()[0].calls > stats[0].failures, "{:?}", remote.endpoints());
    }
}

#[tokio::test]
async fn a_refusal_goes_elsewhere_once_and_the_endpoint_rests_as_it_asks() {
    for status in [429, 503, 409] {
        let (fake, refuses) = (model("fake"), Arc::new(AtomicBool::new(true)));
        let (one, two) = (refusing(&fake, status, &refuses).await, Service::start(Program::Own, &fake).await);
        let remote = over(&[&one, &two], RemoteDialect::Docvector, &fake);
        for _ in 0..20 {
            let rows = remote.embed_documents(&TEXTS).await.expect("the other one answers");
            assert!(rows.usage().requests <= 2, "{:?}", rows.usage());
        }
        assert_eq!(one.embeddings().len(), 1, "status {status}: it rests after the first refusal");
        let rest = remote.endpoints()[0].resting_until.expect("it rests");
        assert!(rest > Instant::now());
        refuses.store(false, Ordering::SeqCst);
        sleep(rest.saturating_duration_since(Instant::now()) + Duration::from_millis(10)).await;
        for _ in 0..20 {
            remote.embed_documents(&TEXTS).await.expect("rows");
        }
        assert!(one.embeddings().len() > 2, "status {status}: it gets calls again");
    }
}

/// The charges of both requests are told, and the second refusal is the error.
#[tokio::test]
async fn two_refusals_are_an_error() {
    let (fake, refuses) = (model("fake"), Arc::new(AtomicBool::new(true)));
    let (one, two) = (refusing(&fake, 503, &refuses).await, refusing(&fake, 503, &refuses).await);
    let remote = over(&[&one, &two], RemoteDialect::Docvector, &fake);
    let error = remote.embed_documents(&TEXTS).await.expect_err("both refuse");
    assert_eq!(
        (error.kind(), error.status(), error.usage().requests),
        (ErrorKind::Unavailable, Some(503), 2),
        "{error}"
    );
    assert_eq!(error.retry_after(), Some(Duration::from_millis(300)));
    // All rest: the one whose rest ends first is asked, and no other.
    let before = one.embeddings().len() + two.embeddings().len();
    remote.embed_documents(&TEXTS).await.expect_err("both refuse");
    assert_eq!(one.embeddings().len() + two.embeddings().len(), before + 1);
}

/// A request that may have been embedded is not sent again.
#[tokio::test]
async fn a_request_that_may_have_cost_something_is_not_sent_elsewhere() {
    for act in [(|| Act::Hangup) as fn() -> Act, || Act::reply(502, ""), || Act::reply(500, ""), || Act::reply(200, "")]
    {
        let fake = model("fake");
        let broken =
            || Service::scripted(Program::Own, &fake, move |number, _| if number == 0 { Act::Honest } else { act() });
        let (one, two) = (broken().await, broken().await);
        let remote = over(&[&one, &two], RemoteDialect::Docvector, &fake);
        let error = remote.embed_documents(&TEXTS).await.expect_err("as scripted");
        assert_eq!((error.usage().requests, one.embeddings().len() + two.embeddings().len()), (1, 1), "{error}");
    }
}

/// One of two endpoints serves another model: it gets no texts.
#[tokio::test]
async fn an_endpoint_of_another_model_gets_no_texts() {
    for &(dialect, program) in SPOKEN {
        let (fake, other) = (model("fake"), model("other"));
        let (right, wrong) = (Service::start(program, &fake).await, Service::start(program, &other).await);
        let stored = fake.vector_of(InputKind::Document, "a probe");
        let builder = builder(&wrong.url(), dialect, &fake).with_endpoint(right.url()).with_probe("a probe", stored);
        let remote = builder.build().expect("valid");
        for _ in 0..20 {
            let rows = remote.embed_documents(&TEXTS).await;
            let rows = rows.unwrap_or_else(|error| panic!("{dialect} at {program:?}: {error}"));
            assert_eq!(rows.row(1), fake.vector_of(InputKind::Document, TEXTS[1]));
        }
        let sent = wrong.embeddings().iter().any(|request| String::from_utf8_lossy(&request.body).contains(TEXTS[0]));
        assert!(!sent, "{dialect} at {program:?}");
        assert_eq!(remote.endpoints().iter().map(|endpoint| endpoint.verified).collect::<Vec<_>>(), [false, true]);
        assert_eq!(remote.verify().await.expect_err("one is wrong").kind(), ErrorKind::SpaceMismatch);
    }
}

/// A probe that failed at one endpoint costs what it costs, and the call goes to the other one.
#[tokio::test]
async fn a_failed_probe_goes_elsewhere_and_its_cost_is_told() {
    let fake = model("fake");
    let broken =
        Service::scripted(Program::Tei, &fake, |number, _| if number == 0 { Act::Honest } else { Act::Hangup });
    let (broken, up) = (broken.await, Service::start(Program::Tei, &fake).await);
    let remote = over(&[&broken, &up], TEI, &fake);
    let mut usage = Usage::ZERO;
    for _ in 0..10 {
        usage += remote.embed(Batch::documents(&TEXTS)).await.expect("rows").usage();
    }
    let asked = broken.embeddings().len() + up.embeddings().len();
    assert_eq!(usage.requests as usize, asked, "{usage:?}");
    assert_eq!(usage.unanswered as usize, broken.embeddings().len(), "{usage:?}");
}
