//! What happens to requests on their way.

use std::{io, time::Duration};

use docvector_embed::testing::{Fault, Route};
use serde_json::json;

use super::{client::Client, jsonl, line_of, lines, start};

#[test]
fn a_scripted_answer_comes_as_often_as_asked_and_has_no_effect() {
    let (simulator, client) = start();
    simulator.fail_next(Route::CreateFile, 1, Fault::html(502));
    let page = client.try_upload("a.jsonl", &[("purpose", "batch")], &vec![b' '; 4 << 20]).expect("an answer");
    assert_eq!((page.status, page.header("content-type")), (502, Some("text/html")));
    assert!(page.body.starts_with(b"<html>"));

    let file = client.upload(&jsonl(&lines(1)));
    let fault = Fault::error(429, "rate_limit_exceeded", "Slow down.").with_header("Retry-After", "3");
    simulator.fail_next(Route::CreateBatch, 2, fault.with_header("not\na header", "x"));
    simulator.fail_next(Route::CreateBatch, 1, Fault::error(401, "invalid_api_key", "Who?"));
    for _ in 0..2 {
        let refused = client.try_create(&file).expect("an answer");
        assert_eq!(refused.refusal(), (429, Some("rate_limit_exceeded".to_owned())));
        assert_eq!(refused.header("retry-after"), Some("3"));
    }
    assert_eq!(client.try_create(&file).expect("an answer").refusal().0, 401);
    for (code, kind) in [("insufficient_quota", "insufficient_quota"), ("other", "invalid_request_error")] {
        simulator.fail_next(Route::Models, 1, Fault::error(429, code, "Pay."));
        assert_eq!(client.get("/v1/models").json()["error"]["type"], kind);
    }
    simulator.fail_next(Route::GetBatch, 1, Fault::answer(200, "{\"half\":"));
    let id = client.create(&file);
    assert_eq!(client.get(&format!("/v1/batches/{id}")).body, b"{\"half\":");
    assert_eq!(client.status(&id), "validating");
    let counts = simulator.counts();
    assert_eq!((counts.uploads, counts.creates, counts.polls), (1, 1, 1));
    assert_eq!((counts.faults, counts.refused, counts.requests), (7, 0, 10));

    let typed = Fault::answer(200, "{}").with_header("Content-Type", "text/plain").with_header("Content-Length", "1");
    simulator.fail_next(Route::ListFiles, 1, typed.with_header("x-one", "1").with_header("x-one", "2"));
    let reply = client.get("/v1/files");
    let heads = |name: &str| reply.head.to_lowercase().matches(&format!("\n{name}: ")).count();
    assert_eq!((reply.header("content-type"), reply.body.as_slice()), (Some("text/plain"), b"{}".as_slice()));
    assert_eq!((heads("content-type"), heads("content-length"), heads("x-one")), (1, 1, 2));

    simulator.fail_next(Route::ListFiles, 9, Fault::cut());
    simulator.clear_faults();
    assert_eq!(client.get("/v1/files").status, 200);
}

#[test]
fn a_create_whose_answer_is_lost_has_made_the_batch() {
    let (simulator, mut client) = start();
    let file = client.upload(&jsonl(&lines(1)));
    simulator.fail_next(Route::CreateBatch, 1, Fault::lost_answer());
    simulator.fail_next(Route::CreateBatch, 1, Fault::held_answer());
    assert!(client.try_create(&file).is_err());
    assert_eq!((simulator.counts().creates, simulator.batches().len()), (1, 1));
    client.patience = Duration::from_millis(200);
    let kind = client.try_create(&file).expect_err("held").kind();
    assert!(matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{kind}");
    assert_eq!(client.get_json("/v1/batches")["data"][1]["metadata"], json!({"job": "a job"}));
    assert_eq!(simulator.counts().creates, 2);
    let batches = simulator.batches();
    assert_eq!(batches[0].input_digest, batches[1].input_digest);
}

#[test]
fn a_request_that_is_cut_or_hangs_has_no_effect() {
    let (simulator, mut client) = start();
    let file = client.upload(&jsonl(&lines(1)));
    simulator.fail_next(Route::CreateBatch, 1, Fault::cut());
    simulator.fail_next(Route::CreateBatch, 1, Fault::cut_upload(1));
    simulator.fail_next(Route::CreateBatch, 1, Fault::hang());
    assert!(client.try_create(&file).is_err() && client.try_create(&file).is_err());
    client.patience = Duration::from_millis(200);
    assert!(client.try_create(&file).is_err());
    assert_eq!((simulator.counts().creates, simulator.batches().len()), (0, 0));
    client.create(&file);
}

#[test]
fn an_upload_that_is_cut_is_no_file() {
    let (simulator, client) = start();
    for after in [0, 100, 1 << 20, 1 << 40] {
        simulator.fail_next(Route::CreateFile, 1, Fault::cut_upload(after));
        let cut = client.try_upload("a.jsonl", &[("purpose", "batch")], &vec![b'\n'; 4 << 20]);
        assert!(cut.is_err(), "after {after} bytes: {cut:?}");
    }
    assert_eq!(simulator.counts().uploads, 0);
    assert_eq!(client.get_json("/v1/files")["data"], json!([]));
    client.upload(&jsonl(&lines(1)));
}

#[test]
fn an_answer_can_be_cut_or_slow() {
    let (simulator, client) = start();
    let content = jsonl(&[line_of("a", &json!({"model": "x", "input": "y".repeat(1 << 20)}))]);
    let path = format!("/v1/files/{}/content", client.upload(&content));
    for after in [0, 1, 70_000, content.len() as u64 - 1] {
        simulator.fail_next(Route::FileContent, 1, Fault::cut_answer(after));
        assert!(client.try_get(&path).is_err(), "after {after} bytes");
    }
    simulator.fail_next(Route::FileContent, 1, Fault::cut_answer(content.len() as u64));
    assert_eq!(client.get(&path).body, content);
    simulator.fail_next(Route::FileContent, 1, Fault::slow_answer(100_000, Duration::from_millis(1)));
    assert_eq!(client.get(&path).body, content);
    simulator.fail_next(Route::FileContent, 1, Fault::delay(Duration::from_millis(1)));
    assert_eq!(client.get(&path).body, content);
    assert_eq!(simulator.counts().downloads, 7);
}

#[test]
fn dropping_the_last_clone_ends_the_server() {
    let (simulator, client) = start();
    simulator.fail_next(Route::ListFiles, 1, Fault::hang());
    let clone = simulator.clone();
    drop(simulator);
    let other = Client::new(clone.address());
    let waiting = std::thread::spawn(move || other.try_get("/v1/files").is_err());
    while clone.counts().faults == 0 {
        std::thread::yield_now();
    }
    drop(clone);
    assert!(waiting.join().expect("no panic"), "the request that hung was cut");
    assert!(client.try_get("/v1/files").is_err());
}
