//! The course of batches: states, times, counts, lists, and how they end.

use std::time::Duration;

use docvector_embed::testing::{BatchPlan, BatchState, FileIdForm, Simulator};
use serde_json::{Value, json};

use super::{
    DAY, LONG,
    client::{Client, ids, text, vectors},
    jsonl, line, lines, start,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_batch_goes_from_state_to_state_as_time_moves() {
    let (simulator, client) = start();
    let began = simulator.unix_time();
    let file = client.upload(&jsonl(&lines(10)));
    let created = client.try_create(&file).expect("an answer").json();
    let id = text(&created["id"]);
    let wanted = json!({
        "id": id, "object": "batch", "endpoint": "/v1/embeddings", "model": null, "errors": null,
        "input_file_id": file, "completion_window": "24h", "status": "validating", "output_file_id": null,
        "error_file_id": null, "created_at": began, "expires_at": began + 24 * 3600, "in_progress_at": null,
        "finalizing_at": null, "completed_at": null, "failed_at": null, "expired_at": null, "cancelling_at": null,
        "cancelled_at": null, "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": {
            "input_tokens": 0, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0,
        },
        "metadata": {"job": "a job"},
    });
    assert_eq!(created, wanted);
    assert_eq!(client.batch(&id), wanted, "time stands still");

    simulator.advance(seconds(10));
    let batch = client.batch(&id);
    assert_eq!((&batch["status"], &batch["in_progress_at"]), (&json!("in_progress"), &json!(began + 10)));
    assert_eq!(batch["model"], "text-embedding-3-small");
    assert_eq!(batch["request_counts"], json!({"total": 10, "completed": 0, "failed": 0}));

    simulator.advance(seconds(299));
    assert_eq!(client.batch(&id)["request_counts"]["completed"], 4);
    assert_eq!(simulator.bills().texts, 4);
    assert_eq!((simulator.billed("text 3"), simulator.billed("text 4")), (1, 0));

    simulator.advance(seconds(301));
    let batch = client.batch(&id);
    assert_eq!((&batch["status"], &batch["finalizing_at"]), (&json!("finalizing"), &json!(began + 610)));
    assert_eq!(batch["output_file_id"], Value::Null);
    assert_eq!(simulator.counts().live_batches, 1);

    simulator.advance(seconds(3));
    simulator.advance(seconds(500));
    let batch = client.batch(&id);
    assert_eq!((&batch["status"], &batch["completed_at"]), (&json!("completed"), &json!(began + 620)));
    assert_eq!(batch["request_counts"], json!({"total": 10, "completed": 10, "failed": 0}));
    assert_eq!(batch["usage"]["input_tokens"], 20);
    assert_eq!(batch["error_file_id"], Value::Null);
    check_output(&simulator, &client, &batch["output_file_id"], 10);

    let record = &simulator.batches()[0];
    assert_eq!((record.state, record.lines, record.completed, record.failed), (BatchState::Completed, 10, 10, 0));
    assert_eq!((record.tokens, record.metadata["job"].as_str()), (20, "a job"));
    assert_eq!(record.output_file_id.as_deref(), batch["output_file_id"].as_str());
    assert_eq!(record.input_digest.len(), 64);
    let (counts, bills) = (simulator.counts(), simulator.bills());
    assert_eq!((counts.creates, counts.polls, counts.live_batches), (1, 5, 0));
    assert_eq!((bills.texts, bills.distinct_texts, bills.most_per_text), (10, 10, 1));
    assert_eq!((bills.batch_tokens, bills.standard_tokens), (20, 0));
}

/// Fails unless a file has the answers of so many of `lines`, in their order.
fn check_output(simulator: &Simulator, client: &Client, file: &Value, count: usize) {
    let output = client.lines(file);
    let wanted: Vec<String> = (0..count).map(|i| format!("line {i}")).collect();
    assert_eq!(ids(&output), wanted);
    for (i, line) in output.iter().enumerate() {
        assert!(text(&line["id"]).starts_with("batch_req_") && line["response"]["request_id"].is_string());
        assert_eq!((&line["error"], &line["response"]["status_code"]), (&Value::Null, &json!(200)));
        let body = &line["response"]["body"];
        assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!("text-embedding-3-small")));
        assert_eq!(body["usage"], json!({"prompt_tokens": 2, "total_tokens": 2}));
        assert_eq!(vectors(body), [simulator.vector("text-embedding-3-small", 8, &format!("text {i}"))]);
    }
    let listed = client.get_json(&format!("/v1/files/{}", text(file)));
    assert_eq!((&listed["purpose"], &listed["expires_at"]), (&json!("batch_output"), &Value::Null));
}

#[test]
fn a_create_that_is_not_acceptable_is_refused() {
    let (simulator, client) = start();
    let file = client.upload(&jsonl(&lines(1)));
    let pairs = |count: usize| (0..count).map(|i| (i.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>();
    let good = json!({"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"});
    let changes = [
        ("input_file_id", json!("file-unknown")),
        ("input_file_id", Value::Null),
        ("endpoint", json!("/v1/responses")),
        ("completion_window", json!("1h")),
        ("metadata", json!(pairs(17))),
        ("metadata", json!({"k".repeat(65): "x"})),
        ("metadata", json!({"k": "x".repeat(513)})),
        ("metadata", json!({"k": 1})),
        ("output_expires_after", json!({"anchor": "created_at", "seconds": 10})),
        ("output_expires_after", json!({"anchor": "later", "seconds": 3600})),
    ];
    for (field, value) in changes {
        let mut body = good.clone();
        body[field] = value;
        let reply = client.post("/v1/batches", &body);
        assert_eq!(reply.refusal().0, 400, "{body}");
        let param = text(&reply.json()["error"]["param"]);
        assert_eq!(param.split('.').next(), Some(field), "{body}");
    }
    assert_eq!(client.send("POST", "/v1/batches", "", b"{").expect("an answer").refusal().0, 400);
    assert_eq!((simulator.counts().creates, simulator.counts().refused), (0, 11));
    let mut body = good.clone();
    body["metadata"] = json!(pairs(16));
    assert_eq!(client.post("/v1/batches", &body).status, 200);
    body["metadata"] = Value::Null;
    assert_eq!(client.post("/v1/batches", &body).json()["metadata"], Value::Null);
    assert_eq!(client.get("/v1/batches/batch_unknown").refusal().0, 404);
}

#[test]
fn a_file_with_faults_fails_its_batch_and_names_the_lines() {
    let (simulator, client) = start();
    let id = client.submit(&[line("a", &["x"]), line("a", &["y"]), json!("no object")]);
    simulator.advance(LONG);
    let batch = client.batch(&id);
    assert_eq!((&batch["status"], &batch["model"]), (&json!("failed"), &Value::Null));
    assert!(batch["failed_at"].is_u64() && batch["in_progress_at"].is_null());
    let errors = batch["errors"]["data"].as_array().expect("errors");
    let found: Vec<_> = errors.iter().map(|error| (text(&error["code"]), error["line"].as_u64())).collect();
    let wanted = [("duplicate_custom_id".to_owned(), Some(2)), ("invalid_request".to_owned(), Some(3))];
    assert_eq!((&batch["errors"]["object"], found.as_slice()), (&json!("list"), wanted.as_slice()));
    assert_eq!((&batch["output_file_id"], simulator.bills().texts), (&Value::Null, 0));

    simulator.plan_next(BatchPlan::default().with_failure("billing_hard_limit_reached", "Pay."));
    let id = client.submit(&lines(1));
    simulator.advance(LONG);
    assert_eq!(client.batch(&id)["errors"]["data"][0]["code"], "billing_hard_limit_reached");
}

#[test]
fn the_limit_of_enqueued_tokens_fails_a_batch_until_others_have_ended() {
    let simulator = Simulator::builder().with_enqueued_tokens(25).start().expect("starts");
    let client = Client::new(simulator.address());
    let file = client.upload(&jsonl(&lines(10)));
    let (first, second) = (client.create(&file), client.create(&file));
    simulator.advance(seconds(30));
    assert_eq!((client.status(&first), client.status(&second)), ("in_progress".into(), "failed".into()));
    let error = &client.batch(&second)["errors"]["data"][0];
    assert_eq!((&error["code"], &error["line"]), (&json!("token_limit_exceeded"), &Value::Null));
    // A day later in one step: the first ends before the third is validated.
    simulator.advance(seconds(585));
    let third = client.create(&file);
    simulator.advance(DAY);
    assert_eq!((client.status(&first), client.status(&third)), ("completed".into(), "completed".into()));
    simulator.set_enqueued_tokens(Some(19));
    let fourth = client.create(&file);
    simulator.set_enqueued_tokens(None);
    simulator.advance(DAY);
    assert_eq!(client.status(&fourth), "completed", "the limit counts when the file is validated");
}

#[test]
fn a_batch_that_was_cancelled_before_it_was_validated_is_not_enqueued() {
    let simulator = Simulator::builder().with_enqueued_tokens(25).start().expect("starts");
    let client = Client::new(simulator.address());
    let file = client.upload(&jsonl(&lines(10)));
    let (first, second) = (client.create(&file), client.create(&file));
    client.post(&format!("/v1/batches/{first}/cancel"), &json!({}));
    simulator.advance(seconds(30));
    assert_eq!((client.status(&first), client.status(&second)), ("cancelling".into(), "in_progress".into()));
    // One that was running counts until it has ended.
    client.post(&format!("/v1/batches/{second}/cancel"), &json!({}));
    let third = client.create(&file);
    simulator.advance(seconds(30));
    assert_eq!((client.status(&second), client.status(&third)), ("cancelling".into(), "failed".into()));
}

#[test]
fn an_expired_batch_keeps_the_lines_that_were_finished() {
    let (simulator, client) = start();
    simulator.plan_next(BatchPlan::default().with_expiry_after(3));
    let id = client.submit(&lines(5));
    simulator.advance(DAY - seconds(1));
    assert_eq!(client.batch(&id)["request_counts"], json!({"total": 5, "completed": 3, "failed": 0}));
    assert_eq!(client.status(&id), "in_progress");
    simulator.advance(seconds(1));
    let batch = client.batch(&id);
    assert_eq!((&batch["status"], &batch["expired_at"]), (&json!("expired"), &batch["expires_at"]));
    assert_eq!(batch["request_counts"], json!({"total": 5, "completed": 3, "failed": 0}));
    check_output(&simulator, &client, &batch["output_file_id"], 3);
    let errors = client.lines(&batch["error_file_id"]);
    assert_eq!(ids(&errors), ["line 3", "line 4"]);
    assert!(errors.iter().all(|line| line["error"]["code"] == "batch_expired" && line["response"].is_null()));
    assert_eq!((simulator.bills().texts, simulator.billed("text 3")), (3, 0));

    // Two days of work and a validation that never ends expire too.
    simulator.plan_next(BatchPlan::default().with_running(2 * DAY));
    simulator.plan_next(BatchPlan::default().with_validating(2 * DAY));
    let (slow, never) = (client.submit(&lines(4)), client.submit(&lines(4)));
    simulator.advance(DAY);
    assert_eq!((client.status(&slow), client.status(&never)), ("expired".into(), "expired".into()));
    assert_eq!(ids(&client.lines(&client.batch(&slow)["output_file_id"])), ["line 0"]);
    let batch = client.batch(&never);
    assert_eq!((&batch["output_file_id"], &batch["error_file_id"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_cancelled_batch_keeps_the_lines_that_were_finished() {
    let (simulator, client) = start();
    let id = client.submit(&lines(4));
    let cancel = |id: &str| client.post(&format!("/v1/batches/{id}/cancel"), &json!({}));
    simulator.advance(seconds(310));
    let batch = cancel(&id).json();
    assert_eq!((&batch["status"], batch["cancelling_at"].is_u64()), (&json!("cancelling"), true));
    assert_eq!(cancel(&id).json()["status"], "cancelling", "once more changes nothing");
    simulator.advance(seconds(59));
    assert_eq!(client.status(&id), "cancelling");
    simulator.advance(seconds(1));
    let batch = client.batch(&id);
    assert_eq!((&batch["status"], batch["cancelled_at"].is_u64()), (&json!("cancelled"), true));
    check_output(&simulator, &client, &batch["output_file_id"], 2);
    let errors = client.lines(&batch["error_file_id"]);
    assert_eq!(ids(&errors), ["line 2", "line 3"]);
    assert_eq!(simulator.bills().texts, 2);
    assert_eq!(cancel(&id).refusal().0, 409);
    assert_eq!(cancel("batch_unknown").refusal().0, 404);

    let early = client.submit(&lines(4));
    cancel(&early);
    simulator.advance(LONG);
    let batch = client.batch(&early);
    assert_eq!((&batch["status"], &batch["error_file_id"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(simulator.counts().cancels, 3);
}

#[test]
fn batches_are_listed_in_pages_and_may_be_late_in_the_list() {
    let (simulator, client) = start();
    let file = client.upload(&jsonl(&lines(1)));
    let mut made: Vec<String> = (0..23).map(|_| client.create(&file)).collect();
    made.reverse();
    let page = |query: &str| {
        let page = client.get_json(&format!("/v1/batches{query}"));
        let ids: Vec<String> = page["data"].as_array().expect("data").iter().map(|batch| text(&batch["id"])).collect();
        assert_eq!((&page["object"], page["last_id"].as_str()), (&json!("list"), ids.last().map(String::as_str)));
        assert_eq!(page["first_id"].as_str(), ids.first().map(String::as_str));
        (ids, page["has_more"].as_bool().expect("has_more"))
    };
    assert_eq!(page(""), (made[..20].to_vec(), true));
    assert_eq!(page(&format!("?after={}&limit=2", made[19])), (made[20..22].to_vec(), true));
    assert_eq!(page(&format!("?limit=2&after={}", made[21])), (made[22..].to_vec(), false));
    assert_eq!(client.get("/v1/batches?limit=101").refusal().0, 400);
    assert_eq!(client.get_json("/v1/batches?limit=1")["data"][0]["metadata"], json!({"job": "a job"}));

    simulator.plan_next(BatchPlan::default().with_list_lag(seconds(5)));
    simulator.plan_next(BatchPlan::default().with_unlisted_requests(2));
    let (late, shy) = (client.create(&file), client.create(&file));
    assert_eq!(client.status(&late), "validating", "its id is known at once");
    let newest = || page("?limit=1").0.remove(0);
    assert_eq!([newest(), newest()], [made[0].clone(), made[0].clone()]);
    assert_eq!(newest(), shy);
    assert_eq!(page("?limit=2").0, [shy.clone(), made[0].clone()]);
    simulator.advance(seconds(5));
    assert_eq!(page("?limit=2").0, [shy, late]);
    assert_eq!(simulator.counts().lists, 9);
}

#[test]
fn a_plan_bends_what_a_batch_says() {
    let (simulator, client) = start();
    let plan = BatchPlan::instant()
        .with_error_file_id(FileIdForm::EmptyIfNone)
        .with_extra_field("billing", r#"{"tier":3}"#)
        .with_extra_field("status_text", "not JSON")
        .with_extra_line_field("region", "\"eu\"");
    simulator.plan_all(plan);
    let batch = client.batch(&client.submit(&lines(2)));
    assert_eq!((&batch["status"], &batch["error_file_id"]), (&json!("completed"), &json!("")));
    assert_eq!((&batch["billing"], &batch["status_text"]), (&json!({"tier": 3}), &json!("not JSON")));
    assert!(client.lines(&batch["output_file_id"]).iter().all(|line| line["region"] == "eu"));

    let hidden = BatchPlan::instant().with_output_file_id(FileIdForm::AlwaysNull);
    simulator.plan_next(hidden.with_error_file_id(FileIdForm::AbsentIfNone));
    let id = client.submit(&lines(2));
    let batch = client.batch(&id);
    assert_eq!((&batch["output_file_id"], batch.get("error_file_id")), (&Value::Null, None));
    let output = simulator.batches()[1].output_file_id.clone();
    assert_eq!(client.lines(&json!(output)).len(), 2, "the test still finds it");

    simulator.plan_next(BatchPlan::default().with_state_shown_as(BatchState::InProgress, "paused_for_review"));
    let id = client.submit(&lines(2));
    simulator.advance(seconds(20));
    assert_eq!(client.status(&id), "paused_for_review");
    assert_eq!(simulator.batches()[2].state, BatchState::InProgress);
    simulator.advance(LONG);
    assert_eq!(client.status(&id), "completed");
}

#[test]
fn time_can_move_by_itself() {
    let simulator = Simulator::builder().with_speed(1e5).start().expect("starts");
    let client = Client::new(simulator.address());
    let id = client.submit(&lines(3));
    // Ten milliseconds are more than a quarter of an hour.
    while client.status(&id) != "completed" {}
    simulator.set_speed(0.0);
    let stopped = simulator.unix_time();
    assert_eq!(simulator.unix_time(), stopped);
}

#[test]
fn results_expire_when_they_were_asked_to() {
    let (simulator, client) = start();
    simulator.plan_all(BatchPlan::instant());
    let file = client.upload(&jsonl(&lines(1)));
    let expiry = json!({"anchor": "created_at", "seconds": 7200});
    let body = json!({
        "input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h", "output_expires_after": expiry,
    });
    let batch = client.post("/v1/batches", &body).json();
    let output = text(&batch["output_file_id"]);
    simulator.advance(seconds(7199));
    assert_eq!(client.get(&format!("/v1/files/{output}")).status, 200);
    simulator.advance(seconds(1));
    assert_eq!(client.get(&format!("/v1/files/{output}/content")).status, 404);
}
