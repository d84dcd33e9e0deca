//! No row of another space comes back, whatever answers under the address.

use std::time::Duration;

use docvector_embed::{
    Batch, Embedder, EmbedderExt, ErrorKind, InputKind, Lane, Prompts, Usage,
    provider::{Remote, RemoteDialect},
};

use super::{SPOKEN, TEXTS, builder, model, space_of};
use crate::support::service::{Act, Program, Service, frame};

const TEI: RemoteDialect = RemoteDialect::TextEmbeddingsInference;

/// The service is restarted with another model of the same width.
#[tokio::test]
async fn another_model_after_a_restart_is_a_mismatch_in_every_dialect() {
    for &(dialect, program) in SPOKEN {
        let (fake, other) = (model("fake"), model("other"));
        let service = Service::start(program, &fake).await;
        let remote = builder(&service.url(), dialect, &fake).build().expect("valid");
        remote.embed_documents(&TEXTS).await.unwrap_or_else(|error| panic!("{dialect}: {error}"));
        let service = Service::start_at(service.stop().await, program, &other).await;
        // The old connection may fail first, before anything was answered.
        let mut error = remote.embed_documents(&TEXTS).await.expect_err("another model, or a lost connection");
        if error.kind() == ErrorKind::Unavailable {
            error = remote.embed_documents(&TEXTS).await.expect_err("another model");
        }
        assert_eq!(error.kind(), ErrorKind::SpaceMismatch, "{dialect} at {program:?}: {error}");
        assert!(error.partial().is_none() && !error.is_retryable());
        assert!(error.to_string().contains("in remote/fake") || dialect.as_str() == "openai", "{error}");
        // From now on, a foreign server gets the probe text and none of the caller's.
        let texts_sent = || {
            let has_text = |body: &[u8]| TEXTS.iter().any(|text| String::from_utf8_lossy(body).contains(text));
            service.embeddings().iter().filter(|request| has_text(&request.body)).count()
        };
        let before = texts_sent();
        let again = remote.embed_documents(&TEXTS).await.expect_err("another model");
        assert_eq!(again.kind(), ErrorKind::SpaceMismatch, "{dialect} at {program:?}: {again}");
        assert_eq!(texts_sent(), before, "{dialect} at {program:?}: texts went to another model");
        let verify = remote.verify().await.expect_err("another model");
        assert_eq!(verify.kind(), ErrorKind::SpaceMismatch, "{verify}");
        // The right model is back.
        let _service = Service::start_at(service.stop().await, program, &fake).await;
        _ = remote.embed_documents(&TEXTS).await;
        let rows = remote.embed_documents(&TEXTS).await.unwrap_or_else(|error| panic!("{dialect}: {error}"));
        assert_eq!(rows.row(0), fake.vector_of(InputKind::Document, TEXTS[0]));
        remote.verify().await.expect("the right model");
    }
}

/// The space is looked at with every reply: in the head, and in the frame.
#[tokio::test]
async fn a_reply_in_another_space_is_thrown_away_and_its_cost_kept() {
    let (fake, id) = (model("fake"), space_of(&model("other")).id().to_string());
    for &(dialect, program) in SPOKEN.iter().filter(|(_, program)| *program == Program::Own) {
        let id = id.clone();
        let service = Service::scripted(program, &fake, move |number, _| match number {
            2 => Act::Header("x-embed-space", id.clone()),
            _ => Act::Honest,
        })
        .await;
        let remote = builder(&service.url(), dialect, &fake).build().expect("valid");
        let tokens = remote.embed_documents(&TEXTS).await.expect("the right space").usage();
        let error = remote.embed_documents(&TEXTS).await.expect_err("another space");
        assert_eq!(error.kind(), ErrorKind::SpaceMismatch, "{dialect}: {error}");
        assert_eq!(error.total_charges().usage(), tokens, "{dialect}: what it took is known");
        remote.embed_documents(&TEXTS).await.expect("the right space");
    }
    let service = Service::scripted(Program::Own, &fake, |number, _| match number {
        // A frame of another model, whose head says nothing.
        1 => {
            let other = model("other");
            let rows = futures_util::FutureExt::now_or_never(other.embed_documents(&TEXTS)).expect("ready");
            Act::reply(200, frame(&rows.expect("rows")))
        }
        _ => Act::Honest,
    })
    .await;
    let remote = builder(&service.url(), RemoteDialect::Docvector, &fake).build().expect("valid");
    let error = remote.embed_documents(&TEXTS).await.expect_err("another space");
    assert_eq!((error.kind(), error.usage().requests), (ErrorKind::SpaceMismatch, 1), "{error}");
}

/// A service that stated its space no longer does: something else answers now.
#[tokio::test]
async fn a_reply_that_states_no_space_any_more_is_not_believed() {
    for &(dialect, program) in
        SPOKEN.iter().filter(|(dialect, program)| *program == Program::Own && *dialect != RemoteDialect::Docvector)
    {
        let fake = model("fake");
        let service = Service::scripted(program, &fake, |number, _| match number {
            2 => Act::Header("x-embed-space", String::new()),
            _ => Act::Honest,
        })
        .await;
        let remote = builder(&service.url(), dialect, &fake).build().expect("valid");
        remote.embed_documents(&TEXTS).await.expect("rows");
        let error = remote.embed_documents(&TEXTS).await.expect_err("no space");
        assert_eq!(error.kind(), ErrorKind::Protocol, "{dialect}: {error}");
        assert!(!remote.endpoints()[0].verified);
        remote.embed_documents(&TEXTS).await.expect("found out again");
    }
}

#[tokio::test]
async fn a_wanted_space_that_is_not_its_own_is_refused_without_work() {
    let fake = model("fake");
    let service = Service::start(Program::Own, &fake).await;
    let remote = Remote::connect(service.url()).await.expect("connects");
    let before = service.requests().len();
    let batch = Batch::documents(&TEXTS).with_space(space_of(&model("other")).id());
    let error = remote.embed(batch).await.expect_err("another space");
    assert_eq!((error.kind(), service.requests().len()), (ErrorKind::SpaceMismatch, before));
}

/// The probe is embedded once, by one call, and that call is told what it cost.
#[tokio::test]
async fn a_foreign_server_embeds_one_probe_for_all_who_wait() {
    let fake = model("fake");
    let service = Service::start(Program::Tei, &fake).await;
    let remote = builder(&service.url(), TEI, &fake).build().expect("valid");
    let calls = (0..8).map(|_| remote.embed_documents(&TEXTS));
    let results = futures_util::future::join_all(calls).await;
    let usages: Vec<Usage> = results.iter().map(|rows| rows.as_ref().expect("rows").usage()).collect();
    let requests: u64 = usages.iter().map(|usage| usage.requests).sum();
    let is_probe = |request: &crate::support::stand_in::Request| request.json()["inputs"][0] == probe_text();
    assert!(is_probe(&service.embeddings()[0]), "the probe comes before any text");
    let probes = service.embeddings().iter().filter(|request| is_probe(request)).count();
    assert_eq!(requests as usize, 8 + probes, "the calls are told of each probe: {usages:?}");
    // The calls open connections, and the replies over new ones are proved together.
    assert!(probes <= 4, "{probes} probes for eight calls");
    // Nothing is new any more.
    let before = service.requests().len();
    remote.embed_documents(&TEXTS).await.expect("rows");
    assert_eq!(service.requests().len(), before + 1);
}

fn probe_text() -> &'static str {
    "The quick brown fox jumps over the lazy dog; 0123456789, ÄÖÜ and 中文."
}

/// After a failure that a restart may have caused, the model is known again before it gets texts.
#[tokio::test]
async fn a_foreign_server_is_probed_again_after_failures_that_may_be_restarts() {
    let acts: [(fn() -> Act, bool); 4] = [
        (|| Act::Hangup, true),
        (|| Act::reply(502, ""), true),
        (|| Act::reply(500, ""), true),
        (|| Act::json(422, &serde_json::json!({"error": "no", "error_type": "Validation"}), &[]), false),
    ];
    for (act, is_probed) in acts {
        let fake = model("fake");
        // 1 is the probe, 2 a call, 3 fails.
        let service =
            Service::scripted(Program::Tei, &fake, move |number, _| if number == 3 { act() } else { Act::Honest });
        let service = service.await;
        let remote = builder(&service.url(), TEI, &fake).build().expect("valid");
        remote.embed_documents(&TEXTS).await.expect("rows");
        let error = remote.embed_documents(&TEXTS).await.expect_err("as scripted");
        let rows = remote.embed_documents(&TEXTS).await.expect("rows");
        let expected = if is_probed { 2 } else { 1 };
        assert_eq!(rows.usage().requests, expected, "after {error}");
    }
}

#[tokio::test]
async fn a_stored_vector_finds_another_model_from_the_first_call_on() {
    let (fake, other) = (model("fake"), model("other"));
    let service = Service::start(Program::Tei, &other).await;
    let stored = fake.vector_of(InputKind::Document, "a probe");
    let fresh = || builder(&service.url(), TEI, &fake);
    let remote = fresh().with_probe("a probe", stored).build().expect("valid");
    let error = remote.embed_documents(&TEXTS).await.expect_err("another model");
    assert_eq!((error.kind(), error.usage().requests), (ErrorKind::SpaceMismatch, 1), "{error}");
    assert_eq!(service.embeddings().len(), 1, "the probe alone");
    // Without the vector, the first model is taken for the right one; without verification, every one is.
    fresh().build().expect("valid").embed_documents(&TEXTS).await.expect("rows");
    let before = service.embeddings().len();
    fresh().without_verification().build().expect("valid").embed_documents(&TEXTS).await.expect("rows");
    assert_eq!(service.embeddings().len(), before + 1, "no probe");
}

/// Prompts are put once: by the own service, or by the client for a server that knows nothing of them.
#[tokio::test]
async fn prompts_are_put_by_one_side() {
    for &(dialect, program) in SPOKEN {
        let fake = model("fake");
        let prompts = Prompts::new("passage: ", "query: ");
        let space = space_of(&fake).to_builder().with_prompts(prompts).build().expect("valid");
        let id = space.id().to_string();
        // The own service of a model with prompts states that model's space.
        let service = Service::scripted(program, &fake, move |number, request| match (program, number) {
            (Program::Own, 0) => {
                let own = serde_json::json!({"space_id": id});
                Act::json(200, &serde_json::json!({"model_id": "fake", "docvector": own}), &[])
            }
            (Program::Own, _) if request.json().get("texts").is_none() => Act::Header("x-embed-space", id.clone()),
            _ => Act::Honest,
        })
        .await;
        let remote = Remote::builder(service.url()).with_dialect(dialect).with_space(space).build().expect("valid");
        let _ = remote.embed_query("a question").await;
        let sent = service.embeddings().pop().expect("a request");
        let text = if program == Program::Own { "a question" } else { "query: a question" };
        let json = sent.json();
        let texts = ["texts", "inputs", "input"].into_iter().find_map(|name| json.get(name)).expect("texts");
        assert_eq!(texts, &serde_json::json!([text]), "{dialect} at {program:?}");
    }
}

/// If the server applies the prompts, text-embeddings-inference is asked for its own.
#[tokio::test]
async fn prompts_of_the_server_are_asked_for_by_name() {
    let fake = model("fake");
    let prompts = Prompts::by_server("", "query: ");
    let space = space_of(&fake).to_builder().with_prompts(prompts).build().expect("valid");
    let service = Service::start(Program::Tei, &fake).await;
    let remote = Remote::builder(service.url()).with_dialect(TEI).with_space(space).build().expect("valid");
    remote.embed_query("a question").await.expect("a row");
    remote.embed_documents(&["a text"]).await.expect("a row");
    let bodies: Vec<serde_json::Value> = service.embeddings().iter().map(|request| request.json()).collect();
    assert_eq!(bodies[1]["prompt_name"], "query");
    assert_eq!(bodies[1]["inputs"][0], "a question");
    assert!(bodies[2].get("prompt_name").is_none(), "there is none for documents");
}

/// An own service that cannot be told by `/info`, as behind a gateway, is found out by its replies.
#[tokio::test]
async fn prompts_that_both_sides_would_put_are_an_error() {
    let fake = model("fake");
    let prompts = Prompts::new("passage: ", "query: ");
    let space = space_of(&fake).to_builder().with_prompts(prompts).build().expect("valid");
    let id = space.id().to_string();
    let service = Service::scripted(Program::Own, &fake, move |number, _| match number {
        0 => Act::reply(404, ""),
        _ => Act::json(200, &serde_json::json!([[1, 0, 0, 0, 0, 0, 0, 0]]), &[("x-embed-space", id.as_str())]),
    })
    .await;
    let remote = Remote::builder(service.url()).with_dialect(TEI).with_space(space).build().expect("valid");
    let error = remote.embed_query("a question").await.expect_err("prompts from two sides");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test]
async fn a_probe_goes_before_bulk_work_and_not_past_the_deadline() {
    let fake = model("fake");
    let service = Service::scripted(Program::Tei, &fake, |number, _| if number == 1 { Act::Hang } else { Act::Honest });
    let service = service.await;
    let remote = builder(&service.url(), TEI, &fake).build().expect("valid");
    let deadline = std::time::Instant::now() + Duration::from_millis(200);
    let error = remote.embed(Batch::documents(&TEXTS).with_deadline(deadline)).await.expect_err("the probe hangs");
    assert_eq!(error.kind(), ErrorKind::DeadlinePassed, "{error}");
    assert_eq!(error.usage(), Usage::of_unanswered(), "the probe may have been paid for");
    assert_eq!(service.embeddings()[0].header("x-embed-lane"), Some(Lane::Interactive.as_str()));
    assert_eq!(remote.endpoints()[0].resting_until, None, "the endpoint is not to blame");
    remote.embed_documents(&TEXTS).await.expect("the next call has more time");
}
