//! `Remote` against llmock, a server of OpenAI's API that nobody here wrote.

use docvector_embed::{EmbedderExt, ErrorKind, provider::RemoteDialect, wrap::RetryPolicy};
use serde_json::json;

use super::TEXTS;
use crate::support::llmock::Llmock;

#[tokio::test]
async fn a_server_of_openais_api_is_asked_and_proved() {
    let server = Llmock::start(&[]);
    let remote = server.remote().with_dialect(RemoteDialect::OpenAi).build().expect("valid");
    let rows = remote.embed_documents(&TEXTS).await.expect("rows");
    for (text, row) in TEXTS.iter().zip(rows.rows()) {
        assert_eq!(row, server.vector(text));
    }
    // Failures that pass are the business of a `Retry`; after one, the server is proved again.
    server.script(&json!({"type": "fail", "status": 503, "times": 1}));
    let again = remote.clone().retry(RetryPolicy::default()).embed_documents(&TEXTS).await.expect("rows");
    assert_eq!(again.row(0), rows.row(0));
    server.script(&json!({"type": "fail", "status": 401}));
    let error = remote.embed_documents(&TEXTS).await.expect_err("no key");
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
}

/// The dialect is found: a server without `/info` whose space is known speaks OpenAI's.
#[tokio::test]
async fn the_dialect_is_found() {
    let server = Llmock::start(&[]);
    let remote = server.remote().connect().await.expect("connects");
    let rows = remote.embed_documents(&TEXTS).await.expect("rows");
    assert_eq!(rows.row(1), server.vector(TEXTS[1]));
}
