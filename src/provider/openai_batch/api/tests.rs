//! Checks each call against the simulator: its effect, and its error for every fault.

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

use serde_json::{Value, json};

use super::{super::batch_object::BatchStatus, *};
use crate::{
    provider::OpenAi,
    testing::{BatchPlan, BatchState, Fault, FileIdForm, Route, Simulator},
};

const KEY: &str = "sk-planted-4711";
const TIMEOUT: Duration = Duration::from_millis(300);

fn api_at(base_url: &str, timeout: Duration) -> Api {
    let builder = OpenAi::builder("text-embedding-3-small").with_base_url(base_url).with_api_key(KEY);
    Api::new(&builder.with_timeout(timeout).build().expect("valid").0).expect("a client")
}

fn api_of(simulator: &Simulator) -> Api {
    api_at(&simulator.base_url(), Duration::from_secs(30))
}

/// Returns an input file of so many lines.
fn input(lines: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for number in 0..lines {
        let body = json!({"model": "text-embedding-3-small", "input": format!("text {number}"), "dimensions": 4});
        let line = json!({"custom_id": number.to_string(), "method": "POST", "url": "/v1/embeddings", "body": body});
        writeln!(file, "{line}").expect("written");
    }
    file
}

/// Reads a file to its end into `out`, as far as it comes.
async fn read_into(api: &Api, file: &str, out: &mut Vec<u8>) -> Result<()> {
    let mut content = api.content(file).await?;
    while let Some(piece) = content.next().await? {
        out.extend_from_slice(piece.as_ref());
    }
    Ok(())
}

async fn content_of(api: &Api, file: &str) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    read_into(api, file, &mut content).await?;
    Ok(content)
}

/// Uploads a file of one line and creates a batch of it.
async fn new_batch(api: &Api) -> BatchObject {
    let file = api.upload(input(1).path(), "in.jsonl").await.expect("an upload");
    api.create(&file.id, &[("job", "mine")]).await.expect("a batch")
}

/// Checks what every error has to keep to.
fn check(error: &Error, kind: ErrorKind, may_have: bool) {
    assert_eq!((error.kind(), may_have_had_effect(error)), (kind, may_have), "{error:?}");
    assert!(error.charges().is_none(), "a request is free of charge: {error:?}");
    let shown = format!("{error:?} {:?}", std::error::Error::source(error));
    assert!(!shown.contains("planted") && !shown.contains('\n'), "{shown}");
}

#[tokio::test]
async fn a_batch_goes_from_the_upload_to_the_results() {
    let simulator = Simulator::builder().with_api_key(KEY).start().expect("a simulator");
    let api = api_of(&simulator);
    // More than one piece is read from the disk.
    let input = input(3000);
    assert!(input.as_file().metadata().expect("a file").len() > 300_000);
    let file = api.upload(input.path(), "shard \"1\".jsonl").await.expect("an upload");
    assert_eq!(file.created_at, Some(simulator.unix_time()));
    assert!(content_of(&api, &file.id).await.expect("the content") == std::fs::read(input.path()).expect("a file"));

    let batch = api.create(&file.id, &[("job", "mine"), ("shard", "1")]).await.expect("a batch");
    assert_eq!((&batch.status, batch.input_file_id.as_deref()), (&BatchStatus::Validating, Some(file.id.as_str())));
    assert_eq!((batch.metadata["job"].as_str(), batch.metadata["shard"].as_str()), ("mine", "1"));
    assert_eq!((&batch.output_file_id, &batch.error_file_id, batch.errors.len()), (&None, &None, 0));

    simulator.advance(Duration::from_secs(3600));
    let batch = api.batch(&batch.id).await.expect("a batch");
    assert!(batch.status == BatchStatus::Completed && batch.status.is_terminal());
    assert_eq!((batch.total, batch.completed), (Some(3000), Some(3000)));
    let output = content_of(&api, batch.output_file_id.as_deref().expect("a file")).await.expect("the content");
    assert_eq!(output.iter().filter(|&&byte| byte == b'\n').count(), 3000);

    api.delete(&file.id).await.expect("deleted");
    let gone = content_of(&api, &file.id).await.expect_err("deleted");
    check(&gone, ErrorKind::Config, false);
    assert_eq!((gone.status(), simulator.counts().deletes), (Some(404), 1));
    assert!(gone.message().contains(&file.id), "{gone}");
    assert!(!format!("{api:?}").contains("planted"), "{api:?}");
}

#[tokio::test]
async fn a_cancelled_batch_says_so_and_an_ended_one_cannot_be_cancelled() {
    let simulator = Simulator::start().expect("a simulator");
    let api = api_of(&simulator);
    let batch = new_batch(&api).await;
    assert_eq!(api.cancel(&batch.id).await.expect("cancelled").status, BatchStatus::Cancelling);
    simulator.advance(Duration::from_secs(600));
    assert_eq!(api.batch(&batch.id).await.expect("a batch").status, BatchStatus::Cancelled);
    let error = api.cancel(&batch.id).await.expect_err("it has ended");
    check(&error, ErrorKind::Unavailable, true);
    assert_eq!(error.status(), Some(409));
    assert!(error.request_id().is_some_and(|id| id.starts_with("req_simulated_")), "{error:?}");
    check(&api.cancel("batch_none").await.expect_err("none"), ErrorKind::Config, false);
}

#[tokio::test]
async fn the_list_has_every_batch_once_the_newest_first() {
    let simulator = Simulator::start().expect("a simulator");
    let api = api_of(&simulator);
    let page = api.batches(None).await.expect("a page");
    assert_eq!((page.batches.len(), page.has_more, page.last_id), (0, false, None));
    let file = api.upload(input(1).path(), "in.jsonl").await.expect("an upload");
    let mut made = Vec::new();
    for number in 0..250 {
        made.push(api.create(&file.id, &[("number", &number.to_string())]).await.expect("a batch").id);
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = api.batches(after.as_deref()).await.expect("a page");
        listed.extend(page.batches.into_iter().map(|batch| (batch.metadata["number"].clone(), batch.id)));
        if !page.has_more {
            break;
        }
        after = page.last_id;
    }
    let made: Vec<(String, String)> = (0..250).map(|i| i.to_string()).zip(made).rev().collect();
    assert_eq!(listed, made);
    assert_eq!(simulator.counts().lists, 4);
    check(&api.batches(Some("batch_none&limit=1")).await.expect_err("none"), ErrorKind::Config, false);
}

#[tokio::test]
async fn a_failed_batch_tells_why_and_files_that_are_not_there_have_no_id() {
    let simulator = Simulator::start().expect("a simulator");
    let api = api_of(&simulator);
    let ended = async |plan: BatchPlan| {
        simulator.plan_next(plan);
        let id = new_batch(&api).await.id;
        simulator.advance(Duration::from_secs(1));
        api.batch(&id).await.expect("a batch")
    };
    let words = "Enqueued token limit reached for m in organization org-x. Limit: 3,000,000 enqueued tokens.";
    let failed = ended(BatchPlan::instant().with_failure("token_limit_exceeded", words)).await;
    assert_eq!(failed.status, BatchStatus::Failed);
    assert_eq!(failed.errors[0].code, "token_limit_exceeded");
    assert_eq!(batch_object::enqueued_limit(&failed.errors), Some(3_000_000));
    assert!(!format!("{failed:?}").contains("Enqueued"), "{failed:?}");

    for form in [FileIdForm::Usual, FileIdForm::EmptyIfNone, FileIdForm::AbsentIfNone, FileIdForm::AlwaysNull] {
        let completed = ended(BatchPlan::instant().with_error_file_id(form)).await;
        assert!(completed.error_file_id.is_none() && completed.output_file_id.is_some(), "{form:?}");
    }
    let plan = BatchPlan::instant().with_state_shown_as(BatchState::Completed, "archiving");
    let odd = ended(plan.with_extra_field("new", "{\"a\": 1}")).await;
    assert_eq!(odd.status, BatchStatus::Unknown("archiving".to_owned()));
}

/// Calls every route but the content once, and checks each error.
async fn each_fails(fault: &Fault, timeout: Duration, kind: ErrorKind, may_have: bool) {
    let simulator = Simulator::start().expect("a simulator");
    let batch = new_batch(&api_of(&simulator)).await;
    let file = batch.input_file_id.expect("a file");
    let api = api_at(&simulator.base_url(), timeout);
    let (id, input) = (batch.id.as_str(), input(1));
    for route in [Route::CreateFile, Route::CreateBatch, Route::GetBatch, Route::ListBatches, Route::CancelBatch] {
        simulator.fail_next(route, 1, fault.clone());
    }
    simulator.fail_next(Route::FileContent, 1, fault.clone());
    simulator.fail_next(Route::DeleteFile, 1, fault.clone());
    let before = simulator.counts().requests;
    for error in [
        api.upload(input.path(), "in.jsonl").await.expect_err("upload"),
        api.create(&file, &[]).await.expect_err("create"),
        api.batch(id).await.expect_err("batch"),
        api.batches(None).await.expect_err("batches"),
        api.cancel(id).await.expect_err("cancel"),
        content_of(&api, &file).await.expect_err("content"),
        api.delete(&file).await.expect_err("delete"),
    ] {
        check(&error, kind, may_have);
    }
    assert_eq!(simulator.counts().requests - before, 7, "each call is one request");
}

#[tokio::test]
async fn each_fault_has_its_kind_and_says_whether_there_was_an_effect() {
    use ErrorKind::{Auth, Config, Protocol, QuotaExhausted, RateLimited, Timeout, Unavailable};
    let long = Duration::from_secs(30);
    for (fault, kind, may_have) in [
        (Fault::html(502), Unavailable, true),
        (Fault::html(503), Unavailable, true),
        (Fault::html(408), Timeout, true),
        (Fault::html(499), Unavailable, true),
        (Fault::html(403), Auth, false),
        (Fault::error(401, "invalid_api_key", "Incorrect API key provided: sk-planted-4711."), Auth, false),
        (Fault::error(429, "rate_limit_exceeded", "Limit 3, Requested 4."), RateLimited, false),
        (Fault::error(429, "insufficient_quota", "No money."), QuotaExhausted, false),
        (Fault::error(400, "billing_hard_limit_reached", "No money."), QuotaExhausted, false),
        (Fault::error(400, "invalid_value", "Not so."), Config, false),
        (Fault::error(404, "not_found", "None."), Config, false),
        (Fault::error(413, "too_large", "Too large."), Config, false),
        (Fault::error(500, "server_error", "context length"), Unavailable, true),
        (Fault::answer(302, "").with_header("location", "/v1/models"), Config, true),
        (Fault::cut(), Unavailable, true),
        (Fault::lost_answer(), Unavailable, true),
        (Fault::answer(206, "{}"), Protocol, true),
    ] {
        each_fails(&fault, long, kind, may_have).await;
    }
    for fault in [Fault::hang(), Fault::held_answer()] {
        each_fails(&fault, TIMEOUT, Timeout, true).await;
    }
}

#[tokio::test]
async fn an_error_has_what_the_server_tells() {
    let simulator = Simulator::start().expect("a simulator");
    let api = api_of(&simulator);
    let fault = Fault::error(429, "rate_limit_exceeded", "Slowly.").with_header("retry-after", "7");
    simulator.fail_next(Route::ListBatches, 1, fault.with_header("x-request-id", "req_7"));
    let error = api.batches(None).await.expect_err("refused");
    assert_eq!((error.status(), error.retry_after()), (Some(429), Some(Duration::from_secs(7))));
    assert_eq!((error.provider_code(), error.request_id()), (Some("rate_limit_exceeded"), Some("req_7")));
    assert_eq!(error.provider_message(), Some("Slowly."));
    assert!(error.to_string().contains(": listing batches: too many requests"), "{error}");
    // A server that repeats the key: neither its id of the request nor an id in a reply shows it.
    simulator.fail_next(Route::GetBatch, 1, Fault::html(500).with_header("x-request-id", KEY));
    let error = api.batch(KEY).await.expect_err("refused");
    check(&error, ErrorKind::Unavailable, true);
    assert_eq!(error.request_id(), None);
}

#[tokio::test]
async fn without_a_connection_there_was_no_effect() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let api = api_at(&format!("http://{closed}/v1"), Duration::from_secs(30));
    check(&api.create("file-1", &[]).await.expect_err("no server"), ErrorKind::Unavailable, false);
    check(&api.cancel("batch_1").await.expect_err("no server"), ErrorKind::Unavailable, false);
    // Nothing is sent for what can be no id: it would change the path.
    for id in ["", ".", "..", &"x".repeat(257), "a\nb"] {
        check(&api.cancel(id).await.expect_err("no id"), ErrorKind::Config, false);
        check(&content_of(&api, id).await.expect_err("no id"), ErrorKind::Config, false);
        check(&api.delete(id).await.expect_err("no id"), ErrorKind::Config, false);
        check(&api.batch(id).await.expect_err("no id"), ErrorKind::Config, false);
    }
    let missing = api.upload(Path::new("/there/is/no/such.jsonl"), "in.jsonl").await.expect_err("no file");
    assert_eq!(missing.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn an_id_is_one_segment_of_the_path() {
    let openai = OpenAi::builder("text-embedding-3-small").with_api_key(KEY);
    let api = |builder: crate::provider::OpenAiBuilder| Api::new(&builder.build().expect("valid").0).expect("an API");
    let url = |api: &Api, id: &str| api.url(&["files", id, "content"]).to_string();
    assert_eq!(url(&api(openai.clone()), "file-1"), "https://api.openai.com/v1/files/file-1/content");
    assert_eq!(
        url(&api(openai.clone()), "a/../b?c#d%2f"),
        "https://api.openai.com/v1/files/a%2F..%2Fb%3Fc%23d%252f/content"
    );
    let azure = |version| api(openai.clone().with_azure("https://x.openai.azure.com", "my dep/1", version));
    assert_eq!(url(&azure(None), "file-1"), "https://x.openai.azure.com/openai/v1/files/file-1/content");
    let dated = "https://x.openai.azure.com/openai/files/file-1/content?api-version=2024-10-21";
    assert_eq!(url(&azure(Some("2024-10-21")), "file-1"), dated);
}

#[tokio::test]
async fn a_reply_that_is_something_else_is_refused() {
    let simulator = Simulator::start().expect("a simulator");
    let api = api_of(&simulator);
    let batch = new_batch(&api).await;
    let file = batch.input_file_id.expect("a file");
    let good = json!({"id": batch.id, "status": "in_progress"});
    let with = |name: &str, value: Value| {
        let mut odd = good.clone();
        odd[name] = value;
        odd.to_string()
    };
    for answer in [
        String::new(),
        "<html>a portal</html>".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        good.to_string()[..20].to_owned(),
        with("id", json!("")),
        with("id", json!("x".repeat(300))),
        with("id", json!(7)),
        with("status", json!(null)),
    ] {
        for route in [Route::GetBatch, Route::CreateBatch, Route::CancelBatch, Route::ListBatches] {
            simulator.fail_next(route, 1, Fault::answer(200, answer.clone()));
        }
        check(&api.batch(&batch.id).await.expect_err("batch"), ErrorKind::Protocol, true);
        check(&api.create(&file, &[]).await.expect_err("create"), ErrorKind::Protocol, true);
        check(&api.cancel(&batch.id).await.expect_err("cancel"), ErrorKind::Protocol, true);
        check(&api.batches(None).await.expect_err("list"), ErrorKind::Protocol, true);
    }
    for route in [Route::GetBatch, Route::CancelBatch] {
        simulator.fail_next(route, 1, Fault::answer(200, with("id", json!("batch_other"))));
    }
    check(&api.batch(&batch.id).await.expect_err("another one"), ErrorKind::Protocol, true);
    check(&api.cancel(&batch.id).await.expect_err("another one"), ErrorKind::Protocol, true);
    for answer in [json!({"id": ""}), json!({"object": "file"}), json!({"id": 7})] {
        simulator.fail_next(Route::CreateFile, 1, Fault::answer(200, answer.to_string()));
        let error = api.upload(input(1).path(), "in.jsonl").await.expect_err("no id");
        check(&error, ErrorKind::Protocol, true);
    }
    simulator.fail_next(Route::DeleteFile, 1, Fault::answer(200, json!({"deleted": false}).to_string()));
    check(&api.delete(&file).await.expect_err("not deleted"), ErrorKind::Protocol, true);
    simulator.fail_next(Route::DeleteFile, 1, Fault::answer(204, ""));
    api.delete(&file).await.expect("deleted");
}

#[test]
fn a_page_goes_on_or_is_none() {
    let batch = |id: &str| json!({"id": id, "status": "completed"});
    let page = |value: Value, after: Option<&str>| page_of(&value, after).map(|page| (page.has_more, page.last_id));
    let last = |id: &str| Some(id.to_owned());
    assert_eq!(page(json!({"data": [batch("a"), batch("b")], "has_more": true}), None), Some((true, last("b"))));
    assert_eq!(page(json!({"data": [batch("a")], "has_more": true, "last_id": "x"}), None), Some((true, last("x"))));
    assert_eq!(page(json!({"data": []}), Some("a")), Some((false, None)));
    // A server that does not say whether there is more has more if the page is full.
    let many: Vec<Value> = (0..PAGE).map(|number| batch(&number.to_string())).collect();
    assert_eq!(page(json!({"data": many}), None), Some((true, last("99"))));
    assert_eq!(page(json!({"data": many[1..]}), None), Some((false, last("99"))));
    // It would never end.
    assert_eq!(page(json!({"data": [batch("a")], "has_more": true}), Some("a")), None);
    assert_eq!(page(json!({"data": [], "has_more": true}), None), None);
    // One that cannot be read may be the one that is looked for, if it has our mark.
    let marked = json!({"id": "b", "metadata": {"docvector_token": "t"}});
    assert_eq!(page(json!({"data": [batch("a"), marked]}), None), None);
    assert_eq!(page(json!({"data": [batch("a"), {"id": "b"}]}), None), Some((false, Some("a".to_owned()))));
    assert_eq!(page(json!({"data": {}}), None), None);
}

#[tokio::test]
async fn content_that_is_cut_or_late_is_never_whole() {
    let simulator = Simulator::start().expect("a simulator");
    let file = api_of(&simulator).upload(input(100).path(), "in.jsonl").await.expect("an upload").id;
    let whole = content_of(&api_of(&simulator), &file).await.expect("the content");
    for after in [0, 1, whole.len() as u64 / 2, whole.len() as u64 - 1] {
        simulator.fail_next(Route::FileContent, 1, Fault::cut_answer(after));
        let mut got = Vec::new();
        let error = read_into(&api_of(&simulator), &file, &mut got).await.expect_err("cut");
        check(&error, ErrorKind::Unavailable, true);
        assert!(whole.starts_with(&got) && got.len() as u64 <= after, "{after}");
    }
    // It takes longer than the time limit, but no wait for bytes does.
    let second = Duration::from_secs(1);
    let pieces = whole.len().div_ceil(8);
    simulator.fail_next(Route::FileContent, 1, Fault::slow_answer(pieces, second / 5));
    assert!(content_of(&api_at(&simulator.base_url(), second), &file).await.expect("slow") == whole);
    simulator.fail_next(Route::FileContent, 1, Fault::slow_answer(pieces, Duration::from_secs(600)));
    check(
        &content_of(&api_at(&simulator.base_url(), TIMEOUT), &file).await.expect_err("late"),
        ErrorKind::Timeout,
        true,
    );
    let api = api_of(&simulator);
    let gzip = Fault::answer(200, "x").with_header("content-encoding", "gzip");
    simulator.fail_next(Route::FileContent, 1, gzip);
    check(&content_of(&api, &file).await.expect_err("compressed"), ErrorKind::Protocol, true);
}

/// Answers one request with these bytes and closes the connection. Returns the base URL, and what was asked.
fn serve_once(answer: &'static [u8]) -> (String, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let serve = move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).expect("a request");
            request.extend_from_slice(&piece[..read]);
        }
        stream.write_all(answer).expect("answered");
        request
    };
    (url, std::thread::spawn(serve))
}

#[tokio::test]
async fn content_without_a_known_end_is_refused() {
    let second = Duration::from_secs(30);
    let (url, asked) = serve_once(b"HTTP/1.0 200 OK\r\n\r\na line\n");
    check(&content_of(&api_at(&url, second), "file-1").await.expect_err("no end"), ErrorKind::Protocol, true);
    let asked = String::from_utf8(asked.join().expect("served")).expect("a request").to_lowercase();
    assert!(asked.starts_with("get /v1/files/file-1/content http/1.1\r\n"), "{asked}");
    assert!(asked.contains("accept-encoding: identity\r\n") && !asked.contains("content-type"), "{asked}");
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\na line\n\r\n0\r\n\r\n";
    assert_eq!(content_of(&api_at(&serve_once(chunked).0, second), "f").await.expect("whole"), b"a line\n");
    let cut = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\na line\n\r\n";
    check(&content_of(&api_at(&serve_once(cut).0, second), "f").await.expect_err("cut"), ErrorKind::Unavailable, true);
}

#[tokio::test]
async fn a_cancel_says_that_it_has_no_body() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 37\r\n\r\n{\"id\": \"b_1\", \"status\": \"cancelling\"}";
    let (url, asked) = serve_once(answer);
    api_at(&url, Duration::from_secs(30)).cancel("b_1").await.expect("cancelled");
    let asked = String::from_utf8(asked.join().expect("served")).expect("a request").to_lowercase();
    assert!(asked.starts_with("post /v1/batches/b_1/cancel ") && asked.contains("content-length: 0\r\n"), "{asked}");
}

#[tokio::test]
async fn an_upload_that_nobody_reads_or_that_is_cut_is_an_error() {
    let simulator = Simulator::start().expect("a simulator");
    let large = tempfile::NamedTempFile::new().expect("a file");
    large.as_file().set_len(32 << 20).expect("a size");
    simulator.fail_next(Route::CreateFile, 1, Fault::hang());
    let api = api_at(&simulator.base_url(), TIMEOUT);
    let error = api.upload(large.path(), "in.jsonl").await.expect_err("nobody reads");
    check(&error, ErrorKind::Timeout, true);
    let api = api_of(&simulator);
    for after in [0, 1 << 20] {
        simulator.fail_next(Route::CreateFile, 1, Fault::cut_upload(after));
        check(&api.upload(large.path(), "in.jsonl").await.expect_err("cut"), ErrorKind::Unavailable, true);
    }
    let other = api.upload(input(1).path(), "in.csv").await.expect_err("another format");
    check(&other, ErrorKind::Config, false);
    assert_eq!(simulator.counts().uploads, 0);
}
