//! A reply that does not match the request is an error, and never a panic or a wrong row.

use std::time::Duration;

use docvector_embed::{EmbedderExt, Error, ErrorKind, Usage, provider::RemoteDialect};
use serde_json::json;

use super::{SPOKEN, TEXTS, builder, model};
use crate::support::service::{Act, Program, Service};

/// Returns the error of a call whose texts are answered so.
async fn error_of(dialect: RemoteDialect, act: impl Fn() -> Act + Send + Sync + 'static) -> Error {
    let fake = model("fake");
    let service =
        Service::scripted(Program::Own, &fake, move |number, _| if number == 0 { Act::Honest } else { act() }).await;
    let remote = builder(&service.url(), dialect, &fake).with_timeout(Duration::from_secs(20)).build().expect("valid");
    remote.embed_documents(&TEXTS).await.expect_err("it was to fail")
}

/// Changes the body of a reply.
type Edit = fn(Vec<u8>) -> Vec<u8>;

/// Returns the length of a frame's metadata.
fn metadata_length(frame: &[u8]) -> usize {
    u32::from_le_bytes(frame[4..8].try_into().expect("four bytes")) as usize
}

#[tokio::test]
async fn a_damaged_frame_is_no_result() {
    let edits: [(&str, Edit, &str); 10] = [
        ("nothing", |_| Vec::new(), "no frame"),
        ("short", |frame| frame[..frame.len() - 1].to_vec(), "bytes of numbers"),
        ("long", |frame| [&frame[..], &[0; 4]].concat(), "bytes of numbers"),
        ("only the head", |frame| frame[..10].to_vec(), "ends early"),
        (
            "a huge length",
            |mut frame| {
                frame[4..8].fill(0xff);
                frame
            },
            "4294967295 bytes of metadata",
        ),
        ("one row", |frame| String::from_utf8_lossy(&frame).replace("\"rows\":2", "\"rows\":1").into_bytes(), "1 rows"),
        ("a web page", |_| b"<html><body>Welcome</body></html>".to_vec(), "a web page"),
        ("json", |_| br#"{"embeddings":[[1,2]]}"#.to_vec(), "no frame"),
        (
            "no metadata",
            |mut frame| {
                frame[8] = b'x';
                frame
            },
            "metadata cannot be read",
        ),
        (
            "a wide row",
            |frame| {
                let text = String::from_utf8_lossy(&frame).replace("\"dimension\":8", "\"dimension\":9");
                text.into_bytes()
            },
            "rows of 9 dimensions",
        ),
    ];
    for (what, edit, message) in edits {
        let error = error_of(RemoteDialect::Docvector, move || Act::Edited(edit)).await;
        assert_eq!((error.kind(), error.usage().requests), (ErrorKind::Protocol, 1), "{what}: {error}");
        assert!(error.message().contains(message), "{what}: {error}");
        assert!(error.partial().is_none() && error.bad_texts().is_empty(), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_row_that_is_not_finite_is_named_and_the_other_one_kept() {
    let fake = model("fake");
    let service = Service::scripted(Program::Own, &fake, |number, _| match number {
        0 => Act::Honest,
        _ => Act::Edited(|mut frame| {
            let first = 8 + metadata_length(&frame);
            frame[first..first + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            frame
        }),
    })
    .await;
    let remote = builder(&service.url(), RemoteDialect::Docvector, &fake).build().expect("valid");
    let error = remote.embed_documents(&TEXTS).await.expect_err("not finite");
    assert_eq!((error.kind(), error.bad_texts()[0].index), (ErrorKind::Protocol, 0), "{error}");
    let partial = error.partial().expect("the other row");
    assert_eq!(partial.indices(), [1]);
    assert_eq!(partial.embeddings().row(0), fake.vector_of(docvector_embed::InputKind::Document, TEXTS[1]));
}

#[tokio::test]
async fn rows_of_json_that_do_not_fit_are_no_result() {
    let unit = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    for (body, message) in [
        (json!([unit]), "1 vectors for 2 texts"),
        (json!([unit, unit, unit]), "more than 2 vectors"),
        (json!([unit, [1.0]]), "vector 1 has 1 components, not 8"),
        (json!([unit, [unit]]), "not the form"),
        (json!({"error": "none"}), "not the form"),
        (json!([unit, [2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]), "row 1 has length 2"),
        (json!("<html>"), "not the form"),
    ] {
        let id = super::space_of(&model("fake")).id().to_string();
        let error = error_of(RemoteDialect::TextEmbeddingsInference, move || {
            Act::json(200, &body, &[("x-embed-space", id.as_str()), ("x-embed-tokens", "6")])
        })
        .await;
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Protocol, Usage::of_request(Some(6))), "{error}");
        assert!(error.message().contains(message), "{error}");
    }
}

/// A web page with the status of success, whatever the dialect.
#[tokio::test]
async fn a_web_page_is_no_result_in_any_dialect() {
    for &(dialect, program) in SPOKEN {
        let fake = model("fake");
        let page = "<html><body>Welcome</body></html>";
        let service = Service::scripted(program, &fake, move |_, _| Act::reply(200, page)).await;
        let remote = builder(&service.url(), dialect, &fake).build().expect("valid");
        let error = remote.embed_documents(&TEXTS).await.expect_err("a web page");
        assert_eq!(error.kind(), ErrorKind::Protocol, "{dialect} at {program:?}: {error}");
    }
}

/// A reply that promises far more than the request can produce is not waited for, and its memory is not reserved.
#[tokio::test]
async fn a_huge_reply_is_not_read() {
    for dialect in [RemoteDialect::Docvector, RemoteDialect::TextEmbeddingsInference] {
        let error = error_of(dialect, || Act::HugeLength(1 << 40)).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{dialect}: {error}");
        assert!(error.message().contains("more than this request can produce"), "{error}");
    }
}

#[tokio::test]
async fn a_lost_connection_is_unavailable_and_may_have_cost_something() {
    let error = error_of(RemoteDialect::Docvector, || Act::Hangup).await;
    assert_eq!((error.kind(), error.usage()), (ErrorKind::Unavailable, Usage::of_unanswered()), "{error}");
}
