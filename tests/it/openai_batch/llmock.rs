//! Carries jobs through the batch routes of llmock, which nobody here wrote.
//!
//! llmock really waits: a batch is `validating` for three seconds and then `completed` at once. It differs from OpenAI in
//! this: it ignores `dimensions` and `encoding_format`; its batches have neither `model` nor `usage`; its files have no
//! `expires_at`; the list has the oldest of one second first; a batch in which a line fails has `errors` though it
//! completed; its files of results do not end with a line feed; a line that it cannot read has no `custom_id`; and it cuts
//! lines where Python's `splitlines` does, at U+2028 too.
#![cfg(unix)]

use std::{path::Path, sync::Arc, time::Duration};

use docvector_embed::{
    Batch,
    provider::{Job, JobState, OpenAiBatch, OpenAiBatchBuilder},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{llmock::Llmock, numbered};

fn builder(server: &Llmock, folder: &Path) -> OpenAiBatchBuilder {
    let builder = OpenAiBatch::builder(server.openai(), folder).with_line_texts(4).with_batch_texts(12);
    let builder = builder.with_poll_interval(Duration::from_millis(200), Duration::from_millis(500));
    builder.with_list_patience(Duration::from_secs(2))
}

fn provider(server: &Llmock, folder: &Path) -> OpenAiBatch {
    builder(server, folder).build().expect("it opens")
}

async fn submit(provider: &OpenAiBatch, texts: &[String]) -> Job {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    provider.submit(Batch::documents(&texts)).await.expect("it is submitted")
}

/// Returns how many requests of this method and path were answered with this status.
fn count(server: &Llmock, method: &str, path: &str, status: u16) -> usize {
    let seen = server.get("/_llmock/requests");
    let seen = seen["requests"].as_array().expect("requests");
    let is_such = |seen: &&Value| seen["method"] == method && seen["path"] == path && seen["status"] == status;
    seen.iter().filter(is_such).count()
}

fn is_post(path: &str) -> bool {
    path.starts_with("POST ")
}

async fn assert_rows(provider: &OpenAiBatch, id: &str, server: &Llmock, texts: &[String]) {
    let job = provider.resume(id).await.expect("it is there");
    let rows = job.embeddings().await.expect("all rows");
    assert_eq!(rows.len(), texts.len());
    for (text, row) in texts.iter().zip(rows.rows()) {
        assert_eq!(row, server.vector(text), "{text}");
    }
}

#[tokio::test]
async fn a_job_is_carried_through() {
    let (server, folder) = (Llmock::start(&[]), tempfile::tempdir().expect("a folder"));
    let mut texts = numbered(30);
    texts[3] = "é, \u{1f600}, \"quotes\", a \\ and a\nline feed".to_owned();
    // Where some readers of lines see an end.
    texts[7] = "one\u{2028}two\u{2029}three\u{85}four\u{b}five\u{c}six\u{1c}seven".to_owned();
    let provider = provider(&server, folder.path());
    let job = submit(&provider, &texts).await;
    let report = job.wait().await.expect("it ends");
    assert_eq!((report.state, report.answered, report.failed.len()), (JobState::Completed, 30, 0), "{report}");
    assert_eq!(job.status().batches, 3, "{}", job.status());
    for path in ["/v1/files", "/v1/batches"] {
        assert_eq!(count(&server, "POST", path, 200), 3, "{path}");
    }
    server.judge();
    server.report();
    assert_rows(&provider, job.id(), &server, &texts).await;
}

#[tokio::test]
async fn requests_that_fail_on_their_way_are_made_again_as_llmock_wants() {
    let (server, folder) = (Llmock::start(&[]), tempfile::tempdir().expect("a folder"));
    let texts = numbered(10);
    for (path, status, times) in [
        ("/v1/files", 503, 2),
        // It has no effect, which the client cannot know: it looks for the batch before it creates one again.
        ("/v1/batches", 502, 1),
        ("/v1/batches/*", 500, 2),
        ("/v1/files/*/content", 429, 1),
    ] {
        server.script(&json!({"type": "fail", "status": status, "times": times, "match": {"path": path}}));
    }
    let provider = provider(&server, folder.path());
    let job = submit(&provider, &texts).await;
    let report = job.wait().await.expect("it ends");
    assert_eq!((report.state, report.answered), (JobState::Completed, 10), "{report}");
    assert_eq!((count(&server, "POST", "/v1/batches", 502), count(&server, "POST", "/v1/batches", 200)), (1, 1));
    assert!(count(&server, "GET", "/v1/batches", 200) > 0, "it looked for the batch");
    assert_eq!(count(&server, "POST", "/v1/files", 200), 1);
    let verdict = server.get("/_llmock/verdict");
    // A second upload has another boundary and a second create another token, so llmock does not know them again and
    // takes the first ones for given up.
    let is_known = |finding: &Value| finding["code"] == "gave_up" && finding["path"].as_str().is_some_and(is_post);
    let found = verdict["findings"].as_array().expect("findings");
    assert!(verdict["errors"] == 0 && found.len() == 3 && found.iter().all(is_known), "{verdict:#}");
    assert_rows(&provider, job.id(), &server, &texts).await;
}

/// llmock holds a request before it has its effect, which it has even if the client is gone by then: the batch comes up
/// after the client began to look for it.
#[tokio::test]
async fn a_create_that_takes_effect_when_its_client_is_gone_is_found() {
    let (server, folder) = (Llmock::start(&[]), tempfile::tempdir().expect("a folder"));
    let texts = numbered(10);
    server.script(&json!({"type": "delay", "seconds": 3, "match": {"path": "/v1/batches"}}));
    let builder = || builder(&server, folder.path()).with_list_patience(Duration::from_secs(30));
    let id = {
        let (creates, mut is_creating) = watch::channel(false);
        let hook = move |step| _ = creates.send_replace(step == "creating");
        let provider = builder().with_step_hook(Arc::new(hook)).build().expect("it opens");
        let job = submit(&provider, &texts).await;
        is_creating.wait_for(|is_creating| *is_creating).await.expect("it goes on");
        // The request comes next. llmock lists requests when they end, so nothing says when it is there.
        tokio::time::sleep(Duration::from_millis(500)).await;
        job.id().to_owned()
    };
    let provider = builder().build().expect("it opens");
    let report = provider.resume(&id).await.expect("it is there").wait().await.expect("it ends");
    assert_eq!((report.state, report.answered), (JobState::Completed, 10), "{report}");
    assert_eq!(count(&server, "POST", "/v1/batches", 200), 1, "it was created once");
    assert!(count(&server, "GET", "/v1/batches", 200) > 0, "it was found in the list");
    assert_rows(&provider, &id, &server, &texts).await;
}

#[tokio::test]
async fn a_job_is_cancelled_in_flight() {
    let (server, folder) = (Llmock::start(&[]), tempfile::tempdir().expect("a folder"));
    let texts = numbered(10);
    let provider = provider(&server, folder.path());
    let job = submit(&provider, &texts).await;
    while count(&server, "POST", "/v1/batches", 200) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    job.cancel().await.expect("it is asked for");
    let report = job.wait().await.expect("it ends");
    // llmock's cancelled batches keep nothing.
    assert_eq!((report.state, report.answered), (JobState::Cancelled, 0), "{report}");
    server.judge();
}
