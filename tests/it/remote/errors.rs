//! Every refusal has its kind, its texts, its wait and its cost, by whatever body and status it comes.

use std::time::Duration;

use docvector_embed::{
    BadText, BadTextReason, Batch, Embedder, EmbedderExt, Error, ErrorKind, Limits, Truncation, Usage,
    provider::{Remote, RemoteDialect},
};
use serde_json::{Value, json};

use super::{TEXTS, builder, model};
use crate::support::service::{Act, Program, Service, native_error};

/// Returns the error of a call whose every request is answered so.
async fn error_of(dialect: RemoteDialect, program: Program, act: impl Fn() -> Act + Send + Sync + 'static) -> Error {
    let fake = model("fake");
    let service = Service::scripted(program, &fake, move |number, request| {
        // The probe of a foreign server is answered.
        let is_probe = program == Program::Tei && number == 1;
        if number == 0 || is_probe || request.method == "GET" { Act::Honest } else { act() }
    })
    .await;
    let remote = builder(&service.url(), dialect, &fake).build().expect("valid");
    let error = remote.embed_documents(&TEXTS).await.expect_err("it was to fail");
    let probes = usize::from(program == Program::Tei);
    assert_eq!(service.embeddings().len(), 1 + probes, "a provider never tries again: {error}");
    assert_eq!(error.embedder(), Some("remote/fake"), "{error}");
    error
}

async fn native(status: u16, body: Value, headers: &'static [(&'static str, &'static str)]) -> Error {
    error_of(RemoteDialect::Docvector, Program::Own, move || Act::json(status, &body, headers)).await
}

#[tokio::test]
async fn every_kind_of_the_own_service_comes_through() {
    for &kind in ErrorKind::ALL {
        let error = native(500, native_error(&Error::new(kind, "in words")), &[("x-request-id", "r-1")]).await;
        assert_eq!((error.kind(), error.status(), error.request_id()), (kind, Some(500), Some("r-1")), "{error}");
        let plain = error.provider_message().is_some_and(|words| words.contains("in words"));
        assert!(plain && !error.to_string().contains("in words"), "{error}");
        assert_eq!(error.usage(), Usage::of_request(Some(0)), "{error}");
        assert_eq!(error.charges().iter().next().map(|charge| charge.payee.to_string()), Some("127.0.0.1/fake".into()));
    }
}

#[tokio::test]
async fn bad_texts_have_the_callers_indices() {
    let bad =
        [BadText::new(0, BadTextReason::TooLong { tokens: 50, limit: 40 }), BadText::new(1, BadTextReason::Rejected)];
    let error = native(400, native_error(&Error::invalid_texts(bad.to_vec())), &[]).await;
    assert_eq!((error.kind(), error.bad_texts()), (ErrorKind::InvalidInput, &bad[..]));
    assert!(error.to_string().contains("text 0 has at least 50 tokens, the limit is 40"), "{error}");
    // A text that the request does not have blames nobody.
    let stranger = vec![BadText::new(7, BadTextReason::Rejected)];
    let error = native(400, native_error(&Error::invalid_texts(stranger)), &[]).await;
    assert_eq!((error.kind(), error.bad_texts().len()), (ErrorKind::InvalidInput, 0));
    assert!(!error.message().is_empty(), "{error}");
}

/// Through splitting, thousands of bad texts are named by the indices of the whole.
#[tokio::test]
async fn thousands_of_bad_texts_are_named() {
    let fake = docvector_embed::provider::Fake::builder()
        .with_dimensions(8)
        .with_limits(Limits::none().with_texts(2000).with_tokens_per_text(4))
        .build()
        .expect("valid");
    let service = Service::start(Program::Own, &fake).await;
    let remote = Remote::connect(service.url()).await.expect("connects");
    let texts: Vec<String> = (0..2000).map(|index| format!("{index} is a text with too many tokens")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let error = remote.embed(Batch::documents(&texts)).await.expect_err("all are too long");
    assert_eq!((error.kind(), error.bad_texts().len()), (ErrorKind::InvalidInput, 2000));
    let rows = remote.embed(Batch::documents(&texts).with_truncation(Truncation::Truncate)).await.expect("truncated");
    assert_eq!(rows.truncated().len(), 2000);
    let each = remote.embed_each(Batch::documents(&[texts[0], "fine", texts[1]])).await;
    assert_eq!(each.errors().map(|(index, _)| index).collect::<Vec<_>>(), [0, 2]);
}

#[tokio::test]
async fn waits_come_through_in_both_headers() {
    let full = || native_error(&Error::new(ErrorKind::Overloaded, "full"));
    let error = native(429, full(), &[("retry-after", "2"), ("retry-after-ms", "1500")]).await;
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Overloaded, Some(Duration::from_millis(1500))));
    let error = native(503, full(), &[("retry-after", "2")]).await;
    assert_eq!((error.is_retryable(), error.retry_after()), (true, Some(Duration::from_secs(2))));
}

/// A gateway knows nothing of kinds.
#[tokio::test]
async fn a_status_decides_if_no_kind_is_named() {
    use ErrorKind::{Auth, Config, InvalidInput, RateLimited, Timeout, Unavailable};
    let none = Usage::of_request(Some(0));
    for (status, kind, usage) in [
        (301, Config, none),
        (400, InvalidInput, none),
        (401, Auth, none),
        (403, Auth, none),
        (404, Config, none),
        (405, Config, none),
        (408, Timeout, Usage::of_unanswered()),
        (409, Unavailable, none),
        (413, InvalidInput, none),
        (418, Config, none),
        (422, InvalidInput, none),
        (429, RateLimited, none),
        (500, Unavailable, none),
        (502, Unavailable, Usage::of_unanswered()),
        (503, Unavailable, none),
        (504, Unavailable, Usage::of_unanswered()),
        (524, Unavailable, Usage::of_unanswered()),
    ] {
        let error =
            error_of(RemoteDialect::Docvector, Program::Own, move || Act::reply(status, "<html>no</html>")).await;
        assert_eq!((error.kind(), error.status(), error.usage()), (kind, Some(status), usage), "{error}");
    }
}

#[tokio::test]
async fn tei_names_its_type_and_the_own_service_its_kind() {
    use ErrorKind::{DeadlinePassed, Inference, InvalidInput, Overloaded, Unavailable};
    let tei = RemoteDialect::TextEmbeddingsInference;
    for (status, kind, named) in [
        (422, "Validation", InvalidInput),
        (422, "Tokenizer", InvalidInput),
        (400, "Empty", InvalidInput),
        (429, "Overloaded", Overloaded),
        (424, "Backend", Unavailable),
        (503, "Unhealthy", Unavailable),
        (500, "OfALaterVersion", Unavailable),
    ] {
        let body = json!({"error": "in words", "error_type": kind});
        let error = error_of(tei, Program::Tei, move || Act::json(status, &body, &[])).await;
        assert_eq!((error.kind(), error.status()), (named, Some(status)), "{error}");
        assert_eq!(error.provider_message(), Some("in words"));
        assert_eq!(error.provider_code(), (kind != "OfALaterVersion").then_some(kind));
    }
    for (kind, header) in [(DeadlinePassed, "deadline_passed"), (Inference, "inference")] {
        let error = error_of(tei, Program::Own, move || {
            Act::json(424, &json!({"error": "in words", "error_type": "Backend"}), &[("x-embed-error", header)])
        })
        .await;
        assert_eq!(error.kind(), kind, "{error}");
    }
}

/// The refusal of a space is a mismatch in every dialect.
#[tokio::test]
async fn a_refused_space_is_a_mismatch() {
    for &(dialect, program) in super::SPOKEN.iter().filter(|(_, program)| *program == Program::Own) {
        let error = native_error(&Error::new(ErrorKind::SpaceMismatch, "another one"));
        let fake = model("fake");
        let service = Service::scripted(program, &fake, move |number, _| match number {
            0 => Act::Honest,
            _ => Act::json(409, &error, &[("x-embed-error", "space_mismatch")]),
        })
        .await;
        let remote = builder(&service.url(), dialect, &fake).build().expect("valid");
        let error = remote.embed_documents(&TEXTS).await.expect_err("refused");
        assert_eq!((error.kind(), error.status()), (ErrorKind::SpaceMismatch, Some(409)), "{dialect}: {error}");
    }
}

/// The key is wrong: this is told before any text is sent.
#[tokio::test]
async fn a_wrong_key_is_found_before_texts_are_sent() {
    let fake = model("fake");
    let service = Service::scripted(Program::Own, &fake, |_, _| Act::reply(401, "")).await;
    let remote = builder(&service.url(), RemoteDialect::Docvector, &fake).with_api_key("k").build().expect("valid");
    let error = remote.embed_documents(&TEXTS).await.expect_err("no entry");
    assert_eq!((error.kind(), error.usage(), service.embeddings().len()), (ErrorKind::Auth, Usage::ZERO, 0));
    assert_eq!(service.requests()[0].header("authorization"), Some("Bearer k"));
}
