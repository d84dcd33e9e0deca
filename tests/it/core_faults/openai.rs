//! Replies of a provider on a network: a damaged row costs that row, and a broken server is not the caller's mistake.
#![cfg(feature = "openai")]

use docvector_embed::{
    BadText, BadTextReason, Batch, EmbedderExt, Error, ErrorKind, Space, Usage,
    cache::Memory,
    provider::{OpenAi, OpenAiBuilder},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::paid;
use crate::support::{
    server::{DIMENSIONS, Server, Step},
    stand_in,
};

const TEXTS: [&str; 3] = ["the first text", "the second", "one more"];

fn charged(texts: &[&str]) -> u64 {
    texts.iter().map(|text| stand_in::tokens(text)).sum()
}

fn builder(base_url: &str) -> OpenAiBuilder {
    let space = Space::builder("stand-in", DIMENSIONS).build().expect("valid");
    OpenAi::builder("stand-in").with_base_url(base_url).with_space(space)
}

fn client(server: &Server) -> OpenAi {
    builder(&server.base_url()).build().expect("valid")
}

/// Makes correct replies, except for the vector of one text, given by its index, wherever it stands in the reply.
fn damaged(text: usize, vector: &Value, reversed: bool) -> Step {
    let vector = vector.clone();
    Step::rows(move |rows| {
        rows[text]["embedding"] = vector.clone();
        if reversed {
            rows.reverse();
        }
    })
}

/// Vectors that no text can have.
fn impossible() -> Vec<(&'static str, Value)> {
    let with = |component: f32| {
        let mut row = stand_in::vector("any", DIMENSIONS);
        row[3] = component;
        json!(stand_in::in_base64(&row))
    };
    let mut with_null = json!(stand_in::vector("any", DIMENSIONS));
    with_null[3] = Value::Null;
    vec![
        ("null for a vector", Value::Null),
        ("null for a number", with_null),
        ("zeros", json!(vec![0.0_f32; DIMENSIONS])),
        ("base64 of zeros", json!(stand_in::in_base64(&[0.0; DIMENSIONS]))),
        ("base64 of NaN", with(f32::NAN)),
        ("base64 of infinity", with(f32::INFINITY)),
        ("integers that are zero", json!(vec![0; DIMENSIONS])),
        ("zero below zero", json!(vec![-0.0_f32; DIMENSIONS])),
        ("more than 32 bits hold", json!([&[1e39][..], &vec![0.0_f64; DIMENSIONS - 1][..]].concat())),
    ]
}

/// If one row among sound ones is zeros or NaN, the error names its text. The sound rows come with the error, and they
/// carry the cost of the whole reply.
#[tokio::test]
async fn one_impossible_row_does_not_cost_the_reply() {
    for (what, vector) in impossible() {
        for (text, reversed) in [(0, false), (1, false), (0, true), (2, true)] {
            let server = Server::start([damaged(text, &vector, reversed)]).await;
            let error = client(&server).embed_documents(&TEXTS).await.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
            assert_eq!(error.bad_texts(), [BadText::new(text, BadTextReason::Unusable)], "{what}: {error}");
            let partial = error.partial().unwrap_or_else(|| panic!("{what}: the sound rows are lost"));
            let sound: Vec<usize> = (0..TEXTS.len()).filter(|index| *index != text).collect();
            assert_eq!(partial.indices(), sound, "{what}");
            for (&index, row) in partial.indices().iter().zip(partial.embeddings().rows()) {
                assert_eq!(row, stand_in::vector(TEXTS[index], DIMENSIONS), "{what}: the row of text {index}");
            }
            assert_eq!(paid(partial.embeddings().usage()), (charged(&TEXTS), 1), "{what}");
            assert_eq!(paid(error.total_usage()), (charged(&TEXTS), 1), "{what}");
        }
    }
}

/// `embed_each` makes one request, and one text has no row.
#[tokio::test]
async fn one_impossible_row_is_one_text_without_a_row() {
    for (what, vector) in impossible() {
        let server = Server::start([damaged(1, &vector, false)]).await;
        let each = client(&server).embed_each(Batch::documents(&TEXTS)).await;
        let failed: Vec<usize> = each.errors().map(|(index, _)| index).collect();
        assert_eq!(failed, [1], "{what}");
        for index in [0, 2] {
            assert_eq!(each.result(index).expect("a row"), stand_in::vector(TEXTS[index], DIMENSIONS), "{what}");
        }
        assert_eq!(paid(each.usage()), (charged(&TEXTS), 1), "{what}");
    }
}

/// A cache keeps the sound rows, so that the next run pays for the one text only.
#[tokio::test]
async fn sound_rows_beside_an_impossible_one_are_stored() {
    let zeros = json!(vec![0.0_f32; DIMENSIONS]);
    let server = Server::start([damaged(1, &zeros, false), Step::Honest]).await;
    let cached = client(&server).cached(Memory::unbounded()).expect("one space");
    cached.embed_documents(&TEXTS).await.expect_err("zeros");
    let rows = cached.embed_documents(&TEXTS).await.expect("embeds");
    assert_eq!((rows.usage().cached, paid(rows.usage())), (2, (charged(&TEXTS[1..2]), 1)));
    assert_eq!(server.requests()[1].texts(), &TEXTS[1..2]);
}

/// Returns the error of a client whose greeting a server answers with this TLS record.
async fn answered_with(record: &'static [u8]) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}/v1", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut greeting = [0; 4096];
        let _ = stream.read(&mut greeting).await.expect("a greeting");
        stream.write_all(record).await.expect("takes it");
        // Until the client goes away.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let client = builder(&url).with_api_key("sk-encrypted").build().expect("valid");
    let error = client.embed_documents(&TEXTS).await.expect_err("an alert");
    drop(client);
    server.await.expect("it does not panic");
    error
}

/// If a server breaks off the handshake, it is broken or its gateway is. It may work later, and another provider may
/// now.
#[tokio::test]
async fn a_server_that_breaks_off_the_handshake_is_unavailable() {
    // A failed handshake, an internal error, and a name that the gateway does not know at the moment.
    let records: [&[u8]; 3] =
        [&[0x15, 3, 3, 0, 2, 2, 0x28], &[0x15, 3, 3, 0, 2, 2, 0x50], &[0x15, 3, 3, 0, 2, 2, 0x70]];
    for record in records {
        let error = answered_with(record).await;
        assert_eq!((error.kind(), error.usage()), (ErrorKind::Unavailable, Usage::ZERO), "{record:?}: {error}");
        assert!(error.is_retryable(), "{record:?}: {error}");
        assert!(error.should_fall_back(), "{record:?}: {error}");
    }
}

/// A redirect, or an address where nothing answers, is a mistake in the configuration of that provider alone. Asking it
/// again is of no use; asking another one is.
#[tokio::test]
async fn a_wrong_address_is_fallen_back_from_and_not_tried_again() {
    let steps: [(u16, fn() -> Step); 4] = [
        (302, || Step::Redirect(302, "/elsewhere".into())),
        (307, || Step::Redirect(307, "/elsewhere".into())),
        (404, || Step::status(404)),
        (404, || Step::refusal(404, "invalid_request_error", Some("model_not_found"), "No such model.")),
    ];
    for (status, step) in steps {
        let server = Server::start([step()]).await;
        let error = client(&server).embed_documents(&TEXTS).await.expect_err("no answer");
        assert_eq!((error.kind(), error.status()), (ErrorKind::Config, Some(status)), "{error}");
        assert!(!error.is_retryable(), "{error}");
        assert!(error.should_fall_back(), "{error}");
    }
}
